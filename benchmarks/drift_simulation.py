"""Run by the Python of a generated project: streams with and without drift, checked by its code.

`drift_simulation.py <share>` prints all figures as JSON, `drift_simulation.py cost` what one large
check takes, `drift_simulation.py store <events>` what one window of a store does. A share of 1
takes as many trials as the page shows; each draws its own reference, stream and onset, from a seed
of its own.
"""

import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import sqlalchemy as sa
from penguins.checks import Model
from penguins.contract import Column, Contract, Target
from penguins.monitoring import drift, performance, windows
from penguins.reference import LOSS, PREDICTION, chosen, sample
from penguins.settings import Monitoring
from penguins.store import opened, prediction_event

COLUMNS, ROWS, WINDOW = 20, 10_000, 1000
SETTINGS = Monitoring()
# Shares of missing values, in turn.
MISSING = (0, 0, 0.01, 0.1, 0.5)
LEVELS = {"binary": 2, "eight": 8, "thirty": 30}
DRAWS = {
    "normal": lambda random, n: random.normal(size=n),
    "skewed": lambda random, n: random.lognormal(size=n),
    "counts": lambda random, n: random.poisson(2, n).astype(float),
    "heavy tails": lambda random, n: random.standard_t(2, n),
    "rounded": lambda random, n: random.normal(size=n).round(1),
    "two peaks": lambda random, n: random.normal(4.0 * (random.random(n) < 0.3)),
    "mostly 0": lambda random, n: np.maximum(random.normal(size=n) - 0.5, 0),
}
KINDS = (*DRAWS, *LEVELS)


def kind(j):
    """Return what the j-th column of any table is."""
    return KINDS[j % len(KINDS)]


def levels(j):
    """Return the categories of the j-th column; None where it has numbers."""
    return tuple(map(str, range(LEVELS[kind(j)]))) if kind(j) in LEVELS else None


def drawn(random, columns, rows):
    """Draw a table, column by column; the same columns however many rows."""
    table = {}
    for j in range(columns):
        if names := levels(j):
            weights = 1 / np.arange(1, len(names) + 1)
            values = random.choice(len(names), rows, p=weights / weights.sum()).astype(float)
        else:
            values = DRAWS[kind(j)](random, rows)
        values[random.random(rows) < MISSING[(j // 2) % len(MISSING)]] = np.nan
        table[f"column {j}"] = values
    return table


def known(table, entities=None):
    """Make a table the reference."""
    return [sample(name, levels(j), table[name], entities) for j, name in enumerate(table)]


def part(table, rows):
    """Return some rows of a table."""
    return {name: values[rows] for name, values in table.items()}


def no_drift(seed, rows):
    """Count the alarms among checks of 100 columns, of 20, and of 5, all from the same rows."""
    random = np.random.default_rng([1, rows, seed])
    samples, window = known(drawn(random, 100, ROWS)), drawn(random, 100, rows)
    settings = Monitoring(window=rows)
    alarms = {}
    for columns in (100, 20, 5):
        groups = [samples[i : i + columns] for i in range(0, 100, columns)]
        found = [
            drift.check(group, {each.name: window[each.name] for each in group}, settings).alarm
            for group in groups
        ]
        alarms[columns] = (sum(found), len(found))
    return alarms


def fixed(seed, windows, rows=ROWS):
    """Check one stream without drift again and again; count alarms and confirmations."""
    random = np.random.default_rng([2, rows, seed])
    samples = known(drawn(random, COLUMNS, rows))
    size, step = (each(samples, SETTINGS) for each in (drift.window_size, drift.step_size))
    stream, history, confirmed = drawn(random, COLUMNS, size + step * (windows - 1)), [], 0
    for start in range(0, step * windows, step):
        found = drift.check(samples, part(stream, slice(start, start + size)), SETTINGS)
        history.append((float(start), found.drifted))
        confirmed += bool(drift.confirmed(history, SETTINGS))
    return sum(bool(names) for _, names in history), confirmed, windows


def repeated(seed, bursts):
    """Check events of entities that have five each, whose values are all the same.

    In bursts the five follow one another, else they lie anywhere among 5,000 events.
    """
    random = np.random.default_rng([3, bursts, seed])

    def events(count):
        about = np.repeat(np.arange(count // 5), 5)
        return about if bursts else random.permutation(about)

    before, after = events(ROWS), events(5 * WINDOW)[:WINDOW]
    table, later = (drawn(random, COLUMNS, about.max() + 1) for about in (before, after))
    _, about = chosen(np.arange(len(before)), WINDOW, before)
    window = part(later, after)
    by_entity = drift.check(known(part(table, about), about), window, SETTINGS, after)
    naive = drift.check(known(part(table, before)), window, SETTINGS)
    return by_entity.alarm, naive.alarm


def drifted(table, change, start, random):
    """Let a table drift from a row on; return the column that does."""
    j = {"shift": 0, "missing": 1, "category": KINDS.index("eight")}[change]
    values = table[f"column {j}"][start:]
    if change == "shift":
        values += 0.2
    elif change == "missing":
        values[random.random(len(values)) < 0.05] = np.nan
    else:
        values[random.random(len(values)) < 0.02] = -1
    return f"column {j}"


def power(seed, change):
    """Say whether a window of nothing but drifted rows alarms, in the right column."""
    random = np.random.default_rng([4, seed])
    samples, window = known(drawn(random, COLUMNS, ROWS)), drawn(random, COLUMNS, WINDOW)
    return drifted(window, change, 0, random) in drift.check(samples, window, SETTINGS).drifted


def delay(seed, change, step, onset):
    """Return how many events after its onset a drift is confirmed.

    It sets in with a check, or at any event from one check to the next.
    """
    random = np.random.default_rng([5, seed])
    samples, end = known(drawn(random, COLUMNS, ROWS)), 6 * WINDOW
    stream = drawn(random, COLUMNS, end)
    begin = 2 * WINDOW - (int(random.integers(step)) if onset == "any" else 0)
    column, history = drifted(stream, change, begin, random), []
    for at in range(2 * WINDOW, end + 1, step):
        found = drift.check(samples, part(stream, slice(at - WINDOW, at)), SETTINGS)
        history.append((float(at), found.drifted))
        if column in {streak.column for streak in drift.confirmed(history, SETTINGS)}:
            return at - begin
    return end


# Of a quarter of the reference's rows, which was held out, the losses are known.
HELD_OUT, FLIPPED = ROWS // 4, 0.1
ERRORS = {"1 %": 0.01, "10 %": 0.1, "20 %": 0.2, "30 %": 0.3}
CLASSES = Contract("binary", Target("class", (False, True)), ())
NUMBERS = Contract("regression", Target("number"), ())


def losses(seed, name):
    """Say whether labels alarm as they are, and once a tenth of them is flipped.

    Of numbers, whose errors are skewed, a tenth is off by a standard deviation of the target, with
    an R² of 0.8 before.
    """
    random = np.random.default_rng([7, *name.encode(), seed])
    if name in ERRORS:
        contract = CLASSES
        before, after = (
            (random.random(rows) < ERRORS[name]).astype(float) for rows in (HELD_OUT, WINDOW)
        )
        flipped = np.abs(after - (random.random(WINDOW) < FLIPPED))
    else:
        contract, scale = NUMBERS, 0.2**0.5
        before, after = (np.abs(random.normal(0, scale, rows)) for rows in (HELD_OUT, WINDOW))
        flipped = after + (random.random(WINDOW) < FLIPPED)
    reference = sample(LOSS, None, before)
    found = (performance.check(contract, reference, w, None, SETTINGS) for w in (after, flipped))
    strict = performance.check(contract, reference, after, None, Monitoring(least_loss=0))
    return *(each.finding.alarm for each in found), strict.finding.alarm


def stored(events):
    """Measure one window of a store: found, read, encoded and checked."""
    random, model = np.random.default_rng(8), Model("model", "1")
    table = drawn(random, COLUMNS, events)
    columns = tuple(
        Column(name, "categorical" if levels(j) else "numeric", True, categories=levels(j) or ())
        for j, name in enumerate(table)
    )
    contract = Contract("regression", Target("number"), columns)
    samples = [*known(drawn(random, COLUMNS, ROWS)), sample(PREDICTION, None, np.zeros(ROWS))]
    with tempfile.TemporaryDirectory() as folder, opened(f"sqlite:///{folder}/store.db") as store:
        for start in range(0, events, WINDOW):
            rows = range(start, min(start + WINDOW, events))
            with store.writing() as connection:
                made = [_event(table, model, i) for i in rows]
                connection.execute(sa.insert(prediction_event), made)
        del table
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        taken = []
        for end in np.linspace(WINDOW, events, 5):
            begin = time.process_time()
            with store.reading() as connection:
                place = windows.place(connection, model, None, WINDOW, end)
                after = windows.place_before(connection, model, SETTINGS.step, end) or place
                last = windows.place(connection, model, after, SETTINGS.step, end) or place
                found = windows.read(connection, model, last, WINDOW)
            values, _ = windows.columns(found, contract, samples, None)
            assert drift.check(samples, values, SETTINGS).state == "checked"
            taken.append(time.process_time() - begin)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"events": events, "seconds": sorted(taken)[2], "before": held, "peak": most}


def _event(table, model, i):
    row = {}
    for j, (name, values) in enumerate(table.items()):
        value, names = float(values[i]), levels(j)
        row[name] = None if np.isnan(value) else names[int(value)] if names else value
    return {
        "prediction_id": f"{i:042x}-0",
        "request_id": f"{i:032x}",
        "ts": float(i + 1),
        "model_name": model.name,
        "model_version": model.version,
        "role": "champion",
        "schema_hash": "0",
        "features": json.dumps(row),
        "output": '{"prediction": 0.0}',
        "score": 0.0,
        "latency_ms": 0.5,
        "status": 200,
    }


def cost():
    """Measure the time of one check of 100,000 rows, and the most memory of the process."""
    random = np.random.default_rng(6)
    samples, window = known(drawn(random, COLUMNS, ROWS)), drawn(random, COLUMNS, 100_000)
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    taken = []
    for _ in range(5):
        start = time.process_time()
        drift.check(samples, window, SETTINGS)
        taken.append(time.process_time() - start)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": sorted(taken)[2], "before": held, "peak": most}


TRIALS = {500: 1000, 1000: 1000, 5000: 500, 50_000: 150}
CHANGES = ("shift", "missing", "category")


def figures(share):
    """Name every figure with what it calls and how often."""
    wanted = {f"no drift {rows}": (no_drift, (rows,), trials) for rows, trials in TRIALS.items()}
    wanted["fixed 10000"] = (fixed, (50,), 120)
    wanted["fixed 344"] = (fixed, (50, 344), 120)
    wanted["repeated scattered"] = (repeated, (0,), 1500)
    wanted["repeated bursts"] = (repeated, (1,), 1500)
    for change in CHANGES:
        wanted[f"power {change}"] = (power, (change,), 1000)
        for step, onset in ((500, "check"), (500, "any"), (250, "any")):
            trials = 600 if change == "shift" else 300
            wanted[f"delay {change} {step} {onset}"] = (delay, (change, step, onset), trials)
    for name in (*ERRORS, "numbers"):
        wanted[f"losses {name}"] = (losses, (name,), 20_000)
    return {name: (*call, max(2, round(n * share))) for name, (*call, n) in wanted.items()}


def main(asked, events="0"):
    """Run the trials of every figure on all cores, and print what each gave."""
    if asked in ("cost", "store"):
        print(json.dumps(cost() if asked == "cost" else stored(int(events))))
        return
    found = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name, (call, arguments, trials) in figures(float(asked)).items():
            print(f"{name}: {trials} trials", file=sys.stderr, flush=True)
            given = [pool.submit(call, seed, *arguments) for seed in range(trials)]
            found[name] = [each.result() for each in given]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
