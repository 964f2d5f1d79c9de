"""Pictures of an evaluation."""

import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn import metrics
from sklearn.decomposition import PCA
from sklearn.metrics import PrecisionRecallDisplay, RocCurveDisplay

from .contract import Contract
from .evaluation import PRIMARY
from .inference import Output

MAP_POINTS = 3000
LEGEND = 8
COUNTED = 25
NAME = 28

# Okabe and Ito (2008): told apart by colour-blind readers too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555", "#8a6d00")
INK, QUIET, LINE = "#1c2330", "#5b6577", "#d9dee7"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.labelcolor": QUIET,
    "axes.labelsize": 10,
    "axes.prop_cycle": f"cycler(color={list(COLOURS)})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "grid.color": "#edf0f5",
    "legend.fontsize": 9,
    "legend.framealpha": 0.9,
    "legend.edgecolor": LINE,
    "lines.linewidth": 2,
    "text.color": INK,
    # A column may be called "price $ and tax $": that is no formula.
    "text.parse_math": False,
    "xtick.color": LINE,
    "xtick.labelcolor": QUIET,
    "ytick.color": LINE,
    "ytick.labelcolor": QUIET,
}


def draw(
    folder: Path,
    contract: Contract,
    truth: Any,
    result: Output,
    features: Any,
    importance: dict[str, dict[str, float]],
) -> list[Path]:
    """Draw what a person looks at for the contract's task, one PNG each.

    The same numbers give the same bytes.

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
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # Names in a script that the font lacks are drawn as boxes; the report has them as text.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
        figures = _figures(contract, truth, result, features)
        if importance:
            figures["importance"] = importance_bars(importance, PRIMARY[contract.task])
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", dpi=144, metadata={"Software": None})
    return [folder / f"{name}.png" for name in figures]


def _figures(contract: Contract, truth: Any, result: Output, features: Any) -> dict[str, Figure]:
    if contract.task == "regression":
        name = _short(contract.target.name if contract.target else "")
        return {
            "predicted": predicted_and_true(name, truth, result.labels),
            "errors": errors(name, truth, result.labels),
        }
    if contract.task == "clustering":
        return {"clusters": cluster_map(features, result)}
    return {
        "confusion_matrix": confusion_matrix(contract, truth, result.probabilities),
        "roc": curves(RocCurveDisplay, contract, truth, result.probabilities),
        "precision_recall": curves(PrecisionRecallDisplay, contract, truth, result.probabilities),
    }


def confusion_matrix(contract: Contract, truth: Any, probabilities: Any) -> Figure:
    """Show how often each true class (rows) was given each predicted one (columns).

    The colour is the share of the true class, so that rare classes are seen as well.
    """
    classes = len(contract.classes)
    counts = metrics.confusion_matrix(
        truth.astype(int), probabilities.argmax(axis=1), labels=range(classes)
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(max(5.5, 2.5 + 0.45 * classes), 16)
    figure = Figure(figsize=(size, size), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)
    names = [_short(name, 18) for name in contract.class_names]
    step = -(-classes // 60)
    axes.set_xticks(range(0, classes, step), names[::step], rotation=90 if classes > 4 else 0)
    axes.set_yticks(range(0, classes, step), names[::step])
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel="true")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelcolor=INK)
    if classes <= COUNTED:
        for (i, j), count in np.ndenumerate(counts):
            colour = "white" if shares[i, j] > 0.55 else INK if count else "#8792a5"
            axes.text(j, i, f"{count:,}", ha="center", va="center", color=colour)
    return figure


def curves(display: Any, contract: Contract, truth: Any, probabilities: Any) -> Figure:
    """Show a curve for each class against the rest, for the true one of two.

    Parameters
    ----------
    display : RocCurveDisplay or PrecisionRecallDisplay
    contract : Contract
    truth : ndarray, shape (n_rows,)
    probabilities : ndarray, shape (n_rows, n_classes)
    """
    is_roc = display is RocCurveDisplay
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    codes = [1] if contract.task == "binary" else range(len(contract.classes))
    for code in list(codes)[:LEGEND]:
        positive = truth == code
        if not positive.all() and positive.any():
            name = _short(contract.class_names[code])
            display.from_predictions(positive, probabilities[:, code], name=name, ax=axes)
    if is_roc:
        axes.plot([0, 1], [0, 1], linestyle=":", color=QUIET, linewidth=1.2)
        axes.set(title="ROC curve", xlabel="false positive rate", ylabel="true positive rate")
    else:
        axes.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right" if is_roc else "lower left")
    return figure


def predicted_and_true(name: str, truth: Any, predicted: Any) -> Figure:
    """Show predicted against true values; on the line they are equal."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    chosen = np.random.default_rng(0).permutation(len(truth))[:MAP_POINTS]
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    axes.plot(ends, ends, linestyle=":", color=QUIET, linewidth=1.2)
    axes.scatter(truth[chosen], predicted[chosen], s=18, alpha=0.6, linewidths=0)
    axes.set(title="Predicted and true", xlabel=f"true {name}", ylabel=f"predicted {name}")
    return figure


def errors(name: str, truth: Any, predicted: Any) -> Figure:
    """Show how the errors are spread; zero is right."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    bins = min(max(round(len(truth) ** 0.5), 8), 30)
    axes.hist(predicted - truth, bins=bins, edgecolor="white", linewidth=0.6)
    axes.axvline(0, linestyle=":", color=QUIET, linewidth=1.2)
    axes.grid(visible=False, axis="x")
    axes.set(title="Errors", xlabel=f"{name}: predicted minus true", ylabel="rows")
    return figure


def cluster_map(features: Any, result: Output) -> Figure:
    """Show the rows in the plane of their two largest principal components, coloured by group."""
    figure = Figure(figsize=(7, 5.5), layout="constrained")
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
            s=18,
            alpha=0.7,
            linewidths=0,
            label=f"{label} ({where.mean():.0%})",
        )
    shares = [*plane.explained_variance_ratio_, 0.0]
    axes.set(
        title="Groups",
        xlabel=f"first component ({shares[0]:.0%} of the variance)",
        ylabel=f"second component ({shares[1]:.0%})",
    )
    axes.legend(title="group")
    return figure


def importance_bars(importance: dict[str, dict[str, float]], metric: str) -> Figure:
    """Show the twenty columns whose shuffling costs most."""
    shown = list(importance.items())[:20][::-1]
    figure = Figure(figsize=(7, 1.6 + 0.34 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.barh(
        range(len(shown)),
        [loss["mean"] for _, loss in shown],
        xerr=[loss["std"] for _, loss in shown],
        error_kw={"ecolor": QUIET, "elinewidth": 1.2},
        height=0.65,
    )
    axes.set_yticks(range(len(shown)), [_short(name) for name, _ in shown])
    axes.axvline(0, color=QUIET, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set(title="Permutation importance", xlabel=f"loss of {metric} when the column is shuffled")
    return figure


def _short(name: str, most: int = NAME) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
