"""How good a model is: metrics of its task, a baseline to beat, what each column contributes."""

from typing import Any

import numpy as np
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
    silhouette_samples,
)

from . import bootstrap
from .contract import Contract
from .encoding import Matrix
from .inference import Output, output
from .settings import Evaluation

_CLASSES = ("balanced_accuracy", "accuracy", "f1_macro", "log_loss", "roc_auc")
METRICS = {
    "binary": _CLASSES,
    "multiclass": _CLASSES,
    "regression": ("r2", "mean_absolute_error", "root_mean_squared_error"),
    "clustering": ("silhouette",),
}
PRIMARY = {task: names[0] for task, names in METRICS.items()}
LOWER_IS_BETTER = frozenset({"log_loss", "mean_absolute_error", "root_mean_squared_error"})
SILHOUETTE_ROWS = 2000
RESAMPLES = 1000


def evaluate(
    pipeline: Any, contract: Contract, matrix: Matrix, truth: Matrix | None
) -> tuple[dict[str, Any], Output, Matrix | None]:
    """Measure a fitted pipeline on rows that it was not fitted on.

    Parameters
    ----------
    pipeline : sklearn Pipeline
    contract : Contract
    matrix : ndarray, shape (n_rows, n_features)
    truth : ndarray, shape (n_rows,), or None
        Class positions, or numbers; None for a clustering.

    Returns
    -------
    metrics : dict
        As `measure` returns them.
    result : Output
    features : ndarray, shape (n_rows, n_inputs), or None
        Clustering only: the rows as the estimator sees them.
    """
    features = None
    if contract.task == "clustering":
        features = pipeline[:-1].transform(matrix)
        result = output(pipeline[-1], contract, features)
    else:
        result = output(pipeline, contract, matrix)
    return measure(contract, truth, result, features), result, features


def measure(
    contract: Contract, truth: Matrix | None, result: Output, features: Matrix | None = None
) -> dict[str, Any]:
    """Return all metrics of the task by scikit-learn's names, those of `METRICS` and more.

    Parameters
    ----------
    contract : Contract
    truth : ndarray, shape (n_rows,), or None
        Class positions, or numbers; None for a clustering.
    result : Output
        What the model said about these rows.
    features : ndarray, shape (n_rows, n_inputs), or None
        Clustering only: the rows as the estimator sees them.
    """
    if contract.task == "clustering":
        return _grouping(result, features)
    if contract.task == "regression":
        return _errors(truth, result.labels)
    return _classification(contract, truth, result.probabilities)


def score(
    contract: Contract, truth: Matrix | None, result: Output, features: Matrix | None = None
) -> float:
    """Return the primary metric alone, which is much faster than `measure`."""
    if contract.task == "clustering":
        return float(silhouettes(result.labels, features)[1].mean())
    if contract.task == "regression":
        return _r2(truth, result.labels)
    probabilities: Any = result.probabilities
    hits = probabilities.argmax(axis=1) == truth
    return float(np.mean(list(_recalls(contract, truth, hits).values())))


def baseline(contract: Contract, train: Matrix | None, test: Matrix | None) -> dict[str, Any]:
    """Measure the model that looks at no column: the classes' shares, or the mean.

    Parameters
    ----------
    contract : Contract
    train, test : ndarray, shape (n_rows,), or None
        The targets.
    """
    if train is None or test is None:
        return {}
    if contract.task == "regression":
        mean = DummyRegressor().fit(np.zeros((len(train), 1)), train)
        return _errors(test, mean.predict(np.zeros((len(test), 1))))
    prior = DummyClassifier(strategy="prior").fit(np.zeros((len(train), 1)), train)
    return _classification(contract, test, prior.predict_proba(np.zeros((len(test), 1))))


def importance(
    pipeline: Any, contract: Contract, matrix: Matrix, truth: Matrix, settings: Evaluation
) -> dict[str, dict[str, float]]:
    """Measure how much the primary metric falls when one column is shuffled.

    Breiman (2001), Random Forests, Machine Learning 45, section 10.

    Parameters
    ----------
    pipeline : sklearn Pipeline
    contract : Contract
    matrix : ndarray, shape (n_rows, n_features)
    truth : ndarray, shape (n_rows,)
    settings : Evaluation
        How often each column is shuffled, and of how many rows.

    Returns
    -------
    dict
        ``mean`` and ``std`` over the repeats for each feature, the most important first.
    """
    # The monitor's image, which measures as well, has no use for it.
    from tqdm import tqdm

    generator = np.random.default_rng(0)
    if len(matrix) > settings.importance_rows:
        chosen = np.sort(generator.permutation(len(matrix))[: settings.importance_rows])
        matrix, truth = matrix[chosen], truth[chosen]
    whole = score(contract, truth, output(pipeline, contract, matrix))
    shuffled = matrix.copy()
    found = {}
    for j, column in enumerate(
        tqdm(contract.features, desc="importance", leave=False, disable=None)
    ):
        losses = []
        for _ in range(settings.importance_repeats):
            shuffled[:, j] = generator.permutation(matrix[:, j])
            losses.append(whole - score(contract, truth, output(pipeline, contract, shuffled)))
        shuffled[:, j] = matrix[:, j]
        found[column.name] = {"mean": float(np.mean(losses)), "std": float(np.std(losses))}
    return dict(sorted(found.items(), key=lambda item: -item[1]["mean"]))


def intervals(
    contract: Contract, truth: Matrix | None, result: Output, features: Matrix | None = None
) -> dict[str, list[float]]:
    """Return a 95 % confidence interval of each metric in `METRICS`.

    Percentile bootstrap: quantiles of the metric over `RESAMPLES` draws of the test rows with
    replacement. Efron and Tibshirani (1993), An Introduction to the Bootstrap, chapter 13. They
    tell how far the choice of test rows decides the number, not how another training would turn
    out. For speed, many rows are drawn in groups (`bootstrap.resampled_sums`), and a silhouette is
    that of at most `SILHOUETTE_ROWS` rows.

    Parameters
    ----------
    contract : Contract
    truth : ndarray, shape (n_rows,), or None
    result : Output
    features : ndarray, shape (n_rows, n_inputs), or None
        Clustering only: the rows as the estimator sees them.

    Returns
    -------
    dict
        ``[low, high]`` by name; none for a metric that these rows do not have.
    """
    if contract.task == "clustering":
        values = silhouettes(result.labels, features)[1][:, None]
        drawn = {"silhouette": bootstrap.resampled_means(values, RESAMPLES)[:, 0]}
    elif contract.task == "regression":
        drawn = bootstrap.errors(truth, result.labels, RESAMPLES)
    else:
        drawn = bootstrap.classification(truth, result.probabilities, RESAMPLES)
    return {
        name: np.quantile(drawn[name], [0.025, 0.975]).tolist()
        for name in METRICS[contract.task]
        if name in drawn
    }


def silhouettes(labels: Any, features: Any) -> tuple[Any, Matrix]:
    """Measure how much nearer rows lie to their own group than to the next.

    Rousseeuw (1987), Journal of Computational and Applied Mathematics 20. It compares all pairs,
    so that at most `SILHOUETTE_ROWS` rows, chosen at random but always the same, are looked at.

    Parameters
    ----------
    labels : ndarray of object, shape (n_rows,)
        The groups.
    features : ndarray, shape (n_rows, n_inputs)
        The rows as the estimator sees them.

    Returns
    -------
    chosen : ndarray of int, shape (n_chosen,)
        Positions of the rows that were looked at, in order.
    values : ndarray of float, shape (n_chosen,)
        Between -1 and 1; all -1 where there is only one group, or each row is its own.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:SILHOUETTE_ROWS])
    groups = np.unique(labels[chosen].astype(str), return_inverse=True)[1]
    if not 2 <= len(np.unique(groups)) < len(chosen):
        return chosen, np.full(len(chosen), -1.0)
    return chosen, silhouette_samples(features[chosen], groups)


def _recalls(contract: Contract, truth: Any, hits: Any) -> dict[str, float]:
    codes, classes = truth.astype(int), len(contract.classes)
    support = np.bincount(codes, minlength=classes)
    right = np.bincount(codes[hits], minlength=classes)
    return {
        name: float(right[code] / support[code])
        for code, name in enumerate(contract.class_names)
        if support[code]
    }


def _r2(truth: Any, guess: Any) -> float:
    return float(r2_score(truth, guess)) if len(truth) > 1 else 0.0


def _classification(contract: Contract, truth: Any, probabilities: Any) -> dict[str, Any]:
    codes, guess = truth.astype(int), probabilities.argmax(axis=1)
    every = range(len(contract.classes))
    # The votes of a forest may add up to a rounding error more than 1.
    probabilities = np.clip(probabilities, 0, 1)
    recalls = _recalls(contract, truth, guess == codes)
    metrics = {
        "accuracy": float(accuracy_score(codes, guess)),
        "balanced_accuracy": float(np.mean(list(recalls.values()))),
        "f1_macro": float(f1_score(codes, guess, average="macro", labels=every, zero_division=0)),
        "log_loss": float(log_loss(codes, probabilities, labels=every)),
        "recall": recalls,
    }
    if len(recalls) == len(contract.classes):
        scores = probabilities[:, 1] if contract.task == "binary" else probabilities
        metrics["roc_auc"] = float(roc_auc_score(codes, scores, multi_class="ovr"))
    return metrics


def _errors(truth: Any, guess: Any) -> dict[str, Any]:
    return {
        "r2": _r2(truth, guess),
        "mean_absolute_error": float(mean_absolute_error(truth, guess)),
        "root_mean_squared_error": float(root_mean_squared_error(truth, guess)),
    }


def _grouping(result: Output, features: Any) -> dict[str, Any]:
    names, counts = np.unique(result.labels.astype(str), return_counts=True)
    shares = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
    return {"silhouette": float(silhouettes(result.labels, features)[1].mean()), "shares": shares}
