"""The built image: started without any right, it answers like the bundle it was made from."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from {{ cookiecutter.package }}.inference import Predictor

pytestmark = pytest.mark.image

BUNDLE = Path(__file__).parents[1] / "bundle"
IMAGE = os.environ.get("IMAGE", "{{ cookiecutter.project }}:local")
NO_RIGHTS = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
STORED = """
import json, sqlite3
from pathlib import Path
store = sqlite3.connect("events/store.db")
ids = store.execute("SELECT prediction_id FROM prediction_event ORDER BY ts")
print(json.dumps([len(list(Path("events").glob("*.log"))), [row[0] for row in ids]]))
"""


def docker(*arguments: str) -> str:
    """Run a docker command and return what it prints."""
    command = ["docker", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def ask(address: str, path: str, body: Any = None) -> Any:
    """Send a request and return the answer; raise OSError while there is none."""
    method, data = ("GET", None) if body is None else ("POST", json.dumps(body))
    with closing(HTTPConnection(address, timeout=10)) as connection:
        connection.request(method, path, data, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.load(response)
    if response.status != 200:
        raise OSError(f"{path} answers {response.status}: {answer}")
    return answer


@pytest.fixture(name="container", scope="module")
def start() -> Iterator[str]:
    """Start the image and remove the container at the end."""
    name = docker("run", "--detach", *NO_RIGHTS, "--publish=127.0.0.1::8000", IMAGE)
    yield name
    docker("rm", "--force", "--volumes", name)


@pytest.fixture(name="address", scope="module")
def find(container: str) -> str:
    """Return where the service is, when it is ready."""
    return wait(container)


@pytest.fixture(name="volume")
def make_volume() -> Iterator[str]:
    """Make a volume for events, and remove it at the end."""
    name = docker("volume", "create")
    yield name
    docker("volume", "rm", "--force", name)


def wait(container: str) -> str:
    """Wait until the service in a container is ready, and return its address."""
    until = time.monotonic() + 240
    while docker("ps", "--quiet", f"--filter=id={container}") and time.monotonic() < until:
        address = docker("port", container, "8000/tcp")
        with suppress(OSError):
            ask(address, "/health/ready")
            return address
        time.sleep(0.2)
    subprocess.run(["docker", "logs", container], check=True)
    raise TimeoutError("the service in the container did not become ready")


def test_prediction(address: str) -> None:
    """The rows of the bundle get the answers that its predictor gives here."""
    predictor = Predictor.load(BUNDLE)
    rows = [example["row"] for example in predictor.examples]
    expected = json.loads(json.dumps([asdict(answer) for answer in predictor.predict(rows)]))
    answer = ask(address, "/predict", {"rows": rows})
    assert predictor.card["version"] == answer["model"]["version"]
    for one, other in zip(expected, answer["predictions"], strict=True):
        # The image may hold another build of numpy, which rounds the last digit its own way.
        for name in ("prediction", "probabilities", "score"):
            assert pytest.approx(one[name]) == other[name]
        assert one["warnings"] == other["warnings"]


def test_user(container: str) -> None:
    """The service runs as a user who is nobody in particular."""
    assert "10001:10001" == docker("exec", container, "sh", "-c", 'echo "$(id -u):$(id -g)"')


def test_events_have_a_place(container: str) -> None:
    """The one folder that the service may write to is there for what it was asked."""
    command = "touch events/probe && rm events/probe && stat --format=%u:%g events"
    assert "10001:10001" == docker("exec", container, "sh", "-c", command)


def test_health(container: str, address: str) -> None:
    """Docker's own check of the image finds the service healthy."""
    assert ask(address, "/health/ready")
    for _ in range(480):
        state = json.loads(docker("inspect", container))[0]["State"]["Health"]["Status"]
        if state != "starting":
            break
        time.sleep(0.5)
    assert "healthy" == state


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_answered_outlives_the_container(volume: str, end: str) -> None:
    """After a graceful end the store has it; after a sudden one it has it once the service ran."""
    place = (*NO_RIGHTS, f"--volume={volume}:/app/events")
    name = docker("run", "--detach", *place, "--publish=127.0.0.1::8000", IMAGE)
    try:
        address = wait(name)
        row = json.loads((BUNDLE / "examples.json").read_text("utf-8"))[0]["row"]
        asked = [ask(address, "/predict", {"rows": [row]}) for _ in range(20)]
        ids = [answer["predictions"][0]["id"] for answer in asked]
        if end == "kill":
            docker("kill", name)
            docker("start", name)
            wait(name)
        docker("stop", "--time=40", name)
        assert 0 == json.loads(docker("inspect", name))[0]["State"]["ExitCode"]
    finally:
        docker("rm", "--force", name)
    said = docker("run", "--rm", *place, IMAGE, "python", "-c", STORED)
    assert [0, ids] == json.loads(said)


def test_without_a_place_for_events() -> None:
    """Where no event can be kept the service does not start, and says in a line what to do."""
    command = ["docker", "run", "--rm", *NO_RIGHTS, "--tmpfs=/app/events:ro", IMAGE]
    run = subprocess.run(command, check=False, capture_output=True, text=True)
    assert 8 == run.returncode
    line = run.stderr.splitlines()[-1]
    assert line.startswith("error: events.folder: events cannot be written (Read-only file system)")
