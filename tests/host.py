"""A Linux host to deploy to, on this machine: sshd that takes a key alone, Caddy, and a folder."""

import contextlib
import getpass
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import engine
import pytest
from conftest import TEMPLATE
from live import wait

CADDY = Path(sys.executable).parent / "caddy"
SCRIPTS = TEMPLATE / "deploy-ssh"
ENVIRONMENTS = ("staging", "production")


class Host:
    """A host that `deploy/bootstrap.sh` has prepared for both environments of a project.

    Attributes
    ----------
    variables, secrets : dict of str to str
        What GitHub has to know of it.
    addresses : dict of str to str
        What Caddy answers to, by environment.
    """

    def __init__(self, folder, project="penguins"):
        self.folder, self.project = folder, project
        self.root = folder / "srv"
        self.ssh, self.admin, first, *_ = ports = consecutive_ports(8)
        self.addresses = {
            name: f"http://127.0.0.1:{port}"
            for name, port in zip(ENVIRONMENTS, ports[6:], strict=True)
        }
        self.known = {
            "DEPLOY_ROOT": str(self.root),
            "DEPLOY_PREFIX": f"kit{self.ssh}-",
            "DEPLOY_USER": getpass.getuser(),
            "DEPLOY_CADDYFILE": str(folder / "Caddyfile"),
            "DEPLOY_AUTHORIZED_KEYS": str(folder / "authorized_keys"),
            "DEPLOY_FIRST_PORT": str(first),
            "PATH": f"{Path(engine.client()).parent}:{CADDY.parent}:{os.environ['PATH']}",
        }
        for name in ("host_key", "key"):
            generate_key(folder / name)
        self.running = []

    @property
    def variables(self):
        """What stands in GitHub's variables."""
        key = (self.folder / "host_key.pub").read_text()
        return {
            "DEPLOY_HOST": "127.0.0.1",
            "DEPLOY_PORT": str(self.ssh),
            "DEPLOY_USER": getpass.getuser(),
            "DEPLOY_KNOWN_HOSTS": f"[127.0.0.1]:{self.ssh} {key}",
        }

    @property
    def secrets(self):
        """What stands in GitHub's secrets."""
        return {"DEPLOY_CREDENTIAL": (self.folder / "key").read_text()}

    def site(self, environment):
        """Name the folder of an environment."""
        return self.root / f"{self.project}-{environment}"

    def start(self):
        """Start Caddy, prepare the host with the project's own script, and let people in."""
        (self.folder / "Caddyfile").write_text(
            f"{{\n    admin 127.0.0.1:{self.admin}\n    persist_config off\n"
            f"    storage file_system {self.folder}/caddy\n}}\n"
        )
        self.start_caddy()
        for environment in ENVIRONMENTS:
            self.bootstrap(environment)
        self.start_sshd()

    def start_caddy(self):
        """Start Caddy with what stands in its file."""
        command = [CADDY, "run", "--config", self.folder / "Caddyfile", "--adapter", "caddyfile"]
        self.caddy = self._popen(command, "caddy.log", self.admin)

    def reload(self):
        """Have Caddy read its files again."""
        command = [CADDY, "reload", "--config", self.folder / "Caddyfile", "--adapter", "caddyfile"]
        subprocess.run(command, check=True, capture_output=True)

    def start_sshd(self, **extra):
        """Start sshd; `extra` is in the environment of what it runs."""
        known = " ".join(f'"{name}={value}"' for name, value in {**self.known, **extra}.items())
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{self.ssh}\nHostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nStrictModes no\nPidFile none\n"
            "AuthenticationMethods publickey\nPermitRootLogin prohibit-password\n"
            f"SetEnv {known}\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)  # sshd wants it, and a package makes it at boot
        sshd = shutil.which("sshd", path="/usr/sbin:/usr/bin")
        command = [sshd, "-D", "-e", "-f", self.folder / "sshd_config"]
        self.sshd = self._popen(command, "sshd.log", self.ssh)

    @contextlib.contextmanager
    def told(self, **extra):
        """Give more variables to what sshd runs, for a while."""
        self.end(self.sshd)
        self.start_sshd(**extra)
        try:
            yield
        finally:
            self.end(self.sshd)
            self.start_sshd()

    def _popen(self, command, log, port):
        with (self.folder / log).open("ab") as file:
            # As on a hardened host: nobody else may read what is made, unless it says so.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, umask=0o077
            )
        self.running.append(process)
        wait(lambda: process.poll() is not None or listens(port), f"{log}: nothing listens")
        assert process.poll() is None, (self.folder / log).read_text()
        return process

    def end(self, process):
        """End a server."""
        process.terminate()
        process.wait(60)
        self.running.remove(process)

    def bootstrap(self, environment, **extra):
        """Prepare it as the project's own script does; return what that says."""
        key = (self.folder / "key.pub").read_text().strip()
        site = self.site(environment).name
        run = subprocess.run(
            ["bash", SCRIPTS / "bootstrap.sh", site, self.addresses[environment], key],
            env={**os.environ, **self.known, **extra},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert run.returncode == 0, run.stdout
        return run.stdout

    def image(self, environment):
        """Name the image in service."""
        return (self.site(environment) / "live/image").read_text().strip()

    def version(self, environment):
        """Ask the service, through Caddy, which version of the model it serves."""
        address = f"{self.addresses[environment]}/health/ready"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["model"]["version"]

    def containers(self, environment, *options):
        """Name the containers of an environment that run, or with `--all` those that are there."""
        label = f"--filter=label=deploy={self.site(environment)}"
        return engine.docker("ps", label, "--format={{.Names}}", *options).split()

    def stop(self):
        """End what it runs, and remove its containers, volumes and images."""
        for process in list(self.running):
            self.end(process)
        for environment in ENVIRONMENTS:
            images = {path.read_text().strip() for path in self.root.glob("*/releases/*/image")}
            for name in self.containers(environment, "--all"):
                engine.docker("rm", "--force", "--volumes", name)
            volume = f"{self.known['DEPLOY_PREFIX']}{self.site(environment).name}-events"
            engine.docker("volume", "rm", "--force", volume)
        for image in images:
            subprocess.run([engine.client(), "image", "rm", image], capture_output=True)


@contextlib.contextmanager
def running(folder, project="penguins"):
    """Run a host for a while; skip the test where something for it is missing."""
    if not shutil.which("sshd", path="/usr/sbin:/usr/bin"):
        pytest.skip("no sshd")
    if not CADDY.exists():
        pytest.skip("no caddy")
    if not engine.client():
        pytest.skip("no Docker engine")
    folder.mkdir(parents=True, exist_ok=True)
    host = Host(folder, project)
    try:
        host.start()
        yield host
    finally:
        host.stop()


def generate_key(path):
    """Make a pair of SSH keys."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "kit", "-f", path]
    subprocess.run(command, check=True)


def listens(port):
    """Say whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def consecutive_ports(count):
    """Find ports in a row that nobody uses, and that no client is given while they wait."""
    while True:
        first = random.randrange(20_000, 30_000)
        with contextlib.ExitStack() as exits, contextlib.suppress(OSError):
            for port in range(first, first + count):
                exits.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return list(range(first, first + count))
