"""What the tests share: generating projects, running make in them, and one that is ready to use."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cookiecutter.main import cookiecutter
from filelock import FileLock

from scripts.demo import KIT, ask, environment, free_port

TEMPLATE = KIT / "{{cookiecutter.project}}"

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


def wait_until_ready(address, seconds=60):
    """Return once a server says that its model is loaded."""
    until = time.monotonic() + seconds
    while True:
        try:
            return ask(f"{address}/health/ready")
        except OSError:
            assert time.monotonic() < until, f"{address} is not ready after {seconds} s"
            time.sleep(0.1)


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
        server.wait(10)


def copy_project(project, target):
    """Copy a generated project without its history and what its commands make."""
    made = shutil.ignore_patterns(
        *(".venv", ".cache", ".git", ".hypothesis", ".pytest_cache", "__pycache__"),
        *(".coverage*", "coverage.xml", "bundle", "models", "reports"),
        *("contract.json", "dvc.lock", "*.parquet", "snapshot.json", "mlflow.db", "mlartifacts"),
        *(".storage", "cache", "tmp"),
    )
    return Path(shutil.copytree(project, target, ignore=made))


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
