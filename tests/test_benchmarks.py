"""Benchmarks that call modules of a project still run; small, as no figure is wanted here."""

import csv
import json
import random
import re
import shutil
import subprocess
import sys

import pytest
from conftest import KIT, Workspace, environment


def measured(name, *words):
    """Run one of the benchmarks; give back what it said."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *words],
        cwd=KIT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_search_is_measured(default_project, tmp_path):
    """The kit's side of the search finds and measures an estimator for a data set."""
    header, *rows = csv.reader((default_project / "data/raw/penguins.csv").open())
    # In the file females and males alternate.
    random.Random(0).shuffle(rows)
    for part, chosen in (("train", rows[::2]), ("test", rows[1::2])):
        with (tmp_path / f"penguins-{part}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *chosen])
    script = [default_project / ".venv/bin/python", KIT / "benchmarks/search_kit.py"]
    said = subprocess.run(
        [*script, tmp_path, "penguins", "species", "2", "0"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    answer = json.loads(said.splitlines()[-1])
    assert answer["score"] > 0.9
    assert answer["trials"] > 0


def test_scoring_is_measured(default_project, tmp_path):
    """All three ways through a file are taken, each with its speed and memory."""
    project = Workspace(default_project, tmp_path / "penguins").folder
    words = ["--project", project, "--rows", "2000", "--large", "0", "--rounds", "1"]
    said = measured("batch", *words, "--only", "logistic_regression")
    ways = re.findall(r"^  (\w+): ([\d,]+) rows/s, (\d\.\d+) GiB$", said, re.MULTILINE)
    assert ["naive", "score", "limit"] == [name for name, _, _ in ways]
    assert all(float(memory) > 0.05 for _, _, memory in ways)
    assert "| logistic_regression (dense), 0.002 M rows |" in said


def test_drift_is_measured(default_project):
    """Every simulation runs, and its figures stand on the page beside what is wanted."""
    said = measured("drift", "--project", default_project, "--share", "0")
    for columns, trials in ((5, 40), (20, 10), (100, 2)):
        cell = rf" \d+\.\d\d ± \d+\.\d\d of {trials} \|"
        assert re.search(rf"^\| {columns} \|({cell}){{4}}$", said, re.MULTILINE)
    waited = r"^\| 5 % missing .* \|( [\d,]+ \(\d+\.\d\d ± \d+\.\d\d\) \|){3}$"
    assert re.search(waited, said, re.MULTILINE)
    for name in ("1 %", "10 %", "20 %", "30 %", "numbers"):
        cells = r"( \d+\.\d\d ± \d+\.\d\d \|){3}$"
        assert re.search(rf"^\| {name} \|{cells}", said, re.MULTILINE)
    assert re.search(r"peak memory \d+ MB \(≤ 300 wanted\)", said)
    assert re.search(r"store \(SQLite\) of 2,000 events, .* \d+ ms of CPU", said)


def test_monitors_are_compared(default_project):
    """Of the tools that need no installation; the figures of the others are laid out alike."""
    words = ["--project", default_project, "--share", "0.1", "--only"]
    said = measured("monitors", *words)
    share = r" \d+\.\d\d ± \d+\.\d\d \|"
    for name in ("this kit", "Prometheus, 3 sd rule"):
        assert re.search(rf"^\| {name} \|({share}){{4}}$", said, re.MULTILINE)
    assert re.search(rf"^\| this kit \| 1,000 \|{share}$", said, re.MULTILINE)
    assert re.search(rf"^\| this kit, loss \|{share} 100\.00 ± [\d.]+ \|$", said, re.MULTILINE)
    assert re.search(r"^\| this kit \| 0\.\d+ \| 1 \| \d+ \| \d+ \|$", said, re.MULTILINE)
    assert "Evidently" not in said


def test_the_gate_is_measured(default_project):
    """Every kind of challenger is tried at every number of rows."""
    said = measured("gate", "--project", default_project, "--trials", "5")
    cell = r" \d+\.\d\d ± \d+\.\d\d \(\d+\) \|"
    assert 4 == len(re.findall(rf"^\| equal: [^|]+\|({cell}){{4}}$", said, re.MULTILINE))
    assert 2 == len(re.findall(rf"^\| better: [^|]+\|({cell}){{4}}$", said, re.MULTILINE))


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus")
def test_alerts_are_measured(default_project):
    """One alert is one accepted request; its seconds stand beside what is wanted."""
    words = ["--project", default_project, "--rounds", "1", "--interval", "1s"]
    said = measured("alerts", *words)
    assert re.search(r"^\| seconds, median \| \d+\.\d \| at most 10 \|$", said, re.MULTILINE)
    assert "| accepted requests an alert | 1 to 1 | 1 |" in said


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk: sudo apt install wrk")
def test_serving_is_measured(default_project, tmp_path):
    """Ours and an empty service take their turns; CPU, requests/s and ratio are laid out."""
    project = Workspace(default_project, tmp_path / "penguins").folder
    words = ["--project", project, "--rounds", "1", "--seconds", "1", "--soak", "0"]
    said = measured("serving", *words, "--only", "ours", "bare")
    row = r"^\| (.+) \| ([\d,.]+) \| [\d,.]* \| ([\d,]+) \| [\d,.]+ \| ([\d.]+) \|"
    rows = re.findall(row, said, re.MULTILINE)
    assert ["ours, as generated", "bare ASGI, nothing done"] == [each[0] for each in rows[:2]]
    cpu, rate, ratio = ([float(each[i].replace(",", "")) for each in rows] for i in (1, 2, 3))
    assert 1 < cpu[1] < cpu[0]
    assert 10 < rate[0]
    assert abs(ratio[1] - cpu[1] / cpu[0]) < 0.02
    assert "| bare ASGI, nothing done ÷ ours, as generated | 1 | " in said
    assert "| start to the first prediction | " in said
