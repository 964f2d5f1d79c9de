"""Bodies of /predict as the model's input, decoded in one pass by a struct made from the contract.

pydantic has the last word: what the struct cannot read, such as a date in the contract's own
format or a wrong value, goes through the ordinary validation, which knows all forms that are taken
and says what is wrong with the others.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import astuple
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from ..contract import Column, Contract
from ..encoding import UNSEEN, encode_rows, encode_value
from .errors import invalid, malformed, too_many_rows
from .schemas import rows_by_name

Rows = Sequence[Sequence[float | None]]

TYPES: dict[str, Any] = {
    "numeric": float,
    "integer": float,
    "categorical": str,
    "boolean": bool | str,
    "datetime": str,
    # Read, though not looked at: what is skipped unread may be no JSON.
    "excluded": str | float | bool | None,
}
# msgspec has no fields of such names; their contracts are left to pydantic.
UNREADABLE = re.compile(r'[\x00-\x1f"\\]')


class Decoder:
    """From the bytes of a body to rows of numbers, as `encoding` makes them.

    Parameters
    ----------
    contract : Contract
    request : type of BaseModel
        What `schemas.request_model` made of the same contract.
    """

    def __init__(self, contract: Contract, request: type[BaseModel]) -> None:
        self.contract = contract
        self.request = request
        self.width = len(contract.features)
        self.codes = [
            (j, code) for j, column in enumerate(contract.features) if (code := _code(column))
        ]
        self.read: Callable[[bytes], Any] | None = None
        if not any(UNREADABLE.search(name) for name in _names(contract)):
            self.read = msgspec.json.Decoder(_request(contract)).decode

    def __call__(self, body: bytes, most: int = sys.maxsize) -> Rows:
        """Decode a body.

        Parameters
        ----------
        body : bytes
        most : int
            Rows.

        Returns
        -------
        sequence of sequence of float or None, shape (n_rows, n_features)

        Raises
        ------
        RequestError
            Where it is no JSON, not what the contract says, or has too many rows.
        """
        rows = self.quick(body)
        if rows is None:
            return self.thorough(body, most)
        if len(rows) > most:
            raise too_many_rows(len(rows), most)
        return rows

    def quick(self, body: bytes) -> Rows | None:
        """Decode a body of the usual forms; None for any other."""
        if self.read is None:
            return None
        width, codes = self.width, self.codes
        rows = []
        try:
            for row in self.read(body).rows:
                values = list(astuple(row)[:width])
                for j, code in codes:
                    values[j] = code(values[j])
                rows.append(values)
        except (ValueError, KeyError, RecursionError):
            return None
        return rows or None

    def thorough(self, body: bytes, most: int = sys.maxsize) -> Rows:
        """Decode a body in any form that is taken, or say what is wrong with it."""
        content = read_json(body)
        given = content.get("rows") if isinstance(content, dict) else None
        if isinstance(given, list) and len(given) > most:
            raise too_many_rows(len(given), most)
        try:
            rows = rows_by_name(self.request.model_validate(content))
        except ValidationError as error:
            raise invalid(error.errors(include_url=False), self.contract) from error
        values: Rows = encode_rows(self.contract, rows)[0].tolist()
        return values


def read_json(body: bytes) -> Any:
    """Parse a body, or refuse it."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise malformed(f"the body is no JSON: {error}") from error


def _names(contract: Contract) -> list[str]:
    """Return what may stand in a row, the features first."""
    ignored = [column.name for column in contract.excluded]
    if contract.target:
        ignored.append(contract.target.name)
    return [*(column.name for column in contract.features), *ignored]


def _request(contract: Contract) -> Any:
    """Make the struct of a body; fields are named by position, as a column may have any name."""
    fields: dict[str, tuple[Any, ...]] = dict.fromkeys(_names(contract), (TYPES["excluded"], None))
    for column in contract.features:
        kind = TYPES[column.kind]
        fields[column.name] = (kind | None, None) if column.nullable else (kind,)
    row: Any = msgspec.defstruct(
        "Row",
        [(f"column_{i}", *field) for i, field in enumerate(fields.values())],
        rename={f"column_{i}": name for i, name in enumerate(fields)},
        kw_only=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.defstruct("Request", [("rows", list[row])], forbid_unknown_fields=True, gc=False)


class _Codes(dict[Any, float]):
    """The codes of categories; without a function of Python's in between, twice as fast."""

    def __missing__(self, value: Any) -> float:
        return UNSEEN


def _code(column: Column) -> Callable[[Any], float | None] | None:
    """Return what turns a decoded value into its number; None where it is one."""
    codes: dict[Any, float] = dict(column.codes)
    if column.nullable:
        codes[None] = math.nan
    match column.kind:
        case "categorical":
            return _Codes(codes).__getitem__
        case "boolean":
            return {True: 1.0, False: 0.0, **codes}.__getitem__
        case "integer":
            return _whole
        case "datetime":
            return partial(encode_value, column)
        case _:
            return None


def _whole(value: float | None) -> float | None:
    if value is not None and not value.is_integer():
        raise ValueError(value)
    return value
