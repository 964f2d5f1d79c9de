"""Swaps of a running service: it follows the registry's champion, and no request is lost."""

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import Workspace, environment, wait_until_answered, wait_until_ready

from scripts.demo import ask, free_port

POOR = {"estimator": "k_nearest_neighbors", "params": {"n_neighbors": 200}}
SWAPS = 100
CONNECTIONS = 8


class Load(threading.Thread):
    """Requests over connections that stay open, one after the other on each, until stopped."""

    def __init__(self, address, rows):
        super().__init__()
        self.port = int(address.rpartition(":")[2])
        body = json.dumps({"rows": rows}).encode()
        head = "POST /predict HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
        self.request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
        self.stopped = threading.Event()
        self.answers = {}
        self.failures = []
        self.last = None

    def run(self):
        asyncio.run(self._all())

    async def _all(self):
        await asyncio.gather(*(self._connection() for _ in range(CONNECTIONS)))

    async def _connection(self):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            while not self.stopped.is_set():
                writer.write(self.request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self._keep(head.split()[1], json.loads(await reader.readexactly(length)))
            writer.close()
        except Exception as error:
            self.failures.append(repr(error))

    def _keep(self, status, content):
        if status != b"200":
            self.failures.append((status, content))
            return
        self.last = content["model"]["version"]
        said = [[one["prediction"], one["probabilities"]] for one in content["predictions"]]
        self.answers.setdefault((self.last, json.dumps(said)), said)

    def wait_for(self, version, seconds):
        """Return how long it took until a version answered."""
        start = time.monotonic()
        while self.last != version:
            waited = time.monotonic() - start
            assert waited < seconds, f"{version} does not answer after {seconds} s: {self.failures}"
            time.sleep(0.002)
        return time.monotonic() - start

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join()


@contextlib.contextmanager
def running(words, folder, address, **variables):
    """Run a server for a while; give back its log."""
    log = folder / f"{words[1].replace('/', '_')}{address.rpartition(':')[2]}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            words, cwd=folder, env=environment(**variables), stdout=out, stderr=out
        )
    try:
        yield log
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)


@contextlib.contextmanager
def service(workspace, **variables):
    """Serve a project on a free port, as its settings and some variables say."""
    port = str(free_port())
    address = f"http://127.0.0.1:{port}"
    words = [workspace.folder / ".venv/bin/python", "-m", "penguins", "serve"]
    variables = {**workspace.environment, "APP_SERVING__PORT": port, **variables}
    with running(words, workspace.folder, address, **variables) as log:
        wait_until_ready(address)
        yield address, log


def command(workspace, word, **variables):
    """Run a command of the project."""
    workspace.run(".venv/bin/python", "-m", "penguins", word, **variables)


def expected(bundle):
    """Return a bundle's version, its examples' rows, and what it says about them."""
    examples = json.loads((bundle / "examples.json").read_text())
    version = json.loads((bundle / "card.json").read_text())["version"]
    answers = [
        [each["prediction"]["prediction"], each["prediction"]["probabilities"]] for each in examples
    ]
    return version, [each["row"] for each in examples], answers


def assert_consistent(load, versions):
    """Every answer is, as a whole, what the version that it names says."""
    assert [] == load.failures
    assert set(versions) == {version for version, _ in load.answers}
    for (version, _), said in load.answers.items():
        for (label, shares), (given, probabilities) in zip(versions[version], said, strict=True):
            assert label == given
            assert pytest.approx(shares, abs=1e-6) == probabilities


@pytest.fixture(scope="module")
def two(default_project, tmp_path_factory):
    """A project with two versions, a poor one that is the champion of a server, and a better."""
    workspace = Workspace(default_project, tmp_path_factory.mktemp("swaps") / "penguins")
    store = workspace.folder.with_name("server")
    store.mkdir()
    address = f"http://127.0.0.1:{free_port()}"
    words = [
        *(default_project / ".venv/bin/mlflow", "server", "--host", "127.0.0.1"),
        *("--port", address.rpartition(":")[2], "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{store}/mlflow.db"),
        *("--artifacts-destination", str(store / "artifacts")),
    ]
    with running(words, store, address, MLFLOW_DISABLE_TELEMETRY="true"):
        wait_until_answered(f"{address}/health")
        workspace.edit("training", **POOR)
        command(workspace, "pipeline", MLFLOW_TRACKING_URI=address)
        command(workspace, "promote", MLFLOW_TRACKING_URI=address)
        shutil.copytree(workspace.folder / "bundle", workspace.folder / "poor")
        # The better one is trained already.
        workspace.edit("training", estimator="auto", params={})
        for name in ("bundle", "models", "reports"):
            shutil.copytree(default_project / name, workspace.folder / name, dirs_exist_ok=True)
        command(workspace, "register", MLFLOW_TRACKING_URI=address)
        poor, better = (expected(workspace.folder / name) for name in ("poor", "bundle"))
        yield workspace, address, poor, better


def test_the_service_follows_the_champion(two):
    """What is promoted answers within seconds; so does what is rolled back; nothing is lost."""
    workspace, server, poor, better = two
    told = {
        "MLFLOW_TRACKING_URI": server,
        "APP_SERVING__SOURCE": "models:/penguins@champion",
        "APP_SERVING__WATCH_SECONDS": "0.2",
    }
    with service(workspace, **told) as (address, _), Load(address, poor[1]) as load:
        load.wait_for(poor[0], 5)
        command(workspace, "promote", **told)
        assert load.wait_for(better[0], 5) < 5
        command(workspace, "rollback", **told)
        assert load.wait_for(poor[0], 5) < 5
        card = ask(f"{address}/model")["card"]
    assert poor[0] == card["version"]
    assert_consistent(load, {poor[0]: poor[2], better[0]: answers_to(workspace, poor[1])})
    kept = [path.name for path in (workspace.folder / ".cache/serving/models").iterdir()]
    assert 2 == len(kept)


def answers_to(workspace, rows):
    """Return what the bundle of a project says about some rows, without the service."""
    script = (
        "import json, sys; from penguins.inference import Predictor;"
        "print(json.dumps([[each.prediction, each.probabilities]"
        " for each in Predictor.load('bundle').predict(json.loads(sys.argv[1]))]))"
    )
    return json.loads(workspace.run(".venv/bin/python", "-c", script, json.dumps(rows)))


def replace(place, made):
    """Put a copy of a bundle into its place, as the pipeline does."""
    fresh, old = place.with_name("fresh"), place.with_name("old")
    shutil.copytree(made, fresh)
    if place.exists():
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def resident(log):
    """Return the memory of the process that writes a log, in MB."""
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and (process / "fd/1").readlink() == log:
                status = (process / "status").read_text()
                return int(status.partition("VmRSS:")[2].split()[0]) / 1024
    raise AssertionError(f"nobody writes {log}")


def test_a_hundred_swaps_under_load(two, tmp_path):
    """No request fails, every answer is of one version, a broken bundle in between is refused."""
    workspace, _, poor, better = two
    place = tmp_path / "live"
    made = [workspace.folder / "poor", workspace.folder / "bundle"]
    versions = [poor[0], better[0]]
    broken = shutil.copytree(made[1], tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"half")
    replace(place, made[0])
    told = {"APP_SERVING__SOURCE": str(place), "APP_SERVING__WATCH_SECONDS": "0.02"}
    with service(workspace, **told) as (address, log), Load(address, poor[1]) as load:
        for number in range(1, SWAPS + 1):
            replace(place, made[number % 2])
            load.wait_for(versions[number % 2], 10)
            if number == SWAPS // 10:
                before = resident(log)
        replace(place, broken)
        until = time.monotonic() + 10
        while "was altered" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.01)
        grown = resident(log) - before
    assert_consistent(load, {poor[0]: poor[2], better[0]: answers_to(workspace, poor[1])})
    (line,) = [line for line in log.read_text().splitlines() if "goes on" in line]
    wanted = f"version {versions[SWAPS % 2]} goes on: {place}/model.onnx was altered"
    assert json.loads(line)["message"].startswith(wanted)
    assert grown < 60
