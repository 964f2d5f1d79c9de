"""Sources: read a table, take its snapshot, split it."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from charset_normalizer import from_bytes
from sklearn.model_selection import train_test_split

from .artifacts import sha256, write_json
from .contract import Contract
from .encoding import encode_target
from .errors import ContractError, DataError
from .settings import Data

DELIMITERS = ",;\t|"
PROBE_BYTES = 1_000_000
PROBE_LINES = 50
PARQUET = (".parquet", ".pq")


def read(source: Path, data: Data) -> pd.DataFrame:
    """Read a whole CSV or Parquet file.

    Parameters
    ----------
    source : Path
        ``.parquet`` or ``.pq`` for Parquet; anything else is read as delimited text.
    data : Data
        ``delimiter`` and ``encoding`` of the settings; detected where they are None.

    Returns
    -------
    DataFrame
        At least one row; column names are text.

    Raises
    ------
    DataError
        Where the file is missing, empty, or no table.
    """
    frames = list(read_chunks(source, data, rows=None))
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]


def read_chunks(source: Path, data: Data, rows: int | None) -> Iterator[pd.DataFrame]:
    """Read a table in pieces of at most `rows` rows, or at once where `rows` is None."""
    if not source.is_file():
        raise DataError(f"{source} not found; data.source must name a CSV or Parquet file")
    if source.stat().st_size == 0:
        raise DataError(f"{source} is empty")
    read_pieces = _parquet_chunks if source.suffix.lower() in PARQUET else _csv_chunks
    total = 0
    try:
        for frame in read_pieces(source, data, rows):
            total += len(frame)
            if len(frame):
                yield _plain(frame)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pa.ArrowInvalid) as error:
        raise DataError(f"{source} cannot be read: {' '.join(str(error).split())}") from error
    except (UnicodeDecodeError, LookupError) as error:
        raise DataError(f"{source}: {error}; set data.encoding") from error
    if total == 0:
        raise DataError(f"{source} has a header but no rows")


def dialect(source: Path, data: Data) -> tuple[str, str]:
    """Return delimiter and encoding of a delimited text file, detected where they are not set."""
    with source.open("rb") as file:
        head = file.read(PROBE_BYTES)
    encoding = data.encoding or _encoding(head)
    lines = head.decode(encoding, errors="replace").splitlines()
    return data.delimiter or _delimiter(lines[:PROBE_LINES]), encoding


def write_snapshot(frame: pd.DataFrame, path: Path, source: Path) -> dict[str, Any]:
    """Write what was read as Parquet, with its hash and origin beside it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)
    facts = {
        "source": source.as_posix(),
        "rows": len(frame),
        "columns": len(frame.columns),
        "sha256": sha256(path),
    }
    write_json(facts, path.with_suffix(".json"))
    return facts


def split(frame: pd.DataFrame, contract: Contract, data: Data) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split into training and test rows, classes keeping their shares; no target, no row.

    Raises
    ------
    ContractError
        Where a class has fewer than two rows.
    DataError
        Where too few rows are left.
    """
    columns = [column.name for column in contract.features]
    target = encode_target(contract, frame)
    if contract.target:
        columns.append(contract.target.name)
        given = ~np.isnan(target)
        frame, target = frame[given], target[given]
    for code, label in enumerate(contract.classes):
        if (count := int((target == code).sum())) < 2:
            raise ContractError(
                f"class {label!r} of {columns[-1]!r} has {count} row(s); "
                "at least 2 are needed: add rows, or filter the class out of the source"
            )
    try:
        train, test = train_test_split(
            frame[columns],
            test_size=data.test_share,
            random_state=data.seed,
            stratify=target if contract.classes else None,
        )
    except ValueError as error:
        raise DataError(f"{len(frame)} rows cannot be split: {error}") from error
    return train.reset_index(drop=True), test.reset_index(drop=True)


def _parquet_chunks(source: Path, _: Data, rows: int | None) -> Iterator[pd.DataFrame]:
    file = pq.ParquetFile(source)
    for batch in file.iter_batches(batch_size=rows or max(file.metadata.num_rows, 1)):
        yield batch.to_pandas()


def _csv_chunks(source: Path, data: Data, rows: int | None) -> Iterator[pd.DataFrame]:
    delimiter, encoding = dialect(source, data)
    reader = pd.read_csv(
        source, sep=delimiter, encoding=encoding, low_memory=False, chunksize=rows, iterator=True
    )
    with reader:
        yield from reader if rows else [reader.read()]


def _encoding(head: bytes) -> str:
    try:
        head[: head.rfind(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError:
        best = from_bytes(head).best()
        return best.encoding if best else "cp1252"
    return "utf-8-sig"


def _delimiter(lines: list[str]) -> str:
    """Return the delimiter under which the first lines have the same, largest number of fields."""
    widths = {}
    for delimiter in DELIMITERS:
        counts = {len(row) for row in csv.reader(lines, delimiter=delimiter) if row}
        widths[delimiter] = counts.pop() if len(counts) == 1 else 0
    best = max(widths, key=lambda delimiter: widths[delimiter])
    return best if widths[best] > 1 else ","


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Use one type for one meaning: text names, values instead of dictionary codes."""
    frame.columns = [str(name) for name in frame.columns]
    for name, dtype in frame.dtypes.items():
        if isinstance(dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(dtype.categories.dtype)
    return frame
