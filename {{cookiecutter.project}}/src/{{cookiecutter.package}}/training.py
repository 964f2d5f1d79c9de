"""Training: an estimator by its name, in one pipeline with its preprocessing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import Pipeline
from sklearn.svm import SVC, SVR
from tqdm import tqdm

from .contract import Contract
from .encoding import Matrix
from .errors import SettingsError, TrainingError
from .evaluation import PRIMARY, evaluate
from .preprocessing import build_preprocessor, inliers
from .settings import Settings

BOOSTING_ROWS = 1000


@dataclass(frozen=True)
class Estimator:
    """What a name in params.yaml stands for, for one kind of task.

    Trees split on missing values and category codes as they are; other estimators need complete
    rows and one input per category.
    """

    build: Callable[..., Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    trees: bool = False
    seeded: bool = True


def _calibrated_svc(random_state: int, **params: Any) -> Any:
    """SVC has no probabilities of its own; Platt scaling on cross-validated scores gives them."""
    return CalibratedClassifierCV(SVC(random_state=random_state, **params), ensemble=False)


ESTIMATORS: dict[str, dict[str, Estimator]] = {
    "classification": {
        "logistic_regression": Estimator(LogisticRegression, {"max_iter": 1000}),
        "random_forest": Estimator(RandomForestClassifier, {"n_estimators": 200}, True),
        "hist_gradient_boosting": Estimator(HistGradientBoostingClassifier, {}, True),
        # Brute force: skops cannot store the search trees.
        "k_nearest_neighbors": Estimator(
            KNeighborsClassifier, {"n_neighbors": 10, "algorithm": "brute"}, seeded=False
        ),
        "svm": Estimator(_calibrated_svc),
    },
    "regression": {
        "ridge": Estimator(Ridge),
        "random_forest": Estimator(RandomForestRegressor, {"n_estimators": 200}, True),
        "hist_gradient_boosting": Estimator(HistGradientBoostingRegressor, {}, True),
        "k_nearest_neighbors": Estimator(
            KNeighborsRegressor, {"n_neighbors": 10, "algorithm": "brute"}, seeded=False
        ),
        "svm": Estimator(SVR, seeded=False),
    },
    "clustering": {
        "k_means": Estimator(KMeans, {"n_clusters": 3, "n_init": 10}),
        "isolation_forest": Estimator(IsolationForest, {}, True),
    },
}


def estimator_name(contract: Contract, rows: int, settings: Settings) -> str:
    """Return the estimator's name; `auto` is linear for small data, boosting for the rest.

    Raises
    ------
    SettingsError
        Where the name is unknown, or the estimator does not do the contract's task.
    """
    name, kind = settings.training.estimator, _kind(contract)
    if name == "auto":
        linear = {"classification": "logistic_regression", "regression": "ridge"}
        small = rows < BOOSTING_ROWS and settings.preprocessing.impute != "none"
        if kind == "clustering":
            return "k_means"
        return linear[kind] if small else "hist_gradient_boosting"
    if name not in ESTIMATORS[kind]:
        known = ", ".join(["auto", *ESTIMATORS[kind]])
        raise SettingsError(f"training.estimator: {name!r} does no {kind}; expected one of {known}")
    return name


def build_pipeline(contract: Contract, rows: int, settings: Settings) -> Pipeline:
    """Build the unfitted pipeline: preprocessing, optional reduction, estimator.

    Parameters
    ----------
    contract : Contract
    rows : int
        Number of training rows, on which ``estimator: auto`` depends.
    settings : Settings

    Returns
    -------
    Pipeline
        Takes (n_samples, n_features) as `encoding` makes it, and class positions as target.

    Raises
    ------
    SettingsError
        Where estimator, its parameters or the preprocessing cannot be used.
    """
    training = settings.training
    name = estimator_name(contract, rows, settings)
    estimator = ESTIMATORS[_kind(contract)][name]
    if settings.preprocessing.impute == "none" and not estimator.trees:
        raise SettingsError(
            f"preprocessing.impute: {name} needs complete rows; "
            "expected median, mean or most_frequent"
        )
    seed = {"random_state": training.seed} if estimator.seeded else {}
    try:
        built = estimator.build(**{**estimator.defaults, **seed, **training.params})
    except TypeError as error:
        raise SettingsError(f"training.params: {name}: {error}") from error
    encode = settings.preprocessing.encode
    if encode == "auto":
        encode = "ordinal" if estimator.trees else "onehot"
    preprocessing = settings.preprocessing.model_copy(update={"encode": encode})
    reduction = (
        PCA(training.components, random_state=training.seed)
        if training.components
        else "passthrough"
    )
    sparse = bool(contract.target) and not estimator.trees and not training.components
    return Pipeline(
        [
            ("preprocessing", build_preprocessor(contract, preprocessing, sparse)),
            ("reduction", reduction),
            ("estimator", built),
        ]
    )


def fit(contract: Contract, matrix: Matrix, target: Matrix | None, settings: Settings) -> Pipeline:
    """Fit a new pipeline.

    Parameters
    ----------
    contract : Contract
    matrix : ndarray, shape (n_rows, n_features)
    target : ndarray, shape (n_rows,), or None
    settings : Settings

    Returns
    -------
    Pipeline
        Fitted.

    Raises
    ------
    TrainingError
        Where the estimator refuses its parameters or the data.
    """
    if settings.preprocessing.outliers == "remove":
        kept = inliers(contract, matrix, settings.preprocessing)
        matrix, target = matrix[kept], None if target is None else target[kept]
    pipeline = build_pipeline(contract, len(matrix), settings)
    try:
        return pipeline.fit(matrix, target)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{type(pipeline[-1]).__name__} cannot be fitted: {reason}") from error


def cross_validate(
    contract: Contract, matrix: Matrix, target: Matrix | None, settings: Settings
) -> dict[str, Any]:
    """Fit and measure once for each fold; classes keep their shares in every fold.

    Returns
    -------
    dict
        ``metric``, its value per fold in ``folds``, their ``mean`` and ``std``.
    """
    folds, metric = settings.training.folds, PRIMARY[contract.task]
    splitter: Any = KFold
    if contract.classes and target is not None:
        folds = min(folds, int(np.bincount(target.astype(int)).min()))
        splitter = StratifiedKFold
    folds = min(folds, len(matrix))
    if folds < 2:
        return {"metric": metric, "folds": [], "mean": None, "std": None}
    scores = []
    parts = splitter(folds, shuffle=True, random_state=settings.training.seed).split(matrix, target)
    with tqdm(parts, total=folds, desc="cross-validation", leave=False, disable=None) as progress:
        for train, test in progress:
            pipeline = fit(
                contract, matrix[train], None if target is None else target[train], settings
            )
            truth = None if target is None else target[test]
            scores.append(float(evaluate(pipeline, contract, matrix[test], truth)[0][metric]))
            progress.set_postfix({metric: f"{np.mean(scores):.3f}"})
    return {
        "metric": metric,
        "folds": scores,
        "mean": float(np.mean(scores)),
        "std": float(np.std(scores)),
    }


def _kind(contract: Contract) -> str:
    return "classification" if contract.classes else contract.task
