"""The bootstrap: how a metric would spread if other rows had been held out."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import special

from .encoding import Matrix

CELLS = 10_000
BLOCK = 2_000_000
# Scikit-learn's log loss holds probabilities so far from 0 and 1.
TINY = 2.0**-52


def resampled_sums(rows: Matrix, resamples: int, seed: int = 0) -> Matrix:
    """Draw rows with replacement, as many as there are, and add them up; many times.

    Parameters
    ----------
    rows : ndarray, shape (n_rows, n_sums)
        More than `CELLS` rows are first added up in that many random groups, which are then drawn
        instead: the spread of the sums stays what it is, up to 1 / sqrt(2 * CELLS) of it, and time
        no longer grows with the rows.
    resamples : int
    seed : int

    Returns
    -------
    ndarray, shape (resamples, n_sums)
    """
    generator = np.random.default_rng(seed)
    if len(rows) > CELLS:
        starts = np.linspace(0, len(rows), CELLS, endpoint=False).astype(int)
        rows = np.add.reduceat(rows[generator.permutation(len(rows))], starts, axis=0)
    count = len(rows)
    sums = np.empty((resamples, rows.shape[1]))
    for i in range(resamples):
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)
        sums[i] = drawn @ rows
    return sums


def resampled_means(rows: Matrix, resamples: int, seed: int = 0) -> Matrix:
    """Draw rows as `resampled_sums` does, and return their means, shape (resamples, n_columns)."""
    sums = resampled_sums(np.column_stack([np.ones(len(rows)), rows]), resamples, seed)
    means: Matrix = sums[:, 1:] / sums[:, :1]
    return means


def resampled_counts(counts: Any, resamples: int, seed: int = 0) -> Iterator[Any]:
    """Draw rows of which only the cell matters: the same as drawing each row, and much faster.

    Parameters
    ----------
    counts : ndarray of int, shape (n_cells,)
        How many rows each cell has.
    resamples : int
    seed : int

    Yields
    ------
    ndarray of int, shape (n_some, n_cells)
        The counts of some resamples; together they are as many as were asked for.
    """
    generator = np.random.default_rng(seed)
    block = max(BLOCK // len(counts), 1)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        yield generator.multinomial(counts.sum(), counts / counts.sum(), size)


def expanded(confidence: float, rows: int) -> float:
    """Return which share of the draws lies within a one-sided bound of a confidence.

    Draws from few rows spread less than the truth does, and normal bounds are narrower than
    Student's: Hesterberg (2015, The American Statistician 69, 371-386) expands both away.

    Parameters
    ----------
    confidence : float
    rows : int
        That were drawn from, at least 2.
    """
    bound = special.stdtrit(rows - 1, confidence) * np.sqrt(rows / (rows - 1))
    return float(special.ndtr(bound))


def errors(truth: Any, guess: Any, resamples: int) -> dict[str, Matrix]:
    """Draw the metrics of a regression, shape (resamples,) each."""
    centred, error = truth - truth.mean(), truth - guess
    rows = np.column_stack([centred, centred**2, error**2, np.abs(error)])
    mean, square, squared_error, absolute_error = resampled_means(rows, resamples).T
    spread = square - mean**2
    missed = np.divide(squared_error, spread, out=np.ones(resamples), where=spread > 0)
    return {
        "r2": 1 - missed,
        "mean_absolute_error": absolute_error,
        "root_mean_squared_error": np.sqrt(squared_error),
    }


def classification(truth: Any, probabilities: Any, resamples: int) -> dict[str, Matrix]:
    """Draw the metrics of a classification, shape (resamples,) each.

    Parameters
    ----------
    truth : ndarray, shape (n_rows,)
        Class positions.
    probabilities : ndarray, shape (n_rows, n_classes)
    resamples : int

    Returns
    -------
    dict
        Without ``roc_auc`` where a class has no rows.
    """
    codes, classes = truth.astype(int), probabilities.shape[1]
    # Sorted by class, then by guess: the cells of a class are neighbours.
    cells, counts = np.unique(codes * classes + probabilities.argmax(axis=1), return_counts=True)
    of, said = np.divmod(cells, classes)
    blocks = [_hits(of, said, drawn, classes) for drawn in resampled_counts(counts, resamples)]
    found = dict(zip(("accuracy", "balanced_accuracy", "f1_macro"), np.hstack(blocks), strict=True))
    given = np.clip(probabilities[np.arange(len(codes)), codes], TINY, 1 - TINY)
    rows = np.column_stack([-np.log(given), _placements(codes, probabilities)])
    losses, areas = resampled_means(rows, resamples).T
    found["log_loss"] = losses
    if len(np.unique(of)) == classes:
        found["roc_auc"] = np.clip(areas, 0, 1)
    return found


def _hits(of: Any, said: Any, drawn: Any, classes: int) -> Matrix:
    """Return accuracy, balanced accuracy and macro F1 of drawn cells, shape (3, n_resamples)."""
    support, guessed, right = (np.zeros((len(drawn), classes)) for _ in range(3))
    given, starts = np.unique(of, return_index=True)
    support[:, given] = np.add.reduceat(drawn, starts, axis=1)
    order = np.argsort(said, kind="stable")
    given, starts = np.unique(said[order], return_index=True)
    guessed[:, given] = np.add.reduceat(drawn[:, order], starts, axis=1)
    right[:, of[of == said]] = drawn[:, of == said]
    recalls = np.divide(right, support, out=np.zeros_like(right), where=support > 0)
    both = support + guessed
    f1 = np.divide(2 * right, both, out=np.zeros_like(right), where=both > 0)
    return np.stack(
        [
            right.sum(axis=1) / support.sum(axis=1),
            recalls.sum(axis=1) / (support > 0).sum(axis=1),
            f1.mean(axis=1),
        ]
    )


def _placements(codes: Any, probabilities: Matrix) -> Matrix:
    """Return values, shape (n_rows,), whose mean is the area under the ROC curve.

    Each row counts with the share of the other class that it lies on the right side of, which is
    all that the area needs to first order: DeLong, DeLong and Clarke-Pearson (1988), Biometrics
    44. One class against the rest, averaged, where there are more than two.
    """
    classes = probabilities.shape[1]
    wanted = [1] if classes == 2 else range(classes)
    total = np.zeros(len(codes))
    for code in wanted:
        positive = codes == code
        share = positive.mean()
        if not 0 < share < 1:
            continue
        values = probabilities[:, code]
        placed = np.empty(len(codes))
        placed[positive] = _below(values[~positive], values[positive])
        placed[~positive] = 1 - _below(values[positive], values[~positive])
        area = placed[positive].mean()
        total += area + (placed - area) / np.where(positive, share, 1 - share)
    return total / len(wanted)


def _below(others: Matrix, values: Matrix) -> Matrix:
    """Return the share of the others that lies below each value, equal ones counted half."""
    others = np.sort(others)
    left, right = (np.searchsorted(others, values, side) for side in ("left", "right"))
    shares: Matrix = (left + right) / (2 * len(others))
    return shares
