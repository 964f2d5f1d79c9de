"""Measure every stage on a million rows by 50 columns: `make bench-stages`.

The table is CSV and has what real ones have: dates, identifiers, answers of yes and no, categories
by the hundred, half of a column missing, columns that are constant or say the same twice.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks.measure import installed, run, versions_of, watched, write

STAGES = ("snapshot", "contract", "prepare", "train", "evaluate", "package", "register", "report")
LIMIT = 4

DATA = """
import sys
import numpy as np, pyarrow as pa, pyarrow.csv as csv

def rows(start, count):
    random = np.random.default_rng([0, start])
    table = {"number": pa.array([f"C{i:08d}" for i in range(start, start + count)])}
    days = random.integers(0, 2000, count)
    table["since"] = pa.array(np.datetime64("2019-01-01") + days.astype("timedelta64[D]"))
    table["country"] = pa.array(["Île-de-France"] * count)
    for i in range(30):
        table[f"reading {i}"] = random.normal(i, 1 + i, count).round(3)
    table["reading 0"][random.random(count) < 0.4] = np.nan
    table["reading 30"] = table["reading 1"]
    for i in range(6):
        table[f"visits {i}"] = random.poisson(3 + i, count)
    for name, size in (("region", 5), ("plan", 12), ("device", 30), ("channel", 8), ("shop", 400)):
        words = pa.array([f"{name} {i:03d}" for i in range(size)])
        codes = pa.array((size * random.random(count) ** 2).astype(np.int32))
        table[name] = pa.DictionaryArray.from_arrays(codes, words).dictionary_decode()
    for name in ("member", "urban", "insured", "owner"):
        codes = pa.array((random.random(count) < 0.3).astype(np.int32))
        words = pa.array(["no", "yes"])
        table[name] = pa.DictionaryArray.from_arrays(codes, words).dictionary_decode()
    pull = table["reading 1"] - table["reading 2"] / 3 + table["visits 1"] / 3
    rare = pull + random.normal(0, 1, count) > np.quantile(pull, 0.95)
    table["outcome"] = pa.array(np.where(rare, "leaves", "stays"))
    return pa.table({k: pa.array(v, from_pandas=True) if isinstance(v, np.ndarray) else v
                     for k, v in table.items()})

path, count = sys.argv[1], int(sys.argv[2])
writer = None
for start in range(0, count, 100_000):
    table = rows(start, min(100_000, count - start))
    writer = writer or csv.CSVWriter(path, table.schema)
    writer.write_table(table)
writer.close()
print(table.num_columns)
"""


def main():
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--project", type=Path, help="an installed project, instead of a new one")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = asked.project or installed(folder)
        python, source = project / ".venv/bin/python", folder / "rows.csv"
        (project / "contract.json").unlink(missing_ok=True)
        columns = int(run(python, "-c", DATA, source, str(asked.rows)))
        size = source.stat().st_size / 1e6
        extra = {"APP_DATA__SOURCE": str(source), "APP_DATA__TARGET": "outcome"}
        lines = []
        for stage in STAGES:
            start = time.perf_counter()
            _, peak = watched(python, "-m", "penguins", stage, cwd=project, **extra)
            lines.append(f"| {stage} | {time.perf_counter() - start:.1f} | {peak:.2f} |")
            print(lines[-1], flush=True)
        card = json.loads((project / "bundle/card.json").read_text())
        versions = versions_of(project, "scikit-learn", "pandas", "pyarrow", "numpy", "mlflow")
    lines = [
        f"{asked.rows:,} rows by {columns} columns, {size:,.0f} MB of CSV, a target of which 5 % "
        f"are one class; {card['estimator']}, {len(card['cross_validation']['folds'])} folds. Each "
        f"stage is its own process; peak resident memory of its tree. Wanted: within {LIMIT} GiB.",
        "",
        "| stage | s | GiB |",
        "|---|---|---|",
        *lines,
    ]
    write("bench-stages", f"{versions}.", lines)


if __name__ == "__main__":
    main()
