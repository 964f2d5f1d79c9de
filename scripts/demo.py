"""Generate a project into ./demo, train it, serve it and ask for one prediction: `make demo`."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

KIT = Path(__file__).resolve().parents[1]
DEMO = KIT / "demo"
MARK = DEMO / ".made-by-make-demo"
PROJECT = DEMO / "penguins"
LOG = DEMO / "serve.log"


def generate():
    """Generate the default project, in place of the one of an earlier run."""
    if DEMO.exists() and not MARK.exists():
        sys.exit(f"{DEMO} was not made by `make demo`: move it away first")
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir()
    MARK.touch()
    words = ["--no-input", "--default-config", "--output-dir", str(DEMO), str(KIT)]
    subprocess.run(
        [sys.executable, "-m", "cookiecutter", *words], check=True, stdout=subprocess.DEVNULL
    )


def environment(**extra):
    """Copy the environment, with the kit's Poetry, so that projects do not install their own."""
    poetry = KIT / ".poetry/bin/poetry"
    shared = {"POETRY": str(poetry)} if poetry.exists() else {}
    return {**shared, **os.environ, **extra}


def free_port():
    """Find a port that nobody uses, and that no client is given until it is."""
    while True:
        port = random.randrange(10_000, 20_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def make(goal):
    """Run make in the project, and show what it says."""
    words = ["make", "--no-print-directory", goal]
    subprocess.run(words, cwd=PROJECT, env=environment(), check=True)


def ask(address, body=None):
    """Get or post JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def wait_until_ready(server, address):
    """Return once the model is loaded; stop with a word if the server does not come up."""
    until = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < until:
        try:
            return ask(f"{address}/health/ready")
        except OSError:
            time.sleep(0.1)
    sys.exit(f"the server did not come up at {address}:\n{LOG.read_text()}")


def main():
    """Walk the road from the questions to one prediction."""
    print("1. Generate demo/penguins", flush=True)
    generate()
    print("2. Install what its lock names", flush=True)
    make("install")
    print("3. Train on its data", flush=True)
    make("pipeline")

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    print(f"4. Serve on {address} and ask", flush=True)
    server = subprocess.Popen(
        ["make", "serve"],
        cwd=PROJECT,
        env=environment(APP_SERVING__PORT=str(port)),
        stdout=LOG.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_until_ready(server, address)
        example = json.loads((PROJECT / "bundle/examples.json").read_text())[0]
        answer = ask(f"{address}/predict", {"rows": [example["row"]]})["predictions"][0]
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(60)
    print(f"   row         {json.dumps(example['row'], ensure_ascii=False)}")
    print(f"   prediction  {answer['prediction']}")
    print(f"   truth       {example['truth']}")
    print("\nOpen the page: cd demo/penguins && make serve, then http://127.0.0.1:8000")


if __name__ == "__main__":
    main()
