"""How numbers, shares, metrics and lists are put into words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

# What a metric is called, whether it is a share of something, and what it means.
MEANINGS = {
    "accuracy": ("Accuracy", True, "share of the rows that are predicted right"),
    "balanced_accuracy": (
        "Balanced accuracy",
        True,
        "share predicted right, averaged over the classes: rare ones count as much as common ones",
    ),
    "f1_macro": (
        "F1, averaged over classes",
        False,
        "balance of finding all rows of a class and claiming no others; 1 is perfect",
    ),
    "log_loss": (
        "Log loss",
        False,
        "how far the stated probabilities are from what happened; 0 is perfect, lower is better",
    ),
    "roc_auc": (
        "ROC AUC",
        False,
        "chance that a row of a class is ranked above one that is not; 0.5 is a coin, 1 perfect",
    ),
    "r2": (
        "R²",
        False,
        "share of the target's variation that is explained; 0 is no better than the mean",
    ),
    "mean_absolute_error": (
        "Mean absolute error",
        False,
        "how far a prediction is off on average, in the target's unit; lower is better",
    ),
    "root_mean_squared_error": (
        "Root mean squared error",
        False,
        "the same, but large misses weigh more; lower is better",
    ),
    "silhouette": (
        "Silhouette",
        False,
        "how much closer rows are to their own group than to the next; 1 apart, 0 overlapping",
    ),
}

NOTHING = "\N{EN DASH}"
NAME = 50


def number(value: Any) -> str:
    """Format a number for reading: three or four digits that matter, thousands apart."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if float(value).is_integer() and size < 1e15:
        # Years, postcodes and the like stay as they are written.
        return f"{value:.0f}" if size < 10_000 else f"{value:,.0f}"
    if size >= 10_000:
        return f"{value:,.0f}" if size < 1e15 else f"{value:.3g}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Format a share; what is not quite none or all does not look so."""
    if share is None:
        return NOTHING
    if 0 < share < 0.001:
        return "under 0.1\u00a0%"
    if 0.999 < share < 1:
        return "over 99.9\u00a0%"
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def score(value: Any, metric: str) -> str:
    """Format a metric's value: shares in percent, errors in the target's unit."""
    if value is None or not isinstance(value, int | float):
        return number(value)
    if metric.endswith("error"):
        return number(value)
    return percent(value) if MEANINGS.get(metric, ("", False, ""))[1] else f"{value:.3f}"


def called(metric: str) -> str:
    """Return what people call a metric."""
    return MEANINGS[metric][0] if metric in MEANINGS else metric.replace("_", " ").capitalize()


def named(names: Sequence[str]) -> str:
    """List names, each in quotation marks."""
    return listed([quoted(name) for name in names])


def quoted(name: str) -> str:
    """Put a name in quotation marks; a very long one is cut."""
    return f"“{name if len(name) <= NAME else name[: NAME - 1] + '…'}”"


def listed(texts: Sequence[str], most: int = 6) -> str:
    """Join texts as a sentence does; of many the first `most`, and how many more there are."""
    shown = list(texts[:most])
    if len(texts) > most:
        shown.append(f"{len(texts) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def counted(items: Any, noun: str) -> str:
    """Count things by their noun."""
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def largest(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    """Sort shares, the largest first."""
    return sorted(shares.items(), key=lambda item: -item[1])
