"""The closed loop of a real project: a service over HTTP, drift, an alarm, training, the swap."""

import json
import re

import pytest
from conftest import KIT, Workspace

from scripts.loop import BATCH, Loop

FINDINGS = "SELECT DISTINCT subject FROM monitor_check WHERE alarm"
ATTEMPTS = "SELECT detail FROM monitor_action WHERE kind = 'retrain' ORDER BY ts"
SERVED = "SELECT model_version, count(*) FROM prediction_event GROUP BY 1 ORDER BY min(ts)"
REGISTRY = """
import json
from penguins import registry, settings
with registry.connect(settings.load()) as store:
    print(json.dumps([store.aliases(), store.events(), dict(store.version("2").tags)]))
"""
# Batches without drift, answered by the champion; the truths of each come before the next look.
STEADY = """
import json, random, sys, time
import sqlalchemy as sa
from penguins import inference, settings, store
from penguins.monitoring import monitor
sys.path.insert(0, sys.argv[1])
from scripts.loop import BATCH, COLUMNS, colony
known = settings.load()
watched = monitor.subject(known)
predictor = inference.Predictor.load(watched.folder)
now, count = time.time(), int(sys.argv[2])
birds = list(colony(count, seed=int(sys.argv[3])))
said = predictor.predict([{name: bird[name] for name in COLUMNS} for bird in birds])
events, truths = [], []
for i, (bird, answer) in enumerate(zip(birds, said)):
    output = {"prediction": answer.prediction, "probabilities": answer.probabilities}
    name = f"steady-{i}"
    events.append(
        {
            "prediction_id": name, "request_id": name, "ts": now - (count - i) * 0.01,
            "entity_key": None, "model_name": watched.model.name,
            "model_version": watched.model.version, "role": "champion", "schema_hash": "",
            "features": json.dumps({name: bird[name] for name in COLUMNS}),
            "output": json.dumps(output), "score": max(answer.probabilities.values()),
            "latency_ms": 1.0, "status": 200,
        }
    )
    label = json.dumps(bird["species"])
    truths.append({"prediction_id": name, "label": label, "observed_at": None, "source": None})
with store.opened(known.events.store) as opened:
    for start in range(0, count, BATCH):
        with opened.writing() as connection:
            batch = events[start : start + BATCH]
            connection.execute(sa.insert(store.prediction_event), batch)
        opened.record(truths[start : start + BATCH])
        outcome = monitor.monitor(known)
    table = store.monitor_window.c
    with opened.reading() as connection:
        found = connection.execute(sa.select(table.kind, table.confirmed)).all()
checked = {kind: [c for k, c in found if k == kind] for kind in ("drift", "performance")}
print(json.dumps([{k: [len(v), sum(v)] for k, v in checked.items()}, outcome.status]))
"""


def answer(loop, script, *words):
    """Run a script with the project's Python; return what it prints as JSON."""
    return json.loads(loop.workspace.run(".venv/bin/python", "-c", script, *words))


def attempts(loop):
    """Return what became of each attempt to train again."""
    return [json.loads(detail)["outcome"] for (detail,) in loop.query(ATTEMPTS)]


@pytest.fixture(scope="module")
def trained(default_project, tmp_path_factory):
    """A project that knows the colony, its champion being version 1."""
    workspace = Workspace(default_project, tmp_path_factory.mktemp("loop") / "penguins")
    # Who brings the events does not stand back: beside other tests it would keep the store locked.
    (workspace.folder / "src/sitecustomize.py").write_text("import os\n\ndel os.SCHED_IDLE\n")
    loop = Loop(workspace.folder)
    loop.workspace = workspace
    loop.train()
    return loop


def test_nothing_happens_without_drift(trained):
    """In fifty windows of the same colony nothing is confirmed, and nothing is trained again."""
    loop = trained
    events = 2 * BATCH + 49 * BATCH
    windows, status = answer(loop, STEADY, str(KIT), str(events), "7")
    assert {"drift": [50, 0], "performance": [51, 0]} == windows
    assert status in ("steady", "suspected")
    assert "retrain   nothing: nothing wants it" in loop.retrain()
    assert [] == attempts(loop)
    assert {"champion": "1"} == answer(loop, REGISTRY.replace('"2"', '"1"'))[0]
    # What follows begins with an empty store.
    loop.workspace.run("rm", "-r", "events")


def test_the_loop_closes(trained):
    """Drift is found, the project trains again, the gate opens, and the service mends itself."""
    loop = trained
    with loop.serving() as server:
        while len(loop.hits) < 3 * BATCH:
            loop.ask(BATCH)
        status, _ = loop.check()
        assert "steady" == status
        assert loop.accuracy() > 0.94
        (first,) = set(loop.versions)
        assert [(first, 3 * BATCH)] == loop.query(SERVED)
        assert [] == loop.query(FINDINGS)

        while status != "degraded":
            loop.ask(BATCH, drifted=True)
            status, said = loop.check()
            assert len(loop.hits) <= 6 * BATCH, said
        assert loop.accuracy() < 0.6
        found = {subject for (subject,) in loop.query(FINDINGS)}
        assert {"bill_length_mm", "body_mass_g", "(loss)"} <= found
        assert set() == found & {"bill_depth_mm", "flipper_length_mm"}

        said = loop.retrain()
        assert re.search(r"^retrain   promoted: .* more loss a prediction than in training", said)
        assert re.search(r"^balanced_accuracy .* passed$", said, re.MULTILINE)
        assert ["promoted"] == attempts(loop)
        aliases, events, tags = answer(loop, REGISTRY)
        assert {"champion": "2"} == aliases
        decision = events[-1]
        assert ("2", "promoted", "1") == tuple(
            decision[name] for name in ("version", "decision", "previous")
        )
        checked = loop.query("SELECT id FROM monitor_window WHERE confirmed")
        assert set(decision["retraining"]["windows"]) <= {number for (number,) in checked}
        assert 2 == len(decision["retraining"]["windows"])
        assert (
            "drift, degradation" == decision["retraining"]["trigger"] == tags["retraining.trigger"]
        )
        assert tags["feedback_sha256"] == decision["retraining"]["feedback_sha256"]
        assert BATCH == decision["rows"]

        second = loop.wait_for_swap(seconds=240)
        assert tags["bundle_version"] == second
        loop.ask(2 * BATCH, drifted=True)
        assert {second} == set(loop.versions[-2 * BATCH :])
        assert server.poll() is None
        assert loop.accuracy() > 0.93
        status, said = loop.check()
        assert "steady" == status, said
        assert "nothing wants it" in loop.retrain()
        assert second == loop.versions[-1]
    happened = [what for _, what in loop.marks]
    assert ["drift", "alarm", "retrained", "swapped"] == happened
    assert loop.draw().stat().st_size > 10_000


def test_a_worse_challenger_is_refused(trained):
    """What is trained on too little stays a challenger; the reason is kept, the champion serves."""
    loop = trained
    loop.workspace.edit("training", estimator="logistic_regression", params={"C": 1e-5})
    said = loop.run("retrain", "--why", "a poor one", "--force", codes=(10,))
    assert "error: version 3 of penguins is refused: refused: balanced_accuracy: " in said
    aliases, events, _ = answer(loop, REGISTRY)
    assert {"champion": "2", "challenger": "3"} == aliases
    assert ("3", "refused", "a poor one") == (
        events[-1]["version"],
        events[-1]["decision"],
        events[-1]["retraining"]["reason"],
    )
    assert ["promoted", "refused"] == attempts(loop)
    assert "retrain   cooling: again; done 0.0 h ago" in loop.run("retrain", "--why", "again")
