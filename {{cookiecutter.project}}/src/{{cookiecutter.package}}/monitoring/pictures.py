"""Pictures: what is drawn of a window beside training, as paths and bars of SVG."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..encoding import UNSEEN, Matrix
from ..reference import Sample

BINS = 24
# What is drawn of a column with many categories.
CATEGORIES = 8


def drawing(sample: Sample, values: Matrix, spelled: Callable[[float], str]) -> dict[str, Any]:
    """Describe the values of a window beside those of the reference.

    Returns
    -------
    dict
        Numbers: two ``paths`` over equal bins of an SVG of 100 by 40, and the ends of the axis.
        Categories: ``shares``, the name with both; the ``rest`` of many.
    """
    given, known = (each[~np.isnan(each)] for each in (values, sample.values))
    if sample.categories is not None:
        return _shares(sample.categories, given, known)
    if not (known.size and given.size):
        return {}
    both = np.concatenate([given, known])
    low, high = float(both.min()), float(both.max())
    ends = [np.quantile(each, (0.01, 0.99)) for each in (given, known)]
    near, far = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    # A few that lie far out would push all others into one bin.
    tails = far > near and high - low > 1.5 * (far - near)
    if tails:
        low, high = near, far
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = [
        np.histogram(each, bins=BINS, range=(low, high))[0] / len(each) for each in (known, given)
    ]
    highest = max(float(each.max()) for each in counts) or 1.0
    return {
        "paths": [_path(each / highest) for each in counts],
        "low": spelled(low),
        "high": spelled(high),
        "tails": tails,
    }


def _path(heights: Matrix) -> str:
    """Draw steps from left to right over an SVG of 100 by 40."""
    width = 100 / len(heights)
    steps = (
        f"V{40 - 38 * height:.2f}H{(i + 1) * width:.2f}".replace(".00", "")
        for i, height in enumerate(heights)
    )
    return f"M0 40{''.join(steps)}V40"


def _shares(categories: Sequence[str], given: Matrix, known: Matrix) -> dict[str, Any]:
    names, last = [*categories, "unknown in training"], len(categories)
    counts = [
        np.bincount(np.where(each == UNSEEN, last, each).astype(int), minlength=last + 1)
        / max(len(each), 1)
        for each in (known, given)
    ]
    ranked = sorted(range(len(names)), key=lambda i: -max(counts[0][i], counts[1][i]))
    ranked = [i for i in ranked if counts[0][i] or counts[1][i]]
    shown, rest = ranked[:CATEGORIES], ranked[CATEGORIES:]
    return {
        "shares": [(names[i], float(counts[0][i]), float(counts[1][i])) for i in shown],
        "rest": (len(rest), *(float(each[rest].sum()) for each in counts)) if rest else None,
    }


def bars(found: Sequence[tuple[float, bool] | None], line: float) -> dict[str, Any]:
    """Lay out a bar a check in an SVG of 100 by 24, with a line across."""
    top = max([2 * line, *(each[0] for each in found if each)]) or 1.0
    width = 100 / max(len(found), 10)
    return {
        "bars": [
            {
                "x": round(i * width, 2),
                "width": round(0.8 * width, 2),
                "height": round(max(22 * value[0] / top, 0.6), 2),
                "alarm": value[1],
            }
            for i, value in enumerate(found)
            if value
        ],
        "line": round(24 - 22 * line / top, 2),
        "checks": len(found),
    }
