"""Measure what users of a generated project wait for, beside other generators: `make bench`."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import (
    ROUNDS,
    install_peers,
    interleaved,
    run,
    seconds,
    table,
    versions_of,
    write,
)
from scripts.demo import KIT, ask

PEERS = KIT / ".cache/generators"
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def generators(folder):
    """List the generators: name to a call that makes a new project."""
    names = iter(range(10**6))

    def cookiecutter():
        words = ["--no-input", "--default-config", "--output-dir", folder / f"k{next(names)}", KIT]
        run(KIT / ".venv/bin/cookiecutter", *words)

    def kedro():
        words = ["--name", f"p{next(names)}", "--tools", "none", "--example", "n"]
        run(PEERS / "bin/kedro", "new", *words, "--telemetry", "no", cwd=folder)

    def pyscaffold():
        run(PEERS / "bin/putup", "--dsproject", f"s{next(names)}", cwd=folder)

    return {"mlops-template": cookiecutter, "kedro new": kedro, "putup --dsproject": pyscaffold}


def helps(project):
    """List the command lines that show their help."""
    return {
        "mlops-template": lambda: run(project / ".venv/bin/python", "-m", "penguins", "--help"),
        "kedro --help": lambda: run(PEERS / "bin/kedro", "--help"),
        "putup --help": lambda: run(PEERS / "bin/putup", "--help"),
    }


def first_prediction(image, row):
    """Start a container and take the time until it has answered one prediction."""
    name = f"bench-{os.getpid()}"
    words = ["--rm", "--detach", "--name", name, "--read-only", "--cap-drop", "ALL"]
    start = time.perf_counter()
    run("docker", "run", *words, "--publish", "127.0.0.1::8000", image)
    try:
        address = run("docker", "port", name, "8000").strip().splitlines()[0]
        while time.perf_counter() - start < 60:
            try:
                ask(f"http://{address}/predict", {"rows": [row]})
                return time.perf_counter() - start
            except OSError:
                time.sleep(0.02)
        sys.exit("the container did not answer within a minute")
    finally:
        subprocess.run(["docker", "kill", name], **QUIET)


def image_figures(project):
    """Build the image; give back its size in MB and the median time to the first prediction."""
    engine = shutil.which("docker")
    if not engine or subprocess.run(["docker", "info"], **QUIET).returncode:
        return None
    run("make", "image", cwd=project, IMAGE="penguins:bench")
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", "penguins:bench")) / 1e6
    row = json.loads((project / "bundle/examples.json").read_text())[0]["row"]
    waits = [first_prediction("penguins:bench", row) for _ in range(ROUNDS)]
    run("docker", "image", "rm", "--force", "penguins:bench")
    return size, statistics.median(waits)


def main():
    """Measure and write the page."""
    install_peers("generators")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate = generators(folder)
        print("generating", flush=True)
        generated = interleaved(generate)
        project = folder / "k0/penguins"
        print("installing", flush=True)
        run("make", "install", cwd=project)
        print("help, test", flush=True)
        shown = interleaved(helps(project))
        tested = {"the first": seconds(lambda: run("make", "test", cwd=project))}
        again = interleaved(
            {
                f"`make {goal}`": lambda goal=goal: run("make", goal, cwd=project)
                for goal in ("install", "test")
            }
        )
        print("image", flush=True)
        image = image_figures(project)
        versions = versions_of(
            project, "scikit-learn", "pandas", "numpy", "onnxruntime", "dvc", "mlflow", "fastapi"
        )
        python = run(project / ".venv/bin/python", "--version").split()[1]
    lines = [
        *table("Generate a project, no network", "at most 1.0 s", generated),
        *table("Help of the command line", "at most 0.3 s", shown),
        *table("First `make test` after install", "at most 60 s", tested),
        *table("A second run, with nothing to do", "no noticeable time", again),
    ]
    if image:
        size, wait = image
        lines += [
            "### Image",
            "",
            "| | measured | wanted |",
            "|---|---|---|",
            f"| size | {size:.0f} MB | at most 450 MB |",
            f"| container's start to the first prediction | {wait:.2f} s | at most 3 s |",
            "",
        ]
    peers = ", ".join((KIT / "benchmarks/generators.txt").read_text().split())
    about = f"Python {python}, {versions}; peers: {peers}. Medians of {ROUNDS} rounds."
    write("bench", about, lines)


if __name__ == "__main__":
    main()
