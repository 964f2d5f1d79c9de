"""The simulation behind `make bench-gate`, run by a generated project's Python: trials, seed."""

import json
import sys

import numpy as np
from penguins import comparison
from penguins.settings import Gate

ROWS = (30, 100, 300, 1000)


def classes(generator, rows, ours=0.8):
    """Draw truths of three classes, and two models that are right independently."""
    truth = generator.integers(0, 3, rows).astype(float)
    said = (np.where(generator.random(rows) < share, truth, -1.0) for share in (0.8, ours))
    return "multiclass", truth, *said


def alike(generator, rows):
    """Draw two models that differ in five rows, in which either is right by chance."""
    task, truth, theirs, _ = classes(generator, rows)
    differ = generator.random(rows) < 5 / rows
    ours = np.where(generator.random(rows) < 0.5, truth, -1.0)
    return task, truth, theirs, np.where(differ, ours, theirs)


def numbers(generator, rows, ours=1.0):
    """Draw numbers, and two models that share an error and have one of their own."""
    truth, common, *own = generator.normal(size=(4, rows))
    return "regression", truth, truth + common + own[0], truth + common + ours * own[1]


def groups(generator, rows):
    """Draw silhouettes of the same rows by two equal clusterings."""
    common, *own = generator.normal(size=(3, rows))
    return "clustering", None, common + own[0], common + own[1]


MODELS = {
    "equal: classes, independent": classes,
    "equal: classes, five rows differ": alike,
    "equal: numbers": numbers,
    "equal: clusters": groups,
    "better: 90 % right, not 80 %": lambda generator, rows: classes(generator, rows, 0.9),
    "better: own error halved": lambda generator, rows: numbers(generator, rows, 0.5),
}


def main():
    """Count how often each challenger would be promoted, and how often its score is higher."""
    trials, settings, found = int(sys.argv[1]), Gate(), {}
    for name, draw in MODELS.items():
        for rows in ROWS:
            generator = np.random.default_rng([int(sys.argv[2]), rows])
            drawn = (draw(generator, rows) for _ in range(trials))
            compared = [comparison.compare(*each, settings) for each in drawn]
            promoted = sum(each.low > settings.margin for each in compared)
            higher = sum(each.difference > 0 for each in compared)
            found.setdefault(name, []).append((promoted, higher))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
