"""Tables too large for the memory: CSV and Parquet, read and written in pieces of Arrow's."""

import base64
import csv
import hashlib
import io
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pandas.io.parsers.readers import STR_NA_VALUES

from .columns import shown
from .contract import Contract
from .data import PARQUET, column_names
from .delimited import GROUPS, decimal_mark, dialect
from .encoding import shortened
from .errors import ContractError, DataError
from .settings import Data

PIECE_ROWS = 131_072
# Of wide tables fewer rows are taken, so that a piece always has about the same size.
PIECE_VALUES = 2_000_000
BLOCK_BYTES = 8 << 20
BUFFER_BYTES = 1 << 20
EDGE_BYTES = 1 << 16


@dataclass(frozen=True)
class Piece:
    """Some rows of a source.

    Attributes
    ----------
    number : int
        Position among the pieces.
    table : pyarrow.Table
        The rows.
    first : int
        Number of the first row, counted from 1 below the header.
    malformed : tuple of (int, str)
        Lines between them that are no rows: number and reason.
    read : float
        Share of the source that is read with this piece.
    """

    number: int
    table: pa.Table
    first: int
    malformed: tuple[tuple[int, str], ...]
    read: float

    @property
    def lines(self) -> int:
        """The rows and what is no row."""
        return int(self.table.num_rows) + len(self.malformed)

    @property
    def row_numbers(self) -> Any:
        """The number of each row of the table."""
        everything = np.arange(self.first, self.first + self.lines)
        return np.setdiff1d(everything, [number for number, _ in self.malformed])


class ParquetSource:
    """A Parquet file.

    Parameters
    ----------
    path : Path
    contract : Contract
        Text of its features is read as codes and a dictionary.
    """

    def __init__(self, path: Path, contract: Contract) -> None:
        self.path = path
        with reading(path), pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            self.rows: int | None = file.metadata.num_rows
        self.names = column_names(schema.names)
        self.schema = pa.schema(
            [field.with_name(name) for field, name in zip(schema, self.names, strict=True)],
            metadata=schema.metadata,
        )
        self.raw_schema = self.schema
        features = {column.name for column in contract.features}
        self.texts = [
            field.name
            for field, name in zip(schema, self.names, strict=True)
            if name in features
            and (pa.types.is_string(field.type) or pa.types.is_large_string(field.type))
        ]

    def pieces(self) -> Generator[Piece, None, None]:
        """Read the file in order."""
        rows = max(1, min(PIECE_ROWS, PIECE_VALUES // max(len(self.schema), 1)))
        first = 1
        with (
            reading(self.path),
            # A buffer keeps a row group of any size from being read at once.
            pq.ParquetFile(self.path, read_dictionary=self.texts, buffer_size=BUFFER_BYTES) as file,
        ):
            for number, batch in enumerate(file.iter_batches(batch_size=rows)):
                table = pa.Table.from_batches([batch]).rename_columns(self.names)
                done = (first - 1 + len(batch)) / file.metadata.num_rows
                yield Piece(number, table, first, (), done)
                first += len(batch)

    def readable(self, table: pa.Table) -> pa.Table:
        """Return the rows as `columns.encode_table` takes them: as they are."""
        return table

    def typed(self, table: pa.Table) -> pa.Table:
        """Return the rows with the types of `schema`: as they are."""
        return table


class CsvSource:
    """A delimited text file, compressed where its name ends in ``.gz``.

    The tables that are read hold text alone, and lines with too few or too many fields are none of
    their rows.

    Parameters
    ----------
    path : Path
    data : Data
        ``delimiter``, ``encoding`` and ``decimal`` of the settings.
    contract : Contract
    as_text : bool
        Leave numbers as they are written, unless with a decimal comma, which CSV with commas has
        no place for.
    """

    def __init__(self, path: Path, data: Data, contract: Contract, as_text: bool) -> None:
        self.path = path
        self.rows: int | None = None
        self.contract = contract
        self.delimiter, encoding = dialect(path, data)
        self.encoding = "utf-8" if encoding == "utf-8-sig" else encoding
        self.decimal = decimal_mark(path, data, self.delimiter, encoding)
        with reading(path):
            header = pd.read_csv(
                path, sep=self.delimiter, encoding=encoding, skipinitialspace=True, nrows=0
            )
        self.names = column_names(header.columns)
        self.numbers = [c for c in contract.features if c.kind in ("numeric", "integer")]
        self.others = [c.name for c in contract.features if c not in self.numbers]
        types = {c.name: pa.int64() if c.kind == "integer" else pa.float64() for c in self.numbers}
        self.types = {} if as_text and self.decimal == "." else types
        self.schema = pa.schema([(name, self.types.get(name, pa.string())) for name in self.names])
        self.raw_schema = pa.schema([(name, pa.string()) for name in self.names])

    def pieces(self) -> Generator[Piece, None, None]:
        """Read the file in order."""
        malformed: list[tuple[int, str]] = []

        def refuse(row: Any) -> str:
            found = f"{row.actual_columns} fields, expected {row.expected_columns}"
            # The header is the first row.
            malformed.append((row.number - 1, f"{found}: {shown(row.text)}"))
            return "skip"

        first, number, size = 1, 0, self.path.stat().st_size
        with reading(self.path), self.path.open("rb") as file:
            for batch in self._batches(file, refuse):
                # Parsing runs ahead: what lies behind the last row belongs to a later piece.
                last, here = first + len(batch) - 1, []
                while malformed and malformed[0][0] <= last + 1:
                    here.append(malformed.pop(0))
                    last += 1
                table = pa.Table.from_batches([batch])
                yield Piece(number, table, first, tuple(here), min(file.tell() / size, 1.0))
                first, number = last + 1, number + 1
            if malformed:
                nothing = self.raw_schema.empty_table()
                yield Piece(number, nothing, first, tuple(malformed), 1.0)

    def readable(self, table: pa.Table) -> pa.Table:
        """Return the rows as `columns.encode_table` takes them, read as pandas reads them."""
        for column in self.numbers:
            numbers = self._numbers(table.column(column.name).combine_chunks())
            table = table.set_column(self.names.index(column.name), column.name, numbers)
        for name in self.others:
            values = table.column(name).combine_chunks()
            table = table.set_column(self.names.index(name), name, _mapped(values, _stripped))
        return table

    def typed(self, table: pa.Table) -> pa.Table:
        """Return rows that keep the contract with the types of `schema`."""
        for name, kind in self.types.items():
            text = table.column(name).combine_chunks()
            try:
                numbers = text.cast(kind)
            except pa.ArrowInvalid:
                numbers = self._exactly(text, kind, name)
            table = table.set_column(self.names.index(name), name, numbers)
        return table

    def _batches(self, file: Any, refuse: Callable[[Any], str]) -> Iterator[pa.RecordBatch]:
        # What has few different values, such as a category, is told apart while it is read.
        types = {name: pa.dictionary(pa.int32(), pa.string()) for name in self.others}
        text = pa.CompressedInputStream(file, "gzip") if self.path.suffix == ".gz" else file
        yield from pyarrow.csv.open_csv(
            text,
            # Lines that are no rows have numbers only without threads.
            pyarrow.csv.ReadOptions(
                column_names=self.names,
                skip_rows_after_names=1,
                block_size=BLOCK_BYTES,
                use_threads=False,
                encoding=self.encoding,
            ),
            pyarrow.csv.ParseOptions(
                delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=refuse
            ),
            pyarrow.csv.ConvertOptions(
                column_types={name: types.get(name, pa.string()) for name in self.names},
                null_values=sorted(STR_NA_VALUES),
                strings_can_be_null=True,
            ),
        )

    def _numbers(self, text: pa.Array) -> pa.Array:
        """Read text as numbers; where not all of it is, return it with a decimal point."""
        try:
            if self.decimal == ".":
                return text.cast(pa.float64())
            if not pc.any(pc.match_substring(text, ".")).as_py():
                return pc.replace_substring(text, ",", ".").cast(pa.float64())
        except pa.ArrowInvalid:
            pass
        return _mapped(text.dictionary_encode(), self._with_point)

    def _exactly(self, text: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
        """Read text as numbers that are written in other ways than Arrow's."""
        numbers = self._numbers(text)
        if pa.types.is_dictionary(numbers.type):
            numbers = numbers.dictionary_decode().cast(pa.float64())
        try:
            return numbers.cast(kind)
        except pa.ArrowInvalid as error:
            raise DataError(
                f"{self.path}: {name!r} holds whole numbers beyond 64 bits; "
                "expected a destination ending in .csv"
            ) from error

    def _with_point(self, text: str) -> str | None:
        stripped = _stripped(text)
        if stripped is None:
            return None
        if GROUPS[self.decimal].fullmatch(stripped):
            whole, _, fraction = stripped.partition(self.decimal)
            return re.sub(r"[^\d+-]", "", whole) + "." + fraction
        return stripped.replace(",", ".") if self.decimal == "," else stripped


Source: TypeAlias = ParquetSource | CsvSource


def open_source(path: Path, data: Data, contract: Contract, as_text: bool) -> Source:
    """Open a table, and see that it has the columns of the contract.

    Parameters
    ----------
    path : Path
        ``.parquet`` or ``.pq`` for Parquet; anything else is read as delimited text.
    data : Data
        ``delimiter``, ``encoding`` and ``decimal`` of the settings.
    contract : Contract
    as_text : bool
        Leave the numbers of delimited text as they are written.

    Raises
    ------
    DataError
        Where it is missing, empty, or no table.
    ContractError
        Naming the columns that are not there.
    """
    if not path.is_file():
        raise DataError(f"{path} not found; expected a CSV or Parquet file, or a folder of them")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; expected a header and rows")
    source: Source = (
        ParquetSource(path, contract)
        if path.suffix.lower() in PARQUET
        else CsvSource(path, data, contract, as_text)
    )
    names = source.raw_schema.names
    if absent := [column.name for column in contract.features if column.name not in names]:
        raise ContractError(
            f"{path} has no column {shortened([repr(name) for name in absent])}; "
            f"its columns are {shortened(names)}"
        )
    if twice := [column.name for column in contract.features if names.count(column.name) > 1]:
        raise ContractError(f"{path} has the column {twice[0]!r} more than once; name them apart")
    return source


def identity(path: Path) -> dict[str, Any]:
    """Return what tells one content of a file from another, without reading all of it."""
    status = path.stat()
    with path.open("rb") as file:
        edges = hashlib.sha256(file.read(EDGE_BYTES))
        file.seek(max(status.st_size - EDGE_BYTES, 0))
        edges.update(file.read(EDGE_BYTES))
    return {
        "path": str(path.resolve()),
        "bytes": status.st_size,
        "modified": status.st_mtime_ns,
        "edges": edges.hexdigest(),
    }


def count(path: Path, written: int) -> int:
    """Count the rows of a file: Parquet knows them, of CSV it is known how many were written."""
    return int(pq.read_metadata(path).num_rows) if path.suffix.lower() in PARQUET else written


class ParquetSink:
    """A Parquet file that is being written, a row group a piece.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema
        As readers shall see it: columns that come as codes and a dictionary are written from
        these, which is faster, and stay text.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self.rows = 0
        self.writer: pq.ParquetWriter | None = None

    @staticmethod
    def render(table: pa.Table) -> pa.Table:
        """Prepare a piece; may run in any thread."""
        return table

    def write(self, table: pa.Table) -> None:
        """Append what `render` made."""
        self.rows += table.num_rows
        writer = self._writer(table.schema)
        if table.num_rows:
            writer.write_table(table, row_group_size=table.num_rows)

    def _writer(self, schema: pa.Schema) -> pq.ParquetWriter:
        if self.writer is None:
            self.writer = pq.ParquetWriter(
                self.path,
                schema.remove_metadata(),
                store_schema=False,
                # Looking for repeated values costs more than it saves where nearly all differ.
                use_dictionary=[f.name for f in schema if not pa.types.is_floating(f.type)],
            )
        return self.writer

    def close(self) -> None:
        """Complete the file."""
        writer = self._writer(self.schema)
        plain = base64.b64encode(self.schema.serialize().to_pybytes())
        writer.add_key_value_metadata({**(self.schema.metadata or {}), b"ARROW:schema": plain})
        writer.close()

    def discard(self) -> None:
        """Close the file as it is."""
        if self.writer:
            self.writer.close()


class CsvSink:
    """A CSV file that is being written: commas, decimal points, UTF-8.

    Parameters
    ----------
    path : Path
    schema : pyarrow.Schema

    Raises
    ------
    DataError
        Where a type cannot be written as text.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        for field in schema:
            try:
                pyarrow.csv.write_csv(pa.schema([field]).empty_table(), io.BytesIO())
            except pa.ArrowException as error:
                raise DataError(
                    f"column {field.name!r} holds {field.type}, which CSV cannot; "
                    "expected a destination ending in .parquet"
                ) from error
        self.path = path
        self.rows = 0
        header = io.StringIO()
        csv.writer(header, lineterminator="\n").writerow(schema.names)
        self.file = path.open("wb")
        self.file.write(header.getvalue().encode())

    @staticmethod
    def render(table: pa.Table) -> tuple[int, memoryview]:
        """Write a piece as text; may run in any thread."""
        for i, field in enumerate(table.schema):
            values = table.column(i)
            if pa.types.is_dictionary(field.type):
                table = table.set_column(i, field.name, values.cast(field.type.value_type))
            elif pa.types.is_floating(field.type):
                given = pc.if_else(pc.is_nan(values), None, values)
                table = table.set_column(i, field.name, given)
        try:
            return table.num_rows, _as_csv(table, "none")
        except pa.ArrowInvalid:
            return table.num_rows, _as_csv(table, "needed")

    def write(self, rendered: tuple[int, memoryview]) -> None:
        """Append what `render` made."""
        rows, text = rendered
        self.rows += rows
        self.file.write(text)

    def close(self) -> None:
        """Complete the file."""
        self.file.close()

    def discard(self) -> None:
        """Close the file as it is."""
        self.file.close()


Sink: TypeAlias = ParquetSink | CsvSink


def sink_class(path: Path) -> type[ParquetSink] | type[CsvSink]:
    """Return what writes a file: Parquet for ``.parquet`` and ``.pq``, else CSV."""
    return ParquetSink if path.suffix.lower() in PARQUET else CsvSink


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of what goes wrong with a file that it cannot be read, and why."""
    try:
        yield
    except (UnicodeError, LookupError) as error:
        raise DataError(f"{path}: {error}; set data.encoding") from error
    except (pa.ArrowException, pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        said = " ".join(str(error).split())
        hint = "; set data.encoding" if "UTF8" in said else ""
        raise DataError(f"{path} cannot be read: {said}{hint}") from error


def _as_csv(table: pa.Table, quoting: str) -> memoryview:
    text = pa.BufferOutputStream()
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style=quoting)
    pyarrow.csv.write_csv(table, text, options)
    return memoryview(text.getvalue())


def _stripped(text: str) -> str | None:
    stripped = text.strip()
    return None if stripped in STR_NA_VALUES else stripped


def _mapped(values: pa.DictionaryArray, change: Callable[[str], str | None]) -> pa.Array:
    """Change the different values of a column."""
    before = values.dictionary.to_pylist()
    after = [change(text) for text in before]
    if after == before:
        return values
    # Values may have become equal or missing.
    changed = pa.array(after, pa.string()).dictionary_encode()
    places = changed.indices.take(values.indices)
    return pa.DictionaryArray.from_arrays(places, changed.dictionary)
