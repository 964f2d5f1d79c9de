"""The workflows of a new project, executed by act on this machine."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import engine
import pytest
import yaml
from conftest import copy_project, environment, free_port, interpreters

TOOLS = Path(sys.executable).parent
STANDINS = Path(__file__).parent / "standins"
PASSWORD = "correct-horse"
PYTHONS = interpreters()
# The Python of the main jobs: the answer's, or what this machine has.
MAIN = "3.12" if "3.12" in PYTHONS else next(iter(PYTHONS), None)
FAILING_TEST = "\n\ndef test_seeded():\n    assert False\n"
LEAKS = ("GITHUB_", "ACTIONS_", "RUNNER_", "APP_", "PYTEST_", "COV_", "MAKE", "MFLAGS", "VIRTUAL_")

pytestmark = [
    pytest.mark.skipif(not engine.client(), reason="no Docker engine with BuildKit"),
    pytest.mark.skipif(not (TOOLS / "act").exists(), reason="no act"),
]


@dataclass
class Run:
    """One execution of a workflow: what became of its jobs and steps, and what was said."""

    code: int
    jobs: dict
    failed: set
    outputs: dict
    trace: list
    text: str


class Runner:
    """A copy of the project as a repository on GitHub, and act to run its workflows."""

    def __init__(self, folder, project):
        self.folder = folder
        self.repository = folder / "penguins"
        copy_project(project, self.repository)
        (self.repository / ".python-version").write_text(f"{MAIN}\n")
        self.venv = project / ".venv"
        self.git("init", "--quiet", "--initial-branch=main")
        self.git("remote", "add", "origin", "https://github.com/Your-Org/Penguins.git")
        self.commit()

    def git(self, *arguments):
        """Run git in the repository."""
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        command = ["git", *identity, *arguments]
        return subprocess.check_output(command, cwd=self.repository, text=True).strip()

    def commit(self):
        """Commit everything, so that this state has a name of its own."""
        self.git("add", "--all")
        self.git("commit", "--quiet", f"--message={self.folder}")
        return self.git("rev-parse", "HEAD")

    def change(self, path, old, new):
        """Replace a text in a file and commit."""
        file = self.repository / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")
        return self.commit()

    def lighten(self):
        """Leave out most tests and the slowest linter where the run is not about their verdict."""
        for path in self.repository.glob("tests/test_*.py"):
            if path.stem not in ("test_image", "test_settings"):
                path.unlink()
        makefile = self.repository / "Makefile"
        kept = [line for line in makefile.read_text().splitlines() if "$(RUN)pylint" not in line]
        makefile.write_text("\n".join(kept) + "\n")
        self.change("pyproject.toml", "fail_under = 90", "fail_under = 0")

    def act(self, workflow, event, *arguments, branch="main"):
        """Execute a workflow as the event would."""
        payload = self.folder / "event.json"
        payload.write_text(json.dumps({"ref": f"refs/heads/{branch}"}))
        for name in ("home", "artifacts"):
            (self.folder / name).mkdir()
        docker = engine.environment(self.folder)
        known = {
            "STANDIN": STANDINS / "standin.py",
            "STANDIN_PYTHON": sys.executable,
            "STANDIN_PYTHONS": json.dumps(PYTHONS),
            "STANDIN_TRACE": self.folder / "trace.jsonl",
            "STANDIN_ARTIFACTS": self.folder / "artifacts",
            "STANDIN_VENV": self.venv,
            "DOCKER_BUILD_FLAGS": docker["DOCKER_BUILD_FLAGS"],
            "DOCKER_CONFIG": docker["DOCKER_CONFIG"],
        }
        run = subprocess.run(
            [
                *(TOOLS / "act", event, f"--workflows=.github/workflows/{workflow}"),
                *(f"--eventpath={payload}", "--platform=ubuntu-latest=-self-hosted"),
                *("--no-cache-server", "--strict", "--json", "--concurrent-jobs=1"),
                *(f"--local-repository={pin}" for pin in self.standins()),
                *(f"--env={name}={value}" for name, value in known.items()),
                *arguments,
            ],
            cwd=self.repository,
            env=self.environment(docker),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        (self.folder / "act.log").write_text(run.stdout)
        trace = (self.folder / "trace.jsonl").read_text().splitlines()
        return read(run.returncode, run.stdout, [json.loads(line) for line in trace])

    def standins(self):
        """Put a stand-in in the place of every pinned action; checkout needs none."""
        text = "\n".join(path.read_text() for path in self.repository.glob(".github/**/*.yml"))
        for pin in sorted(set(re.findall(r"uses: (actions/[\w-]+@[0-9a-f]{40})", text))):
            name = pin.split("@")[0].split("/")[1]
            if name != "checkout":
                assert (STANDINS / "actions" / name).is_dir(), f"no stand-in for {pin}"
                yield f"{pin}={STANDINS / 'actions' / name}"

    def environment(self, docker):
        """Start from a clean environment: the host's own would leak into the jobs."""
        home = self.folder / "home"
        kept = {
            name: value
            for name, value in environment().items()
            if not name.startswith(LEAKS) and name != "CI"
        }
        caches = {
            "PIP_CACHE_DIR": Path.home() / ".cache/pip",
            "POETRY_CACHE_DIR": Path.home() / ".cache/pypoetry",
        }
        own = {"HOME": home, "XDG_CACHE_HOME": home, "ACT_DISABLE_VERSION_CHECK": 1}
        own |= {"REGISTRY_PASSWORD": PASSWORD, **docker}
        return {name: str(value) for name, value in (kept | caches | own).items()}


def read(code, text, trace):
    """Read act's log."""
    entries = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    jobs, failed, outputs = {}, set(), {}
    for entry in entries:
        matrix = entry.get("matrix") or {}
        # Where there are several, act numbers the jobs of a matrix.
        name = re.sub(r"-\d+$", "", entry.get("job", "").split("/")[-1])
        job = name if matrix else entry.get("jobID", "")
        if "jobResult" in entry:
            jobs[job] = entry["jobResult"]
        if entry.get("stepResult") == "failure":
            failed.add((job, entry["step"].removeprefix("Main ")))
        if entry.get("command") == "set-output":
            outputs[entry["name"]] = entry["arg"]
    return Run(
        code, jobs, failed, outputs, trace, "".join(e.get("msg", "") + "\n" for e in entries)
    )


@pytest.fixture
def runner(default_project, tmp_path):
    """A fresh copy of the default project; its images go at the end."""
    runner = Runner(tmp_path, default_project)
    yield runner
    commits = runner.git("log", "--format=%H").split()
    for repository in engine.docker("images", "--format={{.Repository}}:{{.Tag}}").split():
        if repository.split(":")[-1] in commits:
            engine.docker("rmi", "--force", repository)
    for name in ("home", "artifacts", "images"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)


def seed(runner, path, text):
    """Add lines to a file and commit."""
    file = runner.repository / path
    file.write_text(f"{file.read_text(encoding='utf-8')}{text}", encoding="utf-8")
    runner.commit()


def test_green(runner):
    """Ci.yml passes on a new project, and its image holds the model that it trained."""
    run = runner.act("ci.yml", "push", f"--matrix=python:{MAIN}", branch="topic")
    assert 0 == run.code, run.text[-5000:]
    jobs = {"lint", f"test ({MAIN})", "train", "image", "gate"}
    assert dict.fromkeys(jobs, "success") == run.jobs
    assert "7 passed" in run.text
    assert '⚙  Summary - <pre>{\n  "' in run.text
    kept = runner.folder / "artifacts"
    assert {"bundle", "reports", f"coverage-{MAIN}"} == {path.name for path in kept.iterdir()}
    image = f"model:{runner.git('rev-parse', 'HEAD')}"
    card = engine.docker("run", "--rm", image, "cat", "bundle/card.json")
    assert json.loads((kept / "bundle/card.json").read_text("utf-8")) == json.loads(card)


@pytest.mark.parametrize(
    ("path", "text", "job", "step", "skipped"),
    [
        ("tests/test_settings.py", FAILING_TEST, f"test ({MAIN})", "make test", {"image"}),
        ("src/penguins/errors.py", "\n\nimport os\n", "lint", "make lint", {"image"}),
        (
            "Dockerfile",
            'CMD ["python", "-m", "penguins", "score"]\n',
            "image",
            "make image-test",
            set(),
        ),
    ],
    ids=["test", "lint", "image"],
)
def test_red(runner, path, text, job, step, skipped):
    """A failing test, a lint finding and an image that does not serve each turn the gate red."""
    runner.lighten()
    seed(runner, path, text)
    run = runner.act("ci.yml", "push", f"--matrix=python:{MAIN}", branch="topic")
    assert {(job, step), ("gate", "Every job succeeded")} == run.failed
    others = {"lint", f"test ({MAIN})", "train", "image"} - {job} - skipped
    assert dict.fromkeys(others, "success") | {job: "failure", "gate": "failure"} == run.jobs
    assert 1 == run.code


class Registry:
    """An image registry with a password, on a port of its own."""

    def __init__(self, folder):
        self.address = f"127.0.0.1:{free_port()}"
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
        (folder / "htpasswd").write_text(f"robot:{hashed}\n")
        config = {
            "version": "0.1",
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
            "http": {"addr": self.address},
            "auth": {"htpasswd": {"realm": "kit", "path": str(folder / "htpasswd")}},
        }
        (folder / "registry.yml").write_text(yaml.safe_dump(config))
        command = ["docker-registry", "serve", folder / "registry.yml"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def ask(self, path):
        """Ask as the robot; return the digest and the parsed answer."""
        token = base64.b64encode(f"robot:{PASSWORD}".encode()).decode()
        kind = "application/vnd.docker.distribution.manifest.v2+json"
        headers = {"Authorization": f"Basic {token}", "Accept": kind}
        request = urllib.request.Request(f"http://{self.address}/v2/{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers.get("Docker-Content-Digest"), json.load(answer)


@pytest.fixture
def registry(tmp_path):
    """A running registry."""
    if not shutil.which("docker-registry"):
        pytest.skip("no docker-registry")
    registry = Registry(tmp_path)
    try:
        until = time.monotonic() + 20
        while True:
            with contextlib.suppress(urllib.error.URLError):
                registry.ask("")
                break
            assert time.monotonic() < until, "the registry does not start"
            time.sleep(0.1)
        yield registry
    finally:
        registry.process.terminate()
        registry.process.wait(10)


def test_deploy(runner, registry):
    """Deploy.yml runs CI and pushes the very image that passed, under the digest it prints."""
    runner.lighten()
    commit = runner.git("rev-parse", "HEAD")
    run = runner.act(
        "deploy.yml",
        "push",
        *(f"--matrix=python:{MAIN}", f"--var=REGISTRY={registry.address}"),
        *("--var=REGISTRY_USER=robot", "--secret=REGISTRY_PASSWORD"),
    )
    assert 0 == run.code, run.text[-5000:]
    jobs = {"lint", f"test ({MAIN})", "train", "image", "gate", "push"}
    assert dict.fromkeys(jobs, "success") == {job: run.jobs[job] for job in jobs}
    assert PASSWORD not in run.text

    # GitHub keeps capital letters in a repository's name, registries refuse them.
    name, digest = run.outputs["image"].split("@")
    assert f"{registry.address}/your-org/penguins" == name
    by_digest, manifest = registry.ask(f"your-org/penguins/manifests/{digest}")
    by_commit, _ = registry.ask(f"your-org/penguins/manifests/{commit}")
    assert {digest} == {by_digest, by_commit}
    tested = engine.docker("inspect", "--format={{.Id}}", f"model:{commit}")
    assert tested == manifest["config"]["digest"]
    assert f"Pushed `{name}@{digest}`" in run.text


def test_matrix(runner):
    """Each Python of the matrix installs the lock and runs the tests."""
    runner.lighten()
    matrix = [f"--matrix=python:{version}" for version in PYTHONS]
    run = runner.act("ci.yml", "push", "--job=test", *matrix, branch="topic")
    assert {f"test ({version})": "success" for version in PYTHONS} == run.jobs
    for version in PYTHONS:
        assert f"platform linux -- Python {version}." in run.text
        assert (runner.folder / f"artifacts/coverage-{version}/coverage.xml").is_file()
    declared = yaml.safe_load((runner.repository / ".github/workflows/ci.yml").read_text("utf-8"))
    assert ["3.11", "3.12", "3.13"] == declared["jobs"]["test"]["strategy"]["matrix"]["python"]
