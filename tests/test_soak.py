"""Half a minute of load on a service that is swapped and looked at: its memory stays flat."""

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

from live import Load, Place, ask, counted, wait

SECONDS, WARM_SECONDS = 30, 10
SWAP_EVERY = 4
GROWTH, SLACK_MB = 0.05, 3


def named(bundle, target, version):
    """Make a copy of a bundle that says that it is another version."""
    shutil.copytree(bundle, target)
    card = json.loads((target / "card.json").read_text())
    (target / "card.json").write_text(json.dumps({**card, "version": version}))
    return target


def offer(made, source):
    """Put a copy of a bundle where the service looks."""
    fresh, old = source.with_name("fresh"), source.with_name("old")
    shutil.copytree(made, fresh)
    source.rename(old)
    fresh.rename(source)
    shutil.rmtree(old)


def swapped(place, count):
    """Wait until so many bundles were loaded."""
    name = 'model_swaps_total{result="loaded"}'
    wait(lambda: count == counted(place.address, name), f"no swap {count}")


def memory(number):
    """Return the resident memory of a process in MB."""
    status = Path(f"/proc/{number}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Wrk:
    """Requests by wrk, as many as the service answers."""

    def __init__(self, project, port, folder):
        row = json.loads((project / "bundle/examples.json").read_text())[0]["row"]
        script = folder / "post.lua"
        script.write_text(
            'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
            f"wrk.body = [[{json.dumps({'rows': [row]})}]]\n"
        )
        words = ["wrk", "-t1", "-c8", f"-d{SECONDS}s", f"-s{script}", "--timeout=60s"]
        address = f"http://127.0.0.1:{port}/predict"
        self.process = subprocess.Popen([*words, address], stdout=subprocess.PIPE, text=True)

    def end(self):
        """Return how many were answered, and what went wrong."""
        said, _ = self.process.communicate(timeout=SECONDS + 60)
        answered = int(re.search(r"(\d+) requests in", said)[1])
        return answered, re.findall(r"Non-2xx.*|Socket errors.*", said)


class Plain:
    """Requests by the tests' own client."""

    def __init__(self, project, port, _):
        self.load = Load(project, port)
        self.load.start()

    def end(self):
        """Return how many were answered, and what went wrong."""
        self.load.stopped.set()
        self.load.join()
        breaks = [f"{self.load.breaks} breaks"] * bool(self.load.breaks)
        return len(self.load.answered), [*self.load.refused, *breaks]


def test_memory_is_flat_under_load(default_project, tmp_path):
    """Nothing fails, and the service ends with the memory that it had when it was warm."""
    bundle = default_project / "bundle"
    made = [named(bundle, tmp_path / name, name) for name in ("one", "two")]
    source = Path(shutil.copytree(made[0], tmp_path / "live"))
    told = {"APP_SERVING__SOURCE": str(source), "APP_SERVING__WATCH_SECONDS": "0.2"}
    place = Place(default_project, tmp_path, **told)
    with place.serving() as server:
        client = (Wrk if shutil.which("wrk") else Plain)(default_project, place.port, tmp_path)
        start, warm, measured = time.monotonic(), None, []
        for second in range(1, SECONDS):
            time.sleep(max(0, start + second - time.monotonic()))
            if second % SWAP_EVERY == 0:
                swapped(place, second // SWAP_EVERY)
                offer(made[second // SWAP_EVERY % 2], source)
            assert 200 == ask(f"{place.address}/metrics")[0]
            if second >= WARM_SECONDS:
                measured.append(memory(server.pid))
        answered, failures = client.end()
        swapped(place, 1 + (SECONDS - 1) // SWAP_EVERY)
        assert answered <= counted(place.address, "events_written_total")
    assert [] == failures
    assert answered > 50 * SECONDS
    warm, end = measured[0], measured[-1]
    print(f"{answered} answers; MB: {' '.join(f'{each:.0f}' for each in measured)}")
    assert end < (1 + GROWTH) * warm + SLACK_MB
