"""The reference: what every column held in training, to which monitoring compares later rows.

The values of a column are kept sorted: no row can be put together from them again. What the model
says is kept of held-out rows alone, as it is too sure of the rows that it was fitted to.
"""

import io
import zlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from .bundle import SAMPLE
from .contract import Contract, Label, spelled
from .encoding import UNSEEN, Matrix
from .errors import BundleError

Positions = npt.NDArray[np.int64]

# A window is at most a tenth of the reference, or what is unusual of that would tip the scales.
WINDOWS = 10
ROWS = 10_000
# What no feature is taken for.
PREDICTION, SCORE, LOSS = "(prediction)", "(score)", "(loss)"
GROUPS, EFFECTS = "groups", "effects"


@dataclass(frozen=True)
class Sample:
    """What one column held.

    Attributes
    ----------
    name : str
        Of a feature, `PREDICTION`, `SCORE` or `LOSS`.
    categories : tuple of str or None
        What the codes mean; None where the column holds numbers.
    values : ndarray of float64
        As `encoding` makes them, sorted; what is missing, NaN, comes last.
    effect : float
        So many of its rows tell as much as one independent row: the design effect.
    """

    name: str
    categories: tuple[str, ...] | None
    values: Matrix
    effect: float = 1.0


def sample(
    name: str,
    categories: Iterable[str] | None,
    values: Matrix,
    entities: Positions | None = None,
) -> Sample:
    """Keep the values of a column; `entities` are the codes of what each row is about."""
    named = tuple(categories) if categories else None
    return Sample(name, named, np.sort(values), design_effect(values, named, entities))


def chosen(
    rows: Positions, window: int, about: Positions | None = None, seed: int = 0
) -> tuple[Positions, Positions | None]:
    """Choose the rows that are kept: ten windows of them, and no fewer than `ROWS`.

    Of rows about the same entity the last one is left in each stretch of a window's length, as
    monitoring leaves one in a window: so whoever asks often weighs the same in both.

    Parameters
    ----------
    rows : ndarray of int
        The positions to choose from.
    window : int
    about : ndarray of int or None
        The entity of every row, as `entity_codes` gives them.
    seed : int

    Returns
    -------
    rows : ndarray of int
    entities : ndarray of int or None
        Theirs.
    """
    if about is not None:
        stretches = (rows[start : start + window] for start in range(0, len(rows), window))
        kept = [row for each in stretches for row in last(about[each], each)]
        rows = np.array(kept, dtype=np.int64)
    most = max(ROWS, WINDOWS * window)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    return rows, None if about is None else about[rows]


def last(entities: Iterable[Hashable], rows: Iterable[int]) -> list[int]:
    """Return the last row of each entity, in order."""
    return sorted(dict(zip(entities, rows, strict=True)).values())


def entity_codes(keys: Iterable[Any]) -> Positions:
    """Give what rows are about a number each; a row with None is about something of its own."""
    known: dict[Any, int] = {}
    own = ((i,) if key is None else key for i, key in enumerate(keys))
    return np.array([known.setdefault(key, len(known)) for key in own], dtype=np.int64)


def design_effect(
    values: Matrix, categories: tuple[str, ...] | None, entities: Positions | None
) -> float:
    """Say how much less rows tell that are about the same entities.

    It is the variance of a mean as the sums of the entities give it, divided by the variance that
    independent rows would have (Kish, 1965, Survey Sampling, section 5.4), for the ranks of
    numbers and their distances from the middle, the shares of categories as a whole (Rao and
    Scott, 1981, JASA 76, 221-230), and the share of missing values; the largest of these.

    Returns
    -------
    float
        1 where rows are independent, or more.
    """
    if entities is None:
        return 1.0
    missing = np.isnan(values)
    found = [_inflation(missing[:, None].astype(float), entities)]
    given, about = values[~missing], entities[~missing]
    if categories is None:
        ordered = np.sort(given)
        ranks = np.searchsorted(ordered, given) + np.searchsorted(ordered, given, "right")
        centred = (ranks - ranks.mean() if len(ranks) else ranks).astype(float)
        found += [_inflation(scores[:, None], about) for scores in (centred, centred**2)]
    else:
        seen, counts = np.unique(given, return_counts=True)
        found.append(_inflation((given[:, None] == seen) / np.sqrt(counts), about))
    return max(1.0, *found)


def _inflation(scores: Matrix, entities: Positions) -> float:
    """Return the sum of squares of the entities' sums, divided by that of the rows."""
    centred = scores - scores.mean(axis=0) if len(scores) else scores
    rows = float((centred**2).sum())
    # What a constant leaves is rounding.
    if rows <= 1e-12 * float((scores**2).sum()):
        return 1.0
    sums = [np.bincount(entities, weights=each) for each in centred.T]
    return float(np.square(sums).sum()) / rows


def codes(categories: Sequence[str], labels: Iterable[Label | None]) -> Matrix:
    """Return the codes of what a model said: NaN for None, -1 for what it did not say before."""
    known = {name: float(code) for code, name in enumerate(categories)} | {None: np.nan}
    names = (label if label is None else spelled(label) for label in labels)
    return np.array([known.get(name, UNSEEN) for name in names], dtype=float)


def stored(samples: Sequence[Sample]) -> bytes:
    """Return samples as the bytes of a file; the same samples always give the same bytes."""
    groups = next((each.categories for each in samples if each.name == PREDICTION), None)
    arrays = {str(i): each.values for i, each in enumerate(samples)}
    arrays[EFFECTS] = np.array([each.effect for each in samples])
    arrays[GROUPS] = np.array(groups or (), dtype=str)
    result = io.BytesIO()
    with ZipFile(result, "w", ZIP_DEFLATED) as target:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            target.writestr(ZipInfo(f"{name}.npy"), content.getvalue(), ZIP_DEFLATED)
    return result.getvalue()


def read(bundle: Path, contract: Contract) -> tuple[Sample, ...]:
    """Read the samples of a bundle: features, the prediction, the score if it is another, the loss.

    A classification's score is the probability of the class that it says, a clustering's how far
    a row lies from what is usual; a regression has none. The loss of a classification is 1 where
    it errs, otherwise 0, of a regression how far it is off; a clustering has none.

    Raises
    ------
    BundleError
        Where the bundle has none, as older ones do, or it cannot be read.
    """
    path = bundle / SAMPLE
    try:
        with np.load(path, allow_pickle=False) as arrays:
            groups = tuple(map(str, arrays[GROUPS])) or None
            columns = [(each.name, each.categories or None) for each in contract.features]
            columns.append((PREDICTION, groups))
            columns += [(SCORE, None)] if contract.task != "regression" else []
            columns += [(LOSS, None)] if contract.target else []
            effects = list(map(float, arrays[EFFECTS]))
            return tuple(
                Sample(name, categories, arrays[str(i)], effect)
                for i, ((name, categories), effect) in enumerate(zip(columns, effects, strict=True))
            )
    except FileNotFoundError as error:
        raise BundleError(f"{path} not found: train again, or set serving.bundle") from error
    except (ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise BundleError(f"{path} is damaged: {error}") from error
