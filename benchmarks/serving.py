"""Measure the service beside others that serve the same model: `make bench-serving`.

One core serves, the other sends. All candidates stand ready at once and take turns, each frozen
while another is measured; what is compared is server CPU per request, of the whole process tree.
`--only` measures some and writes nothing; `--folder` keeps what was trained for another run.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.candidates import candidates, knows
from benchmarks.load import CONNECTIONS, Server, proportional_memory
from benchmarks.measure import installed, run, tree_memory, versions_of, write
from scripts.demo import KIT

ROUNDS, SECONDS, SOAK, STARTS, IDLE = 5, 3, 300, 5, 10
# A slow candidate gets more time: what is under way at the end must not count.
ENOUGH, LONGEST = 500, 5
TOLERANCE = 1e-6
CHECKED = 8
MODELS = {
    "boosting": {
        "APP_TRAINING__ESTIMATOR": "hist_gradient_boosting",
        "APP_PREPROCESSING__IMPUTE": "none",
        "APP_PREPROCESSING__SCALE": "none",
    },
    "forest": {
        "APP_TRAINING__ESTIMATOR": "random_forest",
        "APP_TRAINING__PARAMS": '{"n_estimators": 100}',
        "APP_PREPROCESSING__SCALE": "none",
    },
    "linear": {"APP_TRAINING__ESTIMATOR": "logistic_regression"},
}


@dataclass(frozen=True)
class Goal:
    """A ratio of CPU per request: of `other` to `ours`, for requests of so many rows."""

    ours: str
    other: str
    wanted: float
    size: int = 1
    note: str = ""


GOALS = (
    Goal("ours", "fastapi", 2.5),
    Goal("ours", "starlette", 0.95),
    Goal("ours", "bare", 0.85, note=", to stretch for"),
    Goal("ours", "mlflow", 130),
    Goal("ours", "bentoml", 30),
    Goal("ours", "bentoml-batching", 30),
    Goal("ours", "litserve", 30),
    Goal("ours", "litserve-batching", 30),
    Goal("ours", "mlserver", 30),
    Goal("ours", "mlflow", 25, 32),
    Goal("ours", "mlflow", 7, 256),
    Goal("ours", "ours-no-events", 0.9),
    Goal("ours-fsync", "ours-no-events", 0.65),
    Goal("ours", "ours-no-metrics", 0.9),
    Goal("ours-fallback", "tutorial", 5),
    Goal("ours-forest-fallback", "tutorial-forest", 15),
)
PACED = ("ours", "fastapi", "tutorial", "mlflow")
PACED_ROUNDS, PACED_SECONDS, P99_MS = 3, 5, 5
START_S, IDLE_MB = 1.0, 120
FLAT = 0.05
# The third of ten sizes: ingestion, which stands back, takes its time to load what it needs.
LOADED = 2


def say(*words):
    """Tell how far it is."""
    print(f"{datetime.now():%H:%M:%S}", *words, file=sys.stderr, flush=True)


def train(project, folder, names):
    """Let the project train each model, and a plain pipeline be fitted on the same rows."""
    python, script = project / ".venv/bin/python", KIT / "benchmarks/serving_model.py"
    table = folder / "data.parquet"
    own = {"PYTHONPATH": str(project / "src")}
    if not table.exists():
        run(python, script, "data", table, **own)
    for name in names:
        if (folder / f"{name}-fallback").exists():
            continue
        say(f"training: {name}")
        extra = {
            **own,
            **MODELS[name],
            "APP_DATA__SOURCE": str(table),
            "APP_DATA__TARGET": "outcome",
            "APP_PREPROCESSING__OUTLIERS": "none",
            "APP_TRAINING__FOLDS": "2",
            "APP_EVALUATION__IMPORTANCE_REPEATS": "0",
            "APP_SERVING__BUNDLE": str(folder / name),
        }
        (project / "contract.json").unlink(missing_ok=True)
        for stage in ("snapshot", "contract", "prepare", "train", "evaluate", "package"):
            run(python, "-m", "penguins", stage, cwd=project, **extra)
        run(python, script, "plain", folder, name, cwd=project, **extra)
        run(python, script, "fallback", folder / f"{name}-fallback", cwd=project, **extra)


def bodies_of(folder, name, candidate, size):
    """Write the bodies of a candidate, one a line; return the file and the expected answers."""
    requests = json.loads((folder / f"{candidate.model}.json").read_text())[str(size)]
    lines = [json.dumps(candidate.body(request), separators=(",", ":")) for request in requests]
    path = folder / f"bodies-{name}-{size}.txt"
    path.write_text("\n".join(lines) + "\n")
    return path, [request["shares"] for request in requests]


def start(project, folder, name, candidate, **more):
    """Start a candidate in a folder of its own, where it finds the project's settings."""
    place = folder / "run" / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copy(project / "params.yaml", place)
    return Server(candidate.command, candidate.path, place, **{**candidate.extra, **more})


def check(server, name, candidate, path, expected):
    """Stop where an answer is none, or differs from scikit-learn's."""
    for body, wanted in zip(path.read_text().splitlines()[:CHECKED], expected, strict=False):
        status, said = server.ask(body)
        if status != 200:
            sys.exit(f"{name}: {status} {said[:2000]!r}")
        if candidate.shares is None:
            continue
        got = candidate.shares(json.loads(said))
        worst = max(
            abs(one - other)
            for mine, theirs in zip(got, wanted, strict=True)
            for one, other in zip(mine, theirs, strict=True)
        )
        if not worst <= TOLERANCE:
            sys.exit(f"{name}: a probability differs by {worst:.2g} from the plain pipeline's")


def measure(project, folder, chosen, rounds, seconds, found):
    """Start all candidates, then visit them in turn; fill `found`, of loads by name and size."""
    facts = {}
    with ExitStack() as running:
        servers, bodies = {}, {}
        for name, candidate in chosen.items():
            say(f"starting: {name}")
            server = servers[name] = start(project, folder, name, candidate)
            running.callback(server.stop)
            for size in candidate.sizes:
                bodies[name, size], expected = bodies_of(folder, name, candidate, size)
                if size == candidate.sizes[0]:
                    first = server.first(bodies[name, size].read_text().splitlines()[0])
                check(server, name, candidate, bodies[name, size], expected)
            time.sleep(IDLE if name == "ours" else 1)
            pid = server.process.pid
            facts[name] = (first, tree_memory(pid) / 1e6, proportional_memory(pid) / 1e6)
            server.freeze()
        took = dict.fromkeys(bodies, seconds)
        for number in range(rounds):
            for (name, size), path in bodies.items():
                servers[name].thaw()
                load = servers[name].load(path, took[name, size])
                servers[name].freeze()
                took[name, size] = max(seconds, min(round(ENOUGH / load.rate), LONGEST))
                found.setdefault((name, size), []).append(load)
                say(
                    f"round {number + 1}: {name}, {size} rows: {load.cpu:,.1f} µs, "
                    f"ingestion {load.ingestion:,.1f} µs, {load.rate:,.0f} requests/s"
                )
        paced = {}
        for _ in range(PACED_ROUNDS):
            for name in (name for name in PACED if name in servers):
                rate = median(found[name, 1], "rate") / 2
                servers[name].thaw()
                said = servers[name].open_loop(bodies[name, 1], rate, PACED_SECONDS)
                servers[name].settle()
                servers[name].freeze()
                paced.setdefault(name, []).append(said)
                say(f"half load: {name}: {said}")
    medians = {
        name: {key: statistics.median(each[key] for each in said) for key in said[0]}
        for name, said in paced.items()
    }
    return facts, medians


def starts(project, folder, candidate):
    """Start ours anew a few times, on all cores; return the median of s to the first answer."""
    path, _ = bodies_of(folder, "ours", candidate, 1)
    body, taken = path.read_text().splitlines()[0], []
    for _ in range(STARTS):
        server = start(project, folder, "ours-start", candidate, cores=every_core())
        taken.append(server.first(body))
        server.stop()
    return statistics.median(taken)


def idle(project, folder, candidate):
    """Start ours, and ask nothing; return MB of memory of the tree, resident and proportional."""
    server = start(project, folder, "ours-idle", candidate)
    try:
        time.sleep(IDLE)
        pid = server.process.pid
        return tree_memory(pid) / 1e6, proportional_memory(pid) / 1e6
    finally:
        server.stop()


def every_core():
    """Name all cores of the machine, as taskset does."""
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


def soak(project, folder, candidate, seconds):
    """Keep ours under load; return the requests, and MB of memory after each tenth."""
    path, _ = bodies_of(folder, "ours", candidate, 1)
    server = start(project, folder, "ours-soak", candidate)
    try:
        server.first(path.read_text().splitlines()[0])
        sizes, requests, part = [], 0, max(1, seconds // 10)
        for _ in range(10):
            requests += server.wrk(path, part)[0]
            sizes.append(proportional_memory(server.process.pid) / 1e6)
            say(f"soak: {requests:,} requests, {sizes[-1]:.1f} MB")
    finally:
        server.stop()
    shutil.rmtree(folder / "run/ours-soak")
    return requests, sizes


def two_workers(project, folder, candidate, seconds):
    """Serve with two workers on all cores, wrk among them; None where there is no such setting."""
    if not knows(project, "APP_SERVING__WORKERS"):
        return None
    path, _ = bodies_of(folder, "ours", candidate, 1)
    more = {"cores": every_core(), "APP_SERVING__WORKERS": "2"}
    server = start(project, folder, "ours-workers", candidate, **more)
    try:
        server.first(path.read_text().splitlines()[0])
        return server.load(path, seconds)
    finally:
        server.stop()


def median(found, what):
    """Return the median of one figure over the rounds."""
    return statistics.median(getattr(load, what) for load in found)


def ratio(found, goal, what="cpu"):
    """Return the median of the ratios of the rounds: how much less ours takes, or more it does."""
    pairs = zip(found[goal.other, goal.size], found[goal.ours, goal.size], strict=True)
    both = [(getattr(other, what), getattr(own, what)) for other, own in pairs]
    return statistics.median(b / a if what == "rate" else a / b for a, b in both)


def report(chosen, found, facts):
    """Lay out all candidates, and the goals beside what was reached."""
    lines = []
    for size in sorted({size for _, size in found}):
        lines += [
            f"### {size} row{'s' * (size > 1)} a request, {CONNECTIONS} connections",
            "",
            "| | CPU µs | ingestion µs | requests/s | p99 ms | ratio | start s | RSS MB | PSS MB |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        own = found.get(("ours", size))
        for (name, rows), loads in found.items():
            if rows != size:
                continue
            micros = median(loads, "cpu")
            share = f"{micros / median(own, 'cpu'):.2f}" if own else ""
            ingested = median(loads, "ingestion")
            lines.append(
                f"| {chosen[name].title} | {micros:,.1f} | {f'{ingested:.1f}' if ingested else ''} "
                f"| {median(loads, 'rate'):,.0f} | {median(loads, 'p99_ms'):,.1f} | {share} | "
                + " | ".join(
                    f"{fact:,.{digits}f}"
                    for fact, digits in zip(facts[name], (1, 0, 0), strict=True)
                )
                + " |"
            )
        lines.append("")
    goals = [
        goal for goal in GOALS if {(goal.ours, goal.size), (goal.other, goal.size)} <= set(found)
    ]
    if goals:
        lines += [
            "### Ratios",
            "",
            "| | rows | CPU a request | with ingestion | requests/s | wanted |",
            "|---|---|---|---|---|---|",
            *(
                f"| {chosen[goal.other].title} ÷ {chosen[goal.ours].title} | {goal.size} | "
                f"{ratio(found, goal):.2f} | {ratio(found, goal, 'total'):.2f} | "
                f"{ratio(found, goal, 'rate'):.2f} | ≥ {goal.wanted:g}{goal.note} |"
                for goal in goals
            ),
            "",
        ]
    return lines


def further(project, folder, chosen, facts, paced, asked):
    """Measure what is no load of its own; lay it out."""
    lines = ["### Further", "", "| | measured | wanted |", "|---|---|---|"]
    for name, said in paced.items():
        wanted = f"p99 at most {P99_MS} ms" if name == "ours" else ""
        lines.append(
            f"| {chosen[name].title}, half load, {said['rate']:,.0f}/s | p50 {said['p50']:.2f}, "
            f"p99 {said['p99']:.2f}, p99.9 {said['p999']:.2f} ms "
            f"(the client's own lateness: p99 {said['late_p99']:.2f} ms) | {wanted} |"
        )
    if "ours" not in chosen:
        return lines
    ours = chosen["ours"]
    moments = (
        ("idle", idle(project, folder, ours), f"at most {IDLE_MB} MB"),
        (f"{IDLE} s after the first answers, beside ingestion", facts["ours"][1:], ""),
    )
    lines += [
        f"| {moment} | RSS {rss:.0f} MB, PSS {pss:.0f} MB, of the whole tree | {wanted} |"
        for moment, (rss, pss), wanted in moments
    ]
    first = starts(project, folder, ours)
    say(f"start: {first:.2f} s")
    lines.append(f"| start to the first prediction | {first:.2f} s | at most {START_S:g} s |")
    for name in ("boosting", "forest"):
        candidate = "ours-fallback" if name == "boosting" else "ours-forest-fallback"
        if candidate not in chosen:
            continue
        script = [project / ".venv/bin/python", KIT / "benchmarks/serving_model.py", "inside"]
        where = [folder / f"{name}-fallback", folder / f"{name}.joblib", folder / f"{name}.json"]
        pinned = ["taskset", "--cpu-list", "0"]
        said = json.loads(run(*pinned, *script, *where, PYTHONPATH=str(project / "src")))
        wanted = next(goal.wanted for goal in GOALS if goal.ours == candidate)
        lines.append(
            f"| in process, {name} without ONNX | {said['ours']:,.0f} µs a row, pandas and "
            f"scikit-learn {said['pandas']:,.0f} µs: {said['pandas'] / said['ours']:.1f} | "
            f"≥ {wanted:g} |"
        )
    if load := two_workers(project, folder, ours, asked.seconds):
        lines.append(
            f"| two workers, wrk beside them on two cores | {load.cpu:.1f} µs a request, "
            f"{load.rate:,.0f} requests/s, p99 {load.p99_ms:.1f} ms | |"
        )
    if asked.soak:
        requests, sizes = soak(project, folder, ours, asked.soak)
        lines.append(
            f"| {asked.soak} s under load, {requests:,} requests | {sizes[LOADED]:.0f} MB after "
            f"three tenths, {max(sizes):.0f} MB at most, {sizes[-1]:.0f} MB at the end "
            f"({sizes[-1] / sizes[LOADED] - 1:+.1%}) | at most {FLAT:+.0%} |"
        )
    return [*lines, ""]


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of one visit")
    parser.add_argument("--soak", type=int, default=SOAK, help="seconds; 0: not at all")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="nothing is written")
    parser.add_argument("--project", type=Path, help="an installed project, instead of a new one")
    parser.add_argument("--folder", type=Path, help="keep what was trained here")
    asked = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two cores are needed: one serves, one sends")
    if not shutil.which("wrk"):
        sys.exit("wrk is missing: sudo apt install wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = (asked.folder or Path(name)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        project = (asked.project or installed(Path(name))).absolute()
        chosen = candidates(project, folder)
        for name in [*chosen]:
            if missing := [key for key in chosen[name].extra if not knows(project, key)]:
                say(f"left out: {name}, the project has no {', '.join(missing)}")
                del chosen[name]
        if asked.only:
            if unknown := set(asked.only) - set(chosen):
                sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(chosen)}")
            chosen = {name: chosen[name] for name in asked.only}
        train(project, folder, sorted({each.model for each in chosen.values()}))
        found = {}
        facts, paced = measure(project, folder, chosen, asked.rounds, asked.seconds, found)
        lines = report(chosen, found, facts) + further(project, folder, chosen, facts, paced, asked)
        names = ("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools", "mlflow")
        versions = versions_of(project, *names, "scikit-learn", "onnxruntime", "numpy")
    if asked.only:
        print("\n".join(lines))
        return
    wrk = subprocess.run(["wrk", "--version"], capture_output=True, text=True).stdout.split()[1]
    pins = {
        line
        for name in ("serving", "serving-mlserver")
        for line in (KIT / f"benchmarks/{name}.txt").read_text().split()
        if line.startswith(("bentoml", "litserve", "mlserver"))
    }
    about = [
        "14 columns (8 numbers, 4 categories, 2 booleans), two classes, gradient boosting where "
        "nothing else is said. One core serves, wrk has the other; medians of the rounds, in "
        "which all take turns. CPU µs: user and system time of the whole process tree for one "
        "request; ingestion, which runs beside the service in a process of its own until it has "
        "caught up, stands apart. ratio: CPU µs to ours. start: to the first answer, on that one "
        "core; memory: of the tree, after its first answers. Before it is measured each has to "
        f"give the probabilities of the plain scikit-learn pipeline within {TOLERANCE:g}, and an "
        "answer other than 2xx ends the run.",
        "",
        "All run on uvicorn, uvloop and httptools, one worker, no access log. MLflow: "
        "`--env-manager local`, signature enforced, `dataframe_split`. BentoML: metrics off; "
        "batching: up to 1,024 rows. LitServe: one worker process; batches wait 5 ms. MLServer: "
        "no parallel workers, the pandas codec. Half load: half of the requests/s above, sent at "
        "a fixed rate by `benchmarks/open_loop.py` on the other core, measured from the time at "
        "which each request was due.",
        "",
    ]
    write(
        "bench-serving",
        f"{versions}; peers: {', '.join(sorted(pins))}; wrk {wrk}. {asked.rounds} rounds of "
        f"{asked.seconds} s or more.",
        about + lines,
    )


if __name__ == "__main__":
    main()
