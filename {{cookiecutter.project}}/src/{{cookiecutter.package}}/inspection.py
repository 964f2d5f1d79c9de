"""What a table holds: infer its contract."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .contract import Column, Contract, Kind, Target, Task
from .encoding import encode_series, labels, shortened
from .errors import ContractError
from .settings import Data
from .violations import examples

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
        "source": data.source,
        "target": data.target,
        "task": data.task,
        "exclude": list(data.exclude),
    }


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
    classes = tuple(sorted(labels(series).unique().tolist()))
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
            f"such as {examples(series, text)} (rows {shortened(rows)})"
        )


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


def _mostly(where: Any) -> bool:
    return bool(np.mean(where) > 0.5)


def _whole(values: pd.Series) -> bool:
    numbers = values.astype(float)
    return bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())
