"""Performance: whether the model errs more than it did on the rows held out in training.

Every prediction whose truth is known has a loss: for classes 1 where they differ, for numbers how
far they are apart, in mean losses of the reference. Welch's test (1947, Biometrika 34, 28-35),
one-sided, says whether the mean of a window's losses is more than that of the reference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from ..checks import Finding
from ..contract import Column, Contract, spelled
from ..encoding import Matrix
from ..inference import Output
from ..reference import LOSS, Sample, design_effect, entity_codes
from ..settings import Monitoring
from .windows import Events, column_values, numbers

State = Literal["checked", "too few truths", "reference too small"]
LEAST_REFERENCE = 30


@dataclass(frozen=True)
class Check:
    """What a check of one labelled window found.

    Attributes
    ----------
    state : str
        ``checked``, or why nothing was.
    labelled : int
    loss, reference : float or None
        Mean losses; of numbers, in mean losses of the reference.
    finding : Finding or None
    """

    state: State
    labelled: int
    loss: float | None = None
    reference: float | None = None
    finding: Finding | None = None


def window_size(settings: Monitoring) -> int:
    """Return how many labelled events are looked at: never fewer than a verdict needs."""
    return max(settings.window, settings.labels)


def check(
    contract: Contract,
    sample: Sample,
    losses: Matrix,
    entities: Sequence[Any] | None,
    settings: Monitoring,
) -> Check:
    """Compare the losses of a window with those of the reference.

    Parameters
    ----------
    contract : Contract
    sample : Sample
        The losses in the reference, its `LOSS`.
    losses : ndarray, shape (n_events,)
        NaN where a truth or an answer is no number.
    entities : sequence or None
        What each event is about: more events about the same entity tell less than others.
    settings : Monitoring

    Returns
    -------
    Check
        Nothing is tested, and the state says why, where truths are fewer than ``labels``.
    """
    given = ~np.isnan(losses)
    n = int(given.sum())
    if n < settings.labels:
        return Check("too few truths", n)
    known = sample.values[~np.isnan(sample.values)]
    if len(known) < LEAST_REFERENCE:
        return Check("reference too small", n)
    about = None if entities is None else entity_codes(entities)[given]
    counts = bool(contract.classes)
    unit = 1.0 if counts else float(known.mean()) or 1.0
    window, reference = losses[given] / unit, known / unit
    excess = float(window.mean() - reference.mean())
    effects = design_effect(window, None, about), sample.effect
    pairs = list(zip((window, reference), effects, strict=True))
    rows = [max(len(values) / effect - 1, 1.0) for values, effect in pairs]
    variances = [_variance(values, counts) * effect for values, effect in pairs]
    p, low = _welch(excess, variances, rows, settings.alpha)
    alarm = p <= settings.alpha and excess >= settings.least_loss
    words = ("more", "fewer") if counts else ("larger", "smaller")
    change = f"{words[excess <= 0]} errors"
    found = Finding(LOSS, "loss", excess, p, alarm, n, change, low)
    return Check("checked", n, float(window.mean()), float(reference.mean()), found)


def losses(contract: Contract, events: Events) -> Matrix:
    """Return the loss of each event with a truth; NaN where a number is none."""
    said = [output.get("prediction") for output in events.outputs]
    if contract.task == "regression":
        off: Matrix = np.abs(numbers(said) - numbers(events.labels))
        return off
    pairs = zip(said, events.labels, strict=True)
    return np.array([float(spelled(one) != spelled(other)) for one, other in pairs])


def estimated(contract: Contract, events: Events) -> float | None:
    """Estimate the share of right answers from the probabilities that the model gives itself.

    It needs no truth, and so cannot see that the same rows now have other truths (concept drift):
    it is shown, and never an alarm. Garg et al. (2022), Leveraging Unlabeled Data to Predict
    Out-of-Distribution Performance, call it average confidence.
    """
    if not contract.classes or not events.rows or np.isnan(events.scores).all():
        return None
    return float(np.nanmean(events.scores))


def _welch(
    excess: float, variances: Sequence[float], degrees: Sequence[float], alpha: float
) -> tuple[float, float]:
    """Return the probability of a difference of two means, and its lower bound."""
    total = sum(variances)
    if not total:
        return float(excess <= 0), excess
    parts = zip(variances, degrees, strict=True)
    both = total**2 / sum(variance**2 / each for variance, each in parts)
    error = float(np.sqrt(total))
    low = excess - float(special.stdtrit(both, 1 - alpha)) * error
    return float(special.stdtr(both, -excess / error)), low


def _variance(values: Matrix, is_share: bool) -> float:
    """Return the variance of a mean.

    Shares of errors count one error and one hit more: else a reference without any error would be
    certain that there never is one (Agresti and Caffo, 2000, The American Statistician 54).
    """
    if not is_share:
        return float(values.var(ddof=1)) / len(values)
    share = (values.sum() + 1) / (len(values) + 2)
    return float(share * (1 - share)) / (len(values) + 2)


def metrics(contract: Contract, events: Events) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Measure labelled events by the metrics of the task, with their 95 % intervals.

    Returns
    -------
    metrics, intervals : dict
        As `evaluation.measure` and `evaluation.intervals` give them; empty where the answers hold
        too little.
    """
    from .. import evaluation

    said = [each.get("prediction") for each in events.outputs]
    if contract.task == "regression":
        truth, result = numbers(events.labels), Output(numbers(said))
        given = ~np.isnan(truth - result.labels)
        truth, result = truth[given], Output(result.labels[given])
    else:
        names = contract.class_names
        shares = [each.get("probabilities") or {} for each in events.outputs]
        probabilities = np.array([[each.get(name, np.nan) for name in names] for each in shares])
        codes = {name: float(code) for code, name in enumerate(names)}
        truth = np.array([codes.get(spelled(label), np.nan) for label in events.labels])
        result = Output(np.array(said, dtype=object), probabilities)
        if np.isnan(truth).any() or np.isnan(probabilities).any():
            return {}, {}
    return (
        evaluation.measure(contract, truth, result),
        evaluation.intervals(contract, truth, result),
    )


def slices(
    columns: Sequence[Column], events: Events, losses: Matrix, least: int
) -> list[dict[str, Any]]:
    """Return the groups of events with the same value in a column, the largest loss first.

    Parameters
    ----------
    columns : sequence of Column
        That events keep; numbers and dates make no groups.
    events : Events
    losses : ndarray, shape (n_events,)
        NaN where nothing is known; such events do not count.
    least : int
        Groups of fewer events are left out.

    Returns
    -------
    list of dict
        With ``name``, ``rows`` and ``loss``.
    """
    found = []
    known = ~np.isnan(losses)
    for column in columns:
        if column.kind not in ("categorical", "boolean"):
            continue
        values = column_values(column, events.rows)
        codes = np.where(np.isnan(values), -2, values).astype(int)
        for code in np.unique(codes):
            chosen = known & (codes == code)
            if chosen.sum() >= least:
                name = {-2: "(missing)", -1: "(unseen)"}.get(code) or column.categories[code]
                loss = float(losses[chosen].mean())
                rows = int(chosen.sum())
                found.append({"name": f"{column.name} = {name}", "rows": rows, "loss": loss})
    return sorted(found, key=lambda group: -float(group["loss"]))
