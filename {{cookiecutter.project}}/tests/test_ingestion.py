import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from {{ cookiecutter.package }} import entities, events, ingestion
from {{ cookiecutter.package }}.errors import ServingError, StoreError
from {{ cookiecutter.package }}.events import EventLog
from {{ cookiecutter.package }}.ingestion import DRAIN, Ingestion, Job
from {{ cookiecutter.package }}.settings import Events
from {{ cookiecutter.package }}.store import Store, prediction_event

CHILD = [sys.executable, "-m", "{{ cookiecutter.package }}.ingestion"]
PATIENCE = 60


@pytest.fixture
def job(tmp_path, address):
    return Job(str(tmp_path / "log"), address)


@pytest.fixture
def log(job):
    log = EventLog(job.folder)
    yield log
    log.close()


def stored(job, *columns):
    """What the store holds, in order: some columns, or the ids."""
    columns = columns or ("prediction_id",)
    chosen = [prediction_event.c[name] for name in columns]
    store = Store(job.store)
    try:
        with store.reading() as connection:
            order = (prediction_event.c.ts, prediction_event.c.prediction_id)
            asked = sa.select(*chosen).order_by(*order)
            rows = [tuple(row) for row in connection.execute(asked)]
    finally:
        store.close()
    return [row[0] for row in rows] if len(columns) == 1 else rows


def bases(job):
    """Numbers of the events in the store."""
    return [int(each.partition("-")[0], 16) for each in stored(job)]


def until(what, expected):
    """Wait until something is as expected; give back what it is in the end."""
    end = time.monotonic() + PATIENCE
    while (found := what()) != expected and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_an_event_becomes_a_row_for_each_prediction(job, log, made_event):
    """Every column says what the event said; rows stand as the client spelt them."""
    body = b'{"rows": [{"n": 1.50, "s":"\\u00e4"}, {"n":2}]}'
    log.append([made_event(5, rows=2, body=body), made_event(6, role="shadow")])
    assert 2 == ingestion.ingest(job)
    first, second, third = (row._asdict() for row in rows_of(job))
    assert {
        "prediction_id": f"{5:032x}-0",
        "request_id": "request 5",
        "ts": 1005.0,
        "entity_key": None,
        "model_name": "Garden",
        "model_version": "0123456789ab",
        "role": "champion",
        "schema_hash": "f" * 64,
        "features": {"n": 1.5, "s": "ä"},
        "output": json.loads(made_event(5, rows=2).answer)["predictions"][0],
        "score": 0.75,
        "latency_ms": 0.5,
        "status": 200,
    } == first
    assert (f"{5:032x}-1", {"n": 2}) == (second["prediction_id"], second["features"])
    assert "shadow" == third["role"]
    asked = sa.select(sa.cast(prediction_event.c.features, sa.Text))
    assert '{"n": 1.50, "s":"\\u00e4"}' == rows_of(job, asked)[0][0]


def rows_of(job, asked=None):
    store = Store(job.store)
    try:
        with store.reading() as connection:
            asked = sa.select(prediction_event) if asked is None else asked
            return connection.execute(asked.order_by(prediction_event.c.prediction_id)).all()
    finally:
        store.close()


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ({"prediction": "b", "probabilities": {"a": 0.25, "b": 0.75}}, 0.75),
        ({"prediction": True, "probabilities": {"false": 0.125, "true": 0.875}}, 0.875),
        ({"prediction": 2, "probabilities": {"1": 0.25, "2": 0.75}}, 0.75),
        ({"prediction": 12.5, "probabilities": None, "score": None}, 12.5),
        ({"prediction": 3, "probabilities": None, "score": 0.5}, 0.5),
        ({"prediction": "outlier", "probabilities": None, "score": -0.25}, -0.25),
        ({"prediction": None}, None),
    ],
    ids=str,
)
def test_score(answer, score):
    """One number for each task: probability of the class, the number, or the group's score."""
    assert score == ingestion.score(json.dumps(answer).encode())


PEPPER = "s"


@pytest.mark.parametrize(
    ("row", "kept", "entity"),
    [
        ({"a": 1, "b": "x", "id": "k"}, {"b": "x"}, "k"),
        ({"b": None, "id": 7}, {"b": None}, "7"),
        ({"a": 1, "id": None}, {}, None),
        ({"a": 1}, {}, None),
        (7, None, None),
    ],
    ids=str,
)
def test_only_what_is_allowed_is_kept(job, made_event, row, kept, entity):
    """With a list of columns no other is stored; of whom a row is about a hash is, if at all."""
    key = entity and entities.pseudonym(entity, PEPPER)
    strict = Job(job.folder, job.store, features=("b", "absent"), entity="id", secret=PEPPER)
    event = made_event(body=json.dumps({"rows": [row]}).encode())
    (found,) = ingestion.rows(event, strict)
    assert kept == (found["features"] and json.loads(found["features"]))
    assert key == found["entity_key"]
    loose = Job(job.folder, job.store, entity="id", secret=PEPPER)
    (found,) = ingestion.rows(event, loose)
    others = {n: v for n, v in row.items() if n != "id"} if isinstance(row, dict) else row
    assert (others, key) == (json.loads(found["features"]), found["entity_key"])


def test_whoever_ingests_is_waited_for(job, log, made_event, monkeypatch):
    """What must be stored first is, also while another process has the lock."""
    log.append([made_event(0)])
    other = ingestion.Ingestion(job)
    assert not ingestion.catch_up(job, seconds=0)
    monkeypatch.setattr(ingestion.time, "sleep", lambda _: other.run())
    assert ingestion.catch_up(job)
    other.close()


@pytest.mark.parametrize(
    ("body", "features"),
    [(b'{"rows": [{"a": 1}]}', ['{"a": 1}']), (b'{"rows": []}', [None]), (b"\xff{", [None])],
    ids=repr,
)
def test_a_request_that_failed(job, made_event, body, features):
    """It is stored with its status, without an output, whatever its body was."""
    event = made_event(body=body, answer=b"", status=503)
    found = ingestion.rows(event, job)
    assert features == [row["features"] for row in found]
    assert [(None, None, 503)] == [(row["output"], row["score"], row["status"]) for row in found]


def test_strange_bytes_stop_nothing(job, log, made_event):
    """What no database takes as it is, is stored as it can be; all around it is stored too."""
    strange = [
        made_event(1, body=b'{"rows": [{"a": "\xff"}]}'),
        made_event(2, request_id="nul \0"),
        made_event(3, body=b'{"rows": [{"a": "\\ud800\\u0000"}]}'),
        made_event(4, answer=b"no JSON"),
    ]
    log.append([made_event(0), *strange, made_event(5)])
    assert 6 == ingestion.ingest(job)
    assert list(range(6)) == bases(job)
    assert {"a": "�"} == stored(job, "features")[1]


def test_open_segments_are_followed_and_closed_ones_deleted(job, log, made_event, monkeypatch):
    """Each run stores what is new; what is read to its end and left by its writer is deleted."""
    monkeypatch.setattr(ingestion, "BATCH_EVENTS", 4)
    ingester = Ingestion(job)
    for start in (0, 10):
        log.append([made_event(number) for number in range(start, start + 10)])
        assert (10, 0) == (ingester.run(), ingester.run())
    (path,) = events.segments(job.folder)
    assert {path.name: path.stat().st_size} == ingester.store.positions([path.name])
    log.close()
    log.append([made_event(20)])
    assert 1 == ingester.run()
    assert [log.path] == events.segments(job.folder)
    assert {} == ingester.store.positions([path.name])
    ingester.close()
    assert list(range(21)) == bases(job)


def test_a_torn_end_is_kept(job, log, made_event, caplog):
    """What follows the last whole event of a dead writer's segment is kept, and told."""
    log.append([made_event(1)])
    log.close()
    with log.path.open("ab") as segment:
        segment.write(b"torn")
    assert 1 == ingestion.ingest(job)
    torn = log.path.with_suffix(".torn")
    assert [f"{torn} ends in 4 bytes that are no whole event: kept"] == caplog.messages
    assert torn.read_bytes().endswith(b"torn")
    assert [] == events.segments(job.folder)
    assert 0 == ingestion.ingest(job)
    assert [1] == bases(job)


def test_a_writer_that_lives_may_be_in_the_middle_of_a_write(job, log, made_event):
    """The half of a frame in an open segment is waited for."""
    log.append([made_event(1)])
    whole = log.path.read_bytes()
    with log.path.open("ab") as segment:
        segment.write(whole[:30])
        segment.flush()
        assert 1 == ingestion.ingest(job)
        segment.write(whole[30:])
    assert 1 == ingestion.ingest(job)
    assert log.path.exists()


@pytest.mark.parametrize("moment", ["prediction_event", "event_segment", "commit", "deletion"])
def test_a_failure_at_any_moment_stores_nothing_twice(job, log, made_event, monkeypatch, moment):
    """Rows and place are committed together, and the segment is deleted only after that."""
    log.append([made_event(number) for number in range(5)])
    log.close()
    assert 0 == ingestion.ingest(Job(job.folder + "2", job.store))

    done = []

    def after(*given):
        done.extend(given[2].split()[2:3] if given[2].startswith("INSERT") else [])
        if moment in done:
            raise OSError(moment)

    def commit(_):
        if moment == "commit" and done:
            raise OSError(moment)

    sa.event.listen(sa.Engine, "after_cursor_execute", after)
    sa.event.listen(sa.Engine, "commit", commit)
    with monkeypatch.context() as patch:
        if moment == "deletion":
            patch.setattr(Path, "unlink", refuse)
        with pytest.raises(StoreError, match="denied" if moment == "deletion" else moment):
            ingestion.ingest(job)
    sa.event.remove(sa.Engine, "after_cursor_execute", after)
    sa.event.remove(sa.Engine, "commit", commit)
    assert ([0, 1, 2, 3, 4] if moment == "deletion" else []) == bases(job)
    assert (0 if moment == "deletion" else 5) == ingestion.ingest(job)
    assert [0, 1, 2, 3, 4] == bases(job)
    assert [] == events.segments(job.folder)


def refuse(*_, **__):
    raise PermissionError(13, "Permission denied")


def test_a_segment_that_comes_back_is_stored_once(job, log, made_event):
    """A power cut may undo the deletion of a segment: what is stored is not stored again."""
    log.append([made_event(number) for number in range(5)])
    log.close()
    content = log.path.read_bytes()
    assert 5 == ingestion.ingest(job)
    log.path.write_bytes(content)
    assert 5 == ingestion.ingest(job)
    assert [0, 1, 2, 3, 4] == bases(job)


def test_the_store_may_be_down(job, log, made_event, tmp_path):
    """While it is, events wait and the folder says why; when it is up, all are stored."""
    blocked = tmp_path / "blocked"
    blocked.touch()
    ingester = Ingestion(Job(job.folder, f"sqlite:///{blocked}/store.db"))
    for number in range(3):
        log.append([made_event(number)])
        with pytest.raises(StoreError):
            ingester.run()
    now = ingestion.backlog(job.folder)
    assert (1, log.path.stat().st_size) == (now.segments, now.bytes)
    assert f"{blocked}/store.db: File exists; set events.store" in now.state.error
    assert now.state.since <= time.time()
    assert now.state.ingested is None
    blocked.unlink()
    assert 3 == ingester.run()
    now = ingestion.backlog(job.folder)
    assert (0, 0, None, None) == (now.segments, now.bytes, now.state.error, now.state.since)
    assert now.state.ingested <= time.time()
    ingester.close()


def test_the_backlog_of_no_folder(tmp_path):
    """Before anything happened nothing waits; a state that cannot be read is none."""
    assert ingestion.Backlog(0, 0, ingestion.State()) == ingestion.backlog(tmp_path / "none")
    (tmp_path / ingestion.STATE).write_text("{")
    assert ingestion.State() == ingestion.backlog(tmp_path).state


def test_one_ingester_a_folder(job):
    """A second one is refused as long as the first is there."""
    first = Ingestion(job)
    with pytest.raises(StoreError, match="log is being ingested by another process: let it"):
        Ingestion(job)
    first.close()
    Ingestion(job).close()


def test_old_events_are_deleted(job, log, made_event, monkeypatch):
    """What is older than the settings allow goes, and is looked for once an hour."""
    now = time.time()
    log.append([made_event(1, ts=now - 3 * ingestion.DAY), made_event(2, ts=now)])
    ingester = Ingestion(Job(job.folder, job.store, retention_days=2))
    assert 2 == ingester.run()
    assert [2] == bases(job)
    log.append([made_event(3, ts=now - 3 * ingestion.DAY)])
    ingester.run()
    assert [3, 2] == bases(job)
    monkeypatch.setattr(ingestion, "PRUNE_SECONDS", 0)
    ingester.run()
    assert [2] == bases(job)
    ingester.close()


def test_what_waits_is_found(job, log, made_event):
    """Ids of answered predictions that are not yet in the store are found in the segments."""
    log.append([made_event(1, rows=2), made_event(2), made_event(3, answer=b"", status=503)])
    wanted = {f"{number:032x}" for number in (1, 3)}
    expected = {f"{1:032x}-0", f"{1:032x}-1"}
    assert expected == ingestion.waiting(job.folder, {}, wanted)
    position = {log.path.name: log.path.stat().st_size}
    assert set() == ingestion.waiting(job.folder, position, wanted)


def child(job, *words):
    """Start what the service starts.

    Most tests want it to drain, as who stands back gets nothing while all cores test.
    """
    process = subprocess.Popen([*CHILD, *words], stdin=subprocess.PIPE)
    process.stdin.write(ingestion.msgspec.json.encode(job) + b"\n")
    process.stdin.flush()
    return process


def test_killed_at_any_moment(job, made_event):
    """Ingestion that is killed again and again stores every event exactly once."""
    log = EventLog(job.folder, segment_bytes=20_000)
    written = 0
    for _ in range(4):
        process = child(job, DRAIN)
        end = time.monotonic() + np.random.default_rng().uniform(0.3, 1)
        while time.monotonic() < end:
            log.append([made_event(written + i, rows=2) for i in range(20)])
            written += 20
            time.sleep(0.005)
        process.kill()
        process.wait()
        process.stdin.close()
    log.close()
    ingestion.ingest(job)
    assert [number for number in range(written) for _ in range(2)] == bases(job)
    assert [] == events.segments(job.folder)


@pytest.mark.parametrize("end", ["SIGTERM", "pipe"])
def test_the_child_drains_the_log_before_it_ends(job, log, made_event, end):
    """Told to end, or alone in the world, it stores what is there, and ends in peace."""
    process = child(job, DRAIN)
    log.append([made_event(1)])
    assert 0 == until(lambda: ingestion.backlog(job.folder).bytes, 0)
    log.append([made_event(number) for number in range(2, 500)])
    log.close()
    if end == "SIGTERM":
        process.send_signal(signal.SIGTERM)
    else:
        process.stdin.close()
    assert 0 == process.wait(PATIENCE)
    process.stdin.close()
    assert list(range(1, 500)) == bases(job)
    assert [] == events.segments(job.folder)


def test_an_idle_child_ends(job, log, made_event):
    """When nothing comes for a while, the process is not there."""
    log.append([made_event(1)])
    code = (
        "import sys; from {{ cookiecutter.package }}.ingestion import Job, watch; "
        "watch(Job(*sys.argv[1:]), idle_seconds=0.1)"
    )
    subprocess.run([sys.executable, "-c", code, job.folder, job.store], check=True)
    assert [1] == bases(job)


def test_the_service_has_its_events_ingested(job, log, made_event, caplog, monkeypatch):
    """A child comes when there is something to do, again after its death, and drains in the end."""
    monkeypatch.setattr(ingestion, "POLL_SECONDS", 0.05)
    started, popen = [], subprocess.Popen

    def start(command, **options):
        started.append(popen([*command, DRAIN], **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(ingestion, "STOP_SECONDS", PATIENCE)
    settings = Events(folder=job.folder, store=job.store, retention_days=0)
    with ingestion.running(settings):
        time.sleep(0.3)
        assert [] == started
        log.append([made_event(1)])
        assert 0 == until(lambda: ingestion.backlog(job.folder).bytes, 0)
        # Linux shares time between sessions first, and Ctrl-C is for the service, not this group.
        assert os.getsid(0) == os.getsid(started[0].pid)
        assert started[0].pid == os.getpgid(started[0].pid) != os.getpgid(0)
        started[0].kill()
        log.append([made_event(2)])
        assert 0 == until(lambda: ingestion.backlog(job.folder).bytes, 0)
        log.append([made_event(number) for number in range(3, 50)])
        log.close()
    assert list(range(1, 50)) == bases(job)
    assert [-9, 0] == [process.poll() for process in started]
    assert ["ingestion ended with code -9, and is started again"] == caplog.messages
    assert [] == events.segments(job.folder)


@pytest.mark.parametrize("is_starved", [True, False])
def test_draining_takes_only_so_long(job, log, made_event, caplog, monkeypatch, is_starved):
    """Who does not get to drain is killed; one who does not stand back is tried, and no other."""
    monkeypatch.setattr(ingestion, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(ingestion, "STOP_SECONDS", 0.2)
    started, popen = [], subprocess.Popen

    def start(command, **options):
        if DRAIN in command and not is_starved:
            monkeypatch.setattr(ingestion, "STOP_SECONDS", PATIENCE)
        else:
            command = ["sleep", "600"]
        started.append(popen(command, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with ingestion.running(Events(folder=job.folder, store=job.store, retention_days=0)):
        log.append([made_event(1)])
        assert 1 == until(lambda: len(started), 1)
    waits = "ingestion ended with code -9: events wait for the next start"
    assert ([-9, -9] if is_starved else [-9, 0]) == [process.poll() for process in started]
    assert ([waits] if is_starved else []) == caplog.messages
    assert is_starved == bool(ingestion.backlog(job.folder).bytes)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="no such policy")
def test_who_stands_back(job, log, made_event):
    """The child beside a service gets what is left of the processor; who drains does not wait."""
    beside = child(job)
    assert os.SCHED_IDLE == until(lambda: os.sched_getscheduler(beside.pid), os.SCHED_IDLE)
    beside.kill()
    beside.communicate()
    log.append([made_event(1)])
    alone = child(job, DRAIN)
    assert 0 == until(lambda: ingestion.backlog(job.folder).bytes, 0)
    assert os.SCHED_OTHER == os.sched_getscheduler(alone.pid)
    alone.communicate()


def test_what_came_last_is_drained(job, log, made_event, monkeypatch):
    """Events that came just before the end are stored as well."""
    monkeypatch.setattr(ingestion, "STOP_SECONDS", PATIENCE / 2)
    with ingestion.running(Events(folder=job.folder, store=job.store, retention_days=0)):
        log.append([made_event(1)])
        log.close()
    assert [1] == bases(job)


def test_no_events_no_child(job, log, made_event):
    """With mode off nothing is ingested; where files have no locks, the way out is said."""
    log.append([made_event(1)])
    with ingestion.running(Events(mode="off", folder=job.folder, store=job.store)):
        pass
    assert 1 == ingestion.backlog(job.folder).segments


def test_a_system_without_locks(monkeypatch, tmp_path):
    """Where files cannot be locked, starting says so."""
    monkeypatch.setattr(events, "fcntl", None)
    service = ingestion.running(Events(folder=tmp_path))
    with pytest.raises(ServingError, match=r"set events.mode to off"), service:
        pass
