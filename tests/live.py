"""A service that runs, and requests at it of which nothing is forgotten."""

import asyncio
import contextlib
import json
import os
import random
import select
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from conftest import PATIENCE_S, environment, wait_until_ready

from scripts.demo import free_port

CONNECTIONS = 4
PAUSE_S = 0.003
MOST_ROWS = 3
STORED = """
import json, sys
import sqlalchemy
from penguins.store import opened, prediction_event

event = prediction_event.c
columns = (event.prediction_id, event.features, event.output, event.status, event.role)
with opened(sys.argv[1]) as store, store.reading() as connection:
    json.dump([list(row) for row in connection.execute(sqlalchemy.select(*columns))], sys.stdout)
"""


class Clients(threading.Thread):
    """Connections that post to /predict, one request after the other on each, until stopped.

    A connection that breaks is counted, and made again. What a client's own class does with the
    answers is its `ask`; where that fails, so does the block that the clients are the context of.
    """

    def __init__(self, port, connections):
        super().__init__(daemon=True)
        self.port = port
        self.connections = connections
        self.stopped = threading.Event()
        self.ended = False
        self.breaks = 0

    def run(self):
        """Be the clients."""
        asyncio.run(self._all())
        self.ended = True

    async def _all(self):
        await asyncio.gather(*(self._connection() for _ in range(self.connections)))

    async def _connection(self):
        while not self.stopped.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with contextlib.closing(writer):
                    while not self.stopped.is_set():
                        await self.ask(reader, writer)
            except (OSError, asyncio.IncompleteReadError):
                self.breaks += 1
                await asyncio.sleep(PAUSE_S)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()
        assert self.ended, "a client failed"


class Load(Clients):
    """Requests, each unlike all others.

    What was answered with 200 is acknowledged; other answers are kept apart.
    """

    def __init__(self, project, port):
        super().__init__(port, CONNECTIONS)
        self.row = json.loads((project / "bundle/examples.json").read_text())[0]["row"]
        self.random = random.Random(port)
        self.answered = []
        self.refused = []

    async def ask(self, reader, writer):
        """Ask for a few rows."""
        rows = [
            {**self.row, "bill_length_mm": self.random.uniform(33, 59)}
            for _ in range(self.random.randint(1, MOST_ROWS))
        ]
        head, answer = await exchange(reader, writer, rows)
        if head.split()[1] == b"200":
            self.answered.append((rows, answer))
        else:
            self.refused.append((head, answer))
        await asyncio.sleep(PAUSE_S)

    def acknowledged(self):
        """Return, of each prediction that was answered, its id, its row and the answer."""
        found = {}
        for rows, answer in self.answered:
            predictions = json.loads(answer)["predictions"]
            assert len(rows) == len(predictions)
            for row, prediction in zip(rows, predictions, strict=True):
                assert prediction["id"] not in found
                found[prediction["id"]] = (row, prediction)
        return found

    def wait_for(self, more=1):
        """Return when so many more were answered."""
        wanted = len(self.answered) + more
        wait(lambda: len(self.answered) >= wanted, "nothing is answered")


class Place:
    """Where a service keeps its events, and how it is started."""

    def __init__(self, project, folder, store=None, **variables):
        self.project, self.folder = project, folder
        self.events = folder / "events"
        self.store = store or f"sqlite:///{self.events}/store.db"
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / "log"
        self.variables = {
            "PYTHONPATH": str(project / "src"),
            "APP_SERVING__PORT": str(self.port),
            "APP_SERVING__STATE": str(folder / "state"),
            "APP_EVENTS__FOLDER": str(self.events),
            "APP_EVENTS__STORE": self.store,
            **variables,
        }

    def popen(self, *words, **options):
        """Start the project's Python, which writes into one log with all that it starts."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [self.project / ".venv/bin/python", *words],
                cwd=self.project,
                env=environment(**self.variables),
                stderr=log,
                **{"stdout": log, **options},
            )

    @contextlib.contextmanager
    def serving(self):
        """Serve for a while."""
        server = self.popen("-m", "penguins", "serve")
        try:
            wait_until_ready(self.address)
            yield server
            server.send_signal(signal.SIGTERM)
            assert 0 == server.wait(60), self.log.read_text()[-4000:]
        finally:
            server.kill()
            server.wait()

    def ingestion(self):
        """Find the processes that ingest: what a service leaves behind lives on for a while."""
        return processes(".ingestion", self.variables["APP_EVENTS__FOLDER"])

    def segments(self):
        """List what waits."""
        return sorted(self.events.glob("*.log"))

    def drain(self):
        """Wait until nobody ingests any more, then ingest the rest."""
        wait(lambda: not self.ingestion(), "ingestion does not end")
        assert 0 == self.popen("-m", "penguins", "events", "ingest").wait(), self.log.read_text()
        assert [] == self.segments()

    def stored(self):
        """Return the rows of the store by prediction."""
        command = [self.project / ".venv/bin/python", "-c", STORED, self.store]
        said = subprocess.check_output(command, env=environment(**self.variables))
        rows = json.loads(said)
        assert 1 == max(Counter(row[0] for row in rows).values())
        return {row[0]: row[1:] for row in rows}

    def assert_kept(self, load):
        """Every acknowledged prediction is in the store once, as it was asked and answered."""
        acknowledged, stored = load.acknowledged(), self.stored()
        lost = acknowledged.keys() - stored.keys()
        assert set() == lost, f"{len(lost)} of {len(acknowledged)}: {self.log.read_text()[-4000:]}"
        for name, (row, prediction) in acknowledged.items():
            assert [row, prediction, 200, "champion"] == stored[name]
        return len(acknowledged), len(stored)


async def exchange(reader, writer, rows):
    """Post rows to /predict; return head and body of the answer."""
    body = json.dumps({"rows": rows}).encode()
    head = "POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split()[0])
    return head, await reader.readexactly(length)


def wait(until, problem):
    """Return what a function returns as soon as that is true."""
    end = time.monotonic() + PATIENCE_S
    while not (found := until()):
        assert time.monotonic() < end, f"{problem}, after {PATIENCE_S} s"
        time.sleep(0.001)
    return found


def processes(word, variable):
    """Find the processes that have a word in their command line, and a text in their variables."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            called, told = (process / name for name in ("cmdline", "environ"))
            if word.encode() in called.read_bytes() and variable.encode() in told.read_bytes():
                found.append(int(process.name))
    return found


def kill(*numbers):
    """Send SIGKILL to processes that may have ended by themselves; return when they are dead.

    On a busy machine they live on for a while, and would be taken for those that are to work.
    """
    handles = []
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(number))
            signal.pidfd_send_signal(handles[-1], signal.SIGKILL)
    for handle in handles:
        ended, _, _ = select.select([handle], [], [], PATIENCE_S)
        os.close(handle)
        assert ended, f"a process that was killed lives, after {PATIENCE_S} s"


def ask(address):
    """Get the status and the text of an answer; a refusal is one, too."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def counted(address, name):
    """Return a number of the service's metrics."""
    for line in ask(f"{address}/metrics")[1].splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(f"{name} is not counted")
