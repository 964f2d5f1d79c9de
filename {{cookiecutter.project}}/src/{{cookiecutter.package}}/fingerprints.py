"""Fingerprints: a number for each row, by which it is known again in other tables."""

from datetime import date
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Fingerprints = npt.NDArray[np.uint64]

MISSING = 0x9E3779B97F4A7C15


def fingerprints(frame: pd.DataFrame) -> Fingerprints:
    """Return one number per row over all columns, shape (n_rows,).

    Equal rows have equal numbers in every process, whatever the order of rows or columns: a whole
    number equals the same number as a float, true equals 1, text counts as it is spelt, moments to
    the microsecond in UTC. Whole numbers beyond 2**53 count as the nearest float.

    Parameters
    ----------
    frame : DataFrame
        Names of columns count too: only frames with the same columns can be compared.
    """
    total = np.zeros(len(frame), dtype=np.uint64)
    for name in frame.columns:
        salt = pd.util.hash_array(np.array([str(name)], dtype=object), categorize=False)
        total += pd.util.hash_array(_hashes(frame[name]) ^ salt)
    return total


def unseen(
    frame: pd.DataFrame, seen: Fingerprints, columns: list[str] | None = None
) -> pd.DataFrame:
    """Return the rows that a model was not trained on.

    Parameters
    ----------
    frame : DataFrame
    seen : ndarray of uint64
        The `fingerprints` of the training rows. A row that merely equals one of them is left out
        too: the model may know it by heart.
    columns : list of str, optional
        Those that `seen` was made of; all of the frame's where it has no others.
    """
    known = frame if columns is None else frame[columns]
    return frame[~np.isin(fingerprints(known), seen)]


def _hashes(series: pd.Series) -> Fingerprints:
    """Hash the values of a column by what they mean, not by how they are stored."""
    missing = series.isna().to_numpy()
    if pd.api.types.is_datetime64_any_dtype(series):
        hashed = pd.util.hash_array(_micros(series))
    elif pd.api.types.is_numeric_dtype(series):
        hashed = pd.util.hash_array(series.to_numpy(np.float64, na_value=0.0))
    else:
        try:
            codes, different = pd.factorize(series.astype(object))
        except TypeError:
            # Lists and dicts cannot be told apart by a hash table, but by how they are written.
            codes, different = pd.factorize(series.map(repr))
        each = np.array([_value_hash(value) for value in different] or [0], dtype=np.uint64)
        hashed = each[codes]
    return np.where(missing, np.uint64(MISSING), hashed)


def _value_hash(value: Any) -> Any:
    if isinstance(value, Real):
        return pd.util.hash_array(np.array([value], dtype=np.float64))[0]
    if isinstance(value, date):
        return pd.util.hash_array(_micros(pd.Series([pd.Timestamp(value)])))[0]
    return pd.util.hash_array(np.array([str(value)], dtype=object), categorize=False)[0]


def _micros(series: pd.Series) -> Any:
    moments = series.dt.tz_convert("UTC").dt.tz_localize(None) if series.dt.tz else series
    return moments.to_numpy("datetime64[us]").view(np.int64)
