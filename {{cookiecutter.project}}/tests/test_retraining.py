import itertools
import json
import re
import time

import pandas as pd
import pytest
import sqlalchemy as sa

from {{ cookiecutter.package }} import (
    checks,
    probation,
    release,
    retraining,
    rounds,
    stages,
    store,
)
from {{ cookiecutter.package }}.checks import Finding, Look, Model, Window
from {{ cookiecutter.package }}.encoding import plain_rows
from {{ cookiecutter.package }}.errors import (
    GateError,
    RegistryError,
    SettingsError,
    UndecidedError,
)

SECTIONS = {"monitoring": {"labels": 30, "window": 60}, "retraining": {"held_out": 60}}
NOTHING = {"state": "window not full", "detail": {}}
numbers = itertools.count()


class Killed(BaseException):
    """What no code catches on its way, as kill -9 lets nothing run."""


def kill(*_, **__):
    raise Killed


class Garden:
    """A project with a weak champion, a better challenger, and an empty store of events."""

    def __init__(self, desk, road, opened):
        self.desk, self.road, self.opened = desk, road, opened
        self.settings = desk.place(road)
        self.change(events={"store": f"sqlite:///{desk.folder}/events.db"}, **SECTIONS)
        (desk.folder / "garden.csv").write_bytes((road.folder / "garden.csv").read_bytes())
        self.champion = self.version("1")

    def change(self, **sections):
        """Change some settings."""
        known = self.settings.model_dump()
        changed = {name: known[name] | values for name, values in sections.items()}
        self.settings = type(self.settings)(**known | changed)

    def version(self, number):
        """Return the version of a bundle in the registry."""
        return self.opened(self.settings, lambda s: s.version(number)).tags["bundle_version"]

    def state(self):
        """Return the champion, and what was decided last about which version."""
        aliases, events = self.opened(self.settings, lambda s: (s.aliases(), s.events()))
        return aliases["champion"], events[-1]["version"], events[-1]["decision"]

    def asked(
        self, rows, version=None, share=1.0, status=200, role="champion", entity=None, new=True
    ):
        """Have so many predictions; of a share of them the truth is what the model said."""
        frame = self.road.train.sample(rows, replace=True, random_state=next(numbers))
        if new:
            # Rows that nobody has seen.
            more = [next(numbers) / 1e4 for _ in range(rows)]
            frame["Höhe (cm)"] = frame["Höhe (cm)"].fillna(100) + more
        asked, start = [], time.time() - 1000 + next(numbers)
        contract = self.road.predictor.contract
        given = zip(plain_rows(contract, frame), frame["variety"], strict=True)
        for i, (row, label) in enumerate(given):
            said = label if i < share * rows else "no variety"
            name = f"asked-{next(numbers)}"
            asked.append(
                {
                    **dict.fromkeys(("prediction_id", "request_id"), name),
                    "ts": start + i / 1000,
                    "entity_key": entity,
                    "model_name": "Garden",
                    "model_version": version or self.champion,
                    "role": role,
                    "score": 1.0,
                    "schema_hash": "",
                    "latency_ms": 1.0,
                    "status": status,
                    "features": json.dumps(row),
                    "output": json.dumps({"prediction": said}),
                }
            )
        truths = [
            {
                "prediction_id": event["prediction_id"],
                "label": json.dumps(label),
                "observed_at": None,
                "source": None,
            }
            for event, label in zip(asked, frame["variety"], strict=True)
        ]
        with store.opened(self.settings.events.store) as opened:
            with opened.writing() as connection:
                connection.execute(sa.insert(store.prediction_event), asked)
            if role == "champion" and status < store.FAILED:
                opened.record(truths)

    def actions(self, kind):
        """Return what was done, the newest first."""
        with store.opened(self.settings.events.store) as opened, opened.reading() as connection:
            return [each["detail"] for each in checks.actions(connection, kind, 9)]

    def confirm(self, version=None):
        """Let a monitor have confirmed drift; return the number of its window."""
        found = Finding("leaves", "shape", 0.3, 1e-6, True, 60, "higher")
        detail = {"confirmed": [{"column": "leaves", "checks": 2, "since": 1.0}]}
        model = Model("Garden", version or self.champion)
        window = Window(
            model, "drift", "checked", 60, 60, 1.0, 2.0, "x", True, True, (found,), detail
        )
        with store.opened(self.settings.events.store) as opened:
            kept = checks.write(opened, window, None).id
            checks.looked(opened, Look(model, "drift", NOTHING, NOTHING))
        return kept


@pytest.fixture
def garden_project(desk, road, opened, monkeypatch):
    """A project whose pipeline runs in this process."""

    def pipeline(settings):
        for name in ("snapshot", "prepare", "train", "evaluate", "package", "register"):
            stages.STAGES[name](settings)

    monkeypatch.setattr(retraining, "run_pipeline", pipeline)
    return Garden(desk, road, opened)


def test_no_reason_no_training(garden_project):
    """Without drift, newer rows or a person's word nothing is done, and nothing written down."""
    project = garden_project
    project.asked(120)
    project.confirm("of another model")
    outcome, said = retraining.retrain(project.settings)
    assert ("nothing", True) == (outcome, said.startswith("nothing wants it"))
    assert [] == project.actions("retrain")
    pd.read_csv("garden.csv").tail(200).to_csv("garden.csv", index=False)
    with store.opened(project.settings.events.store) as opened:
        ended = {"number": "2", "outcome": "refused"}
        checks.claim(opened, "one that just ended", "retrain", ended)
    outcome, said = retraining.retrain(project.settings)
    assert "cooling" == outcome
    assert "garden.csv has other rows; done 0.0 h ago, again after 24 h or by --force" == said


def test_from_drift_to_the_next_champion(garden_project):
    """Newer rows go through the pipeline and the gate; the registry knows who, why and on what."""
    project = garden_project
    project.asked(150)
    number = project.confirm()
    outcome, said = retraining.retrain(project.settings)
    assert ("promoted", True) == (outcome, said.startswith("drift in leaves\nversion 3 of garden"))
    assert ("3", "3", "promoted") == project.state()
    version, events = project.opened(project.settings, lambda s: (s.version("3"), s.events()))
    kept = events[-1]["retraining"]
    assert ("drift", "drift in leaves", [number]) == tuple(kept.values())[:3]
    tags = version.tags
    assert kept["feedback_sha256"] == tags["feedback_sha256"]
    assert kept["data_sha256"] == tags["data_sha256"]
    assert str([number]) == tags["retraining.windows"]
    assert 60 == events[-1]["rows"]
    assert {"promoted"} == {each["outcome"] for each in project.actions("retrain")}
    # Drift that was found about the version before is no reason any more.
    assert "nothing" == retraining.retrain(project.settings)[0]
    assert "cooling" == retraining.retrain(project.settings, "again")[0]


def test_too_few_truths_are_for_a_person(garden_project):
    """The gate's table is shown, the champion stays, and promote decides as ever."""
    project = garden_project
    project.asked(100)
    project.change(monitoring={"labels": 51})
    with pytest.raises(UndecidedError, match=r"50 truths, 51 are needed .*\ncheck +champion"):
        retraining.retrain(project.settings, "by hand")
    assert ("1", "3", "undecided") == project.state()
    assert "version 3 of garden is the champion" in release.promote(project.settings)


def test_a_worse_one_is_refused(garden_project):
    """What errs more on the newest rows stays a challenger; the attempt is written down."""
    project = garden_project
    assert release.promote(project.settings).startswith("version 2")
    project.change(training={"params": {"C": 1e-5}})
    project.asked(150, project.version("2"))
    with pytest.raises(GateError, match="version 3 of garden is refused"):
        retraining.retrain(project.settings, "by hand")
    assert ("2", "3", "refused") == project.state()
    (attempt,) = project.actions("retrain")
    assert ("refused", "by hand", "hand") == (
        attempt["outcome"],
        attempt["reason"],
        attempt["trigger"],
    )


def test_rows_that_were_tried_are_no_reason_again(garden_project):
    """Other rows in the source are tried once, whatever comes of it; then others are again."""
    project = garden_project
    release.promote(project.settings)
    project.asked(150, project.version("2"))
    project.change(training={"params": {"C": 1e-5}}, retraining={"cooldown_hours": 0})
    for rows in (200, 190):
        pd.read_csv("garden.csv").tail(rows).to_csv("garden.csv", index=False)
        with pytest.raises(GateError, match="is refused"):
            retraining.retrain(project.settings)
        assert "data" == project.actions("retrain")[0]["trigger"]
        assert "nothing" == retraining.retrain(project.settings)[0]
    with pytest.raises(GateError, match="is refused"):
        retraining.retrain(project.settings, "by hand")


@pytest.mark.parametrize("features", [(), ("leaves",)], ids=["none", "some"])
def test_columns_that_are_not_kept(garden_project, features):
    """What the store does not keep cannot be learnt from: which column, and what to do."""
    project = garden_project
    project.asked(60)
    project.change(events={"features": features})
    with pytest.raises(SettingsError, match=r"events\.features leaves out Höhe .*list it there"):
        retraining.retrain(project.settings, "by hand")
    assert ("1", "1", "promoted") == project.state()


def test_without_a_champion(garden_project):
    """There has to be something to compare with."""
    project = garden_project
    project.change(tracking={"model": "other"})
    with pytest.raises(RegistryError, match="other has no champion: run the pipeline, then "):
        retraining.retrain(project.settings, "by hand")


def test_shadow_before_the_gate(garden_project):
    """The challenger answers so many requests beside the champion before the gate is asked."""
    project = garden_project
    project.change(retraining={"shadow_events": 10})
    project.asked(150)
    outcome, said = retraining.retrain(project.settings, "by hand")
    assert "shadow" == outcome
    assert "version 3 answered 0 of 10 requests beside the champion" in said
    project.asked(9, project.version("3"), role="shadow")
    assert "9 of 10" in retraining.retrain(project.settings)[1]
    assert "1" == project.state()[0]
    project.asked(1, project.version("3"), role="shadow")
    project.asked(60)
    assert "promoted" == retraining.retrain(project.settings)[0]
    assert ("3", "3", "promoted") == project.state()


@pytest.fixture
def shadowed(garden_project):
    """A project whose challenger, version 3, has answered beside the champion for long enough."""
    project = garden_project
    project.change(retraining={"shadow_events": 10})
    project.asked(150)
    assert "shadow" == retraining.retrain(project.settings, "by hand")[0]
    project.asked(10, project.version("3"), role="shadow")
    return project


@pytest.mark.parametrize("truths", [0, 29])
def test_a_shadow_waits_for_its_truths(shadowed, truths):
    """They come late: until there are enough the gate is not asked, and each run says how many."""
    if truths:
        shadowed.asked(truths)
    for _ in range(2):
        outcome, said = retraining.retrain(shadowed.settings)
        assert "shadow" == outcome
        assert said.startswith(f"version 3 waits for truths: {truths} of 30 ")
    assert ("1", "1", "promoted") == shadowed.state()
    shadowed.asked(30 - truths)
    assert "promoted" == retraining.retrain(shadowed.settings)[0]
    assert ("3", "3", "promoted") == shadowed.state()


@pytest.mark.parametrize("events", [10, 11])
def test_a_shadow_does_not_wait_for_ever(shadowed, events):
    """Without truths, or requests, a person is asked once; promote decides as ever."""
    waits = "waits for truths: 29 of 30" if events == 10 else "answered 10 of 11 requests"
    shadowed.asked(29)
    shadowed.change(retraining={"shadow_events": events, "shadow_days": 1e-9})
    with pytest.raises(UndecidedError, match=f"version 3 {waits} .* so a person decides: promote"):
        retraining.retrain(shadowed.settings)
    assert ["undecided", "shadow"] == [each["outcome"] for each in shadowed.actions("retrain")]
    assert "nothing" == retraining.retrain(shadowed.settings)[0]
    assert "version 3 of garden is the champion" in release.promote(shadowed.settings)


def test_a_shadow_is_asked_nothing_new(shadowed):
    """Where clients send the same rows again and again no comparison is fair: a person decides."""
    shadowed.asked(40, new=False)
    with pytest.raises(UndecidedError, match=r"version \d of garden was trained on rows like"):
        retraining.retrain(shadowed.settings)
    assert ("undecided", "1") == (shadowed.actions("retrain")[0]["outcome"], shadowed.state()[0])
    assert "nothing" == retraining.retrain(shadowed.settings)[0]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"held_out": 59}, "held_out is 59, expected 60 or more: the gate decides on at least 60"),
        ({"rows": 119}, r"rows is 119, expected 120 or more: .* \(monitoring\.labels\)"),
    ],
    ids=["held_out", "rows"],
)
def test_what_can_never_be_decided(garden_project, section, message):
    """Where fewer rows are held out than a verdict needs, the settings are wrong."""
    garden_project.change(monitoring={"labels": 60}, retraining={"rows": 120} | section)
    with pytest.raises(SettingsError, match=message):
        retraining.retrain(garden_project.settings)
    garden_project.change(retraining={"rows": 120, "held_out": 60})
    assert "nothing" == retraining.retrain(garden_project.settings)[0]


@pytest.mark.parametrize("where", ["_promote", "_finish"])
def test_after_a_kill_the_next_call_goes_on(garden_project, monkeypatch, where):
    """The old champion serves or the new one; the next call tells of the new one, once."""
    project = garden_project
    project.asked(150)
    with monkeypatch.context() as patch:
        patch.setattr(retraining, where, kill)
        with pytest.raises(Killed):
            retraining.retrain(project.settings, "by hand")
    assert ("3" if where == "_finish" else "1") == project.state()[0]
    assert "promoted" == retraining.retrain(project.settings, "by hand")[0]
    assert ("3", "3", "promoted") == project.state()
    assert "nothing" == retraining.retrain(project.settings)[0]


@pytest.fixture
def swapped(garden_project):
    """A project in which version 2 has just taken the place of version 1, which had 60 answers."""
    project = garden_project
    project.asked(60, share=0.9)
    detail = {"number": "2", "version": project.version("2"), "former": project.champion}
    with store.opened(project.settings.events.store) as opened:
        probation.begin(opened, {**detail, "name": "Garden"})
    release.promote(project.settings)
    return project


def test_a_champion_that_errs_more_is_taken_back(swapped):
    """Its truths show it: the former one serves again, and why is in the registry."""
    swapped.asked(29, swapped.version("2"), share=0.3)
    assert probation.judge(swapped.settings) is None
    swapped.asked(1, swapped.version("2"), share=0.3)
    said = "version 1 of garden is the champion again, instead of version 2"
    assert said == probation.judge(swapped.settings)
    assert ("1", "2", "rolled back") == swapped.state()
    event = swapped.opened(swapped.settings, lambda s: s.events()[-1])
    assert "probation" == event["trigger"]
    assert "more loss a prediction than before" in event["why"]
    assert probation.judge(swapped.settings) is None


def test_who_retrains_hears_of_what_a_monitor_took_back(swapped):
    """Whoever took the champion back, the next retraining says so, once: it is to be deployed."""
    swapped.asked(30, swapped.version("2"), share=0.3)
    rounds.look(swapped.settings, print)
    assert ("1", "2", "rolled back") == swapped.state()
    outcome, said = retraining.retrain(swapped.settings)
    assert "rolled back" == outcome
    assert re.match(r"version 2 was taken back to version 1: 0\.\d+ more loss", said)
    assert "nothing" == retraining.retrain(swapped.settings)[0]


@pytest.mark.parametrize(("share", "status"), [(0.3, 200), (1, 500)], ids=["errs", "fails"])
def test_a_window_of_fewer_events_than_a_verdict_needs(swapped, share, status):
    """A new champion is judged by as many truths and answers as a verdict needs."""
    swapped.change(monitoring={"window": 30, "labels": 60})
    swapped.asked(59, swapped.version("2"), share, status)
    assert probation.judge(swapped.settings) is None
    swapped.asked(1, swapped.version("2"), share, status)
    assert "version 1 of garden is the champion again" in probation.judge(swapped.settings)


def test_two_that_judge_at_once(swapped, monkeypatch):
    """Of a monitor and a retraining that see the same, one is late, and finds it done."""
    swapped.asked(30, swapped.version("2"), share=0.3)
    rollback = release.rollback

    def late(*given, **facts):
        monkeypatch.setattr(release, "rollback", rollback)
        assert "champion again" in probation.judge(swapped.settings)
        return rollback(*given, **facts)

    monkeypatch.setattr(release, "rollback", late)
    assert probation.judge(swapped.settings) is None
    assert ("1", "2", "rolled back") == swapped.state()


@pytest.mark.parametrize("outcome", ["refused", "undecided"])
def test_a_challenger_that_is_refused_ends_no_probation(swapped, outcome):
    """The champion is judged, whichever version was tried since."""
    swapped.asked(40)
    if outcome == "undecided":
        swapped.change(monitoring={"labels": 51})
    else:
        swapped.change(training={"params": {"C": 1e-5}})
    with pytest.raises((GateError, UndecidedError)):
        retraining.retrain(swapped.settings, "by hand")
    assert ("2", "3", outcome) == swapped.state()
    swapped.asked(51, swapped.version("2"), share=0.3)
    assert "version 1 of garden is the champion again" in probation.judge(swapped.settings)


def test_few_who_asked_often_are_few(swapped):
    """How sure it is what the former model erred depends on whom its truths are about."""
    swapped.change(monitoring={"window": 120})
    for entity, share in (("one", 1), ("other", 1), ("third", 0)):
        swapped.asked(40, share=share, entity=entity)
    swapped.asked(60, swapped.version("2"), share=0.4)
    assert probation.judge(swapped.settings) is None


def test_a_champion_that_is_no_worse_stays(swapped):
    """It is looked at once with the first truths and once with a window of them."""
    swapped.asked(30, swapped.version("2"), share=0.9)
    assert probation.judge(swapped.settings) is None
    assert 2 == len(swapped.actions("look"))
    swapped.asked(30, swapped.version("2"), share=0.9)
    for _ in range(2):
        assert probation.judge(swapped.settings) is None
        assert 4 == len(swapped.actions("look"))
    assert "2" == swapped.state()[0]


def test_a_champion_that_fails_more_is_taken_back(swapped):
    """Answers that are errors need no truths to be told."""
    swapped.asked(30, swapped.version("2"), status=500)
    assert "champion again" in probation.judge(swapped.settings)
    event = swapped.opened(swapped.settings, lambda s: s.events()[-1])
    assert "30 of 30 requests failed, 0 of 60 before" in event["why"]
