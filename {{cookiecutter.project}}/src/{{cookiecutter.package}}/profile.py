"""Profiles of columns: how their values are spread, from the quantiles and shares of a bundle."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from .wording import largest, number

BINS = 20
TOP = 5


def distribution(kind: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a column's values by bars or by its most frequent categories."""
    drawn: dict[str, Any] = {"top": [], "rest": 0, "rest_share": 0.0, "histogram": None}
    if shares := profile.get("shares"):
        ranked = largest(shares)
        shown = ranked if len(ranked) <= TOP + 1 else ranked[:TOP]
        rest = ranked[len(shown) :]
        return drawn | {
            "top": shown,
            "rest": len(rest),
            "rest_share": sum(share for _, share in rest),
        }
    quantiles = profile.get("quantiles")
    if not quantiles:
        return drawn
    middle = quantiles[len(quantiles) // 2]
    shape = histogram(quantiles, whole=kind == "integer")
    as_text = _moment if kind == "datetime" else number
    return drawn | {
        "histogram": shape,
        "shown": (as_text(shape["low"]), as_text(shape["high"])),
        "range": (as_text(quantiles[0]), as_text(quantiles[-1])),
        "middle": as_text(middle),
    }


def histogram(quantiles: Sequence[float], whole: bool = False) -> dict[str, Any]:
    """Turn evenly spaced quantiles into bars of equal width.

    Between two neighbouring quantiles the rows are taken as evenly spread.

    Parameters
    ----------
    quantiles : sequence of float
        From the least value to the largest.
    whole : bool
        The values are whole numbers: where they are few, each has its bar.

    Returns
    -------
    dict
        ``bars``, the highest of them 1, over ``low`` to ``high``. Where most rows would share a
        bar because a few lie far out, these are the middle 90 % and ``tails`` is true.
    """
    points = [float(value) for value in quantiles]
    tails = len(points) > 4 and 0 < points[-2] - points[1] < (points[-1] - points[0]) / 5
    if tails:
        points = points[1:-1]
    low, high = points[0], points[-1]
    if low == high:
        return {"bars": [1.0], "low": low, "high": high, "tails": tails}
    start, end, bins = low, high, BINS
    if whole and high - low < BINS:
        start, end, bins = low - 0.5, high + 0.5, round(high - low) + 1
    width, mass = (end - start) / bins, [0.0] * bins
    for left, right in pairwise(points):
        if left == right:
            mass[min(int((left - start) / width), bins - 1)] += 1.0
            continue
        for k in range(bins):
            overlap = min(right, start + (k + 1) * width) - max(left, start + k * width)
            mass[k] += max(overlap, 0.0) / (right - left)
    highest = max(mass)
    bars = [round(share / highest, 4) for share in mass]
    return {"bars": bars, "low": low, "high": high, "tails": tails}


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    at_midnight = (moment.hour, moment.minute, moment.second) == (0, 0, 0)
    return moment.strftime("%Y-%m-%d" if at_midnight else "%Y-%m-%d %H:%M")
