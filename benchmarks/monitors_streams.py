"""Run by the Python of a generated project: the streams that monitoring tools are compared on.

`monitors_streams.py <folder> <references> <streams> <windows>` writes a file for each reference
with its windows, and prints the files of each case as JSON.
"""

import json
import sys
from pathlib import Path

import numpy as np
from drift_simulation import COLUMNS, ROWS, WINDOW, drawn, drifted, levels

STEP, AFTER = 500, 6
ERRS = 0.1


def kept(path, reference, windows, names=None):
    """Write a reference and windows as one file of arrays."""
    arrays = {f"ref {name}": values for name, values in reference.items()}
    for i, window in enumerate(windows):
        arrays |= {f"{i} {name}": values for name, values in window.items()}
    arrays |= {f"levels {name}": np.array(count) for name, count in (names or {}).items()}
    np.savez(path, windows=np.array(len(windows)), **arrays)
    return str(path)


def scored(random, rows, flips=0.0):
    """Draw scores of two classes and whether each answer is wrong, as the score says it may be."""
    score = random.beta(0.6, 0.6, rows)
    wrong = random.random(rows) < np.minimum(score, 1 - score)
    flipped = random.random(rows) < flips
    return {"score": score, "wrong": (wrong ^ flipped).astype(float)}


def main(folder, references, streams, count):
    """Draw all cases."""
    folder, files = Path(folder), {}
    names = {f"column {j}": len(levels(j)) for j in range(COLUMNS) if levels(j)}
    for size in (200, 1000, 5000):
        for seed in range(int(references)):
            random = np.random.default_rng([7, size, seed])
            reference = drawn(random, COLUMNS, ROWS)
            windows = [drawn(random, COLUMNS, size) for _ in range(int(count))]
            path = kept(folder / f"no-drift-{size}-{seed}.npz", reference, windows, names)
            files.setdefault(f"no drift {size}", []).append(path)
    for seed in range(int(references)):
        random = np.random.default_rng([8, seed])
        reference = drawn(random, COLUMNS, ROWS)
        windows = [drawn(random, COLUMNS, WINDOW) for _ in range(int(count))]
        for window in windows:
            drifted(window, "shift", 0, random)
        path = kept(folder / f"shift-{seed}.npz", reference, windows, names)
        files.setdefault("shift", []).append(path)
    for seed in range(int(streams)):
        random = np.random.default_rng([9, seed])
        reference = drawn(random, COLUMNS, ROWS)
        stream = drawn(random, COLUMNS, WINDOW + AFTER * STEP)
        drifted(stream, "shift", WINDOW, random)
        ends = range(WINDOW + STEP, len(stream["column 0"]) + 1, STEP)
        windows = [
            {name: values[end - WINDOW : end] for name, values in stream.items()} for end in ends
        ]
        path = kept(folder / f"stream-{seed}.npz", reference, windows, names)
        files.setdefault("stream", []).append(path)
    for case, flips in (("steady", 0.0), ("flips", ERRS)):
        for seed in range(int(references)):
            random = np.random.default_rng([10, seed, round(100 * flips)])
            windows = [scored(random, WINDOW, flips) for _ in range(int(count))]
            path = kept(folder / f"{case}-{seed}.npz", scored(random, ROWS), windows)
            files.setdefault(case, []).append(path)
    print(json.dumps(files))


if __name__ == "__main__":
    main(*sys.argv[1:])
