"""Measure how often the gate promotes a challenger that is no better, and one that is.

`make bench-gate`; `--trials 2` is quick and writes no page. Models are simulated, with a seed.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.drift import share
from benchmarks.measure import installed, run, versions_of, write
from scripts.demo import KIT

TRIALS, SEED = 1000, 0
ROWS = (30, 100, 300, 1000)


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, help="an installed project, instead of a new one")
    parser.add_argument("--trials", type=int, default=TRIALS)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = asked.project or installed(Path(name))
        script = [project / ".venv/bin/python", KIT / "benchmarks/gate_simulation.py"]
        own = {"PYTHONPATH": str(project / "src"), "OMP_NUM_THREADS": "1"}
        found = json.loads(run(*script, str(asked.trials), str(SEED), **own))
        versions = versions_of(project, "numpy")
    lines = [
        f"Promoted by the paired bootstrap of the gate, in % of {asked.trials:,} trials, ± one "
        "standard error; in brackets how often the challenger's score is higher. Wanted of equal "
        "models: at most 5 %.",
        "",
        "| challenger | " + " | ".join(f"{rows:,} rows" for rows in ROWS) + " |",
        "|---" * (len(ROWS) + 1) + "|",
    ]
    for challenger, counts in found.items():
        cells = [
            f"{share(promoted, asked.trials)} ({100 * higher / asked.trials:.0f})"
            for promoted, higher in counts
        ]
        lines.append(f"| {challenger} | {' | '.join(cells)} |")
    if asked.trials < TRIALS:
        print("\n".join(lines))
        return
    write("bench-gate", f"{versions}.", lines)


if __name__ == "__main__":
    main()
