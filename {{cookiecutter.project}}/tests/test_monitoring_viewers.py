import json
import sys
from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package }}.checks import Model, Window
from {{ cookiecutter.package }}.contract import Column, Contract
from {{ cookiecutter.package }}.errors import SettingsError, ViewerError
from {{ cookiecutter.package }}.monitoring import viewers
from {{ cookiecutter.package }}.monitoring.account import Account
from {{ cookiecutter.package }}.monitoring.monitor import Outcome, Subject
from {{ cookiecutter.package }}.monitoring.windows import Events, Place
from {{ cookiecutter.package }}.reference import PREDICTION, sample

MODEL = Model("Garden", "1")
# What a tool is given, as JSON.
SHOW = """
import json, sys
import pandas
frames = [pandas.read_parquet(path) for path in sys.argv[1:3]]
told = [
    {name: [None if pandas.isna(value) else value for value in frame[name]] for name in frame}
    for frame in (frame.iloc[:, 1:] for frame in frames)
]
open(sys.argv[3], "w").write(json.dumps(told))
"""


@pytest.fixture
def checked(monkeypatch, tmp_path):
    """A window of three events beside a reference of four rows."""
    monkeypatch.chdir(tmp_path)
    columns = (Column("height", "numeric"), Column("bed", "categorical", categories=("N", "S")))
    contract = Contract("binary", None, columns)
    samples = (
        sample("height", None, np.array([1.0, 2.0, 3.0, np.nan])),
        sample("bed", ("N", "S"), np.array([0.0, 0.0, 1.0, 1.0])),
        sample(PREDICTION, ("no", "yes"), np.array([0.0, 1.0])),
    )
    rows = [{"height": 5.0, "bed": "S"}, {"height": None, "bed": "W"}, {"height": 6.0, "bed": None}]
    places = [Place(10.0, "a"), Place(20.0, "b"), Place(30.0, "c")]
    events = Events(places, rows, [{}] * 3, np.full(3, np.nan), None, [])
    window = Window(MODEL, "drift", "checked", 3)
    outcome = Outcome(MODEL, "steady", window, Window(MODEL, "performance", "no truths"))
    watched = Subject(MODEL, contract, samples, {}, Path())
    account = Account(40.0, "Garden", outcome, watched=watched, events=events)
    monkeypatch.setattr(viewers, "current", lambda settings: outcome)
    monkeypatch.setattr(viewers, "collect", lambda settings, outcome: account)


@pytest.mark.usefixtures("checked")
def test_a_tool_gets_window_and_reference(settings_with, monkeypatch):
    """Both arrive with the names of categories, gaps, and what training did not have."""
    monkeypatch.setitem(viewers.TOOLS, "popmon", viewers.Tool((), SHOW))
    monkeypatch.setattr(viewers, "_environment", lambda folder, tool: folder.mkdir(parents=True))
    run = viewers.run
    monkeypatch.setattr(viewers, "run", lambda words, why: run([sys.executable, *words[1:]], why))
    made = viewers.view(settings_with(), "popmon")
    assert Path("reports/popmon.html") == made
    before, now = json.loads(made.read_text(encoding="utf-8"))
    assert {"height": [5.0, None, 6.0], "bed": ["S", "(unknown in training)", None]} == now
    assert ([1.0, 2.0, 3.0], ["N", "N", "S", "S"]) == (
        sorted(filter(None, before["height"])),
        sorted(before["bed"]),
    )
    assert [] == list(viewers.FOLDER.rglob("*.parquet"))


@pytest.mark.usefixtures("checked")
def test_a_tool_that_fails_says_why(settings_with, monkeypatch):
    """Its last line is the error's, and the rows do not stay."""
    broken = viewers.Tool((), "raise SystemExit('no such column')")
    monkeypatch.setitem(viewers.TOOLS, "popmon", broken)
    monkeypatch.setattr(viewers, "_environment", lambda folder, tool: folder.mkdir(parents=True))
    run = viewers.run
    monkeypatch.setattr(viewers, "run", lambda words, why: run([sys.executable, *words[1:]], why))
    with pytest.raises(ViewerError, match=r"^popmon failed: no such column$"):
        viewers.view(settings_with(), "popmon")
    assert [] == list(viewers.FOLDER.rglob("*.parquet"))


def test_what_cannot_be_shown(settings_with, monkeypatch):
    """An unknown tool and a window that is not there yet are said."""
    with pytest.raises(SettingsError, match=r"^--with x: unknown; expected evidently or popmon$"):
        viewers.view(settings_with(), "x")
    monkeypatch.setattr(viewers, "current", lambda settings: None)
    with pytest.raises(ViewerError, match="no window was checked yet that popmon could show"):
        viewers.view(settings_with(), "popmon")
