"""A service that runs, and requests at it of which nothing is forgotten."""

import asyncio
import contextlib
import json
import os
import random
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

CONNECTIONS = 4
PAUSE_S = 0.003
MOST_ROWS = 3


class Load(threading.Thread):
    """Requests, each unlike all others, over connections that are made again when they break.

    What was answered with 200 is acknowledged; other answers and breaks are counted.
    """

    def __init__(self, project, port):
        super().__init__(daemon=True)
        self.port = port
        self.row = json.loads((project / "bundle/examples.json").read_text())[0]["row"]
        self.random = random.Random(port)
        self.stopped = threading.Event()
        self.answered = []
        self.refused = []
        self.breaks = 0

    def run(self):
        asyncio.run(self._all())

    async def _all(self):
        await asyncio.gather(*(self._connection() for _ in range(CONNECTIONS)))

    async def _connection(self):
        while not self.stopped.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                with contextlib.closing(writer):
                    while not self.stopped.is_set():
                        await self._ask(reader, writer)
                        await asyncio.sleep(PAUSE_S)
            except (OSError, asyncio.IncompleteReadError):
                self.breaks += 1
                await asyncio.sleep(PAUSE_S)

    async def _ask(self, reader, writer):
        rows = [
            {**self.row, "bill_length_mm": self.random.uniform(33, 59)}
            for _ in range(self.random.randint(1, MOST_ROWS))
        ]
        body = json.dumps({"rows": rows}).encode()
        head = "POST /predict HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split()[0])
        answer = await reader.readexactly(length)
        if head.split()[1] == b"200":
            self.answered.append((rows, answer))
        else:
            self.refused.append((head, answer))

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

    def wait_for(self, more=1, seconds=30):
        """Return when so many more were answered."""
        wanted = len(self.answered) + more
        wait(lambda: len(self.answered) >= wanted, seconds, "nothing is answered")

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


def wait(until, seconds, problem):
    """Return what a function returns as soon as that is true."""
    end = time.monotonic() + seconds
    while not (found := until()):
        assert time.monotonic() < end, f"{problem}, after {seconds} s"
        time.sleep(0.001)
    return found


def processes(word, variable):
    """Find the processes that have a word in their command line, and a text in their variables."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (process / "cmdline").read_bytes():
                if variable.encode() in (process / "environ").read_bytes():
                    found.append(int(process.name))
    return found


def kill(*numbers):
    """Send SIGKILL to processes that may have ended by themselves."""
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


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
