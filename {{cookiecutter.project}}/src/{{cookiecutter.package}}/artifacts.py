"""Files that the stages leave: JSON and CSV that a person can read, and a file's hash."""

import csv
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


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


def aligned(table: Sequence[Sequence[str]]) -> str:
    """Lay lines of cells out in columns; the last column is as long as it is."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)][:-1]
    return "\n".join("  ".join([*map(str.ljust, line[:-1], widths), line[-1]]) for line in table)


def sha256(path: Path) -> str:
    """Hash a file of any size in little memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
