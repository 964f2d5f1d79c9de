"""What a table holds: infer its contract."""

import hashlib
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from .contract import Column, Contract, Kind, Target, Task
from .encoding import encode_series, labels, shortened
from .errors import ContractError
from .settings import Data
from .violations import examples

BOOLEAN_SPELLINGS = (
    *(("no", "yes"), ("false", "true"), ("n", "y"), ("f", "t"), ("off", "on")),
    *(("nein", "ja"), ("n", "j"), ("non", "oui"), ("no", "si"), ("no", "sí"), ("não", "sim")),
)
DATE_FORMATS = (
    *("%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%y"),
    *("%m/%d/%Y", "%d/%m/%Y", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M"),
    *("%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p"),
    *("%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d-%m-%Y", "%d-%m-%Y %H:%M"),
    *("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d-%b-%y"),
)
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
IDENTIFIER = re.compile(r"(^|[_\s-])(id|uuid|guid|key|index|rowid|nr)$|^unnamed", re.IGNORECASE)
QUANTITY = re.compile(
    r"(?P<before>[^\W\d_]{1,3}|[$€£¥₹~<>])?\s?[+-]?\d[\d.,'\u2019\u00a0\u202f ]*"
    r"(?P<after>[^\d\s.,'\u2019][^\d\s]{0,7})?"
)
SIGNS = re.compile(r"[$€£¥₹~<>]")
FEW = 20
MANY = 1000
PROBE = 1000
DATE_DIGITS = 3
MOSTLY = 0.9


def infer(frame: pd.DataFrame, data: Data) -> Contract:
    """Infer the contract of a table.

    Parameters
    ----------
    frame : DataFrame
        The snapshot.
    data : Data
        ``target``, ``task``, ``exclude`` and ``time`` of the settings.

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
    columns = [_with_format(column, frame, data) for column in columns]
    columns = _without_duplicates(frame, columns, target)
    contract = Contract(task, target, tuple(columns), agreement(data))
    if not contract.features:
        reasons = "; ".join(f"{column.name}: {column.reason}" for column in columns)
        raise ContractError(
            f"{data.source}: no column can be used as a feature ({reasons}); "
            "add columns of numbers, categories or dates, or shorten data.exclude"
        )
    return contract


def agreement(data: Data) -> dict[str, Any]:
    """Return the settings under which a contract holds; others need another contract."""
    return {
        "source": data.source,
        "target": data.target,
        "task": data.task,
        "exclude": list(data.exclude),
        "time": data.time,
    }


def _require_columns(frame: pd.DataFrame, data: Data) -> None:
    wanted = {
        "data.target": [data.target] if data.target else [],
        "data.exclude": data.exclude,
        "data.time": [data.time] if data.time else [],
    }
    for setting, names in wanted.items():
        for name in names:
            if name not in frame.columns:
                known = ", ".join(map(str, frame.columns))
                raise ContractError(
                    f"{setting}: no column {name!r} in {data.source}; it has {known}"
                )
    if data.target in data.exclude:
        raise ContractError(f"data.exclude lists the target {data.target!r}; take it out")
    if data.time and data.time == data.target:
        raise ContractError(f"data.time and data.target both name {data.time!r}; name two columns")


def _infer_target(frame: pd.DataFrame, data: Data) -> tuple[Task, Target | None]:
    if data.target is None or data.task == "clustering":
        if data.task in ("classification", "regression"):
            raise ContractError(f"data.task is {data.task}, but data.target is null; name a column")
        return "clustering", None
    name, series = data.target, frame[data.target].dropna()
    different = _different(series, name)
    if len(different) < 2:
        raise ContractError(f"data.target: {name!r} has fewer than two different values")
    is_flag = pd.api.types.is_bool_dtype(series)
    is_number = pd.api.types.is_numeric_dtype(series) and not is_flag
    if not is_number and not is_flag:
        _refuse_text_among_numbers(frame[name], len(different), data)
    few = is_number and _whole(different) and len(different) <= FEW / 2
    if data.task == "regression" or (is_number and data.task == "auto" and not few):
        if not is_number:
            shown = shortened(different.tolist(), 3)
            raise ContractError(
                f"data.target: {name!r} holds {shown}; a regression expects numbers"
            )
        if (infinite := np.isinf(frame[name].to_numpy(float, na_value=np.nan))).any():
            rows = [int(row) + 1 for row in np.flatnonzero(infinite)]
            raise ContractError(
                f"data.target: {name!r} holds infinite numbers (rows {shortened(rows)}); "
                "mend or empty them"
            )
        return "regression", Target(name, (), float(series.min()), float(series.max()))
    if len(different) > max(FEW, len(series) / 10):
        raise ContractError(
            f"data.target: {name!r} has {len(different)} classes in {len(series)} rows; "
            "expected a column with few classes, or numbers with data.task: regression"
        )
    classes = tuple(sorted(labels(different).unique().tolist()))
    return "binary" if len(classes) == 2 else "multiclass", Target(name, classes)


def _different(series: pd.Series, name: str) -> pd.Series:
    try:
        return pd.Series(series.unique())
    except TypeError as error:
        raise ContractError(
            f"data.target: {name!r} holds nested values, such as {str(series.iloc[0])[:40]}; "
            "expected numbers or classes"
        ) from error


def _refuse_text_among_numbers(series: pd.Series, different: int, data: Data) -> None:
    """Name the rows that keep a target from being numeric."""
    text = series.notna() & pd.to_numeric(series, errors="coerce").isna()
    nearly = text.any() and not _mostly(text) and different > FEW
    if text.any() and (data.task == "regression" or (data.task == "auto" and nearly)):
        rows = tuple(int(i) + 1 for i in np.flatnonzero(text))
        raise ContractError(
            f"data.target: {series.name!r} should hold numbers, but {len(rows)} rows hold text, "
            f"such as {examples(series, text)} (rows {shortened(rows)}); mend or empty them"
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
    return _infer_text(name, nullable, values if _is_text(values) else values.map(str))


def _is_text(values: pd.Series) -> bool:
    return isinstance(values.dtype, pd.StringDtype)


def _useless(values: pd.Series) -> str | None:
    if values.empty:
        return "empty"
    if pd.api.types.is_complex_dtype(values) or pd.api.types.is_timedelta64_dtype(values):
        return f"values of type {values.dtype}"
    first = values.iloc[0]
    if isinstance(first, list | dict | set | tuple | np.ndarray):
        return f"nested values, such as {str(first)[:40]}"
    if isinstance(first, bytes):
        return "binary values"
    return f"constant: always {first}" if bool((values == first).all()) else None


def _infer_number(name: str, nullable: bool, values: pd.Series) -> Column:
    numbers = values.astype(float)
    if not np.isfinite(numbers).all():
        return Column(name, "excluded", nullable, reason="infinite numbers")
    whole = _whole(numbers)
    counts_up = IDENTIFIER.search(name) or bool((np.diff(numbers) == 1).all())
    if whole and counts_up and len(values) > FEW / 2 and values.is_unique:
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
    positions, different = pd.factorize(values)
    different = pd.Series(different, dtype=values.dtype)
    counts = np.bincount(positions, minlength=len(different))
    if len(different) <= FEW and (pair := _spelled_as_boolean(different)):
        return Column(name, "boolean", nullable, categories=pair, example=True)
    for written in ("ISO8601", *DATE_FORMATS):
        if _reads_as(different, written):
            return _infer_moment(name, nullable, values, None if written == "ISO8601" else written)
    reason = (
        _numbers_as_text(different, counts)
        or _many_dates(different, counts)
        or _quantities(different)
    )
    many = len(different) > max(FEW, len(values) / 2)
    if reason is None and (many or len(different) == len(values) > FEW / 2):
        what = "identifier" if different.str.split().str.len().mean() < 2 else "free text"
        reason = f"{what}: {len(different)} different values in {len(values)} rows"
    if reason is None and len(different) > MANY:
        reason = f"{len(different)} categories; at most {MANY} are used"
    if reason:
        return Column(name, "excluded", nullable, reason=reason)
    example = min(different[counts == counts.max()])
    categories = tuple(sorted(different.tolist()))
    return Column(name, "categorical", nullable, categories=categories, example=example)


def _spelled_as_boolean(different: pd.Series) -> tuple[str, str] | None:
    by_lower = {value.lower(): value for value in different}
    for false, true in BOOLEAN_SPELLINGS:
        if by_lower.keys() == {false, true}:
            return by_lower[false], by_lower[true]
    return None


def _numbers_as_text(different: pd.Series, counts: Any) -> str | None:
    numbers = pd.to_numeric(different, errors="coerce")
    text = numbers.isna().to_numpy()
    if counts[text].sum() >= counts.sum() / 2:
        return None
    if not text.any():
        return "numbers written as text"
    if len(different) <= FEW and _whole(numbers[~text]):
        return None
    return (
        f"numbers mixed with text in {counts[text].sum()} rows, such as "
        f"{different[text].iloc[0]!r}; empty these in the source to use the numbers"
    )


def _many_dates(different: pd.Series, counts: Any) -> str | None:
    """Say why a column that mostly holds dates cannot be used."""
    probe = different.head(PROBE)
    if len(different) <= FEW or not _mostly(probe.str.count(r"\d") >= DATE_DIGITS):
        return None
    read = np.zeros(len(different), dtype=bool)
    ways = []
    for written in ("ISO8601", *DATE_FORMATS):
        if pd.to_datetime(probe, format=written, errors="coerce", utc=True).notna().any():
            moments = pd.to_datetime(different, format=written, errors="coerce", utc=True)
            new = moments.notna().to_numpy() & ~read
            if new.any():
                ways.append(different[new].iloc[0])
                read |= new
    if counts[read].sum() <= counts.sum() / 2:
        return None
    if read.all():
        shown = " and ".join(map(repr, ways[:3]))
        return f"dates written in several ways, such as {shown}; write them all alike"
    return (
        f"dates mixed with text in {counts[~read].sum()} rows, such as "
        f"{different[~read].iloc[0]!r}; empty these in the source to use the dates"
    )


def _quantities(different: pd.Series) -> str | None:
    """Say why numbers with one and the same unit, or a currency, cannot be used."""
    if len(different) <= FEW:
        return None
    found = [QUANTITY.fullmatch(value) for value in different.head(PROBE)]
    units = Counter(
        unit for match in found if match and (unit := match["after"] or match["before"])
    )
    if not units:
        return None
    unit, most = units.most_common(1)[0]
    in_front = not any(match and match["after"] == unit for match in found)
    # A letter in front is a name, such as that of a shelf.
    is_name = in_front and not SIGNS.fullmatch(unit) and len(unit) < len("EUR")
    if is_name or most < MOSTLY * len(found):
        return None
    example = different[0]
    return f"numbers with {unit!r}, such as {example!r}; write plain numbers to use them"


def _reads_as(different: pd.Series, written: str) -> bool:
    """Tell whether every value is a date written in one way."""
    is_iso = ISO_DATE.match(different[0]) is not None
    if is_iso != (written == "ISO8601") or sum(map(str.isdigit, different[0])) < DATE_DIGITS:
        return False
    try:
        for values in (different.head(PROBE // 10), different):
            pd.to_datetime(values, format=written, utc=True)
    except (ValueError, OverflowError):
        return False
    return True


def _with_format(column: Column, frame: pd.DataFrame, data: Data) -> Column:
    """Keep how the column that orders the rows is written, also where the model must not see it."""
    if column.name != data.time or column.kind == "datetime":
        return column
    found = _infer_column(frame[column.name], data.model_copy(update={"exclude": ()}))
    if found.kind != "datetime":
        why = found.reason or f"{found.kind} values, such as {found.example!r}"
        raise ContractError(
            f"data.time: {column.name!r} holds no dates that can be read ({why}); "
            "expected a column of dates or times, all written alike"
        )
    return replace(column, format=found.format)


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
            else Column(
                column.name, "excluded", column.nullable, format=column.format, reason=reason
            )
        )
    return kept


def _fingerprint(series: pd.Series) -> bytes:
    hashes = pd.util.hash_pandas_object(series, index=False).to_numpy()
    return hashlib.sha256(hashes.tobytes()).digest()


def _mostly(where: Any) -> bool:
    return bool(np.mean(where) > 0.5)


def _whole(values: pd.Series) -> bool:
    numbers = values.astype(float)
    return bool(np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all())
