"""What was answered is stored once: after kill -9, a full disk, and hours without the store."""

import contextlib
import json
import os
import random
import subprocess
import time

import pytest
from conftest import wait_until_ready
from live import Load, Place, ask, counted, kill, wait

# Most of the second that a service takes to start goes into importing libraries. This process has
# them; for each line that it reads it becomes two, and the other one is the service: it imports the
# project, reads the settings and serves, as `python -m` would. It looks for what is to be ingested
# ten times as often, so that most of its life something is being ingested.
FORKING = """
import os, signal, subprocess, sys
import fastapi.openapi.utils, fastapi_offline, httptools, msgspec, numpy, onnxruntime
import prometheus_client, pydantic_settings, sqlalchemy, starlette.middleware.cors, typer
import uvicorn.supervisors, uvloop, yaml

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in sys.stdin:
    if not (child := os.fork()):
        break
    print(child, flush=True)
else:
    sys.exit()
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
os.dup2(2, 1)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
sys.argv = ["penguins", "serve"]
from penguins import ingestion
from penguins.cli import main
ingestion.POLL_SECONDS = 0.05
# Who drains does not stand back, as beside other tests it would not come to work.
popen = subprocess.Popen
subprocess.Popen = lambda command, **told: popen([*command, ingestion.DRAIN], **told)
main()
"""
SMALL_DISK = 4_000_000
WORKERS_KILLED = 10


@contextlib.contextmanager
def forking(place):
    """Start services that have nothing to import but the project; yield what starts one."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with place.popen("-c", FORKING, **pipes) as parent:

        def start():
            parent.stdin.write("\n")
            parent.stdin.flush()
            return int(parent.stdout.readline())

        yield start
        parent.stdin.close()


def children(number):
    """List the processes that a process started."""
    with open(f"/proc/{number}/task/{number}/children") as listed:
        return list(map(int, listed.read().split()))


def wait_for_a_commit(place):
    """Return when something is added to a SQLite store."""
    before = written(place)
    wait(lambda: written(place) != before, "nothing is ingested")


def written(place):
    """Return what changes with each commit."""
    with contextlib.suppress(FileNotFoundError):
        found = (place.events / "store.db-wal").stat()
        return found.st_mtime_ns, found.st_size
    return None


@pytest.mark.parametrize(("mode", "kills"), [("process", 100), ("disk", 20)])
def test_killed_at_random_moments(default_project, tmp_path, mode, kills):
    """Of a service that is killed again and again under load no answered prediction is lost.

    Each time the service, what ingests beside it, or both get SIGKILL: the service up to 0.3 s
    after it answers again, ingestion up to 0.02 s or 0.3 s after a commit.
    """
    place = Place(default_project, tmp_path, APP_EVENTS__MODE=mode)
    amid, killed, service = 0, 0, None
    with forking(place) as start, Load(default_project, place.port) as load:
        while killed < kills:
            service = service or start()
            load.wait_for()
            if at_ingestion := random.random() < 0.4:
                wait_for_a_commit(place)
            # A commit and what belongs to it are some thousandths of a second.
            longest = random.choice([0.02, 0.3]) if at_ingestion else 0.3
            time.sleep(random.uniform(0, longest))
            ingesting = place.ingestion()
            amid += bool(ingesting)
            with_service = not at_ingestion or random.random() < 0.7
            kill(*(ingesting if at_ingestion else []), *([service] if with_service else []))
            service = None if with_service else service
            killed += 1
        if service:
            kill(service)
    place.drain()
    acknowledged, stored = place.assert_kept(load)
    print(f"{mode}: {kills} kills, {amid} amid ingestion; {acknowledged} of {stored} acknowledged")
    assert acknowledged > 10 * kills
    assert amid > kills / 5


def test_workers_are_killed(default_project, tmp_path):
    """Of the command itself, with two workers, the elder is killed at a time, at last all at once.

    The younger takes over all connections while nobody else is there, so it is the one that is
    asked when it has become the elder.
    """
    place = Place(default_project, tmp_path, APP_SERVING__WORKERS="2")
    with place.popen("-m", "penguins", "serve") as server:
        wait_until_ready(place.address)
        with Load(default_project, place.port) as load:
            for _ in range(WORKERS_KILLED):
                workers = wait(lambda: both(server.pid), "no second worker")
                load.wait_for(20)
                time.sleep(random.uniform(0, 0.3))
                kill(workers[0])
                load.wait_for(20)
            # They would outlive the one that starts them.
            workers = wait(lambda: both(server.pid), "no second worker")
            kill(server.pid, *workers, *place.ingestion())
    assert load.breaks >= WORKERS_KILLED
    place.drain()
    place.assert_kept(load)


def both(number):
    """Return the two workers of a service, the elder first, when both are there."""
    found = [each for each in children(number) if b"spawn_main" in command_line(each)]
    return found if len(found) > 1 else []


def command_line(number):
    """Return what a process was called with."""
    with contextlib.suppress(OSError), open(f"/proc/{number}/cmdline", "rb") as line:
        return line.read()
    return b""


@pytest.fixture
def small_disk(tmp_path):
    """A folder that holds four megabytes, and what gives it more."""
    folder = tmp_path / "events"
    folder.mkdir()
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]

    def mount(*options):
        words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", folder]
        return subprocess.run([*as_root, *words], capture_output=True).returncode

    if mount(f"size={SMALL_DISK}", "mode=777"):
        pytest.skip("no small file system for the test of a full disk: mount needs root here")
    yield lambda: mount("remount", f"size={100 * SMALL_DISK}")
    subprocess.run([*as_root, "umount", "--lazy", folder], check=True)


def test_full_disk(default_project, tmp_path, small_disk):
    """Without room for events answers are withheld with 503, and given again once there is some."""
    place = Place(default_project, tmp_path)
    with place.serving() as server, Load(default_project, place.port) as load:
        load.wait_for(100)
        wait(lambda: len(load.refused) > 100, "the disk does not become full")
        assert server.poll() is None
        assert counted(place.address, "events_refused_total") > 0
        assert 0 == small_disk()
        load.wait_for(500)
        load.stopped.set()
        load.join()
        refused = len(load.refused)
        wait(lambda: not waiting(place), "what waited is not ingested")
    for head, answer in load.refused:
        assert b"503" == head.split()[1]
        assert b"\r\nretry-after: 5\r\n" in head
        assert "unrecorded" == json.loads(answer)["error"]["code"]
    assert 0 == load.breaks
    place.drain()
    print(f"{refused} refused")
    place.assert_kept(load)


def waiting(place):
    """Return how many bytes wait, as the service says that it is ready in spite of them."""
    status, said = ask(f"{place.address}/health/ready")
    assert 200 == status
    return json.loads(said)["events"]["backlog_bytes"]


def trouble(place):
    """Return why the store takes nothing, as the service tells."""
    return json.loads(ask(f"{place.address}/health/ready")[1])["events"]["store_error"]


@contextlib.contextmanager
def no_folder(folder):
    """Have a file where the store's folder should be."""
    folder.write_text("")
    yield
    folder.unlink()


@contextlib.contextmanager
def no_server(server):
    """Stop PostgreSQL for a while."""
    server.stop()
    yield
    server.start()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_store_that_is_down(default_project, tmp_path, kind, request):
    """While the store is away every request is answered; then what waited is stored."""
    if kind == "sqlite":
        folder = tmp_path / "away"
        place = Place(default_project, tmp_path, f"sqlite:///{folder}/store.db")
        down = no_folder(folder)
    else:
        server = request.getfixturevalue("postgres_server")
        place = Place(default_project, tmp_path, server.address)
        down = no_server(server)
    with contextlib.ExitStack() as exits, down:
        exits.enter_context(place.serving())
        load = exits.enter_context(Load(default_project, place.port))
        said = wait(lambda: trouble(place), "nobody tells that the store is away")
        before = waiting(place)
        load.wait_for(500)
        assert waiting(place) > before
        assert 0 == counted(place.address, "events_store_up")
        leave = exits.pop_all()
    with leave:
        load.wait_for(100)
        wait(lambda: trouble(place) is None, "nobody tells that the store is back")
        load.stopped.set()
        load.join()
        wait(lambda: not waiting(place), "what waited is not stored")
        assert 1 == counted(place.address, "events_store_up")
    assert (0, []) == (load.breaks, load.refused)
    assert ("Connection refused" if kind == "postgresql" else str(tmp_path)) in said
    place.assert_kept(load)
