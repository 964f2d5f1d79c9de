"""What a table breaks: check it against a contract, explain every violation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .artifacts import aligned
from .contract import Column, Contract, allowed_range
from .encoding import UNSEEN, encode_series, encode_target, expected, shortened

SHOWN = 5
LOOKED_AT = 1000


@dataclass(frozen=True)
class Violation:
    """One rule of the contract that a table breaks.

    Attributes
    ----------
    column, rule : str
    count : int
        How many rows break it; all of them where the column is missing.
    rows : tuple of int
        The first of them, counted from 1 below the header.
    found : str
        What stands there, and what was expected.
    """

    column: str
    rule: str
    count: int
    rows: tuple[int, ...]
    found: str


def check(frame: pd.DataFrame, contract: Contract, with_target: bool = True) -> list[Violation]:
    """Check a table against the contract.

    Parameters
    ----------
    frame : DataFrame
        Any table with the columns of the contract; further columns are not looked at.
    contract : Contract
    with_target : bool
        Whether the target must be there too; batch files come without.

    Returns
    -------
    list of Violation
        Empty if the table keeps the contract.
    """
    found = []
    for column in contract.features:
        if column.name in frame.columns:
            found += _check_column(frame[column.name], column)
        else:
            found.append(_missing_column(column.name, len(frame)))
    if with_target and contract.target:
        name = contract.target.name
        if name in frame.columns:
            found += _check_target(frame[name], contract)
        else:
            found.append(_missing_column(name, len(frame)))
    return found


def explain(violations: list[Violation]) -> str:
    """Lay the violations out as a table: column, rule, rows, the first of them, what was found."""
    table = [("column", "rule", "rows", "first rows", "found")]
    for v in violations:
        first = ", ".join(map(str, v.rows)) + (", …" if v.rows and v.count > len(v.rows) else "")
        table.append((v.column, v.rule, str(v.count), first, v.found))
    return aligned(table)


def _check_column(series: pd.Series, column: Column) -> list[Violation]:
    encoded, missing = encode_series(column, series), series.isna().to_numpy()
    found = []
    if missing.any() and not column.nullable:
        found.append(
            _violation(column.name, "missing value", missing, f"expected {expected(column)}")
        )
    unreadable = np.isnan(encoded) & ~missing
    if unreadable.any():
        wrong = f"{examples(series, unreadable)}; expected {expected(column)}"
        found.append(_violation(column.name, "type", unreadable, wrong))
    if column.kind == "categorical" and (unseen := encoded == UNSEEN).any():
        wrong = f"{examples(series, unseen)}; expected one of {shortened(column.categories)}"
        found.append(_violation(column.name, "category", unseen, wrong))
    if column.kind in ("numeric", "integer"):
        low, high = allowed_range(column)
        outside = (encoded < low) | (encoded > high)
        if outside.any():
            wrong = f"{examples(series, outside)}; expected {low:g} to {high:g}"
            found.append(_violation(column.name, "range", outside, wrong))
    return found


def _check_target(series: pd.Series, contract: Contract) -> list[Violation]:
    name, missing = str(series.name), series.isna().to_numpy()
    unreadable = np.isnan(encode_target(contract, series.to_frame())) & ~missing
    if not unreadable.any():
        return []
    wanted = f"one of {shortened(contract.classes)}" if contract.classes else "a number"
    wrong = f"{examples(series, unreadable)}; expected {wanted}"
    return [_violation(name, "target", unreadable, wrong)]


def _missing_column(name: str, rows: int) -> Violation:
    return Violation(name, "column", rows, (), "the column is not there")


def _violation(column: str, rule: str, where: Any, found: str) -> Violation:
    rows = tuple(int(i) + 1 for i in np.flatnonzero(where)[:SHOWN])
    return Violation(column, rule, int(where.sum()), rows, found)


def examples(series: pd.Series, where: Any) -> str:
    """Show the first few different values of some rows."""
    first = dict.fromkeys(map(repr, series[where].head(LOOKED_AT).tolist()))
    return ", ".join(list(first)[:3])
