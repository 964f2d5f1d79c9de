"""Feedback: the newest predictions with their truths, as rows that the pipeline learns from.

`retrain` takes them out of the store into ``data/feedback``, where Git keeps them like the source.
Without that file the pipeline goes by the source alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from .artifacts import replacing, sha256
from .contract import Column, Contract
from .encoding import encode_series, encode_target
from .errors import ContractError, DataError

ROWS = Path("data/feedback/rows.parquet")
# The pseudonym of what a row is about, which is no column of the model.
ENTITY = "(entity)"
ABOUT = b"feedback"


@dataclass(frozen=True)
class Feedback:
    """Rows that were predicted, oldest first.

    Attributes
    ----------
    rows : DataFrame
        Features and target.
    entities : list of str or None
        What each row is about, where that is known.
    facts : dict
        ``policy`` (append or replace), ``rows``, ``held_out`` (so many of the newest), ``from`` and
        ``until`` (moments), ``windows`` (of the monitor, because of which), ``sha256``.
    """

    rows: pd.DataFrame
    entities: list[str | None] | None
    facts: dict[str, Any]

    @property
    def held_out(self) -> npt.NDArray[np.int64]:
        """The positions of the newest rows, on which a challenger is compared."""
        return np.arange(len(self.rows) - self.facts["held_out"], len(self.rows))

    def join(self, train: pd.DataFrame, contract: Contract) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return training and test rows: the older ones join training, the newest are the test.

        Parameters
        ----------
        train : DataFrame
            The training rows of the source, which ``append`` keeps and ``replace`` leaves out.
        contract : Contract

        Raises
        ------
        ContractError
            Where a class has fewer than two training rows.
        """
        columns = {column.name: column for column in contract.features}
        own = pd.DataFrame(
            {name: _like(self.rows[name], columns.get(name), train[name]) for name in train}
        )
        older = own.iloc[: self.held_out[0]]
        parts = [older] if self.facts["policy"] == "replace" else [train, older]
        joined = pd.concat(parts, ignore_index=True)
        codes = encode_target(contract, joined)
        for code, label in enumerate(contract.classes):
            if (count := int((codes == code).sum())) < 2:
                raise ContractError(
                    f"class {label!r} has {count} row(s) among the {len(joined):,} to train on; at "
                    "least 2 are needed: set retraining.policy: append, or raise retraining.rows"
                )
        return joined, own.iloc[self.held_out].reset_index(drop=True)


def write(
    contract: Contract,
    rows: Sequence[dict[str, Any]],
    labels: Sequence[Any],
    entities: Sequence[str | None] | None,
    facts: dict[str, Any],
) -> None:
    """Keep rows as clients sent them, oldest first; where just these are kept, do nothing.

    Parameters
    ----------
    contract : Contract
    rows : sequence of dict
    labels : sequence
        Their truths; not looked at for a clustering.
    entities : sequence of str, or None
    facts : dict
        ``policy``, ``held_out``, ``from``, ``until`` and ``windows``.
    """
    found = table(contract, rows, labels)
    if entities is not None:
        found[ENTITY] = list(entities)
    if ROWS.exists():
        kept, known = _read()
        same = all(known.get(name) == facts[name] for name in ("policy", "held_out"))
        if same and kept.equals(found):
            return
    stored = pa.Table.from_pandas(found, preserve_index=False)
    about = json.dumps(facts | {"rows": len(found)}).encode()
    with replacing(ROWS) as partial:
        metadata = {**(stored.schema.metadata or {}), ABOUT: about}
        pq.write_table(stored.replace_schema_metadata(metadata), partial)


def read(contract: Contract) -> Feedback | None:
    """Read what is kept, if anything.

    Raises
    ------
    DataError
        Where `write` did not write the file, or it lacks a column of the contract.
    """
    if not ROWS.exists():
        return None
    kept, facts = _read()
    names = [column.name for column in contract.features]
    names += [contract.target.name] if contract.target else []
    if lacking := [name for name in names if name not in kept]:
        raise DataError(
            f"{ROWS} has no column {lacking[0]!r}: delete the file, or run retrain again"
        )
    entities = kept[ENTITY].tolist() if ENTITY in kept else None
    return Feedback(kept[names], entities, facts)


def table(
    contract: Contract, rows: Sequence[dict[str, Any]], labels: Sequence[Any]
) -> pd.DataFrame:
    """Lay rows that clients sent out as a table of features and target."""
    found = pd.DataFrame({column.name: _stored(column, rows) for column in contract.features})
    if contract.target:
        found[contract.target.name] = list(labels)
    return found


def _read() -> tuple[pd.DataFrame, dict[str, Any]]:
    try:
        stored = pq.read_table(ROWS)
        facts = json.loads((stored.schema.metadata or {})[ABOUT])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise DataError(f"{ROWS} is not what retrain writes: delete it ({error})") from error
    return stored.to_pandas(), facts | {"sha256": sha256(ROWS)}


def _stored(column: Column, rows: Sequence[dict[str, Any]]) -> pd.Series[Any]:
    """Return a column as Parquet takes it: numbers as such, anything else as text."""
    values = [row.get(column.name) for row in rows]
    if column.kind in ("numeric", "integer"):
        return pd.Series(values, dtype="float64")
    return pd.Series([None if value is None else str(value) for value in values], dtype="str")


def _like(series: pd.Series[Any], column: Column | None, other: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column, None for the target, in the type that it has in the source."""
    given = other.dropna()
    first = given.iloc[0] if len(given) else None
    if column and column.kind == "boolean" and isinstance(first, bool | np.bool_):
        flags = pd.Series(encode_series(column, series)).map({0.0: False, 1.0: True})
        return flags.astype(other.dtype)
    if column and column.kind == "datetime" and isinstance(first, date):
        moments = pd.to_datetime(series, format="ISO8601", utc=True)
        if not pd.api.types.is_datetime64_any_dtype(other):
            return moments.dt.date
        zone = other.dt.tz
        return (moments.dt.tz_convert(zone) if zone else moments.dt.tz_localize(None)).astype(
            other.dtype
        )
    if pd.api.types.is_bool_dtype(other):
        return series.astype(other.dtype)
    if not pd.api.types.is_numeric_dtype(other):
        return series.map(str, na_action="ignore").astype(other.dtype)
    numbers = pd.to_numeric(series, errors="coerce")
    whole = numbers.notna().all() and bool((numbers == np.floor(numbers)).all())
    return numbers.astype(other.dtype) if whole else numbers
