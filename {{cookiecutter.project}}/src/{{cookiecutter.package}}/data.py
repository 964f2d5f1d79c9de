"""Sources: read a table, take its snapshot, split it."""

import contextlib
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from . import database, delimited
from .artifacts import replacing, sha256, write_json
from .contract import Contract
from .encoding import Matrix, encode_series, encode_target, shortened
from .errors import ContractError, DataError
from .settings import Data

PARQUET = (".parquet", ".pq")
INLINE = re.compile(r"\s*(select\s|with\s.+\sas\s)", re.IGNORECASE | re.DOTALL)
ROW_NUMBERS = "__index_level_0__"
HIVE_MISSING = "__HIVE_DEFAULT_PARTITION__"


def read(source: str | Path, data: Data) -> pd.DataFrame:
    """Read a whole table.

    Parameters
    ----------
    source : str or Path
        A file or folder of Parquet (``.parquet``, ``.pq``), an SQL query or the ``.sql`` file it
        stands in (of the database at ``DATABASE_URL``); anything else is read as delimited text,
        compressed where it ends in ``.gz``.
    data : Data
        ``delimiter``, ``encoding`` and ``decimal`` of the settings; detected where they are None.

    Returns
    -------
    DataFrame
        At least one row. Names are text without line breaks, all different; text has no blanks
        around it, and text of nothing else is missing.

    Raises
    ------
    DataError
        Where there is no such source, it is empty, or no table.
    """
    if INLINE.match(str(source)):
        return _answer(str(source), "data.source")
    path = Path(source)
    if path.suffix.lower() == ".sql" and path.is_file():
        return _answer(_query(path), str(source))
    if path.is_dir():
        return _folder(path)
    return _file(path, data)


def column_names(names: Sequence[Any]) -> list[str]:
    """Return the names that columns go by: without line breaks, none empty, all different."""
    found: list[str] = []
    seen: set[str] = set()
    for position, name in enumerate(names):
        text = first = " ".join(str(name).split()) or f"Unnamed: {position}"
        repeated = 0
        while text in seen:
            repeated += 1
            text = f"{first}.{repeated}"
        seen.add(text)
        found.append(text)
    return found


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, whole or not at all."""
    with replacing(path) as partial:
        frame.to_parquet(partial, index=False)


def write_snapshot(frame: pd.DataFrame, path: Path, source: str) -> dict[str, Any]:
    """Write what was read as Parquet, with its hash and origin beside it as JSON."""
    write_table(frame, path)
    facts = {
        "source": source,
        "rows": len(frame),
        "columns": len(frame.columns),
        "sha256": sha256(path),
    }
    write_json(facts, path.with_suffix(".json"))
    return facts


def split(frame: pd.DataFrame, contract: Contract, data: Data) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split into training and test rows as `positions` does; columns that are not used go."""
    columns = [column.name for column in contract.features]
    columns += [contract.target.name] if contract.target else []
    used = frame[columns]
    train, test = positions(frame, contract, data)
    return tuple(used.take(part).reset_index(drop=True) for part in (train, test))


def positions(
    frame: pd.DataFrame, contract: Contract, data: Data
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of training and test rows; no target, no row.

    With ``data.time`` the newest rows are the test rows, rows of one moment staying together;
    without, any rows are, classes keeping their shares.

    Raises
    ------
    ContractError
        Where a class has fewer than two rows, or none among the older ones; where ``data.time`` is
        no datetime column.
    DataError
        Where too few rows are left, or rows have no time.
    """
    from sklearn.model_selection import train_test_split

    target = encode_target(contract, frame)
    rows = np.arange(len(frame))
    if contract.target:
        rows = rows[~np.isnan(target)]
        target = target[rows]
    for code, label in enumerate(contract.classes):
        if (count := int((target == code).sum())) < 2:
            raise ContractError(
                f"class {label!r} of {contract.target and contract.target.name!r} has {count} "
                "row(s); at least 2 are needed: add rows, or filter the class out of the source"
            )
    if data.time:
        newest = _newest(_seconds(frame, rows, contract, data), data)
        train, test = rows[~newest], rows[newest]
        _require_classes(contract, target, newest)
    else:
        try:
            train, test = train_test_split(
                rows,
                test_size=data.test_share,
                random_state=data.seed,
                stratify=target if contract.classes else None,
            )
        except ValueError as error:
            raise DataError(f"{len(rows)} rows cannot be split: {error}") from error
    return train, test


def _seconds(
    frame: pd.DataFrame, rows: npt.NDArray[np.int64], contract: Contract, data: Data
) -> Matrix:
    """Return the time of some rows, in seconds since 1970."""
    column = next(column for column in contract.columns if column.name == data.time)
    seconds = encode_series(column, frame[column.name].iloc[rows])
    if (missing := np.isnan(seconds)).any():
        first = [int(row) + 1 for row in rows[missing]]
        raise DataError(
            f"data.time: {len(first)} rows have no {column.name!r} (rows {shortened(first)}); "
            "fill it in, or filter them out of the source"
        )
    return seconds


def _newest(seconds: Matrix, data: Data) -> npt.NDArray[np.bool_]:
    """Mark the newest rows, as near to the wanted share as moments allow."""
    if len(seconds) == 0 or seconds.min() == seconds.max():
        raise DataError(
            f"data.time: all {len(seconds)} rows have the same {data.time!r}; expected at least "
            "two different times, or data.time: null"
        )
    wanted = data.test_share * len(seconds)
    moments, counts = np.unique(seconds, return_counts=True)
    held_out = counts[::-1].cumsum()[::-1][1:]
    first = moments[1:][np.abs(held_out - wanted).argmin()]
    return np.asarray(seconds >= first)


def _require_classes(contract: Contract, target: Any, newest: npt.NDArray[np.bool_]) -> None:
    for code, label in enumerate(contract.classes):
        if not (target[~newest] == code).any():
            raise ContractError(
                f"class {label!r} of {contract.target and contract.target.name!r} is only among "
                f"the {int(newest.sum())} newest rows, which are held out; lower data.test_share, "
                "or set data.time: null"
            )


def _file(source: Path, data: Data) -> pd.DataFrame:
    if not source.is_file():
        raise DataError(
            f"{source} not found; data.source must name a CSV or Parquet file, "
            "a folder of Parquet files, or a query"
        )
    if source.stat().st_size == 0:
        raise DataError(f"{source} is empty")
    try:
        if source.suffix.lower() in PARQUET:
            frame = _plain(_frame(pq.ParquetFile(source).read()))
        else:
            frame = _plain(delimited.read(source, data))
    except (
        *(pd.errors.ParserError, pd.errors.EmptyDataError, pa.ArrowInvalid),
        *(gzip.BadGzipFile, EOFError, zlib.error),
    ) as error:
        raise DataError(f"{source} cannot be read: {' '.join(str(error).split())}") from error
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{source}: {error}; set data.encoding") from error
    if frame.empty:
        raise DataError(f"{source} has a header but no rows")
    return frame


def _query(path: Path) -> str:
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    if not text.strip():
        raise DataError(f"{path} is empty; expected one query: SELECT …")
    return text


def _answer(statement: str, origin: str) -> pd.DataFrame:
    table = database.query(statement, origin)
    if not table.num_rows:
        raise DataError(f"{origin}: the query returns no rows; expected at least one")
    return _plain(_frame(table))


def _folder(folder: Path) -> pd.DataFrame:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PARQUET and not path.name.startswith((".", "_"))
    )
    if not files:
        raise DataError(f"{folder} holds no Parquet file; expected names ending in .parquet")
    schema = _common_schema(files)
    tables = [_partition(path, folder, schema) for path in files]
    table = pa.concat_tables(tables, promote_options="default")
    for position in range(len(schema), table.num_columns):
        with contextlib.suppress(pa.ArrowInvalid):
            name = table.column_names[position]
            table = table.set_column(position, name, table.column(position).cast(pa.int64()))
    if not table.num_rows:
        raise DataError(f"{folder}: its {len(files)} Parquet files have no rows")
    return _plain(_frame(table))


def _partition(path: Path, folder: Path, schema: pa.Schema) -> pa.Table:
    """Read one file; folders named key=value, as Hive writes them, become columns."""
    table = pq.ParquetFile(path).read().select(schema.names)
    columns = [
        _simplified(column).cast(kind)
        for column, kind in zip(table.columns, schema.types, strict=True)
    ]
    names = list(schema.names)
    for part in path.relative_to(folder).parts[:-1]:
        key, equals, value = part.partition("=")
        if equals and key not in names:
            names.append(key)
            text = pa.scalar(None if value == HIVE_MISSING else unquote(value), pa.string())
            columns.append(pa.repeat(text, table.num_rows))
    return pa.table(columns, names=names)


def _common_schema(files: list[Path]) -> pa.Schema:
    """Return the schema that all files fit, or name the first that does not."""
    known = None
    for path in files:
        try:
            schema = pq.read_schema(path).remove_metadata()
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        schema = pa.schema([(field.name, _simple(field.type)) for field in schema])
        if known is None:
            known = schema
            continue
        for words, names in (
            ("has no column", set(known.names) - set(schema.names)),
            ("has a further column", set(schema.names) - set(known.names)),
        ):
            if names:
                raise DataError(
                    f"{path} {words} {shortened(sorted(names))}; "
                    f"expected the columns of {files[0]}: {shortened(known.names)}"
                )
        try:
            known = pa.unify_schemas([known, schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            name = next(n for n in known.names if not _fits(known.field(n), schema.field(n)))
            raise DataError(
                f"{path}: column {name!r} is {schema.field(name).type}, "
                f"but {known.field(name).type} in {files[0]}; write it as the same type"
            ) from error
    return known


def _fits(one: pa.Field, other: pa.Field) -> bool:
    try:
        pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _simple(kind: pa.DataType) -> pa.DataType:
    """Return the type that stands for all of one meaning."""
    if pa.types.is_dictionary(kind):
        return _simple(kind.value_type)
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return pa.float64()
    if pa.types.is_date(kind):
        return pa.timestamp("us")
    if pa.types.is_time(kind) or pa.types.is_large_string(kind):
        return pa.string()
    return kind


def _frame(table: pa.Table) -> pd.DataFrame:
    """Return a table of Arrow's with one type for one meaning."""
    named = [
        (name, _simplified(column))
        for name, column in zip(table.column_names, table.columns, strict=True)
        if name != ROW_NUMBERS
    ]
    plain = pa.table([column for _, column in named], names=column_names([n for n, _ in named]))
    return plain.to_pandas(split_blocks=True, ignore_metadata=True)


def _simplified(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = _simple(column.type)
    if pa.types.is_map(kind) or pa.types.is_struct(kind) or pa.types.is_union(kind):
        texts = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([texts], pa.string())
    return column if kind == column.type else column.cast(kind)


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Give columns names to go by, and take the blanks around text away."""
    frame.columns = column_names(list(frame.columns))
    for name, dtype in frame.dtypes.items():
        if isinstance(dtype, pd.StringDtype):
            stripped = frame[name].str.strip()
            frame[name] = stripped.mask(stripped == "")
    return frame
