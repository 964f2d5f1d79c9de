"""Two models on the same rows: how sure it is that one is better, as a whole and in groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from .bootstrap import expanded, resampled_counts, resampled_means
from .contract import Column, Task
from .encoding import Matrix
from .settings import Gate


@dataclass(frozen=True)
class Comparison:
    """The primary metric of both models, and bounds of what the challenger has more.

    Attributes
    ----------
    champion, challenger, difference : float
    low, high : float
        Bounds of the difference, each with the one-sided confidence of the settings.
    """

    champion: float
    challenger: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Slice:
    """A group of rows: all that have one value in one column.

    Attributes
    ----------
    name : str
    rows : int
    champion, challenger : float
        Mean score of a row, more is better.
    chance : float
        How often two equally good models would differ so much to the challenger's disadvantage.
    """

    name: str
    rows: int
    champion: float
    challenger: float
    chance: float

    @property
    def loss(self) -> float:
        """By how much the challenger is worse."""
        return self.champion - self.challenger


def compare(
    task: Task, truth: Any, champion: Matrix, challenger: Matrix, settings: Gate
) -> Comparison:
    """Compare the primary metric of two models on the same rows, by a paired bootstrap.

    Rows are drawn with replacement and both models are measured on the same draw, so that what
    makes a row hard cancels out: Efron and Tibshirani (1993), An Introduction to the Bootstrap,
    chapters 13 and 16. Of the percentile bound and the basic one (Davison and Hinkley, 1997,
    Bootstrap Methods and their Application, section 5.2) the farther counts: where models disagree
    on a handful of rows the percentile bound alone promotes more equal ones than it says, while
    with many rows the two bounds meet. Both are expanded for few rows (`bootstrap.expanded`). A
    class that a draw lacks does not count in that draw.

    Parameters
    ----------
    task : str
    truth : ndarray, shape (n_rows,), or None
        Class positions or numbers; None for a clustering.
    champion, challenger : ndarray, shape (n_rows,)
        What each said: class positions, -1 for a class that the truth does not have; numbers;
        for a clustering the silhouette of each row.
    settings : Gate
        ``confidence`` and ``resamples``.

    Returns
    -------
    Comparison
    """
    if task == "clustering":
        values = float(champion.mean()), float(challenger.mean())
        drawn = resampled_means((challenger - champion)[:, None], settings.resamples)[:, 0]
    elif task == "regression":
        values, drawn = _explained(truth, champion, challenger, settings.resamples)
    else:
        values, drawn = _recalled(truth, champion, challenger, settings.resamples)
    difference = values[1] - values[0]
    share = expanded(settings.confidence, len(champion))
    low, high = np.quantile(drawn, [1 - share, share])
    return Comparison(
        values[0],
        values[1],
        difference,
        float(min(low, 2 * difference - high)),
        float(max(high, 2 * difference - low)),
    )


def slices(
    encoded: Iterable[tuple[Column, Matrix]], champion: Matrix, challenger: Matrix, settings: Gate
) -> list[Slice]:
    """Compare two models on every group of rows with the same category or the same flag.

    Parameters
    ----------
    encoded : iterable of (Column, ndarray of shape (n_rows,))
        Columns with their encoded values; those of other kinds are left out.
    champion, challenger : ndarray, shape (n_rows,)
        Scores of each row, more is better. Hits (0 and 1) are compared by McNemar's exact test
        (1947, Psychometrika 12), other scores by Student's paired t-test, both one-sided.
    settings : Gate
        Groups of fewer than ``slice_rows`` rows are left out.

    Returns
    -------
    list of Slice
        Missing values and categories unseen in training are groups as well.
    """
    loss = champion - challenger
    hits = bool(np.isin([champion, challenger], (0, 1)).all())
    found = []
    for column, codes in encoded:
        if column.kind not in ("categorical", "boolean"):
            continue
        names = ["(missing)", "(unseen)", *column.categories]
        groups = np.where(np.isnan(codes), -2, codes).astype(int) + 2
        rows = np.bincount(groups, minlength=len(names))
        before, after, total, squares, lost, won = (
            np.bincount(groups, weights=values, minlength=len(names))
            for values in (champion, challenger, loss, loss**2, loss > 0, loss < 0)
        )
        for i in np.flatnonzero(rows >= settings.slice_rows):
            count = int(rows[i])
            chance = (
                _sign_test(int(lost[i]), int(won[i]))
                if hits
                else _paired_t(count, total[i], squares[i])
            )
            name = f"{column.name} = {names[i]}"
            found.append(Slice(name, count, before[i] / count, after[i] / count, chance))
    return found


def losing(found: Sequence[Slice], settings: Gate) -> list[Slice]:
    """Return the groups that lose more than ``slice_loss``, and more than chance explains.

    In any model, even an equal one, some of many small groups lose by chance. So the loss must be
    one that equal models show with a probability of at most ``1 - confidence`` divided by the
    number of groups (Bonferroni), which holds for all of them together.
    """
    level = (1 - settings.confidence) / max(len(found), 1)
    return [part for part in found if part.loss > settings.slice_loss and part.chance <= level]


def _recalled(
    truth: Any, champion: Any, challenger: Any, resamples: int
) -> tuple[tuple[float, float], Matrix]:
    """Return both balanced accuracies, and their drawn differences."""
    # Only class and hits matter, so rows are drawn by these cells; those of a class are neighbours.
    cells, counts = np.unique(
        truth.astype(int) * 4 + 2 * (champion == truth) + (challenger == truth), return_counts=True
    )
    starts = np.unique(cells // 4, return_index=True)[1]
    before, after = cells // 2 % 2, cells % 2

    def recall(drawn: Any, hits: Any) -> Any:
        support = np.add.reduceat(drawn, starts, axis=-1)
        right = np.add.reduceat(drawn * hits, starts, axis=-1)
        shares = np.divide(right, support, out=np.zeros(right.shape), where=support > 0)
        return shares.sum(axis=-1) / (support > 0).sum(axis=-1)

    drawn = [
        recall(block, after) - recall(block, before)
        for block in resampled_counts(counts, resamples)
    ]
    return (float(recall(counts, before)), float(recall(counts, after))), np.concatenate(drawn)


def _explained(
    truth: Any, champion: Any, challenger: Any, resamples: int
) -> tuple[tuple[float, float], Matrix]:
    """Return both R², and their drawn differences; 0 where a draw has no spread to explain."""
    before, after = (truth - champion) ** 2, (truth - challenger) ** 2
    centred = truth - truth.mean()
    drawn = resampled_means(np.column_stack([centred, centred**2, before, after]), resamples)
    spread, gained = drawn[:, 1] - drawn[:, 0] ** 2, drawn[:, 2] - drawn[:, 3]
    difference = np.divide(gained, spread, out=np.zeros(resamples), where=spread > 0)
    whole = float((centred**2).mean()) or np.inf
    return (float(1 - before.mean() / whole), float(1 - after.mean() / whole)), difference


def _sign_test(lost: int, won: int) -> float:
    """Probability of so many losses or more among rows that one model alone gets right."""
    return float(special.bdtrc(lost - 1, lost + won, 0.5)) if lost else 1.0


def _paired_t(rows: int, total: float, squares: float) -> float:
    """Probability of so large a mean loss or a larger one, of a true mean of zero."""
    mean = total / rows
    variance = (squares - rows * mean**2) / max(rows - 1, 1)
    if mean <= 0 or rows < 2:
        return 1.0
    if variance <= 0:
        return 0.0
    return float(special.stdtr(rows - 1, -mean / np.sqrt(variance / rows)))
