"""Run by the Python of a generated project: let its search fit one of the benchmark's data sets.

`search_kit.py <folder> <name> <target> <seconds> <seed>`.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
from penguins import encoding, evaluation, inspection, search, settings, training


def main(folder, name, target, seconds, seed):
    """Search, fit, and measure on the rows held out."""
    train, test = (pd.read_csv(Path(folder) / f"{name}-{part}.csv") for part in ("train", "test"))
    wanted = settings.Settings(
        project={"name": name},
        data={"source": f"{name}.csv", "target": target},
        training={"seed": int(seed), "search": {"minutes": float(seconds) / 60}},
    )
    start = time.perf_counter()
    contract = inspection.infer(train, wanted.data)
    matrix, known = encoding.encode_frame(contract, train), encoding.encode_target(contract, train)
    with training.few_threads(matrix):
        found = search.search(contract, matrix, known, wanted)
        model = training.fit(contract, matrix, known, found.settings)
    took = time.perf_counter() - start
    truth = encoding.encode_target(contract, test)
    measured, *_ = evaluation.evaluate(
        model, contract, encoding.encode_frame(contract, test), truth
    )
    print(
        json.dumps(
            {
                "score": measured[evaluation.PRIMARY[contract.task]],
                "seconds": took,
                "estimator": found.settings.training.estimator,
                "trials": found.summary["trials"],
                "cross_validated": found.summary["best"],
                "params": found.settings.training.params,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
