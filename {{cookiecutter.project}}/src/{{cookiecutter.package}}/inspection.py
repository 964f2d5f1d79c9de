"""What a table holds: infer a contract from it, check it against one, explain what is violated."""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .contract import Column, Contract, Kind, Label, Target, Task, allowed_range
from .encoding import UNSEEN, encode_series, expected
from .errors import ContractError
from .settings import Data

BOOLEAN_SPELLINGS = (("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"), ("off", "on"))
DATE_FORMATS = (
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%m/%d/%Y %H:%M",
    "%d/%m/%Y %H:%M",
)
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
IDENTIFIER = re.compile(r"(^|[_\s-])(id|uuid|guid|key|index|rowid|nr)$|^unnamed", re.IGNORECASE)
FEW = 20
MANY = 1000
SHOWN = 5


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


def infer(frame: pd.DataFrame, data: Data) -> Contract:
    """Infer the contract of a table.

    Parameters
    ----------
    frame : DataFrame
        The snapshot.
    data : Data
        ``target``, ``task`` and ``exclude`` of the settings.

    Returns
    -------
    Contract

    Raises
    ------
    ContractError
        Where the target is no usable column, or no feature is left.
    """
    _require_columns(frame, data)
    task, target = _infer_target(frame, data)
    columns = [
        _infer_column(series, data)
        for name, series in frame.items()
        if target is None or name != target.name
    ]
    columns = _without_duplicates(frame, columns, target)
    contract = Contract(task, target, tuple(columns), agreement(data))
    if not contract.features:
        reasons = "; ".join(f"{column.name}: {column.reason}" for column in columns)
        raise ContractError(f"{data.source}: no column can be used as a feature ({reasons})")
    return contract


def agreement(data: Data) -> dict[str, Any]:
    """Return the settings under which a contract holds; others need another contract."""
    return {
        "source": data.source.as_posix(),
        "target": data.target,
        "task": data.task,
        "exclude": list(data.exclude),
    }


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
    widths = [max(len(line[i]) for line in table) for i in range(4)]
    return "\n".join(
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[4]]
        )
        for line in table
    )


def target_values(frame: pd.DataFrame, contract: Contract) -> Any:
    """Return the target as the estimator takes it: class positions, or numbers; NaN if missing."""
    if contract.target is None:
        return None
    series = frame[contract.target.name]
    if contract.task == "regression":
        return pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    codes = {label: float(code) for code, label in enumerate(contract.target.classes)}
    return _labels(series).map(codes).to_numpy(np.float64, na_value=np.nan)


def _require_columns(frame: pd.DataFrame, data: Data) -> None:
    wanted = {"data.target": [data.target] if data.target else [], "data.exclude": data.exclude}
    for setting, names in wanted.items():
        for name in names:
            if name not in frame.columns:
                known = ", ".join(map(str, frame.columns))
                raise ContractError(
                    f"{setting}: no column {name!r} in {data.source}; it has {known}"
                )
    if data.target in data.exclude:
        raise ContractError(f"data.exclude lists the target {data.target!r}; take it out")


def _infer_target(frame: pd.DataFrame, data: Data) -> tuple[Task, Target | None]:
    if data.target is None or data.task == "clustering":
        if data.task in ("classification", "regression"):
            raise ContractError(f"data.task is {data.task}, but data.target is null; name a column")
        return "clustering", None
    name, series = data.target, frame[data.target].dropna()
    if series.nunique() < 2:
        raise ContractError(f"data.target: {name!r} has fewer than two different values")
    is_flag = pd.api.types.is_bool_dtype(series)
    is_number = pd.api.types.is_numeric_dtype(series) and not is_flag
    if not is_number and not is_flag:
        _refuse_text_among_numbers(frame[name], data)
    few = is_number and _whole(series) and series.nunique() <= FEW / 2
    if data.task == "regression" or (is_number and data.task == "auto" and not few):
        return "regression", Target(name, (), float(series.min()), float(series.max()))
    classes = tuple(sorted(_labels(series).unique().tolist()))
    if len(classes) > max(FEW, len(series) / 10):
        raise ContractError(
            f"data.target: {name!r} has {len(classes)} classes in {len(series)} rows; "
            "expected a column with few classes, or numbers with data.task: regression"
        )
    return "binary" if len(classes) == 2 else "multiclass", Target(name, classes)


def _refuse_text_among_numbers(series: pd.Series, data: Data) -> None:
    """Name the rows that keep a target from being numeric."""
    text = series.notna() & pd.to_numeric(series.astype(object), errors="coerce").isna()
    nearly = text.any() and not _mostly(text) and series.nunique() > FEW
    if data.task == "regression" or (data.task == "auto" and nearly):
        rows = tuple(int(i) + 1 for i in np.flatnonzero(text))
        raise ContractError(
            f"data.target: {series.name!r} should hold numbers, but {len(rows)} rows hold text, "
            f"such as {_examples(series, text)} (rows {_shortened(rows)})"
        )


def _labels(series: pd.Series) -> pd.Series:
    """Return labels as JSON carries them: whole numbers as int, booleans, anything else as text."""
    if pd.api.types.is_bool_dtype(series.dropna()):
        return series.astype(object)
    if pd.api.types.is_numeric_dtype(series):
        return series.astype(object).map(_as_number, na_action="ignore")
    return series.astype(object).map(str, na_action="ignore")


def _as_number(value: Any) -> Label:
    return int(value) if float(value).is_integer() else float(value)


def _infer_column(series: pd.Series, data: Data) -> Column:
    name, values = str(series.name), series.dropna()
    nullable = bool(len(values) < len(series))
    reason = "listed in data.exclude" if name in data.exclude else _useless(values)
    if name == data.target:
        reason = "named as data.target, which a clustering does not see"
    if reason:
        return Column(name, "excluded", nullable, reason=reason)
    if pd.api.types.is_bool_dtype(values):
        return Column(name, "boolean", nullable, categories=("false", "true"), example=True)
    if pd.api.types.is_numeric_dtype(values):
        return _infer_number(name, nullable, values)
    if pd.api.types.is_datetime64_any_dtype(values):
        return _infer_moment(name, nullable, values, None)
    return _infer_text(name, nullable, values.astype(str))


def _useless(values: pd.Series) -> str | None:
    if values.empty:
        return "empty"
    if pd.api.types.is_complex_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        return f"values of type {values.dtype}"
    try:
        different = values.nunique()
    except TypeError:
        return f"nested values, such as {str(values.iloc[0])[:40]}"
    return f"constant: always {values.iloc[0]}" if different == 1 else None


def _infer_number(name: str, nullable: bool, values: pd.Series) -> Column:
    numbers = values.astype(float)
    if not np.isfinite(numbers).all():
        return Column(name, "excluded", nullable, reason="infinite numbers")
    whole = _whole(values)
    counts_up = IDENTIFIER.search(name) or bool((numbers.diff().dropna() == 1).all())
    if whole and values.is_unique and len(values) > FEW / 2 and counts_up:
        return Column(name, "excluded", nullable, reason="identifier: every value differs")
    kind: Kind = "integer" if whole else "numeric"
    convert = int if whole else float
    middle = numbers.iloc[(numbers - numbers.median()).abs().argmin()]
    return Column(
        name,
        kind,
        nullable,
        minimum=convert(numbers.min()),
        maximum=convert(numbers.max()),
        example=convert(middle),
    )


def _infer_moment(name: str, nullable: bool, values: pd.Series, written: str | None) -> Column:
    column = Column(name, "datetime", nullable, format=written)
    seconds = np.sort(encode_series(column, values))
    low, middle, high = (
        pd.Timestamp(moment, unit="s").isoformat()
        for moment in (seconds[0], seconds[len(seconds) // 2], seconds[-1])
    )
    return replace(column, minimum=low, maximum=high, example=middle)


def _infer_text(name: str, nullable: bool, values: pd.Series) -> Column:
    different = values.unique()
    lowered = tuple(sorted({value.lower() for value in different}))
    for spelling in BOOLEAN_SPELLINGS:
        if set(lowered) == set(spelling):
            by_lower = {value.lower(): value for value in different}
            pair = (by_lower[spelling[0]], by_lower[spelling[1]])
            return Column(name, "boolean", nullable, categories=pair, example=True)
    if ISO_DATE.match(different[0]) and _reads_as(values, "ISO8601"):
        return _infer_moment(name, nullable, values, None)
    for written in DATE_FORMATS:
        if _reads_as(values, written):
            return _infer_moment(name, nullable, values, written)
    numbers = pd.to_numeric(values, errors="coerce")
    if _mostly(numbers.notna()):
        reason = (
            f"numbers mixed with text in {int(numbers.isna().sum())} rows, "
            f"such as {values[numbers.isna()].iloc[0]!r}"
            if numbers.isna().any()
            else "numbers written as text"
        )
        return Column(name, "excluded", nullable, reason=reason)
    if len(different) > max(FEW, len(values) / 2) or len(different) == len(values) > FEW / 2:
        what = "identifier" if values.str.split().str.len().mean() < 2 else "free text"
        reason = f"{what}: {len(different)} different values in {len(values)} rows"
        return Column(name, "excluded", nullable, reason=reason)
    if len(different) > MANY:
        reason = f"{len(different)} categories; at most {MANY} are used"
        return Column(name, "excluded", nullable, reason=reason)
    example = str(values.mode().iloc[0])
    return Column(
        name, "categorical", nullable, categories=tuple(sorted(different)), example=example
    )


def _reads_as(values: pd.Series, written: str) -> bool:
    try:
        pd.to_datetime(values.head(100), format=written, utc=True)
        pd.to_datetime(values, format=written, utc=True)
    except (ValueError, OverflowError):
        return False
    return True


def _without_duplicates(
    frame: pd.DataFrame, columns: list[Column], target: Target | None
) -> list[Column]:
    seen = {_fingerprint(frame[target.name]): f"the target {target.name}"} if target else {}
    kept = []
    for column in columns:
        first = column.name
        if column.kind != "excluded":
            first = seen.setdefault(_fingerprint(frame[column.name]), column.name)
        reason = f"the same values as {first}"
        kept.append(
            column
            if first == column.name
            else Column(column.name, "excluded", column.nullable, reason=reason)
        )
    return kept


def _fingerprint(series: pd.Series) -> bytes:
    return bytes(pd.util.hash_pandas_object(series, index=False).to_numpy().tobytes())


def _check_column(series: pd.Series, column: Column) -> list[Violation]:
    encoded, missing = encode_series(column, series), series.isna().to_numpy()
    found = []
    if missing.any() and not column.nullable:
        found.append(
            _violation(column.name, "missing value", missing, f"expected {expected(column)}")
        )
    unreadable = np.isnan(encoded) & ~missing
    if unreadable.any():
        wrong = f"{_examples(series, unreadable)}; expected {expected(column)}"
        found.append(_violation(column.name, "type", unreadable, wrong))
    if column.kind == "categorical" and (unseen := encoded == UNSEEN).any():
        wrong = f"{_examples(series, unseen)}; expected one of {_shortened(column.categories)}"
        found.append(_violation(column.name, "category", unseen, wrong))
    if column.kind in ("numeric", "integer"):
        low, high = allowed_range(column)
        outside = (encoded < low) | (encoded > high)
        if outside.any():
            wrong = f"{_examples(series, outside)}; expected {low:g} to {high:g}"
            found.append(_violation(column.name, "range", outside, wrong))
    return found


def _check_target(series: pd.Series, contract: Contract) -> list[Violation]:
    name, missing = str(series.name), series.isna().to_numpy()
    unreadable = np.isnan(target_values(series.to_frame(), contract)) & ~missing
    if not unreadable.any():
        return []
    wanted = f"one of {_shortened(contract.classes)}" if contract.classes else "a number"
    wrong = f"{_examples(series, unreadable)}; expected {wanted}"
    return [_violation(name, "target", unreadable, wrong)]


def _missing_column(name: str, rows: int) -> Violation:
    return Violation(name, "column", rows, (), "the column is not there")


def _violation(column: str, rule: str, where: Any, found: str) -> Violation:
    rows = tuple(int(i) + 1 for i in np.flatnonzero(where)[:SHOWN])
    return Violation(column, rule, int(where.sum()), rows, found)


def _examples(series: pd.Series, where: Any) -> str:
    return ", ".join(repr(value) for value in series[where].astype(object).unique()[:3].tolist())


def _shortened(values: tuple[Any, ...]) -> str:
    return ", ".join(map(str, values[:10])) + (", …" if values[10:] else "")


def _mostly(where: Any) -> bool:
    return bool(np.mean(where) > 0.5)


def _whole(values: pd.Series) -> bool:
    numbers = values.astype(float)
    return bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())
