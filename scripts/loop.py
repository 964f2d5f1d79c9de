"""The closed loop on one screen: `make loop-demo`.

A project learns to tell penguins, serves, and is asked over HTTP about a simulated colony; truths
come back. Half-way the colony changes. The monitor finds it, the project trains again, the gate
compares, the service swaps without a restart. Time is not waited for: windows are small.
"""

import argparse
import contextlib
import csv
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import yaml

from scripts import demo

ROWS = 6000
BATCH = 300
ALARMS = ("drift", "degraded")
COLUMNS = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")
SPREAD = (2.9, 1.1, 6.5, 450)
SPECIES = {
    "Adelie": (0.44, (38.8, 18.3, 190, 3700)),
    "Chinstrap": (0.2, (48.8, 18.4, 196, 3730)),
    "Gentoo": (0.36, (47.5, 15.0, 217, 5080)),
}
# Afterwards bills tell the contrary, and all are heavier.
DRIFT = {"Adelie": (10, 0, 0, 600), "Chinstrap": (-10, 0, 0, 600), "Gentoo": (0, 0, 0, 600)}
SETTINGS = {
    "data": {"source": "data/raw/colony.csv"},
    "evaluation": {"importance_repeats": 0},
    "monitoring": {"window": 600, "step": 300, "settle_seconds": 0},
}


def colony(number, seed, drifted=False):
    """Draw so many penguins, each a row with its species."""
    dice = random.Random(seed)
    shares = [share for share, _ in SPECIES.values()]
    for species in dice.choices(list(SPECIES), shares, k=number):
        shift = DRIFT[species] if drifted else (0,) * len(COLUMNS)
        means = SPECIES[species][1]
        values = [
            round(dice.gauss(mean + more, spread), 1)
            for mean, more, spread in zip(means, shift, SPREAD, strict=True)
        ]
        yield {**dict(zip(COLUMNS, values, strict=True)), "species": species}


class Loop:
    """An installed project, its service, and the stream of events that it is asked.

    Attributes
    ----------
    hits : list of bool
        Whether each answer was right, in the order of the stream.
    versions : list of str
        Which version gave each.
    marks : list of (int, str)
        What happened, and before which event.
    """

    def __init__(self, project):
        self.project = Path(project)
        self.port = demo.free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.hits, self.versions, self.marks = [], [], []
        self.settings = yaml.safe_load((self.project / "params.yaml").read_text())
        self.package = next(path.parent.name for path in self.project.glob("src/*/cli.py"))
        self.model = self.settings["tracking"]["model"]

    def run(self, *words, codes=(0,)):
        """Run a command of the project; return what it said."""
        done = subprocess.run(
            [self.project / ".venv/bin/python", "-m", self.package, *words],
            cwd=self.project,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode not in codes:
            sys.exit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout

    def environment(self, **extra):
        """Return the variables that commands of the project are run with."""
        return demo.environment(PYTHONPATH=str(self.project / "src"), **extra)

    def train(self, **changed):
        """Write the data and the settings, run the pipeline, and make its model the champion."""
        source = self.project / SETTINGS["data"]["source"]
        with source.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*COLUMNS, "species"])
            writer.writeheader()
            writer.writerows(colony(ROWS, seed=0))
        for section, values in {**SETTINGS, **changed}.items():
            self.settings[section] |= values
        self.settings["serving"]["source"] = f"models:/{self.model}@champion"
        (self.project / "params.yaml").write_text(yaml.safe_dump(self.settings, sort_keys=False))
        dvc = [self.project / ".venv/bin/dvc", "repro", "--quiet"]
        subprocess.run(dvc, cwd=self.project, env=self.environment(), check=True)
        return self.run("promote")

    @contextlib.contextmanager
    def serving(self):
        """Serve for a while, whatever the champion is."""
        with (self.project / "serve.log").open("w") as log:
            server = subprocess.Popen(
                [self.project / ".venv/bin/python", "-m", self.package, "serve"],
                cwd=self.project,
                env=self.environment(APP_SERVING__PORT=str(self.port)),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        demo.LOG = self.project / "serve.log"
        try:
            demo.wait_until_ready(server, self.address)
            yield server
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGINT)
                server.wait(30)

    def ask(self, number, drifted=False):
        """Ask for so many predictions, tell their truths, and wait until all are in the store."""
        if drifted:
            self.mark("drift")
        birds = list(colony(number, len(self.hits) + 1, drifted))
        rows = [{name: bird[name] for name in COLUMNS} for bird in birds]
        answer = demo.ask(f"{self.address}/predict", {"rows": rows})
        truths = []
        for bird, said in zip(birds, answer["predictions"], strict=True):
            self.hits.append(bird["species"] == said["prediction"])
            self.versions.append(answer["model"]["version"])
            truths.append({"prediction_id": said["id"], "label": bird["species"]})
        demo.ask(f"{self.address}/feedback", {"truths": truths})
        # What ingests stands back while others want the processor.
        until = time.monotonic() + 180
        while self.query("SELECT count(*) FROM prediction_event")[0][0] < len(self.hits):
            if time.monotonic() > until:
                sys.exit("the service does not bring its events into the store")
            time.sleep(0.1)

    def query(self, statement):
        """Ask the store of events."""
        store = f"file:{self.project}/events/store.db?mode=ro"
        with contextlib.closing(sqlite3.connect(store, uri=True, timeout=10)) as connection:
            return connection.execute(statement).fetchall()

    def check(self):
        """Run the monitor; return how things stand, and what it said."""
        said = self.run("monitor")
        status = re.match(r"(\w+), version", said)[1]
        if status in ALARMS:
            self.mark("alarm")
        return status, said

    def retrain(self, codes=(0,)):
        """Train again if there is a reason to; return what was said about it."""
        said = self.run("retrain", codes=codes)
        if "retrain   promoted" in said:
            self.mark("retrained")
        return said[said.rfind("retrain  ") :] if "retrain  " in said else said

    def wait_for_swap(self, seconds=30):
        """Return the version that answers, once it is another than the last one that did."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            version = demo.ask(f"{self.address}/model")["card"]["version"]
            if version != self.versions[-1]:
                self.mark("swapped")
                return version
            time.sleep(0.1)
        sys.exit(f"after {seconds} s version {self.versions[-1]} still answers")

    def mark(self, what):
        """Note what happens now, if it is the first time."""
        if what not in [known for _, known in self.marks]:
            self.marks.append((len(self.hits), what))

    def accuracy(self, last=BATCH):
        """Return the share of right answers among the last ones."""
        return sum(self.hits[-last:]) / last

    def draw(self):
        """Draw the accuracy over the events; the project's Python has the library for it."""
        facts = {"hits": self.hits, "marks": self.marks, "to": "reports/loop.png"}
        script = Path(__file__).with_name("loop_plot.py")
        subprocess.run(
            [self.project / ".venv/bin/python", script, json.dumps(facts)],
            cwd=self.project,
            check=True,
        )
        return self.project / facts["to"]


def show(loop, said):
    """Print one line about the stream."""
    version = loop.versions[-1]
    print(
        f"  {len(loop.hits):>5} events  accuracy {loop.accuracy():.3f}  version {version}  {said}"
    )


def walk(loop):
    """Let the stream flow, change the colony half-way, and see what becomes of it."""
    print("4. The stream begins", flush=True)
    while len(loop.hits) < 4 * BATCH:
        loop.ask(BATCH)
        status, _ = loop.check()
        show(loop, status)
    print("5. The colony changes: bills tell the contrary, all are heavier", flush=True)
    while status not in ALARMS:
        loop.ask(BATCH, drifted=True)
        status, said = loop.check()
        show(loop, status)
    print(said)
    print("6. Train again: the newest labelled events, the pipeline, the gate", flush=True)
    print(loop.retrain())
    version = loop.wait_for_swap()
    print(f"7. The service answers with version {version}, and was not restarted", flush=True)
    for _ in range(4):
        loop.ask(BATCH, drifted=True)
        status, _ = loop.check()
        show(loop, status)
    print(f"\nThe plot: {loop.draw()}")


def main():
    """Make a project, or take one that is installed, and walk the loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, help="an installed one, which is changed")
    given = parser.parse_args()
    if given.project is None:
        print("1. Generate demo/penguins", flush=True)
        demo.generate()
        print("2. Install what its lock names", flush=True)
        demo.make("install")
    loop = Loop((given.project or demo.PROJECT).resolve())
    print(f"3. Train on {ROWS:,} simulated penguins, and promote", flush=True)
    loop.train()
    with loop.serving():
        walk(loop)


if __name__ == "__main__":
    main()
