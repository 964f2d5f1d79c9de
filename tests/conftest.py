"""What the tests share: generating projects, running make in them, and one that is ready to use."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from cookiecutter.main import cookiecutter
from filelock import FileLock

from scripts.demo import KIT, environment, free_port

TEMPLATE = KIT / "{{cookiecutter.project}}"
PASSWORD = "geh:eim%/?"
QUOTED = "geh%3Aeim%25%2F%3F"
# What takes a moment takes minutes where it stands back and other tests use every processor.
PATIENCE_S = 600
# These come first, so that no worker is left alone with one of them at the end.
LONGEST = ["workflows", "projects", "ssh", "dag", "lifecycle", "mutations", "events", "loop"]
LONGEST += ["benchmarks", "crash", "openapi", "update", "demo", "supply", "static", "site"]


def pytest_collection_modifyitems(items):
    """Put the longest files first."""
    order = {f"test_{name}": position for position, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


# The tests may run under make, whose variables would change what an inner make does and says.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)


def generate(into, **answers):
    """Generate a project offline, without questions and without the machine's own defaults."""
    made = cookiecutter(
        str(KIT),
        no_input=True,
        extra_context=answers,
        output_dir=str(into),
        default_config=True,
    )
    return Path(made)


def files(project):
    """List the files of a project as paths relative to it, without git's own."""
    paths = (path for path in project.rglob("*") if path.is_file())
    relative = (path.relative_to(project) for path in paths)
    return {path.as_posix() for path in relative if path.parts[0] != ".git"}


def make(project, *words, **extra):
    """Run make in a project, show what it said if it fails, and return it."""
    run = subprocess.run(
        ["make", *words],
        cwd=project,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert run.returncode == 0, f"make {' '.join(words)} in {project}\n{run.stdout[-6000:]}"
    return run.stdout


def interpreters():
    """Find the supported Pythons that run on this machine, by version."""
    found = {}
    places = [*os.get_exec_path(), *Path.home().glob(".pyenv/versions/*/bin")]
    for version in ("3.11", "3.12", "3.13"):
        candidates = (shutil.which(f"python{version}", path=str(place)) for place in places)
        for candidate in filter(None, candidates):
            if not subprocess.run(
                [candidate, "-c", "import ensurepip"], capture_output=True
            ).returncode:
                found[version] = candidate
                break
    return found


def wait_until_answered(address):
    """Return what a server answers, once it does."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < until, f"{address} does not answer after {PATIENCE_S} s"
            time.sleep(0.1)


def wait_until_ready(address):
    """Return once a server says that its model is loaded."""
    return json.loads(wait_until_answered(f"{address}/health/ready"))


@contextlib.contextmanager
def served(project, package):
    """Serve a project on a free port for a while."""
    port = free_port()
    server = subprocess.Popen(
        [project / ".venv/bin/python", "-m", package, "serve"],
        cwd=project,
        env=environment(APP_SERVING__PORT=str(port)),
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def leave_out(project, *commands):
    """Leave commands out of a project's Makefile."""
    makefile = project / "Makefile"
    lines = makefile.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not any(command in line for command in commands)]
    makefile.write_text("".join(kept))


def copy_project(project, target):
    """Copy a generated project without its history and what its commands make."""
    made = shutil.ignore_patterns(
        *(".venv", ".cache", ".git", ".hypothesis", ".pytest_cache", "__pycache__"),
        *(".coverage*", "coverage.xml", "bundle", "models", "reports"),
        *(
            "contract.json",
            "dvc.lock",
            "*.parquet",
            "snapshot.json",
            "mlflow.db",
            "mlartifacts",
            "events",
        ),
        *(".storage", "cache", "tmp"),
    )
    return Path(shutil.copytree(project, target, ignore=made))


class Workspace:
    """A copy of a project that shares its environment, as a repository of its own."""

    def __init__(self, project, folder):
        self.folder = copy_project(project, folder)
        (self.folder / ".venv").symlink_to(project / ".venv")
        # Two copies of one state have one commit, by which their cards are compared.
        moment = "2026-01-01T00:00:00Z"
        self.environment = environment(
            PYTHONPATH=str(self.folder / "src"),
            GIT_AUTHOR_DATE=moment,
            GIT_COMMITTER_DATE=moment,
        )
        self.git("init", "--quiet")
        (self.folder / ".git/info/exclude").write_text(".venv\n")
        self.commit()

    def run(self, *words, **extra):
        """Run a command here; give back what it said."""
        done = subprocess.run(
            words,
            cwd=self.folder,
            env={**self.environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert 0 == done.returncode, f"{' '.join(map(str, words))}\n{done.stdout[-5000:]}"
        return done.stdout

    def git(self, *words):
        """Run git under a name."""
        return self.run("git", "-c", "user.name=kit", "-c", "user.email=kit@localhost", *words)

    def commit(self):
        """Keep the state of now as a commit."""
        self.git("add", ".")
        self.git("commit", "--quiet", "--allow-empty", "--message", "state")

    def dvc(self, *words):
        """Run DVC as the project installs it."""
        return self.run(".venv/bin/dvc", *words)

    def pipeline(self):
        """Run `make pipeline`; name the stages that ran."""
        said = self.run("make", "--old-file=.venv/.installed", "pipeline")
        return re.findall(r"^Running stage '(\w+)'", said, re.MULTILINE)

    def edit(self, section, **values):
        """Change settings of a section of params.yaml."""
        path = self.folder / "params.yaml"
        content = yaml.safe_load(path.read_text())
        content[section].update(values)
        path.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """One folder for all workers of this run."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def default_project(shared_folder):
    """The project of all default answers, installed and trained; nobody changes it."""
    with FileLock(shared_folder / "default.lock"):
        ready = shared_folder / "default-ready"
        project = shared_folder / "default/penguins"
        if not ready.exists():
            shutil.rmtree(project, ignore_errors=True)
            generate(project.parent)
            make(project, "install")
            make(project, "pipeline")
            # Writes all bytecode, so that a worker may copy the project while another uses it.
            collect = [project / ".venv/bin/pytest", "--collect-only", "--quiet"]
            subprocess.run(collect, cwd=project, stdout=subprocess.DEVNULL, check=True)
            ready.touch()
    return project


def copy_kit(target):
    """Copy the kit's own files, without environments, caches and history."""
    skipped = shutil.ignore_patterns(
        ".git",
        ".venv",
        ".poetry",
        ".artifacts",
        ".cache",
        ".*_cache",
        "__pycache__",
        "demo",
        "screenshots",
    )
    return Path(shutil.copytree(KIT, target, ignore=skipped))


@pytest.fixture
def kit_repository(tmp_path):
    """A copy of the kit as a Git repository with one commit, the way a host would have it."""
    kit = copy_kit(tmp_path / "kit")
    named = ["git", "-c", "user.name=kit", "-c", "user.email=kit@localhost"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "kit"]):
        subprocess.run([*named, *words], cwd=kit, check=True)
    return kit


def binaries():
    """Find PostgreSQL's server programs, which distributions keep off the path."""
    on_path = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    places = [Path(on_path).parent] if on_path else [path.parent for path in found]
    if not places:
        pytest.skip("PostgreSQL's server is not on this machine (initdb)")
    return places[-1]


class PostgresServer:
    """A private PostgreSQL server in a folder."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.address = f"postgres://kit:{QUOTED}@127.0.0.1:{self.port}/postgres"
        self.programs = binaries()
        # The server refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        self.as_user = ["runuser", "-u", user, "--"] if user else []
        if user:
            shutil.chown(folder, user)
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "--username=kit", "--auth=scram-sha-256", f"--pwfile={password}")

    def _run(self, program, *words):
        words = [*self.as_user, self.programs / program, "--pgdata", self.folder / "data", *words]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self):
        """Start, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = ["--log", self.folder / "log"]
        self._run("pg_ctl", "--wait", "--silent", *log, "--options", options, "start")

    def stop(self):
        """Stop at once; what was committed is there again after the next start."""
        self._run("pg_ctl", "--wait", "--silent", "--mode", "immediate", "stop")


@pytest.fixture(scope="module")
def postgres_server():
    """A private PostgreSQL server, stopped and removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgres(postgres_server):
    """The address of a private PostgreSQL server."""
    return postgres_server.address


@pytest.fixture
def runner(default_project, tmp_path):
    """A fresh copy of the default project as a repository on GitHub, and act for its workflows."""
    from runner import repository

    with repository(tmp_path, default_project) as runner:
        yield runner


@pytest.fixture
def registry(tmp_path):
    """A running registry of images."""
    from images import registry

    with registry(tmp_path) as running:
        yield running
