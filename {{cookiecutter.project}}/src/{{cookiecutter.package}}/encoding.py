"""Rows and frames as the model's input: one float64 matrix, decided by the contract alone.

Numbers stay, booleans become 0 and 1, categories their position in the contract (-1 if unseen in
training), datetimes seconds since 1970 (UTC); what is missing becomes NaN. Serving needs no pandas
for it, and training sees exactly the numbers that serving will see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .contract import Column, Contract, Label, allowed_range, spelled
from .errors import ContractError

if TYPE_CHECKING:
    import pandas as pd

Matrix = npt.NDArray[np.float64]

UNSEEN = -1.0
EXPECTED = {
    "numeric": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "categorical": "text",
    "datetime": "an ISO 8601 date or time",
}


def expected(column: Column) -> str:
    """Say in a few words which values a column takes."""
    if column.kind == "boolean" and column.categories != ("false", "true"):
        return f"true, false, {column.categories[1]!r} or {column.categories[0]!r}"
    if column.format:
        return f"{EXPECTED[column.kind]} or {column.format!r}"
    return EXPECTED[column.kind]


def shortened(values: Sequence[Any], most: int = 10) -> str:
    """List the first of some values."""
    return ", ".join(map(str, values[:most])) + (", …" if len(values) > most else "")


def encode_rows(
    contract: Contract, rows: Sequence[Mapping[str, Any]]
) -> tuple[Matrix, list[tuple[str, ...]]]:
    """Encode rows by name.

    Parameters
    ----------
    contract : Contract
        Names, kinds and order of the features.
    rows : sequence of mapping
        One mapping from column name to value for each row; other columns are not looked at.

    Returns
    -------
    matrix : ndarray of float64, shape (n_rows, n_features)
    warnings : list of tuple of str
        For each row, what the model has not seen in training.

    Raises
    ------
    ContractError
        Naming row, column, value and what was expected.
    """
    matrix = np.empty((len(rows), len(contract.features)))
    warnings: list[tuple[str, ...]] = []
    for i, row in enumerate(rows):
        for j, column in enumerate(contract.features):
            try:
                matrix[i, j] = encode_value(column, row.get(column.name))
            except ValueError as error:
                raise ContractError(f"row {i}: {column.name}: {error}") from error
        warnings.append(unfamiliar(contract, row, matrix[i]))
    return matrix, warnings


def encode_value(column: Column, value: Any) -> float:
    """Encode one value; raise ValueError, saying what was expected, where it cannot be read."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        if column.nullable:
            return math.nan
        raise ValueError(f"missing, expected {expected(column)}")
    match column.kind:
        case "boolean":
            code = column.codes.get(str(value).lower())
        case "categorical":
            code = column.codes.get(value, UNSEEN) if isinstance(value, str) else None
        case "datetime":
            code = _seconds(column, value)
        case _:
            code = _number(column, value)
    if code is None:
        raise ValueError(f"expected {expected(column)}, not {value!r}")
    return code


def unfamiliar(contract: Contract, row: Mapping[str, Any], encoded: Matrix) -> tuple[str, ...]:
    """List the values of one row that lie outside of what the model was trained on."""
    found = []
    for column, code in zip(contract.features, encoded, strict=True):
        if column.kind == "categorical" and code == UNSEEN:
            known = shortened(column.categories)
            found.append(f"{column.name}: {row[column.name]!r} was not seen in training ({known})")
        elif column.kind in ("numeric", "integer") and not math.isnan(code):
            low, high = allowed_range(column)
            if not low <= code <= high:
                found.append(
                    f"{column.name}: {code:g} lies far outside the training range "
                    f"{column.minimum:g} to {column.maximum:g}"
                )
    return tuple(found)


def bounds(contract: Contract) -> tuple[Matrix, Matrix]:
    """Return the least and the greatest number of each feature that is not unfamiliar.

    Returns
    -------
    low, high : ndarray of float64, shape (n_features,)
        Infinite where there is no bound.
    """
    limits = np.full((len(contract.features), 2), (-np.inf, np.inf))
    for limit, column in zip(limits, contract.features, strict=True):
        if column.kind in ("numeric", "integer"):
            limit[:] = allowed_range(column)
        elif column.kind == "categorical":
            limit[0] = 0
    return limits[:, 0], limits[:, 1]


def encode_frame(contract: Contract, frame: pd.DataFrame) -> Matrix:
    """Encode a table, column by column.

    Returns
    -------
    ndarray of float64, shape (n_rows, n_features)
        Values that cannot be read are NaN, like missing ones: `violations.check` tells them apart.
    """
    matrix = np.empty((len(frame), len(contract.features)))
    for j, column in enumerate(contract.features):
        matrix[:, j] = encode_series(column, frame[column.name])
    return matrix


def encode_series(column: Column, series: pd.Series[Any]) -> Matrix:
    """Encode one column of a table; what is missing or unreadable becomes NaN.

    A number in a categorical column counts as its spelling: a part of a table may hold only those.
    """
    import pandas as pd

    if column.kind in ("numeric", "integer"):
        numbers = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
        whole = column.kind != "integer" or numbers == np.floor(numbers)
        return np.where(np.isfinite(numbers) & whole, numbers, np.nan)
    if pd.api.types.is_datetime64_any_dtype(series):
        return _frame_seconds(column, series)
    positions, different = _different(series)
    if column.kind == "categorical":
        codes = np.array([column.codes.get(_spelled(value), UNSEEN) for value in different])
    elif column.kind == "boolean":
        codes = np.array([column.codes.get(_lower(value), np.nan) for value in different])
    else:
        codes = _frame_seconds(column, pd.Series(different))
    # What is missing has the position -1: the last.
    return np.append(codes, np.nan)[positions]


def encode_target(contract: Contract, frame: pd.DataFrame) -> Any:
    """Encode the target of a table.

    Returns
    -------
    ndarray of float64, shape (n_rows,), or None
        Positions in the contract's classes, or the numbers of a regression; NaN for what is
        missing or none of them. None for a clustering.
    """
    import pandas as pd

    if contract.target is None:
        return None
    series = frame[contract.target.name]
    if contract.task == "regression":
        return pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    codes = {label: float(code) for code, label in enumerate(contract.target.classes)}
    positions, different = _different(series)
    known = labels(pd.Series(different)).map(codes).to_numpy(np.float64, na_value=np.nan)
    return np.append(known, np.nan)[positions]


def encoded(contract: Contract, frame: pd.DataFrame) -> tuple[Matrix, Any]:
    """Encode the features and the target of a table, as `encode_frame` and `encode_target` do."""
    return encode_frame(contract, frame), encode_target(contract, frame)


def labels(series: pd.Series[Any]) -> pd.Series[Any]:
    """Return labels as JSON carries them: whole numbers as int, booleans, anything else as text."""
    match series.dtype.kind:
        case "b":
            return series.astype(object)
        case "i" | "u" | "f":
            return series.astype(object).map(_as_number, na_action="ignore")
        case _:
            return series.astype(object).map(str, na_action="ignore")


def label(contract: Contract, value: Any) -> Label:
    """Return a label as the contract spells it; raise ValueError where it is none."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if contract.classes:
        for known in contract.classes:
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return known
        raise ValueError(f"expected one of {shortened(contract.classes)}, not {value!r}")
    if contract.task == "regression":
        if not is_number or not math.isfinite(value):
            raise ValueError(f"expected a number, not {value!r}")
        return float(value)
    if not is_number and not isinstance(value, str):
        raise ValueError(f"expected a group, text or a number, not {value!r}")
    return value  # type: ignore[no-any-return]


def label_of_text(contract: Contract, text: str) -> Label:
    """Return the label that a text spells, such as 1 or TRUE; raise ValueError where it is none."""
    names = {spelled(known): known for known in contract.classes}
    if text in names:
        return names[text]
    if isinstance(known := names.get(text.lower()), bool):
        return known
    try:
        return label(contract, _as_number(float(text)))
    except (ValueError, OverflowError):
        return label(contract, text)


def plain_rows(contract: Contract, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the features of a table as a client sends them: rows by name, of JSON's types."""
    names = [column.name for column in contract.features]
    return [
        {
            column.name: _plain(column, value)
            for column, value in zip(contract.features, row, strict=True)
        }
        for row in frame[names].itertuples(index=False)
    ]


def _plain(column: Column, value: Any) -> Any:
    """Return a value as JSON carries it; whole numbers that pandas made float become int again."""
    import pandas as pd

    if pd.isna(value):
        return None
    if column.kind == "integer" and float(value).is_integer():
        return int(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return value.item() if isinstance(value, np.generic) else value


def _as_number(value: Any) -> Label:
    return int(value) if float(value).is_integer() else float(value)


def _different(series: pd.Series[Any]) -> tuple[npt.NDArray[np.intp], Any]:
    """Return each row's position among the different values, -1 where it is missing, and those."""
    import pandas as pd

    try:
        positions, different = pd.factorize(series)
    except TypeError:
        positions, different = pd.factorize(series.map(str, na_action="ignore"))
    return positions, different


def _spelled(value: Any) -> str:
    is_whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if is_whole else value)


def _lower(value: Any) -> str:
    return str(value).lower()


def _number(column: Column, value: Any) -> float | None:
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number) or (column.kind == "integer" and not number.is_integer()):
        return None
    return number


def _seconds(column: Column, value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            try:
                value = datetime.strptime(value, column.format) if column.format else None
            except ValueError:
                return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return None
    return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()


def _frame_seconds(column: Column, series: pd.Series[Any]) -> Matrix:
    import pandas as pd

    moments = pd.to_datetime(series, format="ISO8601", errors="coerce", utc=True)
    if column.format:
        written = pd.to_datetime(series, format=column.format, errors="coerce", utc=True)
        moments = moments.fillna(written)
    micros = moments.dt.tz_localize(None).to_numpy("datetime64[us]")
    return np.where(np.isnat(micros), np.nan, micros.astype(np.int64) / 1e6)
