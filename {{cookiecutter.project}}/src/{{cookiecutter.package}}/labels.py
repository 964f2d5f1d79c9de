"""Labels: what turned out to be true of predictions, from a file; a wrong row refuses all of it."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from . import bundle, checks
from . import contract as contracts
from .contract import Column, Contract
from .encoding import encode_value, label, label_of_text, shortened
from .errors import ContractError, DataError
from .serving import source as sources
from .settings import Settings
from .store import opened
from .tables import Source, open_source

# Recorded together; between them others take their turn.
ROWS = 5000
NAMED = 3
MOST_CHARACTERS = 200
MOMENT = Column("observed_at", "datetime", nullable=True)
FILE = Contract(
    "clustering", None, (Column("prediction_id", "categorical"), Column("label", "categorical"))
)


@dataclass(frozen=True)
class Imported:
    """What became of the rows of a file.

    Attributes
    ----------
    new, known, unknown : int
        Recorded; said before, exactly so; of predictions that the store does not hold.
    named : tuple of str
        The first of the unknown ones.
    """

    new: int = 0
    known: int = 0
    unknown: int = 0
    named: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = f" ({shortened(self.named, NAMED)})" if self.named else ""
        return (
            f"{self.new:,} new, {self.known:,} known already, "
            f"{self.unknown:,} of unknown predictions{named}"
        )


def read(settings: Settings, path: Path) -> Imported:
    """Record the truths of a file; those that were recorded before change nothing.

    Parameters
    ----------
    settings : Settings
        ``data`` tells how delimited text is written, where that is not found out; labels are
        those of the contract that is served.
    path : Path
        CSV or Parquet with ``prediction_id`` and ``label``, and perhaps ``observed_at`` (ISO 8601,
        without a zone UTC) and ``source``. It is read twice, in pieces: nothing is recorded before
        all of it was found good.

    Raises
    ------
    DataError
        Where it is no table.
    ContractError
        Where a column is missing, or naming the first row, its value, and what was expected.
    StoreError
        Where the store cannot be used; what was recorded stays, and the same file goes on.
    BundleError, RegistryError
        Where what is served cannot be read.
    """
    served = sources.of(settings)
    agreed = contracts.read(served.fetch(served.fingerprint()) / bundle.CONTRACT)
    source = open_source(path, settings.data, FILE, as_text=True)
    for _ in _truths(source, agreed, "checked"):
        pass
    found = Imported()
    with opened(settings.events.store) as store:
        for truths in _truths(source, agreed, "stored"):
            there = store.known([truth["prediction_id"] for truth in truths])
            recorded = store.record([each for each in truths if each["prediction_id"] in there])
            absent = [
                each["prediction_id"] for each in truths if each["prediction_id"] not in there
            ]
            new = sum(is_new for _, is_new in recorded)
            found = replace(
                found,
                new=found.new + new,
                known=found.known + len(recorded) - new,
                unknown=found.unknown + len(absent),
                # One more than are shown, so that it shows that there are more.
                named=tuple(dict.fromkeys([*found.named, *absent]))[: NAMED + 1],
            )
        facts = {"rows": found.new + found.known + found.unknown, "unknown": found.unknown}
        checks.claim(store, f"{checks.IMPORT} {time.time():.6f}", checks.IMPORT, facts)
    return found


def _truths(source: Source, agreed: Contract, what: str) -> Iterator[list[dict[str, Any]]]:
    """Read a file's truths as `Store.record` takes them."""
    decimal = getattr(source, "decimal", ".")
    with tqdm(total=source.rows, unit=" rows", unit_scale=True, desc=what, disable=None) as shown:
        for piece in source.pieces():
            if piece.malformed:
                number, reason = piece.malformed[0]
                raise DataError(f"{source.path}: row {number:,}: {reason}")
            table = source.readable(piece.table)
            for start in range(0, table.num_rows, ROWS):
                rows = table.slice(start, ROWS).to_pylist()
                numbers = piece.row_numbers[start : start + ROWS]
                truths = []
                for number, row in zip(numbers, rows, strict=True):
                    try:
                        truths.append(_truth(agreed, row, decimal))
                    except ValueError as error:
                        raise ContractError(f"{source.path}: row {number:,}: {error}") from error
                yield truths
                shown.update(len(rows))


def _truth(agreed: Contract, row: dict[str, Any], decimal: str) -> dict[str, Any]:
    return {
        "prediction_id": _text("prediction_id", row["prediction_id"]),
        "label": msgspec.json.encode(_label(agreed, row["label"], decimal)).decode(),
        "observed_at": _moment(row.get("observed_at")),
        "source": None if _is_missing(row.get("source")) else _text("source", row["source"]),
    }


def _label(agreed: Contract, value: Any, decimal: str) -> Any:
    try:
        if not isinstance(value, str):
            return label(agreed, None if _is_missing(value) else value)
        with_point = agreed.task == "regression" and decimal == ","
        return label_of_text(agreed, value.replace(",", ".") if with_point else value)
    except ValueError as error:
        raise ValueError(f"label: {error}") from error


def _moment(value: Any) -> float | None:
    try:
        moment = encode_value(MOMENT, None if _is_missing(value) else value)
    except ValueError as error:
        raise ValueError(f"observed_at: {error}") from error
    return None if math.isnan(moment) else moment


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS or "\0" in value:
        expected = f"text of at most {MOST_CHARACTERS} characters"
        raise ValueError(f"{name}: expected {expected}, not {value!r:.80}")
    return value


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))
