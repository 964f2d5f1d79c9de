"""What all benchmarks share: running, timing in turn, peers of their own, and the page of results.

Every round runs all candidates one after the other, so that a slow minute of the machine meets all
of them; tables have medians. Each benchmark writes its own section of RESULTS.md.
"""

import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from scripts.demo import KIT, environment

RESULTS = KIT / "benchmarks/RESULTS.md"
ROUNDS = 5


def run(*words, cwd=None, quietly=True, **extra):
    """Run a command; stop with its name where it fails. `quietly` hides what it says on stderr."""
    own = environment(DO_NOT_TRACK="1", **extra)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE if quietly else None}
    done = subprocess.run(words, cwd=cwd, env=own, text=True, **streams)
    if done.returncode:
        said = f"{done.stdout[-2000:]}{(done.stderr or '')[-2000:]}"
        sys.exit(f"{' '.join(map(str, words))} failed:\n{said}")
    return done.stdout


def seconds(call):
    """Take the time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def install_peers(name, python=sys.executable):
    """Install the peers pinned in <name>.txt once, into an environment of their own; return it."""
    pinned, peers = KIT / f"benchmarks/{name}.txt", KIT / f".cache/{name}"
    done, wanted = peers / "installed.txt", f"{pinned.read_text()}\n{Path(python).resolve()}\n"
    if not done.exists() or done.read_text() != wanted:
        run(KIT / ".venv/bin/uv", "venv", "--clear", "--python", python, peers)
        packages = ["--requirement", pinned]
        run(KIT / ".venv/bin/uv", "pip", "install", "--python", peers / "bin/python", *packages)
        done.write_text(wanted)
    return peers


def installed(folder):
    """Generate a project, install it, and return its folder."""
    words = ["--no-input", "--default-config", "--output-dir", folder, KIT]
    run(KIT / ".venv/bin/cookiecutter", *words)
    run("make", "install", cwd=folder / "penguins")
    return folder / "penguins"


def versions_of(project, *names):
    """Say which versions of libraries a project has installed."""
    script = (
        "import sys; from importlib.metadata import version; "
        "print(', '.join(f'{name} {version(name)}' for name in sys.argv[1:]))"
    )
    return run(project / ".venv/bin/python", "-c", script, *names).strip()


def tree(pid):
    """List a process and all its descendants that are alive."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(each for child in children for each in tree(child))]


def tree_memory(pid):
    """Return the resident memory of a process and all its descendants, in bytes."""
    pages = 0
    for each in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def watched(*words, cwd=None, **extra):
    """Run a program of a project; return what it printed and its peak of memory in GiB."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as wrong:
        own = environment(PYTHONPATH=str(cwd / "src") if cwd else "", **extra)
        process = subprocess.Popen(words, cwd=cwd, env=own, stdout=said, stderr=wrong, text=True)
        peak, ended = [0], threading.Event()

        def watch():
            while not ended.wait(0.02):
                peak[0] = max(peak[0], tree_memory(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        ended.set()
        watcher.join()
        said.seek(0)
        wrong.seek(0)
        if code:
            sys.exit(f"{' '.join(map(str, words[-4:]))} failed:\n{wrong.read()[-2000:]}")
        return said.read(), peak[0] / 2**30


def interleaved(calls, rounds=ROUNDS):
    """Measure all calls in turn, and give back the median of each."""
    taken = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {name: statistics.median(values) for name, values in taken.items()}


def table(title, target, medians):
    """Lay one measurement out, the first row being ours."""
    own = next(iter(medians.values()))
    rows = [f"| {name} | {value:.2f} | {value / own:.1f} |" for name, value in medians.items()]
    return [
        f"### {title}",
        "",
        f"Wanted: {target}.",
        "",
        "| | s | ratio |",
        "|---|---|---|",
        *rows,
        "",
    ]


def machine():
    """Say what was measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {platform.platform()}"


def write(command, versions, lines):
    """Replace one command's section of RESULTS.md, or add it; the others stay."""
    title = f"## `make {command}`"
    section = [
        title,
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {machine()}. {versions}",
        "",
        *lines,
    ]
    page = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Measured\n"
    head, *others = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    kept = [other for other in others if not other.startswith(title + "\n")]
    sections = sorted([*kept, "\n".join(section).rstrip() + "\n\n"])
    RESULTS.write_text(head.rstrip() + "\n\n" + "".join(sections).rstrip() + "\n", encoding="utf-8")
    print("\n".join(section))
