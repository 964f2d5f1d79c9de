"""Files that the stages leave: where they lie, how they are written, the hash of one."""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError

if TYPE_CHECKING:
    import pandas as pd

SNAPSHOT = Path("data/snapshot.parquet")
TRAIN, TEST = Path("data/train.parquet"), Path("data/test.parquet")
CONTRACT = Path("contract.json")
MODEL, TRAINING = Path("models/model.skops"), Path("models/training.json")
TRIALS = Path("models/trials.json")
REPORTS = Path("reports")
METRICS, PLOTS = REPORTS / "metrics.json", REPORTS / "plots"
RUN, REPORT = REPORTS / "run.json", REPORTS / "report.html"


def read_json(path: Path) -> Any:
    """Read what a stage left; raise DataError where it did not run."""
    if not path.is_file():
        raise DataError(f"{path} not found: run the earlier steps first, or the whole pipeline")
    return json.loads(path.read_text(encoding="utf-8"))


def read_table(path: Path, stage: str, columns: list[str] | None = None) -> "pd.DataFrame":
    """Read a table that a stage left, or some columns; raise DataError where it did not run."""
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path} not found: run the {stage} step first")
    return pd.read_parquet(path, columns=columns)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes its place once it is complete.

    Parameters
    ----------
    path : Path
        Where the file shall stand; its folder is made where it is missing.

    Yields
    ------
    Path
        A hidden name in the same folder. What a killed process left there is written over; where
        the block raises, it is removed, and what stood at `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(content: Any, path: Path) -> None:
    """Write JSON that is pleasant to review; raise ValueError for what JSON cannot hold."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def write_csv(header: Sequence[str], rows: Iterable[Sequence[Any]], path: Path) -> None:
    """Write a small table, such as `dvc plots` draws; numbers keep all their digits."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Lay lines of cells out in columns; the last column is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    return "\n".join("  ".join([*map(str.ljust, line[:-1], widths), line[-1]]) for line in table)


def sha256(path: Path) -> str:
    """Hash a file of any size in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
