"""Inference: a bundle's model, from rows or files to predictions with probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from . import bundle
from .contract import Contract, Label
from .encoding import Matrix, encode_rows
from .plan import Plan

GROUPS = ("inlier", "outlier")


@dataclass(frozen=True)
class Output:
    """What the model says about each row of a matrix.

    Attributes
    ----------
    labels : ndarray of object or float, shape (n_rows,)
        Classes as the contract spells them, numbers for a regression, groups for a clustering.
    probabilities : ndarray of float, shape (n_rows, n_classes), or None
        In the order of the contract's classes.
    scores : ndarray of float, shape (n_rows,), or None
        Clustering only: how far a row lies from what is usual.
    """

    labels: Any
    probabilities: Matrix | None = None
    scores: Matrix | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer to one row."""

    prediction: Label
    probabilities: dict[str, float] | None
    score: float | None
    warnings: tuple[str, ...]


def output(model: Any, contract: Contract, matrix: Matrix) -> Output:
    """Run a model.

    Parameters
    ----------
    model : Plan or sklearn Pipeline
        Of a clustering also its last step alone.
    contract : Contract
    matrix : ndarray, shape (n_rows, n_features)
        As `encoding` makes it; as the last step sees it where that comes alone.

    Returns
    -------
    Output
    """
    plan = Plan.of(model)
    values = plan.values(matrix)
    if contract.task == "regression":
        return Output(values)
    if contract.task == "clustering":
        return _grouped(plan, values)
    probabilities = values
    if plan.classes and len(plan.classes) < len(contract.classes):
        # A fold may lack a rare class: the columns are put where the contract has them.
        probabilities = np.zeros((len(matrix), len(contract.classes)))
        probabilities[:, plan.classes] = values
    classes = np.array(contract.classes, dtype=object)
    return Output(classes[probabilities.argmax(axis=1)], probabilities)


def _grouped(plan: Plan, values: Matrix) -> Output:
    if plan.offset is not None:
        outlier = (-values - plan.offset < 0).astype(int)
        return Output(np.array(GROUPS, dtype=object)[outlier], None, values)
    return Output(values.argmin(axis=1).astype(object), None, values.min(axis=1))


class Predictor:
    """One loaded model version.

    Parameters
    ----------
    contract : Contract
    model : Plan or sklearn Pipeline
        Fitted.
    card : dict
        What is known of the version: name, version, metrics, data, libraries.
    examples : list of dict
        A few held-out rows with their truth and their prediction.
    """

    def __init__(
        self,
        contract: Contract,
        model: Any,
        card: dict[str, Any],
        examples: list[dict[str, Any]],
    ) -> None:
        self.contract = contract
        self.plan = Plan.of(model)
        self.card = card
        self.examples = examples

    @classmethod
    def load(cls, path: str | Path) -> Predictor:
        """Load a bundle directory; raise BundleError where it is incomplete or altered."""
        return cls(*bundle.read(Path(path)))

    def output(self, matrix: Matrix) -> Output:
        """Answer encoded rows, shape (n_rows, n_features), in the order of the contract."""
        return output(self.plan, self.contract, matrix)

    def seen(self, matrix: Matrix) -> Matrix:
        """Return encoded rows as the estimator sees them, shape (n_rows, n_inputs)."""
        return self.plan.features(matrix)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> list[Prediction]:
        """Predict rows.

        Parameters
        ----------
        rows : sequence of mapping
            One mapping from column name to value for each row; columns that are no features are
            not looked at.

        Returns
        -------
        list of Prediction
            In the order of the rows.

        Raises
        ------
        ContractError
            Naming row, column, value and what was expected.
        """
        if not rows:
            return []
        matrix, warnings = encode_rows(self.contract, rows)
        answers = plain(self.contract, self.output(matrix))
        return [Prediction(*answer, said) for answer, said in zip(answers, warnings, strict=True)]


def plain(
    contract: Contract, result: Output
) -> list[tuple[Label, dict[str, float] | None, float | None]]:
    """Return label, probabilities by class and score of each row, in plain Python types."""
    labels, names = result.labels.tolist(), contract.class_names
    shares: Iterable[dict[str, float] | None] = repeat(None)
    scores: Iterable[float | None] = repeat(None)
    if result.probabilities is not None:
        shares = [dict(zip(names, share, strict=True)) for share in result.probabilities.tolist()]
    if result.scores is not None:
        scores = result.scores.tolist()
    return list(zip(labels, shares, scores, strict=False))
