"""Measure how long an alert takes to start retraining: `make bench-alerts`.

The real chain runs as compose.yaml has it, with its intervals: a service, Prometheus, Alertmanager
and two relays; GitHub is a stand-in that fails at the first request. A stream has no part in it:
the monitor's finding is put into the store, and the time is taken from when the alert fires.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import installed, run, versions_of, write
from scripts.demo import KIT

sys.path.insert(0, str(KIT / "tests"))

import alarm

ROUNDS, WANTED = 5, 10
INTERVAL = "15s"  # as in monitoring/prometheus.yml


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, help="trained; made where none is given")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--interval", default=INTERVAL, help="of Prometheus's looks")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        project = asked.project or installed(Path(name) / "project")
        if not asked.project:
            run("make", "pipeline", cwd=project)
        found = []
        for number in range(asked.rounds):
            folder = Path(name, str(number))
            folder.mkdir()
            found.append(once(project, folder, asked.interval))
            print(f"round {number + 1}: {found[-1][0]:.1f} s", flush=True)
        versions = versions_of(project, "uvicorn", "sqlalchemy")
    seconds, dispatches = zip(*found, strict=True)
    lines = [
        "From an alert that fires in Prometheus to the request that GitHub accepts, in "
        f"{asked.rounds} rounds, with the intervals of compose.yaml. Two relays are told, and "
        "GitHub fails at first.",
        "",
        "| | measured | wanted |",
        "|---|---|---|",
        f"| seconds, median | {statistics.median(seconds):.1f} | at most {WANTED} |",
        f"| seconds, at most | {max(seconds):.1f} | at most {WANTED} |",
        f"| accepted requests an alert | {min(dispatches)} to {max(dispatches)} | 1 |",
    ]
    if asked.rounds < ROUNDS:
        print("\n".join(lines))
        return
    tools = [
        run(alarm.program(*names), "--version").split(" (")[0]
        for names in (("prometheus",), ("alertmanager", "prometheus-alertmanager"))
    ]
    write("bench-alerts", f"{versions}; {'; '.join(tools)}.", lines)


def once(project, folder, interval):
    """Let one alert fire; return its seconds, and how many requests were accepted."""
    with (
        alarm.watched(project, folder) as place,
        alarm.answering() as github,
        alarm.chain(place, project, folder, github, interval) as (prometheus, alertmanager),
    ):
        alert, accepted = alarm.raised(place, prometheus, alertmanager, github)
        return alarm.delay(alert, accepted), sum(each[1] == 204 for each in github.asked)


if __name__ == "__main__":
    main()
