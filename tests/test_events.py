"""Events reach the store exactly once, in SQLite and in a real PostgreSQL, whatever is killed."""

import subprocess

import pytest
from conftest import copy_project

from scripts.demo import environment

KILLS = 100
KILLED = """
import random, subprocess, sys, threading, time
from collections import Counter
from pathlib import Path

import msgspec, sqlalchemy
from penguins import ingestion
from penguins.events import Event, EventLog, Ids, segments
from penguins.store import opened, prediction_event

job, kills = ingestion.Job("log", sys.argv[1]), int(sys.argv[2])
written, done = [], threading.Event()

def write():
    log, ids = EventLog(job.folder, segment_bytes=20_000), Ids()
    while not done.wait(0.02):
        batch = []
        for _ in range(10):
            base, rows = ids.next(), [{"n": 1.5}, {"n": 2}]
            answers = [{"prediction": 1.5, "id": f"{base}-{i}"} for i in range(2)]
            texts = map(msgspec.json.encode, ({"rows": rows}, {"predictions": answers}))
            model = ("m", "v", "s", "champion")
            batch.append(Event(time.time(), base, base, *model, 200, 1.0, *texts))
        log.append(batch)
        written.extend(event.base for event in batch)
    log.close()

writer = threading.Thread(target=write)
writer.start()
amid = 0
# Who drains does not stand back: beside other tests it would not come to work within 20 s.
command = [sys.executable, "-m", "penguins.ingestion", ingestion.DRAIN]
for _ in range(kills):
    before, until = ingestion.backlog(job.folder).state, time.monotonic() + 20
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        child.stdin.write(msgspec.json.encode(job) + b"\\n")
        child.stdin.flush()
        # One in ten dies at any moment of its life, the others when they have begun to work.
        if random.random() < 0.1:
            until = time.monotonic() + random.uniform(0, 1)
        while ingestion.backlog(job.folder).state == before and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.2))
        child.kill()
    amid += ingestion.backlog(job.folder).state != before
done.set()
writer.join()
ingestion.ingest(job)
with opened(job.store) as store, store.reading() as connection:
    stored = Counter(connection.scalars(sqlalchemy.select(prediction_event.c.prediction_id)))
assert stored == Counter(f"{base}-{i}" for base in written for i in range(2))
assert [] == segments(job.folder), segments(job.folder)
assert [] == list(Path(job.folder).glob("*.torn"))
print(len(written), amid)
"""
SUITES = ("store", "ingestion", "export", "serving_feedback", "checks", "windows", "monitor")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request, tmp_path):
    """The address of a store that has no tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return request.getfixturevalue("empty_postgres")


@pytest.fixture
def empty_postgres(default_project, postgres):
    """The address of the server, whose database is empty."""
    run(default_project, "-c", EMPTY, postgres)
    return postgres


EMPTY = """
import sys
from penguins.store import Store
with Store(sys.argv[1]).writing() as connection:
    connection.exec_driver_sql("DROP SCHEMA public CASCADE")
    connection.exec_driver_sql("CREATE SCHEMA public")
"""


def run(project, *words, folder=None, **variables):
    """Run the default project's Python, and return what it prints."""
    words = [project / ".venv/bin/python", *map(str, words)]
    variables = environment(PYTHONPATH=str(project / "src"), **variables)
    ended = subprocess.run(
        words, cwd=folder or project, env=variables, capture_output=True, text=True
    )
    assert 0 == ended.returncode, ended.stdout[-4000:] + ended.stderr[-4000:]
    return ended.stdout


def test_ingestion_that_is_killed_stores_everything_once(default_project, tmp_path, store):
    """After a hundred times kill -9 under load every prediction is in the store, exactly once."""
    said = run(default_project, "-c", KILLED, store, KILLS, folder=tmp_path)
    events, killed_at_work = map(int, said.split())
    assert events > KILLS
    assert killed_at_work > KILLS / 2


def test_the_projects_own_tests_hold_on_postgresql(default_project, postgres, tmp_path):
    """What the project's tests say of store, ingestion, feedback and monitor is so there, too."""
    copy = copy_project(default_project, tmp_path / "penguins")
    tests = [f"tests/test_{name}.py" for name in SUITES]
    address = postgres.replace("postgres:", "postgresql+psycopg:", 1)
    said = run(default_project, "-m", "pytest", "-q", *tests, folder=copy, TEST_STORE=address)
    assert " passed" in said
    assert "skipped" not in said
