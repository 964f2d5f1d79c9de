"""Training: an estimator by its name, in one pipeline with its preprocessing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from joblib import parallel_config
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
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
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from .contract import Contract
from .encoding import Matrix
from .errors import SettingsError, TrainingError
from .evaluation import PRIMARY, evaluate
from .preprocessing import build_preprocessor, inliers
from .settings import Settings

BOOSTING_ROWS = 1000
THREADED_CELLS = 1_000_000


@dataclass(frozen=True)
class Range:
    """What the search may choose for one argument: whole numbers where both ends are whole."""

    low: float
    high: float
    start: float
    log: bool = True


@dataclass(frozen=True)
class Choice:
    """One of some values; the search starts with the first."""

    values: tuple[Any, ...]

    @property
    def start(self) -> Any:
        """What is tried first."""
        return self.values[0]


Space = Mapping[str, Range | Choice]


@dataclass(frozen=True)
class Estimator:
    """What a name in params.yaml stands for, for one kind of task.

    Trees split on missing values and category codes as they are; other estimators need complete
    rows and one input per category.

    Attributes
    ----------
    build : callable
        The class, or a function that makes the estimator.
    defaults : dict
        Arguments that differ from scikit-learn's defaults.
    trees, seeded, threads : bool
        Whether it consists of trees, takes a seed, and fits in several threads by joblib.
    gaps : bool
        Whether the search may leave missing values to it.
    space : mapping
        The arguments that the search varies, and where it starts; none: it is not searched.
    starts : tuple of dict
        What the search tries next, as arguments that differ from where it starts.
    rows : int or None
        With more rows than this the search leaves it out, unless it is named.
    """

    build: Callable[..., Any]
    defaults: dict[str, Any] = field(default_factory=dict)
    trees: bool = False
    seeded: bool = True
    threads: bool = False
    gaps: bool = False
    space: Space = field(default_factory=dict)
    starts: tuple[dict[str, Any], ...] = ()
    rows: int | None = None


def _calibrated_svc(random_state: int, **params: Any) -> Any:
    """SVC has no probabilities of its own; Platt scaling on cross-validated scores gives them."""
    return CalibratedClassifierCV(SVC(random_state=random_state, **params), ensemble=False)


_WEIGHT: Space = {"class_weight": Choice((None, "balanced"))}
_FOREST: Space = {
    "max_features": Choice(("sqrt", 0.15, 0.3, 0.5, 0.75, 1.0)),
    "min_samples_leaf": Range(1, 20, 1),
}
_BOOSTING: Space = {
    "learning_rate": Range(0.01, 0.5, 0.1),
    "max_iter": Range(30, 400, 100),
    "max_leaf_nodes": Range(3, 63, 31),
    "min_samples_leaf": Range(2, 60, 20),
    "l2_regularization": Choice((0.0, 0.1, 1.0, 10.0)),
    "max_features": Range(0.2, 1.0, 1.0, log=False),
}
_NEIGHBORS: Space = {
    "n_neighbors": Range(1, 50, 10),
    "weights": Choice(("uniform", "distance")),
    "p": Choice((2, 1)),
}
_KERNEL: Space = {
    "C": Range(0.01, 1e4, 1.0),
    "gamma": Choice(("scale", 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)),
}

_SLOWER: dict[str, Any] = {
    "learning_rate": 0.05,
    "max_iter": 200,
    "max_leaf_nodes": 8,
    "min_samples_leaf": 10,
    "max_features": 0.5,
}
_BALANCED: dict[str, Any] = {"class_weight": "balanced"}

# The search tries their defaults in this order: what is quick comes first.
ESTIMATORS: dict[str, dict[str, Estimator]] = {
    "classification": {
        "logistic_regression": Estimator(
            LogisticRegression,
            {"max_iter": 1000},
            space={"C": Range(1e-4, 1e3, 1.0), **_WEIGHT},
            starts=(_BALANCED,),
        ),
        # Brute force: skops cannot store the search trees.
        "k_nearest_neighbors": Estimator(
            KNeighborsClassifier,
            {"n_neighbors": 10, "algorithm": "brute"},
            seeded=False,
            space=_NEIGHBORS,
        ),
        "hist_gradient_boosting": Estimator(
            HistGradientBoostingClassifier,
            {},
            True,
            gaps=True,
            space={**_BOOSTING, **_WEIGHT},
            starts=({**_SLOWER, **_BALANCED},),
        ),
        "random_forest": Estimator(
            RandomForestClassifier,
            {"n_estimators": 200},
            True,
            threads=True,
            space={**_FOREST, **_WEIGHT},
            starts=({"min_samples_leaf": 5, **_BALANCED},),
        ),
        "extra_trees": Estimator(
            ExtraTreesClassifier,
            {"n_estimators": 200},
            True,
            threads=True,
            space={**_FOREST, **_WEIGHT},
        ),
        "svm": Estimator(_calibrated_svc, space=_KERNEL, rows=3000),
    },
    "regression": {
        "ridge": Estimator(Ridge, space={"alpha": Range(1e-3, 1e4, 1.0)}),
        "k_nearest_neighbors": Estimator(
            KNeighborsRegressor,
            {"n_neighbors": 10, "algorithm": "brute"},
            seeded=False,
            space=_NEIGHBORS,
        ),
        "hist_gradient_boosting": Estimator(
            HistGradientBoostingRegressor,
            {},
            True,
            gaps=True,
            space=_BOOSTING,
            starts=(_SLOWER,),
        ),
        "random_forest": Estimator(
            RandomForestRegressor, {"n_estimators": 200}, True, threads=True, space=_FOREST
        ),
        "extra_trees": Estimator(
            ExtraTreesRegressor, {"n_estimators": 200}, True, threads=True, space=_FOREST
        ),
        "svm": Estimator(SVR, seeded=False, space=_KERNEL, rows=3000),
    },
    "clustering": {
        "k_means": Estimator(
            KMeans,
            {"n_clusters": 3, "n_init": 10},
            space={"n_clusters": Choice((3, 2, 4, 5, 6, 7, 8, 9, 10))},
            starts=tuple({"n_clusters": count} for count in (2, 4, 5, 6, 7, 8, 9, 10)),
        ),
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
    name, task = settings.training.estimator, kind(contract)
    if name == "auto":
        linear = {"classification": "logistic_regression", "regression": "ridge"}
        small = rows < BOOSTING_ROWS and settings.preprocessing.impute != "none"
        if task == "clustering":
            return "k_means"
        return linear[task] if small else "hist_gradient_boosting"
    if name not in ESTIMATORS[task]:
        known = ", ".join(["auto", *ESTIMATORS[task]])
        raise SettingsError(f"training.estimator: {name!r} does no {task}; expected one of {known}")
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
    estimator = ESTIMATORS[kind(contract)][name]
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
    threads = ESTIMATORS[kind(contract)][estimator_name(contract, len(matrix), settings)].threads
    try:
        with parallel_config("threading", n_jobs=-1) if threads else nullcontext():
            return pipeline.fit(matrix, target)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise TrainingError(f"{type(pipeline[-1]).__name__} cannot be fitted: {reason}") from error


def few_threads(matrix: Matrix) -> Any:
    """Return a context in which a small matrix is worked on by one thread of OpenMP and BLAS.

    There threads wait for each other longer than they work: on two busy cores boosting took ten
    times as long with two of them.
    """
    return threadpool_limits(None if matrix.size > THREADED_CELLS else 1)


def fold_scores(
    contract: Contract, matrix: Matrix, target: Matrix | None, settings: Settings
) -> Iterator[float]:
    """Fit and measure once for each fold, as the values are asked for.

    Yields
    ------
    float
        The primary metric on the rows that were held out. Classes keep their shares in every
        fold, and a class with fewer rows than folds lowers their number; nothing is yielded where
        that leaves less than two.
    """
    metric, folds = PRIMARY[contract.task], fold_count(contract, target, len(matrix), settings)
    if folds < 2:
        return
    splitter: Any = StratifiedKFold if contract.classes else KFold
    parts = splitter(folds, shuffle=True, random_state=settings.training.seed)
    for train, test in parts.split(matrix, target):
        known, truth = (None, None) if target is None else (target[train], target[test])
        pipeline = fit(contract, matrix[train], known, settings)
        yield float(evaluate(pipeline, contract, matrix[test], truth)[0][metric])


def fold_count(contract: Contract, target: Matrix | None, rows: int, settings: Settings) -> int:
    """Return how many folds the rows allow, `training.folds` at most."""
    folds = min(settings.training.folds, rows)
    if contract.classes and target is not None:
        folds = min(folds, int(np.bincount(target.astype(int)).min()))
    return folds


def cross_validate(
    contract: Contract, matrix: Matrix, target: Matrix | None, settings: Settings
) -> dict[str, Any]:
    """Fit and measure once for each fold; classes keep their shares in every fold.

    Returns
    -------
    dict
        ``metric``, its value per fold in ``folds``, their ``mean`` and ``std``.
    """
    metric, scores = PRIMARY[contract.task], []
    total = fold_count(contract, target, len(matrix), settings)
    found = fold_scores(contract, matrix, target, settings)
    with tqdm(found, total=total, desc="cross-validation", leave=False, disable=None) as progress:
        for score in progress:
            scores.append(score)
            progress.set_postfix({metric: f"{np.mean(scores):.3f}"})
    return {
        "metric": metric,
        "folds": scores,
        "mean": float(np.mean(scores)) if scores else None,
        "std": float(np.std(scores)) if scores else None,
    }


def kind(contract: Contract) -> str:
    """Return the key of `ESTIMATORS`: classes of two and of more are one kind of task."""
    return "classification" if contract.classes else contract.task
