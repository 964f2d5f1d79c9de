"""Export: predictions and their latest truths, from the store to Parquet in constant memory."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, Text, cast, select

from .artifacts import replacing
from .errors import StoreError
from .store import ground_truth, latest, opened, prediction_event

ROWS = 10_000
MOMENTS = ("ts", "observed_at")
NUMBERS = ("score", "latency_ms")
WHOLE = ("status", "revision")


def export(address: str, path: Path, since: str | None = None, until: str | None = None) -> int:
    """Write what was predicted in a time.

    Parameters
    ----------
    address : str
        Of the store.
    path : Path
        A Parquet file; it appears when it is complete. Features, output and label stand in it as
        JSON, moments as timestamps in UTC.
    since, until : str or None
        ISO 8601; the first is in it, the last is not.

    Returns
    -------
    int
        How many predictions.

    Raises
    ------
    StoreError
        Where the store or a moment cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise StoreError("events export needs pyarrow: install the group train as well") from error
    statement = _statement(_moment("since", since), _moment("until", until))
    kinds = dict.fromkeys(MOMENTS, pa.timestamp("us", tz="UTC"))
    kinds |= dict.fromkeys(NUMBERS, pa.float64()) | dict.fromkeys(WHOLE, pa.int32())
    names = list(statement.selected_columns.keys())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    written = 0
    with (
        opened(address) as store,
        store.reading() as connection,
        replacing(path) as partial,
        ParquetWriter(partial, schema, compression="zstd") as writer,
    ):
        found = connection.execution_options(yield_per=ROWS).execute(statement)
        for rows in found.partitions():
            columns = dict(zip(names, zip(*rows, strict=True), strict=True))
            for name in MOMENTS:
                columns[name] = tuple(map(_microseconds, columns[name]))
            writer.write_batch(pa.RecordBatch.from_pydict(columns, schema=schema))
            written += len(rows)
    return written


def _statement(since: float | None, until: float | None) -> Select[Any]:
    event, truth = prediction_event.c, ground_truth.c
    same = event.prediction_id == truth.prediction_id
    joined = prediction_event.outerjoin(ground_truth, same & latest())
    texts = ("features", "output")
    asked = [cast(each, Text).label(each.name) if each.name in texts else each for each in event]
    told = [cast(truth.label, Text).label("label"), truth.observed_at, truth.source, truth.revision]
    chosen = select(*asked, *told).select_from(joined).order_by(event.ts)
    if since is not None:
        chosen = chosen.where(event.ts >= since)
    return chosen if until is None else chosen.where(event.ts < until)


def _moment(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StoreError(
            f"--{option}: {text!r} is no moment; expected ISO 8601, such as 2026-01-31T08:00"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)
