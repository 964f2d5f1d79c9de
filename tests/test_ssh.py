"""Deployment over SSH: to a real sshd, Docker and Caddy on this machine, from a real registry.

What fails has to leave the version before in service, and the next push has to work.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import engine
import host
import images
import pytest
from conftest import wait_until_ready
from live import STORED, Load, kill, processes, wait
from runner import PASSWORD

from scripts.demo import free_port

pytestmark = pytest.mark.skipif(not engine.client(), reason="no Docker engine with BuildKit")

KEY = "sk-of-the-smoke-test"
# Each is the image of the default project with a version of its own, and something else.
VARIANTS = {
    "first": "",
    "second": "",
    "third": "",
    "slow": 'CMD ["sh", "-c", "sleep 3; exec python -m penguins serve"]',
    "silent": 'CMD ["sleep", "600"]',
    "crashing": """CMD ["python", "-c", "raise SystemExit('error: there is no model')"]""",
    "lying": 'CMD ["sh", "-c", "APP_SERVING__BUNDLE=old exec python -m penguins serve"]',
    "locked": "ENV APP_SERVING__KEYS=keys.txt",
}
TRUTHS = """
import json, sys
import sqlalchemy
from penguins.store import ground_truth, opened

asked = sqlalchemy.select(ground_truth.c.prediction_id, ground_truth.c.label)
with opened(sys.argv[1]) as store, store.reading() as connection:
    json.dump([list(row) for row in connection.execute(asked)], sys.stdout)
"""
DOCKERFILE = """
FROM {base}
COPY keys.txt ./
COPY old old
COPY {name}.json bundle/card.json
{line}
"""


@dataclass
class Said:
    """What a deployment said, and the code with which it ended."""

    code: int
    results: dict
    text: str
    error: str


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """One registry for all tests here."""
    with images.registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def published(default_project, registry, tmp_path_factory):
    """The variants in the registry, by digest."""
    folder = tmp_path_factory.mktemp("variants")
    known = {**os.environ, **engine.environment(folder)}
    flags = shlex.split(known["DOCKER_BUILD_FLAGS"])
    scikit = "" if (default_project / "bundle/model.onnx").exists() else 1
    build = [*flags, "--build-arg", f"SKLEARN={scikit}", "--quiet"]
    base = f"kit-test-ssh:{registry.address.rpartition(':')[2]}"
    engine.docker("build", *build, "--tag", base, default_project, env=known)
    bundle = default_project / "bundle"
    subprocess.run(["cp", "-r", bundle, folder / "old"], check=True)
    (folder / "keys.txt").write_text(f"smoke {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    card = json.loads((bundle / "card.json").read_text())
    engine.docker(
        "login", "-u", "robot", "--password-stdin", registry.address, input=PASSWORD, env=known
    )
    found = {}
    for name, line in VARIANTS.items():
        (folder / f"{name}.json").write_text(json.dumps({**card, "version": name}))
        (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base, name=name, line=line))
        found[name] = push(registry, name, known, "--quiet", folder)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY keys.txt /\n")
    found["foreign"] = push(registry, "foreign", known, "--quiet", "--platform=linux/s390x", folder)
    yield found
    engine.docker("image", "rm", "--force", base)


def push(registry, name, known, *build):
    """Build an image and push it; return its name by digest, under which it is not here."""
    tagged = f"{registry.address}/your-org/penguins:{name}"
    engine.docker("build", "--tag", tagged, *build, env=known)
    engine.docker("push", "--quiet", tagged, env=known)
    engine.docker("image", "rm", tagged)
    digest, _ = registry.ask(f"your-org/penguins/manifests/{name}")
    return f"{registry.address}/your-org/penguins@{digest}"


@pytest.fixture(scope="module")
def target(published, tmp_path_factory):
    """A host where the first version is in service in staging."""
    with host.running(tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture
def deploy(target, published, default_project, tmp_path):
    """A function that runs the project's deploy.sh as its workflow does."""

    def run(verb, version="", environment="staging", **changed):
        known = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTOR": "ada",
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            "ENVIRONMENT": environment,
            "IMAGE": published.get(version, version),
            "REGISTRY_USER": "robot",
            "REGISTRY_PASSWORD": PASSWORD,
            **target.variables,
            **target.secrets,
            **changed,
        }
        (tmp_path / "output").write_text("")
        script = default_project / "deploy/deploy.sh"
        done = subprocess.run(
            ["bash", script, verb],
            env=known,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        lines = (tmp_path / "output").read_text().splitlines()
        results = dict(line.split("=", 1) for line in lines)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert (done.returncode != 0) == len(errors), done.stderr
        return Said(done.returncode, results, done.stdout + done.stderr, "".join(errors)[7:])

    return run


@pytest.fixture
def first(deploy, target):
    """The first version is in service in staging."""
    said = deploy("deploy", "first")
    assert 0 == said.code, said.text
    assert "first" == target.version("staging")


@contextlib.contextmanager
def wrk(address, row, folder):
    """Put load on a service until the block ends; what wrk counted is in the list then."""
    script = folder / "predict.lua"
    body = json.dumps({"rows": [row]})
    script.write_text(
        f"wrk.method, wrk.body = 'POST', [[{body}]]\n"
        "wrk.headers['content-type'] = 'application/json'\n"
        "delay = function() return 5 end\n"
        "done = function(summary, latency) local e = summary.errors io.write(string.format("
        """'{"requests": %d, "failed": %d, "p99_ms": %.1f}\\n', summary.requests, """
        "e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(99) / 1000)) end\n"
    )
    command = ["wrk", "-t1", "-c4", "-d600", "--timeout=10", "-s", script, f"{address}/predict"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found = {}
    try:
        yield found
        process.send_signal(signal.SIGINT)
        found.update(json.loads(process.communicate(timeout=30)[0].splitlines()[-1]))
    finally:
        process.kill()


def stored(target, environment, program=STORED):
    """Read what the store holds, by prediction, after the service has ended."""
    (name,) = target.containers(environment)
    image = target.image(environment)
    engine.docker("stop", name)
    volume = f"{target.known['DEPLOY_PREFIX']}{target.site(environment).name}-events:/app/events"
    command = ["python", "-c", program, "sqlite:///events/store.db"]
    rows = json.loads(engine.docker("run", "--rm", f"--volume={volume}", image, *command))
    engine.docker("start", name)
    wait_until_ready(target.addresses[environment])
    return {row[0]: row[1:] for row in rows}


def post(address, body):
    """Post JSON; return the answer, or nothing where it is refused."""
    request = urllib.request.Request(
        address, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request) as answer:
        return json.load(answer)


@pytest.mark.skipif(not host.shutil.which("wrk"), reason="no wrk")
def test_load(first, deploy, target, default_project, published, tmp_path):
    """Under load no request fails and no event is lost: two versions, a bad one, two rollbacks."""
    address = target.addresses["staging"]
    row = json.loads((default_project / "bundle/examples.json").read_text())[0]["row"]
    port = int(address.rpartition(":")[2])
    with wrk(address, row, tmp_path) as calm, Load(default_project, port) as load:
        load.wait_for(500)
    with wrk(address, row, tmp_path) as counted, Load(default_project, port) as load:
        load.wait_for(100)
        said = deploy("deploy", "second")
        assert (0, "second") == (said.code, target.version("staging"))
        served = {"url": address, "model": "Penguins second", "previous": published["first"]}
        assert served == said.results
        load.wait_for(100)
        assert 14 == deploy("deploy", "lying").code
        assert "second" == target.version("staging")
        said = deploy("rollback")
        assert (0, "first") == (said.code, target.version("staging"))
        served = {"url": address, "model": "Penguins first", "previous": published["second"]}
        assert served == said.results
        load.wait_for(100)
        assert 0 == deploy("rollback").code
        assert "second" == target.version("staging")
        load.wait_for(100)
    print(f"undisturbed {calm}, with five deployments {counted}")
    assert 0 == calm["failed"] == counted["failed"]
    assert counted["requests"] > 400
    assert ([], 0) == (load.refused, load.breaks)
    rows = stored(target, "staging")
    acknowledged = load.acknowledged()
    for name, (row, prediction) in acknowledged.items():
        assert [row, prediction, 200, "champion"] == rows[name]
    assert len(rows) >= len(acknowledged) + counted["requests"]


@pytest.mark.skipif(not host.shutil.which("wrk"), reason="no wrk")
def test_latency(first, deploy, target, default_project, tmp_path):
    """While another version takes over, p99 is at most three times what it is undisturbed."""
    address = target.addresses["staging"]
    row = json.loads((default_project / "bundle/examples.json").read_text())[0]["row"]
    calm, deploying = [], []
    # What else runs on this machine slows down one measurement or another, hardly each of five.
    for version in ("second", "first", "second", "first", "second"):
        began = time.monotonic()
        with wrk(address, row, tmp_path) as counted:
            assert 0 == deploy("deploy", version).code
        took = time.monotonic() - began
        deploying.append(counted)
        with wrk(address, row, tmp_path) as counted:
            time.sleep(took)
        calm.append(counted)
        best, usual = min(p99(deploying)), max(p99(calm))
        if best <= 3 * usual:
            break
    print(f"undisturbed {calm}, with a deployment {deploying}")
    assert {0} == {counted["failed"] for counted in calm + deploying}
    assert best <= 3 * usual


def p99(measured):
    """List in milliseconds what all answers but one of a hundred took at most."""
    return [counted["p99_ms"] for counted in measured]


def test_feedback(first, deploy, target, default_project):
    """A truth outlives the switch to another version and back."""
    address = target.addresses["staging"]
    row = json.loads((default_project / "bundle/examples.json").read_text())[0]["row"]
    name = post(f"{address}/predict", {"rows": [row]})["predictions"][0]["id"]
    truth = {"prediction_id": name, "label": "Gentoo"}
    # The prediction is known when it is stored.
    wait(lambda: post(f"{address}/feedback", {"truths": [truth]}), "no feedback is taken")
    assert 0 == deploy("deploy", "second").code
    assert ["Gentoo"] == stored(target, "staging", TRUTHS)[name]
    assert 0 == deploy("rollback").code
    assert ["Gentoo"] == stored(target, "staging", TRUTHS)[name]


def test_drain(first, deploy, target, default_project):
    """A request that has begun before the switch is answered by the version that it began with."""
    address = target.addresses["staging"]
    port = int(address.rpartition(":")[2])
    row = json.loads((default_project / "bundle/examples.json").read_text())[0]["row"]
    body = json.dumps({"rows": [row]}).encode()
    said = []
    deployment = threading.Thread(target=lambda: said.append(deploy("deploy", "second")))
    deployment.start()
    wait(lambda: len(target.containers("staging")) == 2, "nothing starts")
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(
            b"POST /predict HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body[:9])
        )
        wait(lambda: "second" == target.version("staging"), "no switch")
        client.sendall(body[9:])
        answer = client.recv(65536).decode().lower()
    deployment.join()
    assert "http/1.1 200 ok" == answer.splitlines()[0], answer
    assert "x-model-version: first" in answer
    assert 0 == said[0].code
    assert 1 == len(target.containers("staging"))


MISSING = {
    "DEPLOY_HOST": "gh variable set DEPLOY_HOST --env staging",
    "DEPLOY_KNOWN_HOSTS": "gh variable set DEPLOY_KNOWN_HOSTS --env staging",
    "DEPLOY_CREDENTIAL": "gh secret set DEPLOY_CREDENTIAL --env staging",
    "REGISTRY_USER": "gh variable set REGISTRY_USER --env staging",
}


@pytest.mark.parametrize("names", [*([name] for name in MISSING), list(MISSING)], ids="-".join)
def test_missing_setting(deploy, names):
    """A setting that is missing is named, with the command that sets it; several are, too."""
    commands = "; ".join(MISSING[name] for name in names)
    for verb in ("check", "deploy", "rollback"):
        said = deploy(verb, "second", **dict.fromkeys(names, ""))
        assert 10 == said.code
        assert f"settings are missing: {commands} (docs/deploy.md says what they are)" == said.error


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (
            {"IMAGE": "registry.example/me:latest"},
            "IMAGE has to be registry/owner/project@sha256:…, not 'registry.example/me:latest'",
        ),
        ({"IMAGE": ""}, "IMAGE has to be registry/owner/project@sha256:…, not ''"),
        (
            {"DEPLOY_CREDENTIAL": "not a key"},
            "DEPLOY_CREDENTIAL is no private SSH key without passphrase: "
            "gh secret set DEPLOY_CREDENTIAL --env staging < KEYFILE",
        ),
        (
            {"APP_SETTINGS": "# ours\nAPP_SERVING__WORKERS=1\n\npassword"},
            "APP_SETTINGS: line 4 is not NAME=value: gh secret set APP_SETTINGS --env staging",
        ),
    ],
    ids=["tag", "no-image", "key", "settings"],
)
def test_wrong_setting(deploy, changed, error):
    """A setting that cannot be right is refused before anybody is asked."""
    said = deploy("deploy", "first", **changed)
    assert (10, error) == (said.code, said.error)


def test_not_reached(first, deploy, target, tmp_path):
    """A host that is not there, another one in its place and a key not let in are told apart."""
    here = f"127.0.0.1:{target.ssh}"
    port = free_port()
    said = deploy("check", DEPLOY_PORT=str(port))
    assert 11 == said.code
    refused = f"ssh: connect to host 127.0.0.1 port {port}: Connection refused"
    assert f"127.0.0.1:{port} cannot be reached: {refused}" == said.error

    host.generate_key(tmp_path / "other")
    key = (tmp_path / "other.pub").read_text()
    said = deploy("deploy", "second", DEPLOY_KNOWN_HOSTS=f"[127.0.0.1]:{target.ssh} {key}")
    assert 11 == said.code
    assert (
        f"{here} is not who DEPLOY_KNOWN_HOSTS says. If it was set up anew, and only then: "
        f"ssh-keyscan -p {target.ssh} 127.0.0.1 | gh variable set DEPLOY_KNOWN_HOSTS --env staging"
    ) == said.error

    said = deploy("deploy", "second", DEPLOY_CREDENTIAL=(tmp_path / "other").read_text())
    assert 11 == said.code
    user = target.variables["DEPLOY_USER"]
    assert (
        f"{here} refuses {user} with this key: run deploy/bootstrap.sh there with the public half "
        "of DEPLOY_CREDENTIAL"
    ) == said.error
    assert "first" == target.version("staging")


def test_not_prepared(deploy, target, published):
    """A host without a folder for the environment, without Docker or without Caddy is told so."""
    said = deploy("check", PROJECT="unknown")
    folder = target.root / "unknown-staging"
    assert 12 == said.code
    assert f"{folder} is not there or not ours: run deploy/bootstrap.sh on the host" == said.error

    with target.told(DOCKER_HOST="tcp://127.0.0.1:1"):
        said = deploy("check")
    assert 12 == said.code
    assert (
        f"Docker does not answer {target.variables['DEPLOY_USER']}: Cannot connect to the Docker "
        "daemon at tcp://127.0.0.1:1. Is the docker daemon running?: run deploy/bootstrap.sh"
    ) == said.error

    target.end(target.caddy)
    said = deploy("deploy", "second")
    target.start_caddy()
    address = target.addresses["staging"]
    port = address.rpartition(":")[2]
    assert 12 == said.code
    assert f"nothing listens for {address} on port {port}: systemctl status caddy" == said.error
    assert 0 == deploy("check").code


def test_image_not_had(first, deploy, target, published, registry):
    """Nothing changes where the registry, the password, the digest or the architecture is wrong."""
    third, here = published["third"], registry.address
    said = deploy("deploy", "third", REGISTRY_PASSWORD="expired")
    assert 13 == said.code
    assert (
        f"{here} refuses REGISTRY_USER 'robot' with REGISTRY_PASSWORD: it is wrong, expired, or "
        f"has no right to read {third}"
    ) == said.error
    said = deploy("deploy", "third", REGISTRY_PASSWORD="")
    assert (13, True) == (said.code, "refuses REGISTRY_USER 'robot'" in said.error)

    away = f"127.0.0.1:{free_port()}"
    said = deploy("deploy", third.replace(here, away))
    assert 13 == said.code
    assert re.fullmatch(
        f"{away} does not give the image: .* connect: connection refused", said.error
    )

    unknown = re.sub(r"[0-9a-f]{64}", "0" * 64, third)
    said = deploy("deploy", unknown)
    assert (13, f"{here} does not have {unknown}") == (said.code, said.error)

    said = deploy("deploy", "foreign")
    runs = engine.docker("version", "--format={{.Server.Os}}/{{.Server.Arch}}")
    assert 13 == said.code
    assert (
        f"{published['foreign']} is made for linux/s390x, and this host runs {runs}" == said.error
    )

    assert "first" == target.version("staging")
    assert 1 == len(target.containers("staging"))
    assert 0 == deploy("deploy", "third").code
    assert "third" == target.version("staging")


def test_not_well(first, deploy, target, published, default_project):
    """A version that does not get ready, ends, or serves something else never gets a request."""
    goes_on = "; what served before goes on serving"
    with target.told(DEPLOY_SECONDS="1"):
        said = deploy("deploy", "silent")
    inside = "http://127.0.0.1:8000"
    reason = (
        f"{inside}/health/ready does not answer: <urlopen error [Errno 111] Connection refused>"
    )
    assert (14, f"the new version is not well: {reason}{goes_on}") == (said.code, said.error)
    said = deploy("deploy", "crashing")
    assert 14 == said.code
    assert f"the new version is not well: there is no model{goes_on}" == said.error
    said = deploy("deploy", "lying")
    served = json.loads((default_project / "bundle/card.json").read_text())["version"]
    reason = f"{inside} serves version {served}, expected lying"
    assert (14, f"the new version is not well: {reason}{goes_on}") == (said.code, said.error)
    said = deploy("deploy", "second", APP_SETTINGS="APP_SERVING__WORKERS=none")
    assert 14 == said.code
    assert "serving.workers" in said.error
    assert {} == said.results

    assert "first" == target.version("staging")
    assert 1 == len(target.containers("staging"))
    assert len(target.containers("staging", "--all")) <= 2
    said = deploy("deploy", "slow")
    assert (0, "slow") == (said.code, target.version("staging"))
    assert published["first"] == said.results["previous"]


def test_not_well_behind_caddy(first, deploy, target):
    """A version that Caddy does not reach is taken back, and what served before goes on."""
    site = target.site("staging") / "site.caddy"
    right = site.read_text()
    # The colour that does not serve now leads to a port where nobody is.
    other = (
        "@green 127.0.0.1" if (site.parent / "live/blue").exists() else "reverse_proxy 127.0.0.1"
    )
    wrong = re.sub(rf"({re.escape(other)}):\d+", r"\1:1", right)
    assert wrong != right
    site.write_text(wrong)
    target.reload()
    said = deploy("deploy", "second")
    site.write_text(right)
    target.reload()
    assert 14 == said.code
    assert said.error.startswith("the new version is not well behind Caddy: ")
    assert "answers 502" in said.error
    assert "first" == target.version("staging")


def test_full_disk(deploy, published, default_project, tmp_path):
    """On a disk without room nothing is begun, and what fills up half-way leaves nothing behind."""
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "host/srv"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
    try:
        with host.running(tmp_path / "host") as small:
            known = {**small.variables, **small.secrets}
            said = deploy("check", **known)
            assert 12 == said.code
            assert (
                f"no room: {small.site('staging')} has 2 MB free, a deployment needs 1024: "
                "docker system df shows what Docker holds"
            ) == said.error
            with small.told(DEPLOY_ROOM_MB="0"):
                assert 0 == deploy("deploy", "first", **known).code
                with contextlib.suppress(OSError), (disk / "filler").open("wb") as filler:
                    while True:
                        filler.write(bytes(4096))
                said = deploy("deploy", "second", **known)
                assert 12 == said.code
                # Where the image was not here yet, already the login for it had no room.
                broke = "it broke off on the host; what served before goes on serving"
                assert said.error == broke or said.error.startswith("no room for 127.0.0.1:")
                assert "first" == small.version("staging")
                assert 1 == len(list(small.site("staging").glob("releases/*")))
                (disk / "filler").unlink()
                assert 0 == deploy("deploy", "second", **known).code
                assert "second" == small.version("staging")
            # What a killed deployment left goes before there is asked for room.
            left = small.site("staging") / "releases/left"
            left.mkdir()
            (left / "filler").write_bytes(bytes(1_500_000))
            with small.told(DEPLOY_ROOM_MB="2"):
                assert 0 == deploy("deploy", "first", **known).code
                assert "first" == small.version("staging")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_secrets(first, deploy, target, published):
    """Secrets are in no command line, output, image, or file for others; no login stays."""
    settings = "APP_SERVING__ADMIN_TOKEN=opensesame-7f3a\n# a comment\nAPP_SERVING__LOG_FORMAT=json"
    key = target.secrets["DEPLOY_CREDENTIAL"].splitlines()[1]
    secrets = [PASSWORD, "opensesame-7f3a", KEY, key]
    seen, ended = set(), threading.Event()

    def watch():
        while not ended.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    seen.add((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())

    watcher = threading.Thread(target=watch)
    watcher.start()
    said = deploy("deploy", "locked", APP_SETTINGS=settings, SMOKE_KEY=KEY)
    ended.set()
    watcher.join()
    assert (0, "locked") == (said.code, target.version("staging"))
    assert any(published["locked"] in line for line in seen)
    assert [] == [line for line in seen if any(secret in line for secret in secrets)]
    assert [] == [secret for secret in secrets if secret in said.text]

    (name,) = target.containers("staging")
    of_container = engine.docker("inspect", "--format={{json .Config.Env}}", name)
    assert "APP_SERVING__ADMIN_TOKEN=opensesame-7f3a" in json.loads(of_container)
    image = published["locked"]
    of_image = engine.docker("inspect", image) + engine.docker("history", "--no-trunc", image)
    assert [] == [secret for secret in secrets if secret in of_image]
    holding = {
        path: path.stat().st_mode & 0o777
        for path in [*target.root.rglob("*"), *Path.home().glob(".docker/*")]
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
    }
    assert {target.site("staging") / "live/settings.env": 0o600} == {
        target.site("staging") / "live" / path.name: mode for path, mode in holding.items()
    }
    assert not (target.site("staging") / "login").exists()
    assert [] == [path for path in Path("/tmp").glob("tmp.*/key") if key in path.read_text()]


def test_settings(first, deploy, target):
    """Settings stay where none are given, and go back with the version that had them."""
    live = target.site("staging") / "live/settings.env"
    assert 0 == deploy("deploy", "first", APP_SETTINGS="APP_SERVING__MAX_CONCURRENT=5").code
    assert 0 == deploy("deploy", "second").code
    assert "APP_SERVING__MAX_CONCURRENT=5\n" == live.read_text()
    # A file put into the secret ends with a newline, or comes from Windows: no other setting.
    said = deploy("deploy", "second", APP_SETTINGS="APP_SERVING__MAX_CONCURRENT=5\r\n")
    assert "serves Penguins second already\n" in said.text
    assert 0 == deploy("deploy", "second", APP_SETTINGS="APP_SERVING__MAX_CONCURRENT=6").code
    assert 0 == deploy("rollback").code
    assert "APP_SERVING__MAX_CONCURRENT=5\n" == live.read_text()
    assert 0 == deploy("deploy", "second", APP_SETTINGS="# none").code
    (name,) = target.containers("staging")
    assert "MAX_CONCURRENT" not in engine.docker("inspect", name)


def test_caddy_sees_the_colour(first, target):
    """However the host keeps new files from others, Caddy's user sees which colour is live."""
    live = target.site("staging") / "live"
    (colour,) = [*live.glob("blue"), *live.glob("green")]
    assert ["755", "644"] == [f"{path.stat().st_mode & 0o777:o}" for path in (live, colour)]


@pytest.mark.parametrize("moment", ["made", "started", "switched", "connection"])
def test_killed(first, deploy, target, moment):
    """A deployment killed at any moment leaves a version in service, and the next one works."""
    site = target.site("staging")
    before = {path.name for path in site.glob("releases/*")}
    live = os.readlink(site / "live")
    said = []
    deployment = threading.Thread(target=lambda: said.append(deploy("deploy", "second")))
    deployment.start()

    def come():
        if moment == "switched":
            return os.readlink(site / "live") != live
        new = {path.name for path in site.glob("releases/*")} - before
        return new and (moment == "made" or len(target.containers("staging")) == 2)

    wait(come, f"not {moment}")
    if moment == "connection":
        session = Path(f"/proc/{target.sshd.pid}/task/{target.sshd.pid}/children")
        found = map(int, session.read_text().split())
    else:
        found = processes("-s\0deploy\0penguins-staging", f"DEPLOY_ROOT={target.root}")
    kill(*found)
    deployment.join()
    broke = f"127.0.0.1:{target.ssh} broke off: deploy/deploy.sh status tells what serves"
    assert (11, broke, {}) == (said[0].code, said[0].error, said[0].results)
    served = target.version("staging")
    assert ("second" if moment == "switched" else "first") == served or moment == "connection"
    other = "second" if served == "first" else "first"
    again = deploy("deploy", other)
    assert (0, other) == (again.code, target.version("staging")), again.text
    assert 1 == len(target.containers("staging"))
    assert 2 == len(target.containers("staging", "--all"))
    assert 2 == len(list(site.glob("releases/*")))
    assert (0, served) == (deploy("rollback").code, target.version("staging"))


def test_leftover(first, deploy, target, tmp_path):
    """What a killed switch left may be going by itself while the next deployment removes it."""
    name = f"left{target.ssh}"
    labelled = ["--name", name, f"--label=deploy={target.site('staging')}"]
    engine.docker("run", "--detach", *labelled, target.image("staging"), "sleep", "600")
    standin = tmp_path / "bin/docker"
    standin.parent.mkdir()
    # What the engine says to the second of two who remove the same container.
    standin.write_text(
        f"""#!/bin/sh
        real={engine.client()}
        if [ "$1" = rm ] && [ ! -e {tmp_path}/refused ]; then
            touch {tmp_path}/refused
            (sleep 1; exec "$real" "$@") >/dev/null 2>&1 &
            echo "Error response from daemon: removal of container $4 is already in progress" >&2
            exit 1
        fi
        exec "$real" "$@"
        """
    )
    standin.chmod(0o755)
    with target.told(PATH=f"{standin.parent}:{target.known['PATH']}"):
        said = deploy("deploy", "second")
    assert (0, "second") == (said.code, target.version("staging")), said.text
    assert (tmp_path / "refused").exists()
    assert "" == engine.docker("ps", "--all", "--quiet", f"--filter=name={name}")


def test_pruned(first, deploy, target, published):
    """What somebody removed from Docker, such as by docker system prune, is made again."""
    assert 0 == deploy("deploy", "second").code
    (serving,) = target.containers("staging")
    (before,) = {*target.containers("staging", "--all")} - {serving}
    engine.docker("rm", before)
    engine.docker("image", "rm", published["first"])
    said = deploy("rollback")
    assert (0, "first") == (said.code, target.version("staging")), said.text
    assert [before] == target.containers("staging")
    engine.docker("rm", "--force", before)
    said = deploy("deploy", "first")
    assert (0, "first") == (said.code, target.version("staging")), said.text
    assert [before] == target.containers("staging")
    policy = engine.docker("inspect", "--format={{.HostConfig.RestartPolicy.Name}}", before)
    assert "unless-stopped" == policy
    assert (0, "second") == (deploy("rollback").code, target.version("staging"))


def test_crash(first, target):
    """A service that dies is started again, where Caddy finds it."""
    (name,) = target.containers("staging")
    (process,) = engine.docker("inspect", "--format={{.State.Pid}}", name).split()
    os.kill(int(process), signal.SIGKILL)
    wait(lambda: engine.docker("inspect", "--format={{.RestartCount}}", name) == "1", "dead")
    assert "first" == wait_until_ready(target.addresses["staging"])["model"]["version"]


def test_two_environments(first, deploy, target, published):
    """Environments on one host have their own versions, events and history."""
    said = deploy("rollback", environment="production")
    nothing = "penguins-production has nothing to go back to: nothing was deployed before"
    assert (12, nothing) == (said.code, said.error)
    staging = target.containers("staging")
    said = deploy("deploy", "second", "production")
    served = {"url": target.addresses["production"], "model": "Penguins second", "previous": ""}
    assert served == said.results
    assert ["first", "second"] == [target.version(name) for name in target.addresses]
    assert staging == target.containers("staging")
    assert 0 == deploy("deploy", "second").code
    assert 0 == deploy("rollback").code
    assert ["first", "second"] == [target.version(name) for name in target.addresses]
    lines = (target.site("production") / "history").read_text().splitlines()
    (moment, *entry) = lines[0].split("\t")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", moment)
    assert ["deploy", published["second"], "Penguins second", "ada"] == entry
    assert 1 == len(lines)
    said = deploy("status", environment="production")
    assert [
        f"address   {target.addresses['production']}",
        f"serving   {published['second']}",
        "previous  ",
        lines[0],
    ] == [line.rstrip("\n") for line in said.text.splitlines()]


def test_same_again(first, deploy, target, published):
    """Deploying what serves changes nothing, and says what served before."""
    containers = target.containers("staging", "--all")
    said = deploy("deploy", "first")
    address = target.addresses["staging"]
    assert f"{address} serves Penguins first already\n" in said.text
    assert containers == target.containers("staging", "--all")


def test_bootstrap_again(target):
    """A second run changes nothing and says so; another address or key is taken over."""
    before = state(target.folder)
    assert "there is nothing to change\npenguins-staging is ready for deployments\n" == (
        target.bootstrap("staging")
    )
    assert before == state(target.folder)


def state(folder):
    """Read the mode and content of what prepares a host."""
    paths = [folder / "Caddyfile", folder / "authorized_keys", *folder.glob("srv/*/*")]
    return {path: (path.stat().st_mode, path.read_bytes()) for path in paths if path.is_file()}


BOOTSTRAP = r"""
set -e
key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKc0CZKI8PgnIU4kV3oJ6e5nDq3xJhYVYJ6zH0yT8q1m ci'
look() {
    find /etc /home /srv -xdev ! -name .pwd.lock -exec stat -c '%a %U %n' {} + | sort
    find /etc /home /srv -xdev -type f -exec sha256sum {} + | sort
}
install -d /etc/caddy
printf ':80 {\n}\n' >/etc/caddy/Caddyfile
ln -s /bin/true /usr/bin/docker
groupadd docker
caddy run --config /etc/caddy/Caddyfile --adapter caddyfile 2>/dev/null &
for _ in {1..300}; do
    (exec 3<>/dev/tcp/127.0.0.1/2019) 2>/dev/null && break
    sleep 0.1
done
umask 077
bash -s penguins-production http://127.0.0.1:8080 "$key" </bootstrap.sh
first=$(look)
bash -s penguins-production http://127.0.0.1:8080 "$key" </bootstrap.sh
[[ $first == "$(look)" ]] && echo unchanged
bash -s penguins-staging http://127.0.0.1:8081 </bootstrap.sh
bash -s penguins-staging http://127.0.0.1:8080 </bootstrap.sh || echo "refused, $?"
id -Gn deploy
cat /srv/deploy/*/ports /srv/deploy/*/address
stat -c '%a %U %n' /home/deploy/.ssh /home/deploy/.ssh/authorized_keys /srv/deploy/*
stat -c '%a %U %n' /srv/deploy/*/site.caddy
cut -c 1-20 /home/deploy/.ssh/authorized_keys
runuser -u nobody -- bash /bootstrap.sh a-staging b.example || echo "refused, $?"
"""


def test_bootstrap():
    """On a fresh Debian, as root, it makes user, key, folders and site; a second run, nothing.

    However root keeps new files from others, Caddy's user may read the site.
    """
    if not engine.docker("images", "--quiet", engine.LOCAL_BASE):
        pytest.skip(f"no image {engine.LOCAL_BASE}")
    mounts = {host.SCRIPTS / "bootstrap.sh": "/bootstrap.sh", host.CADDY: "/usr/bin/caddy"}
    options = [f"--volume={Path(here).resolve()}:{there}:ro" for here, there in mounts.items()]
    command = ["bash", "-c", BOOTSTRAP]
    said = engine.docker("run", "--rm", "--env=HOME=/root", *options, engine.LOCAL_BASE, *command)
    print(said)
    assert [
        "made the user deploy",
        "put deploy into the group docker",
        "let deploy in with the key",
        "wrote /srv/deploy/penguins-production/ports",
        "wrote /srv/deploy/penguins-production/site.caddy",
        "wrote /etc/caddy/Caddyfile",
        "wrote /srv/deploy/penguins-production/address",
        "penguins-production is ready for deployments",
        "there is nothing to change",
        "penguins-production is ready for deployments",
        "unchanged",
        "wrote /srv/deploy/penguins-staging/ports",
        "wrote /srv/deploy/penguins-staging/site.caddy",
        "wrote /srv/deploy/penguins-staging/address",
        "penguins-staging is ready for deployments",
        "wrote /srv/deploy/penguins-staging/site.caddy",
        "wrote /srv/deploy/penguins-staging/site.caddy",
        "refused, 1",
        "deploy docker",
        "8101 8102",
        "8103 8104",
        "http://127.0.0.1:8080",
        "http://127.0.0.1:8081",
        "700 deploy /home/deploy/.ssh",
        "600 deploy /home/deploy/.ssh/authorized_keys",
        "755 deploy /srv/deploy/penguins-production",
        "755 deploy /srv/deploy/penguins-staging",
        "644 deploy /srv/deploy/penguins-production/site.caddy",
        "644 deploy /srv/deploy/penguins-staging/site.caddy",
        "restrict ssh-ed25519",
        "refused, 1",
    ] == said.splitlines()


def test_shellcheck():
    """Shellcheck with all its optional checks but two of taste finds nothing."""
    tool = Path(sys.executable).parent / "shellcheck"
    words = ["--enable=all", "--exclude=SC2250,SC2312", *host.SCRIPTS.glob("*.sh")]
    run = subprocess.run([tool, *words], stdout=subprocess.PIPE, text=True)
    assert (0, "") == (run.returncode, run.stdout)
