"""Measure monitoring tools side by side on the same simulated streams: `make bench-monitors`.

Each runs in an environment of its own, pinned in benchmarks/monitors-*.txt, as its documentation
begins: false alarms, power, events until it alarms, errors in labelled events, time, memory, size.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.drift import share
from benchmarks.measure import install_peers, installed, run, versions_of, write
from scripts.demo import KIT

ROWS, COLUMNS, WINDOW, STEP = 10_000, 20, 1000, 500
REFERENCES, WINDOWS, STREAMS = 5, 10, 10
# A check of Evidently takes seconds: it gets the first windows of each reference.
EVIDENTLY = 4
SIZES = (200, 1000, 5000)
PEERS = ("evidently", "popmon", "nannyml", "river")
LABELS = {
    ("ours", ""): "this kit",
    ("evidently", ""): "Evidently, data set",
    ("evidently", "any column"): "Evidently, any column",
    ("popmon", ""): "popmon, any red",
    ("nannyml", ""): "NannyML, any alert",
    ("river", ""): "river, ADWIN",
    ("prometheus", ""): "Prometheus, 3 sd rule",
}


def simulate(python, project, folder, counts):
    """Have the project's Python draw all streams into files; return these by case."""
    script = KIT / "benchmarks/monitors_streams.py"
    own = {"PYTHONPATH": f"{project / 'src'}:{KIT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    return json.loads(run(python, script, str(folder), *map(str, counts), **own))


def ask(python, tool, path, project):
    """Return what a tool says of a file of windows."""
    own = {"PYTHONPATH": str(project / "src")} if tool in ("ours", "prometheus") else {}
    most = EVIDENTLY if tool == "evidently" and "stream" not in path else WINDOWS
    words = [python, KIT / "benchmarks/monitors_peers.py", tool, path, str(most)]
    said = run(*words, OMP_NUM_THREADS="1", **own)
    return json.loads(said.splitlines()[-1])


def megabytes(folder):
    """Return the size of an environment on the disk."""
    return int(run("du", "--summarize", "--block-size=1M", folder).split()[0])


def rate(found, tool, variant, case):
    """Return the share of windows of a case that alarm."""
    alarms = [each[variant] for said in found[tool, case] for each in said["alarms"]]
    return share(sum(alarms), len(alarms))


def delay(found, tool, variant):
    """Return the median of the events from the onset to an alarm, and the share within 1,500.

    The windows of a stream end 500, 1,000 … events after its onset. Ours has to be confirmed by a
    second window in a row.
    """
    needed = 2 if tool == "ours" else 1
    delays = []
    for said in found[tool, "stream"]:
        alarms, row = [each[variant] for each in said["alarms"]], 0
        ends = None
        for i, alarm in enumerate(alarms, 1):
            row = row + 1 if alarm else 0
            if row == needed:
                ends = i * STEP
                break
        delays.append(ends or float("inf"))
    within = share(sum(each <= 1500 for each in delays), len(delays))
    middle = statistics.median(delays)
    return f"{middle:,.0f}" if middle < float("inf") else "never", within


def page(found, sizes, losses):
    """Lay out the tables."""
    lines = [
        f"The same streams for all: {COLUMNS} columns of ten kinds (see `make bench-drift`), some "
        f"with missing values, a reference of {ROWS:,} rows. In % of the checks, ± one standard "
        "error. A tool that alarms without drift cannot be read on the right: it always does.",
        "",
        "| | no drift, n = 200 | 1,000 | 5,000 | 0.2 sd in one column, n = 1,000 |",
        "|---|---|---|---|---|",
    ]
    asked = {key: title for key, title in LABELS.items() if (key[0], "shift") in found}
    for (tool, variant), title in asked.items():
        cells = [rate(found, tool, variant, f"no drift {size}") for size in SIZES]
        cells.append(rate(found, tool, variant, "shift"))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Streams in which that drift sets in, checked every {STEP} events: events until the "
        "alarm (median), and % of the streams in which it came within 1,500.",
        "",
        "| | events until the alarm | within 1,500 |",
        "|---|---|---|",
    ]
    for (tool, variant), title in asked.items():
        lines.append(f"| {title} | {' | '.join(delay(found, tool, variant))} |")
    lines += [
        "",
        "Labelled windows of 1,000 events, of which 10 % have another truth than before (concept "
        "drift), with the same inputs and scores:",
        "",
        "| | no change | 10 % flipped |",
        "|---|---|---|",
    ]
    titles = {
        "ours": "this kit, loss",
        "river": "river, DDM on errors",
        "nannyml": "NannyML, CBPE (needs no truths)",
    }
    for tool, title in titles.items():
        if (tool, "steady") not in losses:
            continue
        cells = [rate(losses, tool, "", case) for case in ("steady", "flips")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        "Cost of a check of 1,000 events (median; of popmon and NannyML, which take many at once, "
        "their share), peak memory of the process, size of an environment with nothing else:",
        "",
        "| | s | ratio | MB of memory | MB on disk |",
        "|---|---|---|---|---|",
    ]
    own = statistics.median(each["seconds"] for each in found["ours", "no drift 1000"])
    for tool in sizes:
        said = found[tool, "no drift 1000"]
        seconds = statistics.median(each["seconds"] for each in said)
        peak = max(each["peak"] for each in said)
        title = "this kit" if tool == "ours" else tool
        lines.append(
            f"| {title} | {seconds:.3f} | {seconds / own:.0f} | {peak:.0f} | {sizes[tool]} |"
        )
    return lines


def main():
    """Install the peers, draw the streams, ask everybody, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, help="an installed project, instead of a new one")
    parser.add_argument("--share", type=float, default=1.0, help="of the trials")
    parser.add_argument("--only", nargs="*", choices=PEERS, default=PEERS, help="of the peers")
    asked = parser.parse_args()
    counts = [max(1, round(n * asked.share)) for n in (REFERENCES, STREAMS)] + [WINDOWS]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = asked.project or installed(folder)
        own = project / ".venv/bin/python"
        pythons = dict.fromkeys(("ours", "prometheus"), own)
        sizes = {"ours": alone(folder / "alone", project)}
        for peer in asked.only:
            place = install_peers(f"monitors-{peer}")
            pythons[peer], sizes[peer] = place / "bin/python", megabytes(place)
        files = simulate(own, project, folder, counts)
        found, losses = {}, {}
        for case, paths in files.items():
            is_loss = case in ("steady", "flips")
            tools = ("ours", "river", "nannyml") if is_loss else ("ours", *PEERS, "prometheus")
            for tool in (each for each in tools if each in pythons):
                said = []
                for number, path in enumerate(paths, 1):
                    print(f"\r{case}: {tool} {number}/{len(paths)}   ", end="", file=sys.stderr)
                    said.append(ask(pythons[tool], tool, path, project))
                (losses if is_loss else found)[tool, case] = said
        print(file=sys.stderr)
        versions = versions_of(project, "numpy", "scipy")
    pins = [(KIT / f"benchmarks/monitors-{peer}.txt").read_text().split() for peer in PEERS]
    versions += "; " + ", ".join(" ".join(pin).replace("==", " ") for pin in pins)
    lines = page(found, sizes, losses)
    if asked.share < 1 or len(asked.only) < len(PEERS):
        print("\n".join(lines))
    else:
        write("bench-monitors", f"{versions}.", lines)


def alone(folder, project):
    """Return the size of an environment with what our checks import, and nothing else."""
    script = "from importlib.metadata import version as v; print(*(f'{n}=={v(n)}' for n in %r))"
    names = ("numpy", "scipy", "sqlalchemy", "pydantic-settings", "msgspec", "pyyaml")
    python, uv = project / ".venv/bin/python", KIT / ".venv/bin/uv"
    pins = run(python, "-c", script % (names,)).split()
    run(uv, "venv", "--quiet", "--python", python, folder)
    run(uv, "pip", "install", "--python", folder / "bin/python", *pins)
    return megabytes(folder)


if __name__ == "__main__":
    main()
