"""The Docker engine as the tests use it: which client, and what a build needs on this machine."""

import functools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
LOCAL_BASE = "python:local"
PASSED_ON = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@functools.cache
def client():
    """Find a docker client that reaches an engine and can build with BuildKit, or None."""
    for place in os.get_exec_path():
        docker = shutil.which("docker", path=place)
        # Since version 23 the client builds with a plugin, which some machines do not have.
        if docker and _works(docker, "build", "--help") and _works(docker, "version"):
            return docker
    return None


def _works(*command):
    switched = {**os.environ, "DOCKER_BUILDKIT": "1"}
    return subprocess.run(command, capture_output=True, env=switched).returncode == 0


def docker(*arguments, **options):
    """Run a docker command and return what it prints."""
    command = [client(), *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, **options)
    assert run.returncode == 0, f"{shlex.join(command)}\n{run.stderr[-4000:]}"
    return run.stdout.strip()


def environment(folder):
    """Make the variables with which `make image` works here, and a client alone on PATH."""
    binaries, config = folder / "bin", folder / "docker"
    binaries.mkdir(parents=True, exist_ok=True)
    config.mkdir(exist_ok=True)
    if not (binaries / "docker").exists():
        (binaries / "docker").symlink_to(client())
    flags = ["--network=host", *(f"--build-arg={name}" for name in PASSED_ON if name in os.environ)]
    if CERTIFICATES.exists():
        flags.append(f"--secret=id=ca,src={CERTIFICATES}")
    if docker("images", "--quiet", LOCAL_BASE):
        flags.append(f"--build-arg=PYTHON_IMAGE={LOCAL_BASE}")
    return {
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "DOCKER_CONFIG": str(config),
        "DOCKER_BUILD_FLAGS": shlex.join(flags),
        "DOCKER_BUILDKIT": "1",
        "BUILDKIT_PROGRESS": "plain",
    }
