"""Databases: one query, read in pieces, as one table."""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .errors import DataError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

VARIABLE = "DATABASE_URL"
FORMS = "sqlite:///file.db or postgresql://user:password@host/database"
READING = re.compile(r"(select|with|values|table|\()", re.IGNORECASE)
COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
ROWS = 50_000
PATIENCE_S = 10
SHOWN = 200


def query(statement: str, origin: str, environment: Mapping[str, str] = os.environ) -> pa.Table:
    """Run one query that only reads; whatever it does, nothing is committed.

    Parameters
    ----------
    statement : str
        A SELECT in the database's own dialect.
    origin : str
        What errors call it: the file it stands in.
    environment : mapping
        Holds the database's address, an SQLAlchemy URL, as ``DATABASE_URL``.

    Returns
    -------
    pyarrow.Table
        Decimals as float64, dates as timestamps, moments with a zone in UTC, what is of several
        types in one column as text.

    Raises
    ------
    DataError
        Where there is no address, no answer, no such table, or the statement does not read.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    statement = statement.strip().rstrip(";")
    words = " ".join(COMMENT.sub(" ", statement).split())
    if not READING.match(words):
        raise DataError(f"{origin} holds {words[:40]!r}; expected one query: SELECT … or WITH …")
    url = _url(environment)
    address = url.render_as_string(hide_password=True)
    engine = _engine(url)
    try:
        connection = engine.connect()
    except DBAPIError as error:
        raise DataError(
            f"{VARIABLE}: no connection to {address}: {_reason(error, url)}; "
            "check host, port, database, user and password"
        ) from error
    try:
        with connection:
            return _fetch(connection, statement)
    except SQLAlchemyError as error:
        raise DataError(
            f"{origin}: {address} refuses the query: {_reason(error, url)}; mend the query"
        ) from error
    finally:
        engine.dispose()


def _url(environment: Mapping[str, str]) -> "URL":
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    if not (text := environment.get(VARIABLE, "").strip()):
        raise DataError(f"{VARIABLE} is not set, but data.source is a query; set it to {FORMS}")
    try:
        url = make_url(re.sub(r"^postgres://", "postgresql://", text))
    except (ArgumentError, ValueError) as error:
        # The text is not shown: it may hold a password.
        raise DataError(f"{VARIABLE} is no database URL; expected {FORMS}") from error
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    named = url.database if url.get_backend_name() == "sqlite" else None
    # Opening it would make an empty one.
    is_path = named and named != ":memory:" and not named.startswith("file:")
    if named and is_path and not Path(named).is_file():
        raise DataError(f"{VARIABLE}: no SQLite file {named}; name one that exists, as {FORMS}")
    return url


def _engine(url: "URL") -> "Engine":
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    postgres = url.get_backend_name() == "postgresql"
    patience = {"connect_timeout": PATIENCE_S} if postgres else {}
    try:
        return create_engine(url, connect_args={**patience, **url.query})
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise DataError(
            f"{VARIABLE}: no driver for {url.drivername} ({error}); expected {FORMS}, "
            "or add the driver to the project's dependencies"
        ) from error


def _fetch(connection: "Connection", statement: str) -> pa.Table:
    options: dict[str, Any] = {"stream_results": True, "no_parameters": True}
    if connection.dialect.name == "postgresql":
        options["postgresql_readonly"] = True
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only = ON")
    result = connection.execution_options(**options).exec_driver_sql(statement)
    names = list(result.keys())
    pieces: list[list[pa.Array]] = [[] for _ in names]
    for rows in result.partitions(ROWS):
        for piece, values in zip(pieces, zip(*rows, strict=True), strict=True):
            piece.append(_array(values))
    return pa.table([_joined(piece) for piece in pieces], names=names)


def _array(values: Sequence[Any]) -> pa.Array:
    """Give one type to the values of one column; text where they have no common one."""
    types = set(map(type, values)) - {type(None)}
    if types <= {int}:
        try:
            return pa.array(values, pa.int64() if types else pa.null())
        except OverflowError:
            types = {float}
    if types <= {int, float, Decimal}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    if types == {datetime}:
        zone = "UTC" if any(value and value.tzinfo for value in values) else None
        return pa.array(values, pa.timestamp("us", tz=zone))
    if types == {date}:
        return pa.array(values, pa.date32()).cast(pa.timestamp("us"))
    if len(types) == 1 and types <= {bool, str, timedelta, bytes, list}:
        try:
            return pa.array(values)
        except pa.ArrowException:
            pass
    return _text(values)


def _joined(pieces: list[pa.Array]) -> pa.ChunkedArray:
    kinds = {piece.type for piece in pieces if not pa.types.is_null(piece.type)}
    if kinds == {pa.int64(), pa.float64()}:
        kinds = {pa.float64()}
    if len(kinds) > 1:
        return pa.chunked_array([_text(piece.to_pylist()) for piece in pieces], pa.string())
    kind = kinds.pop() if kinds else pa.null()
    return pa.chunked_array([piece.cast(kind) for piece in pieces], kind)


def _text(values: Sequence[Any]) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _reason(error: Exception, url: "URL") -> str:
    """Return the database's own words in one line, without the password."""
    own = getattr(error, "orig", None) or error
    text = getattr(getattr(own, "diag", None), "message_primary", None) or str(own)
    if url.password:
        text = re.sub(rf"(?<!\w){re.escape(str(url.password))}(?!\w)", "***", text)
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
