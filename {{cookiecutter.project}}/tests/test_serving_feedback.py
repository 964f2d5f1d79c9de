import threading
import time
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from {{ cookiecutter.package }} import ingestion
from {{ cookiecutter.package }}.events import EventLog
from {{ cookiecutter.package }}.ingestion import Job
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.settings import Events
from {{ cookiecutter.package }}.store import ground_truth, opened


class Desk:
    """A service, the log of its events, and its store."""

    def __init__(self, settings, folder, address):
        events = Events(folder=folder, store=address, retention_days=0)
        self.client = TestClient(create_app(settings.model_copy(update={"events": events})))
        self.job = Job.of(events)
        self.log = EventLog(folder)

    def say(self, *truths):
        return self.client.post("/feedback", json={"truths": list(truths)})

    def truths(self):
        """All that was recorded."""
        table = ground_truth.c
        with opened(self.job.store) as store, store.reading() as connection:
            asked = sa.select(table.prediction_id, table.revision, table.label)
            order = (table.prediction_id, table.revision)
            return [tuple(row) for row in connection.execute(asked.order_by(*order))]


@pytest.fixture(name="desk_of")
def desk_of_fixture(tmp_path, address):
    desks = []

    def make(road, store=address):
        desks.append(Desk(road.settings, tmp_path / "log", store))
        return desks[-1]

    yield make
    for desk in desks:
        desk.log.close()
        if hasattr(desk.client.app.state, "store"):
            desk.client.app.state.store.close()


@pytest.fixture(name="desk")
def desk_fixture(desk_of, road, made_event):
    """A service that made three predictions, the last of which waits to be ingested."""
    desk = desk_of(road)
    desk.log.append([made_event(1, rows=2)])
    ingestion.ingest(desk.job)
    desk.log.append([made_event(2), made_event(3, answer=b"", status=503)])
    return desk


def name(number, i=0):
    return f"{number:032x}-{i}"


def test_the_truth_is_recorded(desk):
    """Label, moment and source of a prediction stand in the store, from when they were told."""
    before = time.time()
    moment = "2026-02-03T04:05:06+01:00"
    answer = desk.say(
        {"prediction_id": name(1, 1), "label": "tall", "observed_at": moment, "source": "Eve"},
        {"prediction_id": name(1), "label": "dwarf", "observed_at": "2026-02-03"},
    )
    assert 200 == answer.status_code
    recorded = {"revision": 1, "new": True}
    assert {
        "truths": [
            {"prediction_id": name(1, 1), **recorded},
            {"prediction_id": name(1), **recorded},
        ]
    } == answer.json()
    with opened(desk.job.store) as store, store.reading() as connection:
        order = ground_truth.c.prediction_id
        rows = connection.execute(sa.select(ground_truth).order_by(order)).all()
    first, second = (row._asdict() for row in rows)
    assert datetime(2026, 2, 3, tzinfo=UTC).timestamp() == first["observed_at"]
    assert before <= second.pop("received_at") <= time.time()
    assert {
        "prediction_id": name(1, 1),
        "revision": 1,
        "label": "tall",
        "observed_at": datetime(2026, 2, 3, 3, 5, 6, tzinfo=UTC).timestamp(),
        "source": "Eve",
    } == second


def test_the_same_again_changes_nothing(desk):
    """A truth that is sent twice is recorded once; another label is the next revision."""
    truth = {"prediction_id": name(1), "label": "tall"}
    said = [desk.say(each).json()["truths"][0] for each in (truth, truth)]
    said += desk.say({**truth, "label": "dwarf"}, truth).json()["truths"]
    assert [(1, True), (1, False), (2, True), (1, False)] == [
        (each["revision"], each["new"]) for each in said
    ]
    assert [(name(1), 1, "tall"), (name(1), 2, "dwarf")] == desk.truths()


def test_truths_are_counted(desk):
    """The metrics tell new truths from those said before and those of nothing that is kept."""
    truth = {"prediction_id": name(1), "label": "tall"}
    unknown = [{**truth, "prediction_id": f"x{i}"} for i in range(3)]
    said = [desk.say(*each).status_code for each in ([truth], [truth, truth], [truth, *unknown])]
    assert [200, 200, 404] == said
    told = desk.client.get("/metrics").text.splitlines()
    assert [
        'model_truths_total{result="new"} 1.0',
        'model_truths_total{result="known"} 2.0',
        'model_truths_total{result="unknown"} 3.0',
    ] == [line for line in told if line.startswith("model_truths_total")]


def test_at_the_same_moment(desk):
    """However many say the same at once, it is recorded once, and all are answered."""
    answers, truth = [], {"prediction_id": name(1), "label": "tall"}
    threads = [threading.Thread(target=lambda: answers.append(desk.say(truth))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [200] * 4 == [answer.status_code for answer in answers]
    assert [False, False, False, True] == sorted(
        answer.json()["truths"][0]["new"] for answer in answers
    )
    assert [(name(1), 1, "tall")] == desk.truths()


def test_a_prediction_that_waits_is_known(desk):
    """The truth may come before the event is in the store."""
    assert 200 == desk.say({"prediction_id": name(2), "label": "tall"}).status_code
    ingestion.ingest(desk.job)
    assert [(name(2), 1, "tall")] == desk.truths()


def test_a_prediction_that_is_stored_just_then_is_known(desk, monkeypatch):
    """An event that moves from the log to the store while it is looked for is found."""
    waiting = ingestion.waiting

    def late(*given):
        desk.log.close()
        ingestion.ingest(desk.job)
        return waiting(*given)

    monkeypatch.setattr(ingestion, "waiting", late)
    assert 200 == desk.say({"prediction_id": name(2), "label": "tall"}).status_code


@pytest.mark.parametrize(
    "unknown", [name(9), name(1, 2), name(2, 1), name(3), "x", "", name(2) + "-0", "ä-\u2028"]
)
def test_unknown_predictions_are_named(desk, unknown):
    """404 names the prediction, and nothing is recorded, whatever else was known."""
    answer = desk.say(
        {"prediction_id": name(1), "label": "tall"}, {"prediction_id": unknown, "label": "tall"}
    )
    assert 404 == answer.status_code
    message = f"no prediction has the id {unknown!r}: nothing is kept"
    problem = {"code": "unknown_prediction", "message": message, "details": []}
    assert {"error": problem} == answer.json()
    assert [] == desk.truths()


@pytest.mark.parametrize(
    ("truth", "path", "message"),
    [
        ({"label": "huge"}, "truths.0.label", "expected one of dwarf, middle, tall, not 'huge'"),
        ({"label": None}, "truths.0.label", "expected one of dwarf, middle, tall, not None"),
        ({"label": [1]}, "truths.0.label", "expected one of dwarf, middle, tall, not [1]"),
        ({}, "truths.0.label", "Field required"),
        ({"label": "tall", "lable": 1}, "truths.0.lable", "Extra inputs are not permitted"),
        ({"label": "tall", "source": "\0"}, "truths.0.source", "String should match pattern"),
        ({"label": "tall", "observed_at": "soon"}, "truths.0.observed_at", "Input should be a"),
    ],
)
def test_what_is_no_truth_is_named(desk, truth, path, message):
    """422 says where the value stands and what was expected there."""
    answer = desk.say({"prediction_id": name(1), **truth})
    assert 422 == answer.status_code
    error = answer.json()["error"]
    (detail,) = error["details"]
    assert path == detail["path"]
    assert detail["message"].startswith(message)
    assert f"{path}: {detail['message']}" == error["message"]
    assert [] == desk.truths()


@pytest.mark.parametrize(
    ("task", "good", "bad", "message"),
    [
        ("binary", False, 0, "expected one of False, True, not 0"),
        ("regression", 7, "7", "expected a number, not '7'"),
        ("regression", 7.5, True, "expected a number, not True"),
        ("clustering", 3, None, "expected a group, text or a number, not None"),
        ("clustering", "outlier", {}, "expected a group, text or a number, not {}"),
    ],
)
def test_labels_follow_from_the_task(desk_of, roads, made_event, task, good, bad, message):
    """A class, a number or a group: the contract of the loaded model decides."""
    desk = desk_of(roads[task])
    desk.log.append([made_event(1)])
    refused = desk.say({"prediction_id": name(1), "label": bad})
    assert f"truths.0.label: {message}" == refused.json()["error"]["message"]
    assert 200 == desk.say({"prediction_id": name(1), "label": good}).status_code
    assert [(name(1), 1, good)] == desk.truths()


def test_many_wrong_truths_are_counted(desk):
    """The message names the first, the details most of them."""
    error = desk.say(*[{"prediction_id": name(1), "label": 1}] * 30).json()["error"]
    assert error["message"].endswith("not 1 (and 29 more)")
    assert 20 == len(error["details"])


@pytest.mark.parametrize(
    ("body", "code"), [(b"{", "malformed"), (b'{"truths": []}', "invalid"), (b"[]", "invalid")]
)
def test_other_bodies(desk, body, code):
    """What is no JSON, or no list of truths, is refused in the usual shape."""
    headers = {"content-type": "application/json"}
    answer = desk.client.post("/feedback", content=body, headers=headers)
    assert code == answer.json()["error"]["code"]


def test_while_the_store_is_down(desk_of, road, tmp_path, made_event, caplog):
    """503 says when to come again, and nothing about the store; when it is up, all is well."""
    blocked = tmp_path / "blocked"
    blocked.touch()
    desk = desk_of(road, f"sqlite:///{blocked}/store.db")
    desk.log.append([made_event(1)])
    answer = desk.say({"prediction_id": name(1), "label": "tall"})
    assert (503, "30") == (answer.status_code, answer.headers["retry-after"])
    error = answer.json()["error"]
    assert "store_unavailable" == error["code"]
    assert "blocked" not in error["message"]
    assert "blocked/store.db: File exists; set events.store" in caplog.text
    blocked.unlink()
    assert 200 == desk.say({"prediction_id": name(1), "label": "tall"}).status_code


def test_openapi_shows_the_shapes(desk):
    """Request, answer and failures of feedback are described."""
    content = desk.client.get("/openapi.json").json()
    operation = content["paths"]["/feedback"]["post"]
    shown = operation["requestBody"]["content"]["application/json"]["schema"]
    assert ["prediction_id", "label"] == shown["properties"]["truths"]["items"]["required"]
    assert {"200", "400", "404", "413", "422", "503"} == set(operation["responses"])
    assert "revision" in content["components"]["schemas"]["Recorded"]["properties"]
