"""Files that the stages leave: where they lie, JSON and CSV that a person can read, hashes."""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .errors import DataError

SNAPSHOT = Path("data/snapshot.parquet")
TRAIN, TEST = Path("data/train.parquet"), Path("data/test.parquet")
CONTRACT = Path("contract.json")
MODEL, TRAINING = Path("models/model.skops"), Path("models/training.json")
TRIALS = Path("models/trials.json")
REPORTS = Path("reports")
METRICS, RUN, REPORT = REPORTS / "metrics.json", REPORTS / "run.json", REPORTS / "report.html"


def read_json(path: Path) -> Any:
    """Read what a stage left; raise DataError where it did not run."""
    if not path.is_file():
        raise DataError(f"{path} not found: run the earlier steps first, or the whole pipeline")
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(content: Any, path: Path) -> None:
    """Write JSON that is pleasant to review; raise ValueError for what JSON cannot hold."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(header: Sequence[str], rows: Iterable[Sequence[Any]], path: Path) -> None:
    """Write a small table, such as `dvc plots` draws; numbers keep all their digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def sha256(path: Path) -> str:
    """Hash a file of any size in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
