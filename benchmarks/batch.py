"""Measure scoring files, beside pandas and scikit-learn as one would write it: `make bench-batch`.

Both sides answer the same rows with the same estimator, trained on the same sample, Parquet to
Parquet. `--rows` sets another size, `--large` the size of the run that shows the peak of memory.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.measure import installed, run, versions_of, watched, write

ROUNDS = 3
SAMPLE = 50_000
ESTIMATORS = {
    "hist_gradient_boosting": {"share": 1.0, "wanted": 2.5, "params": {}},
    # A tenth of the rows: the naive side answers few of them in a second.
    "random_forest": {"share": 0.1, "wanted": 5.0, "params": {"n_estimators": 100}},
    "logistic_regression": {"share": 1.0, "wanted": 5.0, "params": {}},
}

DATA = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq

def rows(count, seed):
    random = np.random.default_rng(seed)
    table = {f"reading {i}": random.normal(i, 1 + i, count).round(3) for i in range(6)}
    table["reading 0"][random.random(count) < 0.05] = np.nan
    table["age"] = random.integers(18, 90, count)
    table["visits"] = random.poisson(4, count)
    for name, size in (("region", 5), ("plan", 12), ("device", 30), ("channel", 8)):
        codes = pa.array(random.integers(0, size, count), pa.int32())
        words = pa.array([f"{name} {i:02d}" for i in range(size)])
        table[name] = pa.DictionaryArray.from_arrays(codes, words).dictionary_decode()
        table[name + "!"] = codes
    table["member"] = random.random(count) < 0.4
    table["urban"] = random.random(count) < 0.7
    pull = table["reading 1"] - table["reading 2"] / 3 + table["age"] / 30 + table["member"]
    pull = pull + np.sin(table["region!"].to_numpy()) + random.normal(0, 1, count)
    columns = {name: values for name, values in table.items() if not name.endswith("!")}
    columns = {
        name: pa.array(values, from_pandas=True) if isinstance(values, np.ndarray) else values
        for name, values in columns.items()
    }
    return pa.table(columns), np.where(pull > np.median(pull), "stays", "leaves")

path, count, seed, labelled = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "1"
writer = None
for start in range(0, count, 1 << 20):
    table, outcome = rows(min(1 << 20, count - start), [seed, start])
    if labelled:
        table = table.append_column("outcome", pa.array(outcome))
    writer = writer or pq.ParquetWriter(path, table.schema)
    writer.write_table(table)
writer.close()
"""

FIT = """
import sys
import joblib, pandas as pd
from sklearn.compose import make_column_selector as chosen, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

sample, path, estimator = sys.argv[1:4]
frame = pd.read_parquet(sample)
X, y = frame.drop(columns="outcome"), frame["outcome"]
codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
texts, numbers = chosen(dtype_include="str"), chosen(dtype_exclude="str")
pipelines = {
    "hist_gradient_boosting": (
        codes, "passthrough", HistGradientBoostingClassifier(random_state=0)
    ),
    "random_forest": (
        codes, SimpleImputer(strategy="median"), RandomForestClassifier(n_jobs=-1, random_state=0)
    ),
    "logistic_regression": (
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
        make_pipeline(SimpleImputer(strategy="median"), StandardScaler()),
        LogisticRegression(max_iter=1000),
    ),
}
encode, fill, model = pipelines[estimator]
columns = make_column_transformer((fill, numbers), (encode, texts))
joblib.dump(make_pipeline(columns, model).fit(X, y), path)
"""

NAIVE = """
import sys, time
import joblib, pandas as pd

model, source, destination = sys.argv[1:4]
pipeline = joblib.load(model)
start = time.perf_counter()
frame = pd.read_parquet(source)
shares = pipeline.predict_proba(frame)
frame["prediction"] = pipeline.classes_[shares.argmax(axis=1)]
for name, share in zip(pipeline.classes_, shares.T):
    frame[f"probability_{name}"] = share
frame.to_parquet(destination, index=False)
print(len(frame) / (time.perf_counter() - start))
"""

COPY = """
import sys, time
import pyarrow.parquet as pq

source, destination = sys.argv[1:3]
start = time.perf_counter()
with pq.ParquetFile(source) as file, pq.ParquetWriter(destination, file.schema_arrow) as writer:
    for batch in file.iter_batches(batch_size=131_072):
        writer.write_batch(batch)
    print(file.metadata.num_rows / (time.perf_counter() - start))
"""

SCORE = """
import sys
from pathlib import Path
from penguins import batch
from penguins.inference import Predictor
from penguins.settings import Data

bundle, source, destination = map(Path, sys.argv[1:4])
scored = batch.score(Predictor.load(bundle), source, destination, Data(source=""))
assert scored.rejected == 0
print(scored.rows_per_second)
"""


def trained(project, folder, sample, estimator, params):
    """Run the project's pipeline on the sample; return the bundle and what it runs on."""
    bundle = folder / estimator
    (project / "contract.json").unlink(missing_ok=True)
    extra = {
        "PYTHONPATH": str(project / "src"),
        "APP_DATA__SOURCE": str(sample),
        "APP_DATA__TARGET": "outcome",
        "APP_TRAINING__ESTIMATOR": estimator,
        "APP_TRAINING__PARAMS": json.dumps(params),
        "APP_TRAINING__FOLDS": "2",
        "APP_EVALUATION__IMPORTANCE_REPEATS": "0",
        "APP_SERVING__BUNDLE": str(bundle),
    }
    for stage in ("snapshot", "contract", "prepare", "train", "evaluate", "package"):
        run(project / ".venv/bin/python", "-m", "penguins", stage, cwd=project, **extra)
    card = json.loads((bundle / "card.json").read_text())
    return bundle, card.get("plan", {}).get("tier", "scikit-learn")


def compare(project, folder, sample, rows, rounds):
    """Score both ways in turn; return a line for each estimator and the limit's rows/s."""
    python = project / ".venv/bin/python"
    lines, limits = [], []
    for estimator, facts in ESTIMATORS.items():
        print(estimator, flush=True)
        count = int(rows * facts["share"])
        source = folder / f"rows-{count}.parquet"
        if not source.exists():
            run(python, "-c", DATA, source, str(count), "1", "0")
        bundle, tier = trained(project, folder, sample, estimator, facts["params"])
        model = folder / f"{estimator}.joblib"
        run(python, "-c", FIT, sample, model, estimator)
        calls = {
            "naive": ["-c", NAIVE, model, source, folder / "naive.parquet"],
            "score": ["-c", SCORE, bundle, source, folder / "score.parquet"],
            "limit": ["-c", COPY, source, folder / "copy.parquet"],
        }
        taken = {name: [] for name in calls}
        for _ in range(rounds):
            for name, words in calls.items():
                said, memory = watched(python, *words, cwd=project)
                taken[name].append((float(said), memory))
                print(f"  {name}: {taken[name][-1][0]:,.0f} rows/s, {taken[name][-1][1]:.2f} GiB")
                time.sleep(0.5)
        speed = {name: statistics.median(one[0] for one in each) for name, each in taken.items()}
        peak = {name: max(one[1] for one in each) for name, each in taken.items()}
        limits.append(speed["limit"])
        lines.append(
            f"| {estimator} ({tier}), {count / 1e6:g} M rows | {speed['naive']:,.0f} | "
            f"{peak['naive']:.2f} | {speed['score']:,.0f} | {peak['score']:.2f} | "
            f"{speed['score'] / speed['naive']:.1f} (≥ {facts['wanted']}) | "
            f"{speed['score'] / speed['limit']:.0%} |"
        )
    return lines, statistics.median(limits)


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--large", type=int, default=20_000_000, help="0: not at all")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--project", type=Path, help="an installed project, instead of a new one")
    parser.add_argument("--only", choices=ESTIMATORS, help="one estimator, nothing is written")
    asked = parser.parse_args()
    if asked.only:
        for name in set(ESTIMATORS) - {asked.only}:
            del ESTIMATORS[name]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = asked.project or installed(folder)
        python = project / ".venv/bin/python"
        sample = folder / "sample.parquet"
        run(python, "-c", DATA, sample, str(SAMPLE), "0", "1")
        lines, limit = compare(project, folder, sample, asked.rows, asked.rounds)
        if asked.large:
            print(f"{asked.large:,} rows", flush=True)
            source, bundle = folder / "large.parquet", folder / next(iter(ESTIMATORS))
            run(python, "-c", DATA, source, str(asked.large), "2", "0")
            words = ["-c", SCORE, bundle, source]
            said, peak = watched(python, *words, folder / "large-out.parquet", cwd=project)
            lines += [
                "",
                f"{asked.large / 1e6:g} million rows, {next(iter(ESTIMATORS))}: "
                f"{float(said):,.0f} rows/s, peak {peak:.2f} GiB (< 1 GiB wanted).",
            ]
        versions = versions_of(project, "scikit-learn", "pandas", "pyarrow", "numpy", "onnxruntime")
    lines = [
        "14 columns (8 numbers, 4 categories, 2 booleans), Parquet to Parquet, rows/s from the "
        "first byte read to the last written; medians of the rounds, the highest peak of resident "
        "memory of the process tree in GiB. naive: `pandas.read_parquet`, `predict_proba` of a "
        "scikit-learn pipeline on the whole frame (forests with all cores), `to_parquet`. limit: "
        f"the same file read and written by pyarrow, {limit:,.0f} rows/s.",
        "",
        "| | naive | GiB | `score` | GiB | ratio (wanted) | of the limit |",
        "|---|---|---|---|---|---|---|",
        *lines,
    ]
    if asked.only:
        print("\n".join(lines))
    else:
        write("bench-batch", f"{versions}. {asked.rounds} rounds, in turn.", lines)


if __name__ == "__main__":
    main()
