"""A real image registry with a password, on this machine."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import bcrypt
import pytest
import yaml
from conftest import PATIENCE_S, free_port
from runner import PASSWORD


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


@contextlib.contextmanager
def registry(folder):
    """Run a registry for a while; skip the test where none is installed."""
    if not shutil.which("docker-registry"):
        pytest.skip("no docker-registry")
    running = Registry(folder)
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(urllib.error.URLError):
                running.ask("")
                break
            assert time.monotonic() < until, "the registry does not start"
            time.sleep(0.1)
        yield running
    finally:
        running.process.terminate()
        running.process.wait(60)
