"""Servers under load: started on a core of their own, frozen while others have their turn.

What is counted is the CPU time that the whole tree of processes takes for one request: it stays the
same on a machine that others slow down, which requests/s do not.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import run, tree
from scripts.demo import environment, free_port

SERVER_CORE, CLIENT_CORE = "0", "1"
CONNECTIONS = 32
TICK = 1e6 / os.sysconf("SC_CLK_TCK")
INGESTION = ".ingestion"
STARTED = 120
CAUGHT_UP = 30
WRK = """
local bodies, made, turn = {}, {}, 0
for line in io.lines("%s") do bodies[#bodies + 1] = line end
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
init = function()
  for i, body in ipairs(bodies) do made[i] = wrk.format(nil, nil, nil, body) end
end
request = function()
  turn = turn %% #made + 1
  return made[turn]
end
done = function(summary, latency)
  local errors = summary.errors
  local lost = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("\\nMEASURED %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    errors.status, lost, latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of wrk found: of the server CPU in µs a request, of ingestion µs an event."""

    requests: int
    rate: float
    p99_ms: float
    cpu: float
    ingestion: float = 0.0

    @property
    def total(self):
        """All of it, in µs a request."""
        return self.cpu + self.ingestion


def cpu(pids):
    """Return the CPU time of processes and of their children that ended, in µs."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total * TICK


def proportional_memory(pid):
    """Return the memory of a tree in bytes, where pages that processes share count once (PSS)."""
    total = 0
    for each in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            said = Path(f"/proc/{each}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", said, re.MULTILINE)[1]) * 1024
    return total


def is_ingestion(pid):
    """Say whether a process is the one that brings events into the store."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return INGESTION.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Server:
    """A running service.

    Parameters
    ----------
    command : callable
        From a port to the words that start it.
    path : str
        Where it predicts.
    folder : Path
        Where it runs, and where its log goes.
    cores : str
        The cores it may use, as taskset names them.
    extra : dict
        Of its environment; `{port}` in a value becomes the port.
    """

    def __init__(self, command, path, folder, cores=SERVER_CORE, **extra):
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.path, self.log = free_port(), path, folder / "log.txt"
        self.started = time.perf_counter()
        extra = {name: value.format(port=self.port) for name, value in extra.items()}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                ["taskset", "--cpu-list", cores, *map(str, command(self.port))],
                cwd=folder,
                env=environment(DO_NOT_TRACK="1", **extra),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(self, body):
        """Post one body; return status and content."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with_type = {"content-type": "application/json"}
        try:
            connection.request("POST", self.path, body, with_type)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def first(self, body, until=STARTED):
        """Ask until it answers; return the seconds from its start to the first prediction."""
        said = "nothing"
        while self.process.poll() is None and time.perf_counter() - self.started < until:
            try:
                status, said = self.ask(body)
                if status == 200:
                    return time.perf_counter() - self.started
            except (OSError, http.client.HTTPException) as error:
                said = error
            time.sleep(0.005)
        self.stop()
        sys.exit(f"{self.log.parent.name} did not answer: {said}\n{self.log.read_text()[-3000:]}")

    def freeze(self):
        """Take its CPU away, so that what it does when idle does not disturb others."""
        self._signal(signal.SIGSTOP, tree(self.process.pid))

    def thaw(self):
        """Let it go on, children first: who watches over them does not find them asleep."""
        self._signal(signal.SIGCONT, reversed(tree(self.process.pid)))

    def stop(self):
        """End it with all its children."""
        self.thaw()
        pids = tree(self.process.pid)
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def settle(self, ingestion=False, quiet=0.2, limit=5.0):
        """Wait until it has nothing to do, or a limit in s has passed; say whether it had not."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            before = self.cpu(ingestion)
            time.sleep(quiet)
            if self.cpu(ingestion) - before <= 0.05 * quiet * 1e6:
                return True
        return False

    def cpu(self, ingestion=False):
        """Return the CPU time of its processes in µs: of the service, or of ingestion."""
        return cpu(pid for pid in tree(self.process.pid) if is_ingestion(pid) == ingestion)

    def ingests(self):
        """Say whether it has a process for ingestion."""
        return any(map(is_ingestion, tree(self.process.pid)))

    def load(self, bodies, seconds, warm=1):
        """Let wrk send bodies, after a moment of warming up; return what was measured."""
        before = self.cpu(ingestion=True)
        warmed = self.wrk(bodies, warm)
        self.settle()
        start = self.cpu()
        found = self.wrk(bodies, seconds)
        # What is under way when wrk stops is worked off, and counted with the rest.
        self.settle()
        spent = self.cpu() - start
        ingestion = 0.0
        if self.ingests():
            # It wakes now and then; what it left for later is its cost all the same.
            if not self.settle(ingestion=True, quiet=2.5, limit=CAUGHT_UP):
                print(f"{self.log.parent.name}: ingestion lags behind", file=sys.stderr)
            ingestion = self.cpu(ingestion=True) - before
            ingestion /= warmed[0] + found[0] + 2 * CONNECTIONS
        requests, rate, p99 = found
        if not requests:
            sys.exit(f"{self.log.parent.name}: no answer in {seconds} s")
        return Load(requests, rate, p99, spent / (requests + CONNECTIONS), ingestion)

    def open_loop(self, bodies, rate, seconds):
        """Send at a fixed rate; return what `open_loop` prints."""
        script = Path(__file__).with_name("open_loop.py")
        words = [script, self.port, self.path, bodies, rate, seconds, CONNECTIONS]
        pinned = ["taskset", "--cpu-list", CLIENT_CORE, sys.executable]
        return json.loads(run(*pinned, *map(str, words)))

    def wrk(self, bodies, seconds):
        """Let wrk send bodies; return how many, how many a second, and the p99 in ms."""
        script = bodies.with_suffix(".lua")
        script.write_text(WRK % bodies)
        said = run(
            *["taskset", "--cpu-list", CLIENT_CORE, "wrk", "--threads", "1"],
            *["--connections", str(CONNECTIONS), "--duration", f"{seconds}s"],
            *["--timeout", "30s", "--script", script],
            f"http://127.0.0.1:{self.port}{self.path}",
        )
        requests, took, refused, lost, p99 = map(
            int, re.search(r"^MEASURED (.*)$", said, re.MULTILINE)[1].split()
        )
        if refused or lost:
            name = self.log.parent.name
            log = self.log.read_text()[-3000:]
            sys.exit(f"{name}: of {requests} answers {refused} were no 2xx, {lost} lost\n{log}")
        return requests, requests / took * 1e6, p99 / 1e3

    @staticmethod
    def _signal(number, pids):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
