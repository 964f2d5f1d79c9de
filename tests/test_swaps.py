"""Swaps of a running service: it follows the registry's champion, and no request is lost."""

import contextlib
import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from conftest import Workspace, environment, wait_until_answered
from live import Clients, Place, exchange, wait

from scripts.demo import ask, free_port

POOR = {"estimator": "k_nearest_neighbors", "params": {"n_neighbors": 200}}
SWAPS = 100
CONNECTIONS = 8


class Same(Clients):
    """The same request again and again; of the answers, those that differ."""

    def __init__(self, port, rows):
        super().__init__(port, CONNECTIONS)
        self.rows = rows
        self.answers = {}
        self.failures = []
        self.last = None

    async def ask(self, reader, writer):
        """Ask, and keep what the version says that it names."""
        head, answer = await exchange(reader, writer, self.rows)
        if head.split()[1] != b"200":
            self.failures.append((head, answer))
            return
        content = json.loads(answer)
        self.last = content["model"]["version"]
        said = [[one["prediction"], one["probabilities"]] for one in content["predictions"]]
        self.answers.setdefault((self.last, json.dumps(said)), said)

    def wait_for(self, version):
        """Return when a version answers."""
        problem = f"{version} does not answer: {self.failures}"
        wait(lambda: self.last == version, problem)


@contextlib.contextmanager
def running(words, folder, **variables):
    """Run a server for a while."""
    with (folder / "log").open("wb") as out:
        server = subprocess.Popen(
            words, cwd=folder, env=environment(**variables), stdout=out, stderr=out
        )
    try:
        yield
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


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
    assert ([], 0) == (load.failures, load.breaks)
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
    with running(words, store, MLFLOW_DISABLE_TELEMETRY="true"):
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


def test_the_service_follows_the_champion(two, tmp_path):
    """What is promoted answers; so does what is rolled back; nothing is lost."""
    workspace, server, poor, better = two
    told = {
        "MLFLOW_TRACKING_URI": server,
        "APP_SERVING__SOURCE": "models:/penguins@champion",
        "APP_SERVING__WATCH_SECONDS": "0.2",
    }
    live = Place(workspace.folder, tmp_path, **told)
    with live.serving(), Same(live.port, poor[1]) as load:
        load.wait_for(poor[0])
        command(workspace, "promote", **told)
        load.wait_for(better[0])
        command(workspace, "rollback", **told)
        load.wait_for(poor[0])
        card = ask(f"{live.address}/model")["card"]
    assert poor[0] == card["version"]
    assert_consistent(load, {poor[0]: poor[2], better[0]: answers_to(workspace, poor[1])})
    assert 2 == len([*(tmp_path / "state/models").iterdir()])


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


def resident(server):
    """Return the memory of a process, in MB."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


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
    live = Place(workspace.folder, tmp_path, **told)
    with live.serving() as server, Same(live.port, poor[1]) as load:
        for number in range(1, SWAPS + 1):
            replace(place, made[number % 2])
            load.wait_for(versions[number % 2])
            if number == SWAPS // 10:
                before = resident(server)
        replace(place, broken)
        wait(lambda: "was altered" in live.log.read_text(), "nothing is refused")
        grown = resident(server) - before
    assert_consistent(load, {poor[0]: poor[2], better[0]: answers_to(workspace, poor[1])})
    (line,) = [
        line
        for line in live.log.read_text().splitlines()
        if "goes on: " in line and "altered" in line
    ]
    wanted = f"version {versions[SWAPS % 2]} goes on: {place}/model.onnx was altered"
    assert json.loads(line)["message"].startswith(wanted)
    assert grown < 60
