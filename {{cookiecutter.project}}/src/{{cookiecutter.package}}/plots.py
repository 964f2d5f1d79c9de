"""Pictures of an evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    PrecisionRecallDisplay,
    RocCurveDisplay,
)

from .contract import Contract
from .evaluation import PRIMARY
from .inference import Output

MAP_POINTS = 3000
LEGEND = 12


def draw(
    folder: Path,
    contract: Contract,
    truth: Any,
    result: Output,
    features: Any,
    importance: dict[str, dict[str, float]],
) -> list[Path]:
    """Draw what a person looks at for the contract's task, one PNG each.

    Parameters
    ----------
    folder : Path
        Where the pictures go; those of an earlier run are removed.
    contract : Contract
    truth : ndarray, shape (n_rows,), or None
    result : Output
    features : ndarray, shape (n_rows, n_inputs), or None
        The estimator's input, needed to map a clustering.
    importance : dict
        As `evaluation.importance` returns it; empty for no such picture.

    Returns
    -------
    list of Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("*.png"):
        earlier.unlink()
    if contract.task == "regression":
        name = contract.target.name if contract.target else ""
        figures = {"residuals": residuals(name, truth, result.labels)}
    elif contract.task == "clustering":
        figures = {"clusters": cluster_map(features, result)}
    else:
        figures = {
            "confusion_matrix": confusion_matrix(contract, truth, result.probabilities),
            "curves": curves(contract, truth, result.probabilities),
        }
    if importance:
        figures["importance"] = importance_bars(importance, PRIMARY[contract.task])
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)
    return [folder / f"{name}.png" for name in figures]


def confusion_matrix(contract: Contract, truth: Any, probabilities: Any) -> Figure:
    """Show how often each true class (rows) was given each predicted one (columns)."""
    size = min(4.5 + 0.35 * len(contract.classes), 16)
    figure = Figure(figsize=(size, size), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        truth.astype(int),
        probabilities.argmax(axis=1),
        labels=range(len(contract.classes)),
        display_labels=contract.class_names,
        cmap="Blues",
        colorbar=False,
        xticks_rotation=45 if len(contract.classes) > 4 else 0,
        ax=figure.add_subplot(),
    )
    figure.suptitle("Confusion matrix, test rows")
    return figure


def curves(contract: Contract, truth: Any, probabilities: Any) -> Figure:
    """Show ROC and precision-recall curves; one against the rest where there are many classes."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    roc, precision = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    codes = [1] if contract.task == "binary" else range(len(contract.classes))
    for code in list(codes)[:LEGEND]:
        positive = truth == code
        if positive.all() or not positive.any():
            continue
        score, name = probabilities[:, code], contract.class_names[code]
        RocCurveDisplay.from_predictions(positive, score, name=name, ax=roc)
        PrecisionRecallDisplay.from_predictions(positive, score, name=name, ax=precision)
    roc.plot([0, 1], [0, 1], linestyle=":", color="grey")
    roc.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    precision.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for axes in (roc, precision):
        axes.legend(fontsize="small", loc="lower right" if axes is roc else "lower left")
    return figure


def residuals(name: str, truth: Any, predicted: Any) -> Figure:
    """Show predicted against true values, and how the errors are spread."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    scatter, spread = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    errors = predicted - truth
    scatter.scatter(truth, predicted, s=14, alpha=0.6)
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    scatter.plot(ends, ends, linestyle=":", color="grey")
    scatter.set(title="Predicted and true", xlabel=f"true {name}", ylabel=f"predicted {name}")
    spread.hist(errors, bins=30)
    spread.axvline(0, linestyle=":", color="grey")
    spread.set(title="Errors", xlabel="predicted minus true", ylabel="rows")
    return figure


def cluster_map(features: Any, result: Output) -> Figure:
    """Show the rows in the plane of their two largest principal components, coloured by group."""
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axes = figure.add_subplot()
    chosen = np.random.default_rng(0).permutation(len(features))[:MAP_POINTS]
    components = min(2, *features.shape)
    plane = PCA(components, random_state=0).fit(features)
    points = np.zeros((len(chosen), 2))
    points[:, :components] = plane.transform(features[chosen])
    labels = result.labels[chosen].astype(str)
    for label in np.unique(labels):
        where = labels == label
        axes.scatter(
            points[where, 0],
            points[where, 1],
            s=14,
            alpha=0.7,
            label=f"{label} ({where.mean():.0%})",
        )
    shares = [*plane.explained_variance_ratio_, 0.0]
    axes.set(
        title="Groups, test rows",
        xlabel=f"first component ({shares[0]:.0%} of the variance)",
        ylabel=f"second component ({shares[1]:.0%})",
    )
    axes.legend(title="group")
    return figure


def importance_bars(importance: dict[str, dict[str, float]], metric: str) -> Figure:
    """Show the twenty columns whose shuffling costs most."""
    shown = list(importance.items())[:20][::-1]
    figure = Figure(figsize=(8, 1.6 + 0.34 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(
        [name for name, _ in shown],
        [loss["mean"] for _, loss in shown],
        xerr=[loss["std"] for _, loss in shown],
    )
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set(title="Permutation importance", xlabel=f"loss of {metric} when the column is shuffled")
    return figure
