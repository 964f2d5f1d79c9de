"""Features made of columns, the same in training and in serving."""

from collections.abc import Sequence

import numpy as np

from .encoding import Matrix


def ratios(columns: Matrix) -> Matrix:
    """Divide the first half of the columns by the second; a zero below makes a missing value."""
    above, below = np.hsplit(columns, 2)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def date_parts(seconds: Matrix, parts: Sequence[str]) -> Matrix:
    """Take datetimes apart.

    Parameters
    ----------
    seconds : ndarray, shape (n_rows, n_columns)
        Since 1970; NaN where missing.
    parts : sequence of str
        Any of ``year``, ``month`` (1-12), ``day`` (1-31), ``weekday`` (Monday is 0), ``hour``.

    Returns
    -------
    ndarray, shape (n_rows, n_columns * n_parts)
        Of a missing date, missing parts.
    """
    missing = np.isnan(seconds)
    moments = np.where(missing, 0, seconds).astype("datetime64[s]")
    days, months = moments.astype("datetime64[D]"), moments.astype("datetime64[M]")
    values = {
        "year": moments.astype("datetime64[Y]").astype(int) + 1970,
        "month": months.astype(int) % 12 + 1,
        "day": (days - months).astype(int) + 1,
        "weekday": (days.astype(int) + 3) % 7,
        "hour": (moments - days).astype(int) // 3600,
    }
    return np.hstack([np.where(missing, np.nan, values[part]) for part in parts])
