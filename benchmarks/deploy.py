"""How long a push takes until the new version serves in production: `make bench-deploy`.

Act runs all of deploy.yml on this machine, against a registry and a host that are here as well.
Caches are warm: the environment and what mypy knows of libraries, as on GitHub after the first
push, and the wheels and layers of the image, as on a runner that is kept. Every round changes the
code, so that nothing is cached that depends on it.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from scripts.demo import KIT

from .measure import installed, run, versions_of, write

sys.path.insert(0, str(KIT / "tests"))

import host
import images
import runner

ROUNDS = 3
WANTED = 90
CHANGED = "src/penguins/wording.py"
BEFORE = ("ready", "lint", "test", "train", "image", "gate")
PUBLISHED = ("sbom", "scan", "push", "attest")
AFTER = ("staging", "production")


class Site:
    """A repository, a registry and a host; each push changes a line of the code."""

    def __init__(self, repository, registry, target):
        self.repository, self.target, self.pushes = repository, target, 0
        self.variables = {"REGISTRY": registry.address, "REGISTRY_USER": "robot"}
        self.variables |= target.variables
        self.secrets = {"REGISTRY_PASSWORD": runner.PASSWORD, **target.secrets}

    def push(self, at_once):
        """Push; return the seconds until production serves it, and those of each job."""
        self.pushes += 1
        shutil.rmtree(self.repository.folder / "artifacts", ignore_errors=True)
        self.repository.change(CHANGED, "put into words", f"put into words, {self.pushes}")
        words = [f"--matrix=python:{runner.MAIN}", f"--concurrent-jobs={at_once}"]
        known = {"variables": self.variables, "secrets": self.secrets}
        done = self.repository.act("deploy.yml", "push", *words, **known)
        if done.code:
            sys.exit(f"the deployment failed:\n{done.text[-5000:]}")
        jobs = spans(self.repository.folder / "act.log")
        start = min(first for first, _ in jobs.values())
        return jobs["production"][1] - start, {name: b - a for name, (a, b) in jobs.items()}


def spans(log):
    """Return when each job began and ended."""
    found = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line) if line.startswith("{") else {}
        if "job" in entry:
            name = runner.job_of(entry).split(" ")[0]
            moment = datetime.fromisoformat(entry["time"]).timestamp()
            found[name] = found.get(name, (moment,))[0], moment
    return found


def longest_way(jobs):
    """Return what it takes where each job has a machine of its own: the longest way through."""
    checked = max(jobs["lint"], jobs["test"], jobs["train"] + jobs["image"])
    published = max(jobs["sbom"], jobs["scan"] + jobs["push"]) + jobs["attest"]
    return sum(jobs[name] for name in ("ready", "gate", *AFTER)) + checked + published


def medians(rounds):
    """Return the median of each job."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main():
    """Push once to warm the caches, then measure with one and with two jobs at a time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--project", type=Path, help="installed; made where none is given")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, contextlib.ExitStack() as exits:
        folder = Path(made)
        project = chosen.project or installed(folder / "project")
        (folder / "registry").mkdir()
        registry = exits.enter_context(images.registry(folder / "registry"))
        target = exits.enter_context(host.running(folder / "host"))
        repository = exits.enter_context(runner.repository(folder / "site", project))
        said = f'STANDIN_GH={folder} exec {sys.executable} {runner.STANDINS}/gh "$@"'
        repository.place("gh", f"#!/bin/sh\n{said}\n")
        # Under control groups of the first version pylint finds one core, however many there are.
        repository.change("pyproject.toml", "jobs = 0", f"jobs = {os.cpu_count()}")
        site = Site(repository, registry, target)
        site.push(2)
        measured = {count: [site.push(count) for _ in range(chosen.rounds)] for count in (1, 2)}
        versions = versions_of(project, "pytest", "pylint", "mypy", "mlflow")
    jobs = {count: medians([each for _, each in rounds]) for count, rounds in measured.items()}
    total = {
        count: statistics.median(seconds for seconds, _ in rounds)
        for count, rounds in measured.items()
    }
    tools = run(runner.TOOLS / "act", "--version").strip()
    write("bench-deploy", f"{versions}; {tools}. Medians of {chosen.rounds}.", page(jobs, total))


def page(jobs, total):
    """Lay out the section of the page."""
    rows = [
        f"| {name} | {jobs[1][name]:.0f} | {jobs[2][name]:.0f} |"
        for name in (*BEFORE, *PUBLISHED, *AFTER)
    ]
    return [
        "From a push to main, which changes a line of code, to the new version serving in "
        "production. Nothing is left out but the base image and, of the three Pythons that test, "
        "two. What scans, lists and attests the image are stand-ins, which take no time. Caches "
        "are warm, the layers of the image below the code as well.",
        "",
        f"Wanted: at most {WANTED} s on two cores.",
        "",
        "| seconds | one job at a time | two at a time |",
        "|---|---|---|",
        f"| **push to serving** | **{total[1]:.0f}** | **{total[2]:.0f}** |",
        *rows,
        f"| without lint and test | {total[1] - jobs[1]['lint'] - jobs[1]['test']:.0f} | |",
        "",
        "With a machine for each job, as on GitHub, the longest way through the jobs counts: "
        f"{longest_way(jobs[1]):.0f} s of the seconds of the first column.",
    ]


if __name__ == "__main__":
    main()
