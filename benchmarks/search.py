"""Search for the best model beside FLAML, with the same time on the same rows: `make bench-search`.

`python -m benchmarks.search [project]` takes a project that is generated and installed already.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import install_peers, installed, run, versions_of, write
from scripts.demo import KIT

SECONDS = 20
SEEDS = (0,)
# Threads that wait for a core let go of theirs, in both, or a busy machine stops them.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE"}
KINDS = {"classification": "balanced accuracy", "regression": "R²"}


def measured(project, folder, peers, tables):
    """Fit every data set by both, one after the other; give back their answers by seed."""
    flaml = [peers / "bin/python", KIT / "benchmarks/search_flaml.py"]
    kit = [project / ".venv/bin/python", KIT / "benchmarks/search_kit.py"]
    answers = {name: [] for name in tables}
    for seed in map(str, SEEDS):
        for name, about in tables.items():
            run(*flaml, "split", folder, name, seed)
            place = [folder, name]
            own = run(
                *kit,
                *place,
                about["target"],
                str(SECONDS),
                seed,
                cwd=folder,
                PYTHONPATH=str(project / "src"),
                **PATIENT,
            )
            other = run(*flaml, "fit", *place, str(SECONDS), seed, cwd=folder, **PATIENT)
            pair = [json.loads(text.strip().splitlines()[-1]) for text in (own, other)]
            answers[name].append(pair)
            print(name, seed, *pair, flush=True)
    return answers


def ranks(own, other):
    """Rank two scores: the better one is 1, equals (to three digits) share 1.5."""
    difference = round(own, 3) - round(other, 3)
    return (1.5, 1.5) if not difference else (1.0, 2.0) if difference > 0 else (2.0, 1.0)


def report(tables, answers):
    """Lay the scores and ranks out, and the mean rank."""
    lines = [
        f"### Search, {SECONDS} s for each, beside FLAML",
        "",
        "Wanted: a mean rank (1 the better, 2 the other) not worse than FLAML's.",
        "",
        "| data | rows by features | metric | mlops-template | FLAML | ranks | chosen |",
        "|---|---|---|---|---|---|---|",
    ]
    placed = []
    for name, about in tables.items():
        own, other = (
            statistics.mean(pair[side]["score"] for pair in answers[name]) for side in (0, 1)
        )
        placed.append(ranks(own, other))
        chosen = ", ".join(
            " / ".join(answer["estimator"] for answer in pair) for pair in answers[name]
        )
        lines.append(
            f"| {name} | {about['rows']:,} by {about['features']} | {KINDS[about['task']]} "
            f"| {own:.3f} | {other:.3f} | {placed[-1][0]:g} / {placed[-1][1]:g} | {chosen} |"
        )
    own, other = (statistics.mean(pair[side] for pair in placed) for side in (0, 1))
    took = [
        statistics.mean(pair[side]["seconds"] for pairs in answers.values() for pair in pairs)
        for side in (0, 1)
    ]
    return [
        *lines,
        f"| **mean rank** | | | **{own:.2f}** | **{other:.2f}** | | |",
        f"| seconds, with the last fit | | | {took[0]:.1f} | {took[1]:.1f} | | |",
        "",
    ]


def main(*given):
    """Measure and write the page."""
    peers = install_peers("flaml")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = Path(given[0]).absolute() if given else installed(folder)
        flaml = [peers / "bin/python", KIT / "benchmarks/search_flaml.py"]
        raw = project / "data/raw/penguins.csv"
        tables = json.loads(run(*flaml, "tables", raw, folder))
        lines = report(tables, measured(project, folder, peers, tables))
        versions = versions_of(project, "scikit-learn", "optuna", "numpy")
    pins = ", ".join((KIT / "benchmarks/flaml.txt").read_text().split())
    seeds = "one seed" if len(SEEDS) == 1 else f"means of {len(SEEDS)} seeds"
    about = (
        f"{versions}; peers: {pins}. A quarter of the rows held out, {seeds}; both were told to "
        "optimise the metric shown, FLAML by a metric function for balanced accuracy. The kit may "
        "weight classes, which FLAML's own estimators do not."
    )
    write("bench-search", about, lines)


if __name__ == "__main__":
    main(*sys.argv[1:])
