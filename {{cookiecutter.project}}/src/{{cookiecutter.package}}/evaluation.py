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
    silhouette_score,
)
from tqdm import tqdm

from .contract import Contract
from .encoding import Matrix
from .inference import Output, output
from .settings import Evaluation

PRIMARY = {
    "binary": "balanced_accuracy",
    "multiclass": "balanced_accuracy",
    "regression": "r2",
    "clustering": "silhouette",
}
SILHOUETTE_ROWS = 2000


def evaluate(
    pipeline: Any, contract: Contract, matrix: Matrix, truth: Matrix | None
) -> tuple[dict[str, Any], Output]:
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
        Metrics of the task by scikit-learn's names.
    result : Output
    """
    result = output(pipeline, contract, matrix)
    if contract.task == "clustering":
        return _grouping(pipeline, matrix, result), result
    if contract.task == "regression":
        return _errors(truth, result.labels), result
    return _classification(contract, truth, result.probabilities), result


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
    generator = np.random.default_rng(0)
    matrix, truth = matrix[: settings.importance_rows], truth[: settings.importance_rows]
    primary = PRIMARY[contract.task]
    whole = evaluate(pipeline, contract, matrix, truth)[0][primary]
    found = {}
    for j, column in enumerate(
        tqdm(contract.features, desc="importance", leave=False, disable=None)
    ):
        losses = []
        for _ in range(settings.importance_repeats):
            shuffled = matrix.copy()
            shuffled[:, j] = generator.permutation(shuffled[:, j])
            losses.append(whole - evaluate(pipeline, contract, shuffled, truth)[0][primary])
        found[column.name] = {"mean": float(np.mean(losses)), "std": float(np.std(losses))}
    return dict(sorted(found.items(), key=lambda item: -item[1]["mean"]))


def _classification(contract: Contract, truth: Any, probabilities: Any) -> dict[str, Any]:
    codes, guess = truth.astype(int), probabilities.argmax(axis=1)
    every = range(len(contract.classes))
    recalls = {
        name: float((guess[codes == code] == code).mean())
        for code, name in enumerate(contract.class_names)
        if (codes == code).any()
    }
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
        "r2": float(r2_score(truth, guess)) if len(truth) > 1 else 0.0,
        "mean_absolute_error": float(mean_absolute_error(truth, guess)),
        "root_mean_squared_error": float(root_mean_squared_error(truth, guess)),
    }


def _grouping(pipeline: Any, matrix: Matrix, result: Output) -> dict[str, Any]:
    names, groups, counts = np.unique(
        result.labels.astype(str), return_inverse=True, return_counts=True
    )
    shares = dict(zip(names.tolist(), (counts / counts.sum()).tolist(), strict=True))
    silhouette = -1.0
    if 2 <= len(names) < len(matrix):
        features = pipeline[:-1].transform(matrix)
        rows = min(SILHOUETTE_ROWS, len(matrix))
        silhouette = float(silhouette_score(features, groups, sample_size=rows, random_state=0))
    return {"silhouette": silhouette, "shares": shares}
