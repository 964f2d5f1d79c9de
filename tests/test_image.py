"""The image of a new project, built and run by the Docker engine."""

import contextlib
import json
import os
import re
import shlex
import subprocess
import urllib.request
from pathlib import Path

import engine
import pytest
from conftest import make, wait_until_ready
from live import STORED, Load, wait

from scripts.demo import ask

pytestmark = [
    pytest.mark.skipif(not engine.client(), reason="no Docker engine with BuildKit"),
]

IMAGE = "kit-test-image:local"
MONITOR = "kit-test-monitor:local"
NO_RIGHTS = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
PREDICT = """
import json, sys
from dataclasses import asdict
from penguins.inference import Predictor

predictor = Predictor.load("bundle")
answers = predictor.predict([example["row"] for example in predictor.examples])
json.dump([asdict(answer) for answer in answers], sys.stdout)
"""


@pytest.fixture(scope="module")
def image(default_project, tmp_path_factory):
    """The default project's image, built by its own `make image`."""
    variables = engine.environment(tmp_path_factory.mktemp("engine"))
    make(default_project, "image", IMAGE=IMAGE, **variables)
    yield IMAGE
    (default_project / ".cache/image").unlink()
    engine.docker("rmi", "--force", IMAGE)


@pytest.fixture(scope="module")
def monitor_image(default_project, tmp_path_factory):
    """The image of the monitor, with this machine's base and registry."""
    flags = engine.environment(tmp_path_factory.mktemp("monitor"))["DOCKER_BUILD_FLAGS"]
    words = [*shlex.split(flags), "--target=monitor", f"--tag={MONITOR}", "."]
    switched = {**os.environ, "DOCKER_BUILDKIT": "1"}
    engine.docker("build", *words, cwd=default_project, env=switched)
    yield MONITOR
    engine.docker("rmi", "--force", MONITOR)


@pytest.fixture(scope="module")
def container(image):
    """A container without rights, and the address of its service."""
    with started(image) as (name, port):
        yield name, f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def started(image, *options):
    """A container without rights, and the port of its service, which is ready."""
    name = engine.docker(
        "run", "--detach", *NO_RIGHTS, "--publish=127.0.0.1::8000", *options, image
    )
    try:
        yield name, ready(name)
    finally:
        engine.docker("rm", "--force", "--volumes", name)


def ready(name):
    """Return the port of a container's service when it is ready."""
    address = engine.docker("port", name, "8000/tcp")
    wait_until_ready(f"http://{address}")
    return int(address.rpartition(":")[2])


def shell(image, command):
    """Run a command in a fresh container of the image."""
    return engine.docker("run", "--rm", *NO_RIGHTS, image, "sh", "-c", command)


def test_prediction(container, default_project):
    """POST /predict in the container equals the bundle's examples and the predictor here."""
    python = default_project / ".venv/bin/python"
    said = subprocess.check_output([python, "-c", PREDICT], cwd=default_project, text=True)
    examples = json.loads((default_project / "bundle/examples.json").read_text("utf-8"))
    rows = [example["row"] for example in examples]
    predictions = ask(f"{container[1]}/predict", {"rows": rows})["predictions"]
    assert len(predictions) > 1
    assert [example["prediction"] for example in examples] == json.loads(said)
    for expected, prediction in zip(json.loads(said), predictions, strict=True):
        # Another Python in the image means another numpy, which may round the last digit its way.
        for name in ("prediction", "probabilities", "score"):
            assert pytest.approx(expected[name]) == prediction[name]
        assert expected["warnings"] == prediction["warnings"]


def test_health(container):
    """Docker finds the container healthy by the image's own check."""

    def health():
        return engine.docker("inspect", "--format={{.State.Health.Status}}", container[0])

    wait(lambda: health() != "starting", "it is still starting")
    assert "healthy" == health()


def test_user(image):
    """The service runs as a numbered user who can write events in it, and nothing else."""
    assert "10001 10001" == shell(image, 'echo "$(id -u) $(id -g)"')
    find = ["find", "/app", "/opt", "-writable", "-not", "-type", "l"]
    assert "/app/events" == engine.docker("run", "--rm", image, *find)


def test_content(image):
    """The image holds the service and its bundle, and nothing that builds, tests or trains."""
    assert ["bundle", "events", "params.yaml", "src"] == shell(image, "ls /app").split()
    tools = "pip pip3 poetry uv gcc cc make git pytest mypy black ruff"
    assert "" == shell(image, f"for t in {tools}; do command -v $t; done; true")
    modules = ("pip", "poetry", "setuptools", "pytest", "pandas", "matplotlib", "pyarrow")
    find = f"from importlib.util import find_spec as f; print([m for m in {modules} if f(m)])"
    assert "[]" == engine.docker("run", "--rm", image, "python", "-c", find)


def test_compiled(image):
    """Everything that serving imports was compiled when the image was built."""
    script = (
        "import sys, penguins.inference, penguins.serving.server, onnxruntime; "
        "print([m for m, v in sys.modules.items() if (c := getattr(v, '__cached__', None)) "
        "and not __import__('os').path.exists(c)])"
    )
    assert "[]" == engine.docker("run", "--rm", image, "python", "-c", script)


def test_size(image):
    """The image adds at most 180 MB to its base."""
    sizes = engine.docker("history", "--human=false", "--format={{.Size}}", image)
    total = int(engine.docker("inspect", "--format={{.Size}}", image))
    print(f"{total / 1e6:.0f} MB")
    assert sum(map(int, sizes.split()[:-1])) <= 180e6


def test_labels(image):
    """The labels name the project and its repository, which links the package to it."""
    labels = json.loads(engine.docker("inspect", "--format={{json .Config.Labels}}", image))
    assert {
        "org.opencontainers.image.title": "penguins",
        "org.opencontainers.image.source": "https://github.com/your-org/penguins",
    } == labels


def test_stop(image):
    """SIGTERM ends the service as a success, before the engine would kill it."""
    with started(image) as (name, _):
        engine.docker("stop", "--time=30", name)
        assert "0" == engine.docker("inspect", "--format={{.State.ExitCode}}", name)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_end_under_load(image, default_project, volume, end):
    """What was answered is in the store: at once after docker stop, else once it ran again."""
    place = f"--volume={volume}:/app/events"
    with started(image, place) as (name, port):
        with Load(default_project, port) as load:
            load.wait_for(500)
            engine.docker(*(["stop", "--time=40"] if end == "stop" else ["kill"]), name)
        if end == "kill":
            engine.docker("start", name)
            ready(name)
            engine.docker("stop", "--time=40", name)
        assert "0" == engine.docker("inspect", "--format={{.State.ExitCode}}", name)
    command = ["python", "-c", STORED, "sqlite:///events/store.db"]
    said = engine.docker("run", "--rm", *NO_RIGHTS, place, image, *command)
    stored = {name: content for name, *content in json.loads(said)}
    acknowledged = load.acknowledged()
    assert len(acknowledged) > 500
    for name, (row, prediction) in acknowledged.items():
        assert [row, prediction, 200, "champion"] == stored[name]


def test_monitor(image, monitor_image, volume):
    """A monitor without rights looks at the events of the service, which tells that it did."""
    place = f"--volume={volume}:/app/events"
    heartbeat = re.compile(r"^model_monitor_last_success_timestamp_seconds (\S+)$", re.MULTILINE)
    with started(image, place) as (_, port):

        def looked():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                found = heartbeat.search(answer.read().decode())
            return found is not None and float(found[1]) > 0

        assert not looked()
        places = (place, "--volume=/app/reports", "--tmpfs=/tmp")
        name = engine.docker("run", "--detach", *NO_RIGHTS, *places, monitor_image)
        try:
            wait(looked, "no monitor looked")
            shown = ["sh", "-c", "ls reports; touch .cache/probe && rm .cache/probe; id --user"]
            said = engine.docker("exec", name, *shown).split()
            assert ["monitoring.html", "monitoring.json", "monitoring.md", "10001"] == said
            engine.docker("stop", "--time=60", name)
            assert "0" == engine.docker("inspect", "--format={{.State.ExitCode}}", name)
        finally:
            engine.docker("rm", "--force", "--volumes", name)


@pytest.fixture
def volume():
    """A volume for events, removed in the end."""
    name = engine.docker("volume", "create")
    yield name
    engine.docker("volume", "rm", "--force", name)


def test_start_and_memory(image, default_project):
    """A container predicts after less than a second, and has less than 120 MB when it is idle.

    The second is one of the processor: other tests keep the machine busy.
    """
    row = json.loads((default_project / "bundle/examples.json").read_text())[0]["row"]
    seconds = []
    while len(seconds) < 10 and min(seconds, default=1) >= 1:
        with started(image) as (name, port):
            idle = memory(name)
            assert 1 == len(ask(f"http://127.0.0.1:{port}/predict", {"rows": [row]})["predictions"])
            seconds.append(processor_time(name))
    print(f"first prediction after {min(seconds):.2f} s; {idle:.0f} MB")
    assert 0 < min(seconds) < 1
    assert 0 < idle < 120


def processor_time(name):
    """Return the seconds that a container's service has used of a processor."""
    number = engine.docker("inspect", "--format={{.State.Pid}}", name)
    _, _, fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")
    return sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")


def memory(name):
    """Return the resident memory of a container's processes, in MB, without its health check."""
    listed = engine.docker("top", name, "-o", "pid,rss,args").splitlines()[1:]
    return sum(int(line.split()[1]) for line in listed if " -m " in line) / 1024


def test_own_test(image, default_project, tmp_path):
    """The project's own `make image-test` passes."""
    said = make(default_project, "image-test", IMAGE=image, **engine.environment(tmp_path))
    assert "7 passed" in said


def test_without_bundle(tmp_path, default_project):
    """An image without a model cannot be built, and the message names what is missing."""
    context = tmp_path / "penguins"
    for name in ("Dockerfile", ".dockerignore", "params.yaml", "pyproject.toml", "poetry.lock"):
        context.mkdir(exist_ok=True)
        (context / name).write_bytes((default_project / name).read_bytes())
    variables = engine.environment(tmp_path)
    run = subprocess.run(
        f"docker build {variables['DOCKER_BUILD_FLAGS']} .",
        shell=True,
        cwd=context,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert 0 != run.returncode
    assert '"/bundle" not found' in run.stderr
