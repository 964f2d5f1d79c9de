import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from {{ cookiecutter.package }} import rounds
from {{ cookiecutter.package }}.checks import Finding, Model, Window
from {{ cookiecutter.package }}.contract import Column, Contract, Target
from {{ cookiecutter.package }}.errors import StoreError
from {{ cookiecutter.package }}.monitoring import (
    alerts,
    drift,
    page,
    report,
    sentences,
    windows,
)
from {{ cookiecutter.package }}.monitoring.account import Account
from {{ cookiecutter.package }}.monitoring.monitor import Outcome, Subject
from {{ cookiecutter.package }}.monitoring.windows import Events, Place, columns
from {{ cookiecutter.package }}.reference import LOSS, PREDICTION, sample
from {{ cookiecutter.package }}.wording import number

NOW = 1_795_359_600.0  # 2026-11-22, 15:00 UTC
MODEL = Model("Garden", "0123456789ab")
NASTY = "<script>alert(1)</script> [x](y) @all"
CONTRACT = Contract(
    "binary",
    Target("alive", ("no", "yes")),
    (
        Column("height", "numeric"),
        Column("bed", "categorical", categories=("Nord", "Süd")),
        Column("planted", "datetime"),
        Column("owner", "categorical", categories=("Ada", "Eve")),
    ),
)


def generated(rows, seed=0):
    """Rows as the reference has them."""
    made = np.random.default_rng(seed)
    return [
        {
            "height": float(height),
            "bed": bed,
            "planted": "2026-01-01",
            "owner": owner,
        }
        for height, bed, owner in zip(
            made.normal(100, 10, rows),
            made.choice(["Nord", "Süd"], rows),
            made.choice(["Ada", "Eve"], rows),
            strict=True,
        )
    ]


def events(rows, labels=()):
    """These rows as events of the last hour, all answered with yes."""
    places = [Place(NOW - 3600 + i, f"{i}") for i in range(len(rows))]
    said = [{"prediction": "yes", "probabilities": {"no": 0.1, "yes": 0.9}} for _ in rows]
    return Events(places, rows, said, np.full(len(rows), 0.9), None, list(labels))


@pytest.fixture
def look(settings_with):
    """The function that looks at rows, and at truths where errors are given."""
    settings = settings_with(events={"entity": "owner"})
    first = events(generated(1000))
    held, _ = columns(first, CONTRACT, (), None)
    groups = {"bed": ("Nord", "Süd"), "owner": ("Ada", "Eve"), PREDICTION: ("no", "yes")}
    held[PREDICTION] = np.ones(1000)
    samples = [sample(name, groups.get(name), values) for name, values in held.items()]
    samples.append(sample(LOSS, None, np.zeros(1000)))
    watched = Subject(MODEL, CONTRACT, tuple(samples), {"metrics": {}}, Path())

    def account(rows=None, status="drift", detail=None, performed=None, **parts):
        seen = events(generated(100, 1) if rows is None else rows)
        values, _ = columns(seen, CONTRACT, watched.samples, None)
        found = drift.check(samples[:-1], values, settings.monitoring)
        confirmed = status in ("drift", "degraded")
        streaks = [
            {"column": name, "checks": 3, "since": NOW - 3300}
            for name in found.drifted
            if confirmed
        ]
        drifted = Window(
            MODEL,
            "drift",
            found.state,
            found.events,
            found.rows,
            NOW - 3600,
            NOW - 3500,
            "last",
            found.alarm,
            confirmed,
            found.findings,
            {"drifted": list(found.drifted), "confirmed": streaks, "untested": {}, **(detail or {})}
            | {"waiting": 3, "needed": 50, "estimated": 0.9}
            | {"examples": [seen.rows[i] for i in drift.examples(found, values, 5)]},
            7,
        )
        drifted = parts.pop("drifted", drifted)
        performed = performed or Window(MODEL, "performance", "no truths")
        outcome = Outcome(MODEL, status, drifted, performed)
        history = (drifted,) if drifted.state == "checked" else ()
        late = (performed,) if performed.state == "checked" else ()
        return settings, Account(NOW, "Garden", outcome, "", watched, history, late, events=seen)

    return account


def higher(rows=100):
    """Rows in which everything is taller."""
    return [row | {"height": row["height"] + 10} for row in generated(rows, 1)]


def errors(loss=0.25, confirmed=True):
    """A window of truths with more errors than in training."""
    detail = {"loss": loss, "reference": 0.05, "labelled": 400, "needed": 300, "slices": []}
    detail |= {"metrics": {"accuracy": 0.75}, "intervals": {"accuracy": [0.7, 0.8]}}
    found = (Finding(LOSS, "loss", loss - 0.05, 1e-6, True, 400, "more errors", 0.15),)
    return Window(
        MODEL,
        "performance",
        "checked",
        400,
        400,
        0.0,
        NOW,
        "x",
        True,
        confirmed,
        found,
        detail | {"trained": {"accuracy": 0.95}},
    )


def test_drift_in_one_sentence(look):
    """The headline names the column, the way it changed, since when, and how often it was seen."""
    _, account = look(higher())
    told = report.facts(account)
    since = "height is higher than in training since 14:05 UTC today; confirmed in 3 checks"
    assert since == told["headline"]
    assert ("drift", ["height"], 7) == (
        told["status"],
        told["drift"]["drifted"],
        told["drift"]["window"],
    )
    streak = {"column": "height", "checks": 3, "since": "2026-11-22T14:05:00Z"}
    assert [streak] == told["drift"]["streaks"]
    (change,) = sentences.changes(account)
    assert re.fullmatch(r"half of the values are above 110; before, above 9\d\.\d", change.amount)
    line = f"  height is higher than in training: {change.amount}"
    assert line in sentences.summary(account).splitlines()


@pytest.mark.parametrize(
    ("given", "known", "words"),
    [
        ([1, 1, 1, 5], [1, 5, 5, 5], "75\u00a0% of the values are 1 or less; before, 25\u00a0%"),
        (
            [0.99999, 0.99999, 1, 1],
            [0.99999, 1, 1, 1],
            "50\u00a0% of the values are below 1; before, 25\u00a0%",
        ),
    ],
    ids=["shape", "nearly"],
)
def test_where_values_are_farthest_apart(given, known, words):
    """What is not quite the largest value does not look so."""
    assert words == sentences.apart(np.array(given), np.array(known), number)


WAITING = Window(MODEL, "drift", "window not full", detail={"waiting": 3, "needed": 50})


@pytest.mark.parametrize(
    ("status", "parts", "headline"),
    [
        ("steady", {}, "No drift in the last 100 predictions"),
        (
            "suspected",
            {"rows": higher()},
            "height is higher than in training in one check: not confirmed yet",
        ),
        (
            "degraded",
            {"performed": errors()},
            "The model errs more than on the held-out rows: 25\u00a0% of its answers are wrong, "
            "5\u00a0% then",
        ),
        (
            "suspected",
            {"performed": errors(confirmed=False)},
            "The model errs more than on the held-out rows: 25\u00a0% of its answers are wrong, "
            "5\u00a0% then in one check: not confirmed yet",
        ),
        (
            "waiting",
            {"drifted": Window(MODEL, "drift", "no events")},
            "No predictions of version 0123456789ab yet",
        ),
        (
            "waiting",
            {"drifted": WAITING},
            "Too few predictions of version 0123456789ab yet: 3 of 50",
        ),
        (
            "waiting",
            {"drifted": replace(WAITING, state="reference too small")},
            "Drift cannot be tested: the reference is too small",
        ),
    ],
    ids=["steady", "suspected", "degraded", "errors", "nothing", "few", "reference"],
)
def test_every_state_in_one_sentence(look, status, parts, headline):
    """Whatever a look comes to, terminal, page, Markdown and facts say it in the same words."""
    settings, account = look(status=status, **parts)
    said = sentences.summary(account).splitlines()[0]
    assert f"{status}, version 0123456789ab: {headline}" == said
    told = report.facts(account)
    assert headline == told["headline"]
    assert f"<h1>{headline}</h1>" in page.build(account, settings, told)
    assert report.markdown(account, settings.monitoring, told).startswith(f"**{headline}.**\n")


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ({"late": 4}, "4 predictions came after their window was checked"),
        ({"future": 2}, "Clock skew: 2 predictions bear a time that has not come"),
        ({"skipped": 1200}, "1,200 older predictions were left out"),
        ({"other": {"name": "Garden", "version": "ba98"}}, "are of version ba98 of Garden"),
        ({"untested": {"bed": "not in the events"}}, "“bed”: not in the events"),
    ],
    ids=["late", "clock", "skipped", "version", "column"],
)
def test_what_limits_a_look_is_said(look, detail, words):
    """What a look could not see stands beside its verdict, in words."""
    settings, account = look(detail=detail)
    told = report.facts(account)
    assert any(words in note for note in told["notes"])
    assert words in sentences.summary(account)
    assert words in page.build(account, settings, told)


def test_an_import_of_unknown_ids_is_said(look):
    """Truths that reached no prediction are more likely of wrong ids than of none."""
    _, account = look(status="steady")
    assert "imported last" not in sentences.summary(account)
    said = sentences.summary(replace(account, imported=(1500, 1200)))
    assert "1,200 of the 1,500 truths imported last are of predictions that the store" in said


def test_who_is_overtaken_says_so(look):
    """A program is told as well that another monitor was at work."""
    _, account = look()
    outcome = replace(account.outcome, overtaken=True)
    found = (account, replace(account, outcome=outcome))
    assert [False, True] == [report.facts(each)["overtaken"] for each in found]


def unfamiliar(value, column="bed"):
    """Rows most of which have this value in a column of categories."""
    return [row | {column: value} if i % 4 else row for i, row in enumerate(generated(100, 1))]


def with_examples(settings, most):
    """The settings that allow so many examples."""
    changed = settings.monitoring.model_copy(update={"examples": most})
    return settings.model_copy(update={"monitoring": changed})


def test_values_from_outside_are_only_text(look):
    """What clients sent is no markup on the page."""
    settings, account = look(unfamiliar(NASTY))
    html = page.build(account, settings, report.facts(account))
    assert ", such as “&lt;script&gt;alert(1)&lt;/script&gt; [x](y) @all”. " in html
    assert "<script" not in html
    assert not re.search(r"url\(|@import|https?://|\ssrc=", html)


@pytest.mark.parametrize("column", ["bed", "owner"])
def test_what_clients_sent_leaves_on_the_page_alone(look, column):
    """Nothing else has it; nor the page where examples are unwanted or the value is an entity."""
    settings, account = look(unfamiliar("Zoe of Elm Street", column))
    told = report.facts(account)
    assert f"{column} has more values that training did not have" in told["headline"]
    without = with_examples(settings, 0)
    for text in (
        sentences.summary(account),
        *alerts.message(account),
        report.markdown(account, settings.monitoring, told),
        json.dumps(told),
        page.build(account, without, told),
    ):
        assert "Elm" not in text
    shown = "such as “Zoe of Elm Street”" in page.build(account, settings, told)
    assert shown is (column == "bed")


def test_groups_in_which_it_errs_are_shown(look):
    """Where it errs most is told with how many rows these are, and how many of them it errs in."""
    groups = [{"name": "bed = Ada", "rows": 40, "loss": 0.5}]
    performed = errors()
    settings, account = look(
        status="degraded",
        performed=replace(performed, detail={**performed.detail, "slices": groups}),
    )
    html = page.build(account, settings, report.facts(account))
    row = re.search(r">bed = Ada</span></th>(.*?)</tr>", html)[1]
    assert ["40", "50\N{NO-BREAK SPACE}%"] == re.findall(r">([^<]+)</td>", row)


def test_columns_are_encoded_once(look, monkeypatch):
    """However many changes are told, the window is brought into columns once."""
    settings, account = look(higher())
    read = []
    monkeypatch.setattr(windows, "columns", lambda *given: read.append(0) or columns(*given))
    page.build(account, settings, report.facts(account))
    assert [0] == read


def test_examples_show_the_change_and_nobody(look):
    """The rows that changed most are shown, never whom they are about; none where none shall be."""
    rows = higher()
    settings, account = look(rows)
    shown = page.examples(account, settings, sentences.changes(account))
    tallest = sorted((row["height"] for row in rows), reverse=True)[:5]
    assert tallest == [row["values"][0] for row in shown["rows"]]
    assert ["height", "bed", "planted"] == shown["columns"]
    none = page.build(account, with_examples(settings, 0), report.facts(account))
    assert 'id="examples"' not in none


def test_markdown_has_no_row(look):
    """An issue may be public: it tells of columns, not of rows."""
    settings, account = look(higher())
    tallest = max(row["height"] for row in account.events.rows)
    written = report.markdown(account, settings.monitoring, report.facts(account))
    assert f"{tallest:.3g}" not in written


def test_an_estimate_is_labelled_as_blind(look):
    """What is estimated without truths says that it cannot see concept drift."""
    settings, account = look(status="steady")
    html = " ".join(page.build(account, settings, report.facts(account)).split())
    assert "<b>90 %</b> of this window's answers are right" in html
    assert "cannot see that the world changed" in html


def test_a_store_that_is_away(road, settings_with, tmp_path, monkeypatch):
    """The report says that nobody looked, and the command fails."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store.db").mkdir()
    sections = road.settings.model_dump()
    sections["events"] |= {"store": f"sqlite:///{tmp_path}/store.db"}
    said = []
    with pytest.raises(StoreError, match="unable to open database file"):
        rounds.look(settings_with(**sections), said.append)
    told = json.loads(report.FACTS.read_text(encoding="utf-8"))
    assert ("failed", None) == (told["status"], told["version"])
    assert "unable to open database file" in told["error"]
    html = report.PAGE.read_text(encoding="utf-8")
    written = report.MARKDOWN.read_text(encoding="utf-8")
    assert "<h1>The monitor could not look</h1>" in html
    assert written.startswith("**The monitor could not look.**")
    assert all("unable to open database file" in text for text in (html, written))


def test_a_look_at_nothing(each_road, monkeypatch, tmp_path):
    """Each task's model that answered nobody yet has a report that says so."""
    monkeypatch.chdir(tmp_path)
    said = []
    rounds.look(each_road.settings, said.append)
    version = each_road.predictor.card["version"]
    told = json.loads(report.FACTS.read_text(encoding="utf-8"))
    assert ("waiting", version) == (told["status"], told["version"])
    assert said[0].startswith(f"waiting, version {version}")


def test_watching_goes_on_after_an_error(settings_with, tmp_path, monkeypatch):
    """What cannot be reached now may be there the next time; Ctrl-C ends it."""
    monkeypatch.chdir(tmp_path)
    turns = []

    def pause(seconds):
        turns.append(seconds)
        if len(turns) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(rounds.time, "sleep", pause)
    said = []
    rounds.watch(settings_with(), 60, said.append)
    assert ["error", "error", "stopped"] == [line.partition(":")[0] for line in said]
    assert [60, 60] == turns
