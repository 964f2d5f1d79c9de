import asyncio
import errno
import json
import os
import threading

import pytest

from {{ cookiecutter.package }} import events
from {{ cookiecutter.package }}.serving import batching
from {{ cookiecutter.package }}.serving.batching import Batcher, Call
from {{ cookiecutter.package }}.serving.errors import RequestError
from {{ cookiecutter.package }}.serving.metrics import Metrics
from {{ cookiecutter.package }}.serving.served import load


@pytest.fixture(scope="module", name="served")
def served_fixture(road):
    return load(road.settings.serving.bundle)


@pytest.fixture(name="log")
def log_fixture(tmp_path):
    log = events.EventLog(tmp_path / "events")
    yield log
    log.close()


@pytest.fixture(name="runs")
def runs_fixture(monkeypatch):
    """How many rows each run of a model had, and in which thread it was."""
    runs = []
    predict = batching.predict

    def watched(served, calls):
        runs.append((sum(len(call.rows) for call in calls), threading.current_thread().name))
        return predict(served, calls)

    monkeypatch.setattr(batching, "predict", watched)
    return runs


def call_of(served, number, rows=1):
    """A request for the answers to some examples."""
    found = [example["row"] for example in served.predictor.examples]
    body = json.dumps({"rows": [found[(number + i) % len(found)] for i in range(rows)]}).encode()
    return Call(served, body, served.decode(body), f"{number:032x}", f"request-{number}", 0.0)


def answered(batcher, calls_of):
    """Answer calls that come at the same time; exceptions stand in the place of answers."""

    async def all_at_once():
        calls = calls_of()
        said = await asyncio.gather(*map(batcher.answer, calls), return_exceptions=True)
        return calls, said

    return asyncio.run(all_at_once())


def kept(log):
    """The events that are in a log."""
    return [event for path in events.segments(log.folder) for event, _ in events.read(path)]


def test_calls_of_a_tick_are_one_run_and_one_write(served, log, runs, monkeypatch):
    """Together they cost one run of the model and one write; each gets its own answer."""
    writes = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda *given: writes.append(given) or write(*given))
    calls, _ = answered(Batcher(log, Metrics([])), lambda: [call_of(served, i) for i in range(6)])
    assert [(6, "MainThread")] == runs
    assert 1 == len(writes)
    for i, call in enumerate(calls):
        answer = json.loads(call.answer)
        (given,) = answer["predictions"]
        assert (f"request-{i}", f"{i:032x}-0") == (answer["request_id"], given["id"])
        stored = served.predictor.examples[i]["prediction"]
        assert stored["prediction"] == given["prediction"]
        assert pytest.approx(stored["probabilities"], rel=1e-9) == given["probabilities"]


def test_an_event_tells_of_request_and_answer(served, log):
    """What is in the log is all that the store needs, and what the client gets."""
    (call,), _ = answered(Batcher(log, Metrics([])), lambda: [call_of(served, 3, rows=2)])
    (event,) = kept(log)
    assert (call.body, call.answer) == (event.body, event.answer)
    assert (f"{3:032x}", "request-3", "champion", 200) == (
        event.base,
        event.request_id,
        event.role,
        event.status,
    )
    card = served.predictor.card
    contract = card["files"]["contract.json"]
    assert (card["name"], card["version"]) == (event.name, event.version)
    assert contract.startswith(event.schema)


@pytest.mark.parametrize("rows_at_once", [1, 100])
def test_what_the_model_failed_at_is_an_event(served, log, monkeypatch, rows_at_once):
    """In the loop or in a thread: the store learns that there was no answer."""
    monkeypatch.setattr(served, "rows_at_once", rows_at_once)
    monkeypatch.setattr(batching, "predict", lambda *_: 1 / 0)
    batcher = Batcher(log, Metrics([]))
    (call,), (said,) = answered(batcher, lambda: [call_of(served, 3, rows=2)])
    assert isinstance(said, ZeroDivisionError)
    (event,) = kept(log)
    assert (call.body, b"", 500) == (event.body, event.answer, event.status)
    assert served.version == event.version


def test_an_answer_waits_for_its_event(served, log, monkeypatch):
    """Where the log cannot be written nobody is answered, and the next tick tries again."""
    batcher = Batcher(log, metrics := Metrics([]))
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        patch.setattr(log, "append", lambda _: (_ for _ in ()).throw(full))
        _, said = answered(batcher, lambda: [call_of(served, i) for i in range(3)])
    assert [RequestError] * 3 == [type(each) for each in said]
    assert (503, "unrecorded", "5") == (
        said[0].status,
        said[0].problem.code,
        said[0].headers["Retry-After"],
    )
    assert b"events_refused_total 3.0" in metrics.exposition()
    _, said = answered(batcher, lambda: [call_of(served, 4)])
    assert [None] == said
    assert ["request-4"] == [event.request_id for event in kept(log)]


def test_a_durable_answer_waits_for_the_disk(served, tmp_path, monkeypatch):
    """Calls that come while the disk is busy share the next sync, and are answered after it."""
    log = events.EventLog(tmp_path, durable=True)
    batcher, order = Batcher(log, Metrics([])), []
    gate = threading.Event()

    def sync():
        order.append(f"sync {len(kept(log))}")
        gate.wait(5)

    monkeypatch.setattr(log, "sync", sync)

    async def ask(number):
        await batcher.answer(call_of(served, number))
        order.append(f"answer {number}")

    async def scene():
        first = asyncio.create_task(ask(1))
        while not order:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(ask(number)) for number in (2, 3)]
        while len(kept(log)) < 3:
            await asyncio.sleep(0.001)
        assert ["sync 1"] == order
        gate.set()
        await asyncio.gather(first, *others)

    asyncio.run(scene())
    assert ["sync 1", "sync 3"] == [each for each in order if each.startswith("sync")]
    assert {"answer 2", "answer 3"} == set(order[order.index("sync 3") + 1 :]) - {"answer 1"}


def test_large_requests_leave_the_event_loop(served, log, runs):
    """A request of many rows runs in a thread; small ones need not wait for it."""
    many = served.rows_at_once + 1
    batcher = Batcher(log, Metrics([]))
    (large, small), _ = answered(batcher, lambda: [call_of(served, 0, many), call_of(served, 1)])
    by_rows = dict(runs)
    assert by_rows[1] == "MainThread"
    assert by_rows[many] != "MainThread"
    assert many == len(json.loads(large.answer)["predictions"])
    assert {large.request_id, small.request_id} == {event.request_id for event in kept(log)}


def test_numbers_are_counted_in_one_thread(served, log, monkeypatch):
    """Where a thread runs the model it counts nothing: two that count would lose some."""
    counting = set()
    for name in ("predicted", "batch", "phase", "events"):
        count = getattr(Metrics, name)

        def watched(*numbers, count=count):
            counting.add(threading.current_thread().name)
            count(*numbers)

        monkeypatch.setattr(Metrics, name, watched)
    many = served.rows_at_once + 1
    answered(Batcher(log, Metrics([])), lambda: [call_of(served, i, many) for i in range(3)])
    assert {"MainThread"} == counting


def test_versions_do_not_share_a_run(served, road, log, runs):
    """During a swap the calls of one tick are answered by the version that each began with."""
    other = load(road.settings.serving.bundle)
    calls, _ = answered(
        Batcher(log, Metrics([])), lambda: [call_of(v, i) for i, v in enumerate((served, other))]
    )
    assert [1, 1] == [rows for rows, _ in runs]
    assert all(call.answer for call in calls)


def test_a_failing_model_fails_its_calls_only(served, road, log, monkeypatch):
    """Whoever asked it hears of it; the other version's calls are answered."""
    other = load(road.settings.serving.bundle)
    monkeypatch.setattr(other.predictor, "output", lambda _: 1 / 0)
    _, said = answered(
        Batcher(log, Metrics([])), lambda: [call_of(v, i) for i, v in enumerate((served, other))]
    )
    assert [type(None), ZeroDivisionError] == [type(each) for each in said]


def test_who_goes_away_takes_nobody_along(served, log):
    """A cancelled request does not cancel those that share its tick."""

    async def scene():
        batcher = Batcher(log, Metrics([]))
        tasks = [asyncio.create_task(batcher.answer(call_of(served, i))) for i in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    said = asyncio.run(scene())
    assert [asyncio.CancelledError, type(None), type(None)] == [type(each) for each in said]


def test_every_phase_is_counted(served, log):
    """Rows, warnings, batches and the time of each phase are there for Prometheus."""
    batcher = Batcher(log, metrics := Metrics([]))
    row = {**served.predictor.examples[0]["row"], "leaves": 9000}
    body = json.dumps({"rows": [row]}).encode()
    answered(
        batcher,
        lambda: [Call(served, body, served.decode(body), "a", "a", 0.0), call_of(served, 1, 3)],
    )
    told = metrics.exposition().decode()
    for line in (
        'model_predictions_total{role="champion"} 4.0',
        "prediction_warnings_total 1.0",
        "prediction_batch_size_count 1.0",
        "prediction_batch_size_sum 4.0",
        "events_written_total 2.0",
        'prediction_phase_seconds_count{phase="decode"} 2.0',
        'prediction_phase_seconds_count{phase="queue"} 2.0',
        "model_predict_duration_seconds_count 1.0",
        'prediction_phase_seconds_count{phase="write"} 1.0',
    ):
        assert line in told.splitlines()
