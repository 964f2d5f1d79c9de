"""The report: one page about a run, for a person who has never seen the project."""

import base64
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import contract as contracts
from . import tracking
from .artifacts import (
    CONTRACT,
    METRICS,
    PLOTS,
    REPORT,
    RUN,
    SNAPSHOT,
    TEST,
    TRAIN,
    TRIALS,
    read_json,
    read_table,
    replacing,
)
from .bundle import CARD, EXAMPLES, REFERENCE
from .contract import Column, Contract, allowed_range
from .encoding import encode_target
from .settings import Settings

# What a metric is called, whether it is a share of something, and what it means.
MEANINGS = {
    "accuracy": ("Accuracy", True, "share of the rows that are predicted right"),
    "balanced_accuracy": (
        "Balanced accuracy",
        True,
        "share predicted right, averaged over the classes: rare ones count as much as common ones",
    ),
    "f1_macro": (
        "F1, averaged over classes",
        False,
        "balance of finding all rows of a class and claiming no others; 1 is perfect",
    ),
    "log_loss": (
        "Log loss",
        False,
        "how far the stated probabilities are from what happened; 0 is perfect, lower is better",
    ),
    "roc_auc": (
        "ROC AUC",
        False,
        "chance that a row of a class is ranked above one that is not; 0.5 is a coin, 1 perfect",
    ),
    "r2": (
        "R²",
        False,
        "share of the target's variation that is explained; 0 is no better than the mean",
    ),
    "mean_absolute_error": (
        "Mean absolute error",
        False,
        "how far a prediction is off on average, in the target's unit; lower is better",
    ),
    "root_mean_squared_error": (
        "Root mean squared error",
        False,
        "the same, but large misses weigh more; lower is better",
    ),
    "silhouette": (
        "Silhouette",
        False,
        "how much closer rows are to their own group than to the next; 1 apart, 0 overlapping",
    ),
}
KINDS = {
    "numeric": "number",
    "integer": "whole number",
    "boolean": "yes or no",
    "categorical": "category",
    "datetime": "date or time",
    "excluded": "left out",
}
CAPTIONS = {
    "confusion_matrix": "How often each true class (rows) was given each predicted one (columns). "
    "What lies off the diagonal is wrong.",
    "roc": "Rows of a class found (up) against others taken for it (right), for every threshold. "
    "The dotted line is a coin.",
    "precision_recall": "How many claims are right (up) against how many rows of the class are "
    "found (right), for every threshold.",
    "predicted": "Each point is one held-out row; on the dotted line the prediction is exact.",
    "errors": "How far predictions are off. Narrow and centred at zero is good.",
    "clusters": "The held-out rows, laid out so that the widest differences show, "
    "coloured by group.",
}

NOTHING = "\N{EN DASH}"
FEW_ROWS, FEW_OF_CLASS = 100, 10
NEAR_PERFECT, STRIKING, CARRIES = 0.99, 0.95, 0.9
RARE, COMMON = 0.05, 0.9
MISSING = 0.3
SPREAD = 0.2
OVERLAPPING = 0.25
BINS = 20
TOP = 5
LISTED = 20
NAME = 50


@dataclass(frozen=True)
class Run:
    """What the page tells of.

    Attributes
    ----------
    contract : Contract
    card, reference, examples
        Parts of the bundle.
    metrics : dict
        reports/metrics.json.
    targets : dict
        Counts of the classes in ``train`` and ``test``, or ``quantiles`` of a numeric target.
    missing : dict
        Missing share of every column of the snapshot, where known.
    pictures : dict
        PNG files by name.
    trials : sequence of dict
        What a search tried.
    tracked : dict or None
        reports/run.json, and the tracking server under ``tracking_uri``.
    decision : mapping or None
        What the gate would decide, as `release.compare` gives it; None without a champion.
    description : str
    """

    contract: Contract
    card: Mapping[str, Any]
    reference: Mapping[str, Any]
    metrics: Mapping[str, Any]
    examples: Sequence[Mapping[str, Any]] = ()
    targets: Mapping[str, Any] = field(default_factory=dict)
    missing: Mapping[str, float] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    trials: Sequence[Mapping[str, Any]] = ()
    tracked: Mapping[str, Any] | None = None
    decision: Mapping[str, Any] | None = None
    description: str = ""

    @property
    def primary(self) -> str:
        """The metric that decides."""
        return str(self.card["cross_validation"]["metric"])

    @property
    def test_rows(self) -> int:
        """How many rows were held out."""
        return int(self.card["data"]["test_rows"])


def report(settings: Settings, decision: Mapping[str, Any] | None = None) -> str:
    """Write reports/report.html.

    Parameters
    ----------
    settings : Settings
    decision : mapping, optional
        What the gate would decide, as `release.compare` gives it.

    Returns
    -------
    str
        Where the page is.

    Raises
    ------
    DataError
        Where a file of the earlier stages is missing.
    """
    page = build(collect(settings, decision))
    with replacing(REPORT) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    return f"{REPORT}, {len(page.encode()) / 1024:,.0f} kB"


def show() -> bool:
    """Open the page in the browser; return whether there is one that shows it."""
    import webbrowser

    return webbrowser.open(REPORT.resolve().as_uri())


def collect(settings: Settings, decision: Mapping[str, Any] | None = None) -> Run:
    """Gather what the stages left; of the data only the target is read."""
    agreed, bundle = contracts.read(CONTRACT), settings.serving.bundle
    tracked = read_json(RUN) if RUN.is_file() else None
    if tracked is not None:
        tracked = {"tracking_uri": tracking.uri(settings), **tracked}
    return Run(
        contract=agreed,
        card=read_json(bundle / CARD),
        reference=read_json(bundle / REFERENCE),
        examples=read_json(bundle / EXAMPLES),
        metrics=read_json(METRICS),
        targets=_targets(agreed),
        missing=missing_shares(SNAPSHOT),
        pictures={path.stem: path.read_bytes() for path in sorted(PLOTS.glob("*.png"))},
        trials=read_json(TRIALS) if TRIALS.is_file() else (),
        tracked=tracked,
        decision=decision,
        description=settings.project.description,
    )


def build(run: Run) -> str:
    """Render the page: it asks for nothing from elsewhere, and equal runs give equal bytes.

    Parameters
    ----------
    run : Run

    Returns
    -------
    str
        HTML.
    """
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "percent": percent, "score": score}
    headline, beside = _headline(run)
    return environment.get_template("report.html").render(
        run=run,
        card=run.card,
        contract=run.contract,
        headline=headline,
        beside=beside,
        findings=findings(run),
        metrics=_metrics(run),
        recalls=_recalls(run),
        groups=_groups(run),
        folds=_folds(run),
        pictures=_pictures(run),
        importance=_importance(run),
        answers=_answers(run),
        profile=[_profiled(run, column) for column in run.contract.features],
        target=_target_profile(run),
        left_out=[(column, run.missing.get(column.name)) for column in run.contract.excluded],
        kinds=KINDS,
        allowed=_allowed,
        comparison=_comparison(run),
        trials=_trials(run),
        tracked=_tracked(run),
    )


def number(value: Any) -> str:
    """Format a number for reading: three or four digits that matter, thousands apart."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if float(value).is_integer() and size < 1e15:
        # Years, postcodes and the like stay as they are written.
        return f"{value:.0f}" if size < 10_000 else f"{value:,.0f}"
    if size >= 10_000:
        return f"{value:,.0f}" if size < 1e15 else f"{value:.3g}"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def percent(share: float | None) -> str:
    """Format a share; what is not quite none or all does not look so."""
    if share is None:
        return NOTHING
    if 0 < share < 0.001:
        return "under 0.1\u00a0%"
    if 0.999 < share < 1:
        return "over 99.9\u00a0%"
    return f"{100 * share:.1f}".removesuffix(".0") + "\u00a0%"


def score(value: Any, metric: str) -> str:
    """Format a metric's value: shares in percent, errors in the target's unit."""
    if value is None or not isinstance(value, int | float):
        return number(value)
    if metric.endswith("error"):
        return number(value)
    return percent(value) if MEANINGS.get(metric, ("", False, ""))[1] else f"{value:.3f}"


def histogram(quantiles: Sequence[float], whole: bool = False) -> dict[str, Any]:
    """Turn evenly spaced quantiles into bars of equal width.

    Between two neighbouring quantiles the rows are taken as evenly spread.

    Parameters
    ----------
    quantiles : sequence of float
        From the least value to the largest.
    whole : bool
        The values are whole numbers: where they are few, each has its bar.

    Returns
    -------
    dict
        ``bars``, the highest of them 1, over ``low`` to ``high``. Where most rows would share a
        bar because a few lie far out, these are the middle 90 % and ``tails`` is true.
    """
    points = [float(value) for value in quantiles]
    tails = len(points) > 4 and 0 < points[-2] - points[1] < (points[-1] - points[0]) / 5
    if tails:
        points = points[1:-1]
    low, high = points[0], points[-1]
    if low == high:
        return {"bars": [1.0], "low": low, "high": high, "tails": tails}
    start, end, bins = low, high, BINS
    if whole and high - low < BINS:
        start, end, bins = low - 0.5, high + 0.5, round(high - low) + 1
    width, mass = (end - start) / bins, [0.0] * bins
    for left, right in pairwise(points):
        if left == right:
            mass[min(int((left - start) / width), bins - 1)] += 1.0
            continue
        for k in range(bins):
            overlap = min(right, start + (k + 1) * width) - max(left, start + k * width)
            mass[k] += max(overlap, 0.0) / (right - left)
    highest = max(mass)
    bars = [round(share / highest, 4) for share in mass]
    return {"bars": bars, "low": low, "high": high, "tails": tails}


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927, JASA 22, p. 209)."""
    z = 1.959964
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def findings(run: Run) -> list[dict[str, str]]:
    """List what a person should look at before trusting the model.

    Returns
    -------
    list of dict
        ``level`` (``warning`` or ``note``), ``title`` and ``text``.
    """
    found = [
        *_about_test_rows(run),
        *_about_score(run),
        *_about_classes(run),
        *_about_columns(run),
    ]
    return sorted(found, key=lambda item: item["level"] == "note")


def _finding(title: str, text: str, level: str = "warning") -> dict[str, str]:
    return {"level": level, "title": title, "text": text}


def _about_test_rows(run: Run) -> list[dict[str, str]]:
    found = []
    if run.test_rows < FEW_ROWS:
        found.append(
            _finding(
                f"Only {run.test_rows} rows were held out",
                "The figures below could have come out noticeably better or worse by chance. "
                "Look at the intervals, and at the folds.",
            )
        )
    counts = run.targets.get("test", {})
    few = [name for name in run.contract.class_names if counts.get(name, 0) < FEW_OF_CLASS]
    if counts and few:
        found.append(
            _finding(
                f"Classes with fewer than {FEW_OF_CLASS} held-out rows",
                f"Nothing reliable can be said about {_named(few)}.",
            )
        )
    folds = [value for value in run.card["cross_validation"]["folds"] if value is not None]
    if folds and max(folds) - min(folds) > SPREAD and run.contract.task != "clustering":
        found.append(
            _finding(
                "The folds differ a lot",
                f"{_called(run.primary)} ranges from {score(min(folds), run.primary)} to "
                f"{score(max(folds), run.primary)} depending on which rows are held out: "
                "there are few rows, or kinds of rows that differ.",
            )
        )
    dates = [c.name for c in run.contract.features if c.kind == "datetime"]
    data = run.card.get("settings", {}).get("data", {})
    if dates and not data.get("time") and run.contract.task != "clustering":
        found.append(
            _finding(
                "Held out at random, though there are dates",
                f"If the model will predict what comes later, set data.time to {_named(dates[:3])}"
                " so that the newest rows are held out; the score is usually lower, and truer.",
                "note",
            )
        )
    return found


def _about_score(run: Run) -> list[dict[str, str]]:
    value = run.metrics["test"].get(run.primary)
    if value is None:
        return []
    called = _called(run.primary)
    if run.contract.task == "clustering":
        if value >= OVERLAPPING:
            return []
        text = f"The silhouette is {value:.2f}: there may be no natural groups in these columns."
        return [_finding("The groups are hardly apart", text)]
    found = []
    least = run.metrics.get("baseline", {}).get(run.primary)
    low = (run.metrics.get("intervals", {}).get(run.primary) or [value])[0]
    if least is not None and low <= least:
        clearly = "" if value <= least else "clearly "
        found.append(
            _finding(
                f"Not {clearly}better than guessing",
                f"{called} is {score(value, run.primary)}, and {score(least, run.primary)} for a "
                "model that looks at no column. The columns may hold nothing about the target.",
            )
        )
    gains = {k: max(v["mean"], 0.0) for k, v in run.metrics.get("importance", {}).items()}
    carrier = max(gains, key=lambda name: gains[name]) if any(gains.values()) else None
    part = gains[carrier] / sum(gains.values()) if carrier else 0.0
    if value >= NEAR_PERFECT or (value >= STRIKING and part >= CARRIES):
        culprit = (
            f"{_quoted(carrier)} carries {percent(round(part, 2))} of it. Is it known when a "
            "prediction is needed, or does it hold the answer? If it does, list it in data.exclude."
            if carrier and part >= 0.5
            else "No single column carries it. Do rows repeat, or do columns together hold the "
            "answer?"
        )
        found.append(
            _finding(
                "Almost too good to be true",
                f"{called} is {score(value, run.primary)}, which is rare in practice. {culprit}",
            )
        )
    return found


def _about_classes(run: Run) -> list[dict[str, str]]:
    found = []
    counts = run.targets.get("train", {}) if run.contract.classes else {}
    rows = sum(counts.values())
    if rows:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if counts[most] / rows > COMMON or counts[least] / rows < RARE:
            found.append(
                _finding(
                    "The classes are out of balance",
                    f"{percent(counts[most] / rows)} of the training rows are {_quoted(most)}, "
                    f"{percent(counts[least] / rows)} are {_quoted(least)}. Accuracy flatters "
                    "here: look at balanced accuracy and at what is found of each class.",
                )
            )
    never = [name for name, recall in run.metrics["test"].get("recall", {}).items() if not recall]
    if never:
        text = f"No held-out row of {_named(never)} was recognised."
        found.append(_finding("Never found", text))
    return found


def _about_columns(run: Run) -> list[dict[str, str]]:
    found = []
    columns = run.reference["columns"]
    gaps = {k: v["missing"] for k, v in columns.items() if v["missing"] >= MISSING}
    if gaps:
        listed = [f"{_quoted(name)} ({percent(share)})" for name, share in _largest(gaps)]
        found.append(
            _finding(
                "Many values are missing",
                f"{_listed(listed)}. They are filled in before the model sees them, unless it is "
                "a tree that takes them as they are.",
            )
        )
    if run.contract.excluded:
        names = [column.name for column in run.contract.excluded]
        found.append(
            _finding(
                f"{_count(names, 'column')} left out",
                f"{_named(names)}: the reasons are listed with the data.",
                "note",
            )
        )
    return found


def _headline(run: Run) -> tuple[str, str]:
    """Say in two sentences how good the model is, and compared with what."""
    test, base = run.metrics["test"], run.metrics.get("baseline", {})
    if run.contract.task == "clustering":
        return _headline_of_groups(test)
    if run.contract.task == "regression":
        off = number(test["mean_absolute_error"])
        explained = f"It explains {percent(round(max(test['r2'], 0.0), 3))} of the variation."
        if "mean_absolute_error" not in base:
            return f"Off by {off} on average", explained
        return (
            f"Off by {off} on average",
            f"Always answering the average would be off by "
            f"{number(base['mean_absolute_error'])}. {explained}",
        )
    rows, accuracy = run.test_rows, test["accuracy"]
    of = rows
    if rows > 2 * FEW_ROWS:
        of = next((n for n in (100, 1000) if round(accuracy * n) < n or accuracy == 1), rows)
    what = "held-out rows"
    headline = f"Right for {round(accuracy * of):,} of {of:,} {what}"
    if "accuracy" not in base:
        return headline, ""
    most = max(base["recall"], key=base["recall"].__getitem__) if base.get("recall") else None
    named = f", {_quoted(most)}" if most is not None else ""
    return (
        headline,
        f"Guessing the most frequent class{named}, every time: {round(base['accuracy'] * of):,}.",
    )


def _headline_of_groups(test: Mapping[str, Any]) -> tuple[str, str]:
    shares = test.get("shares", {})
    if set(shares) <= {"inlier", "outlier"}:
        return (
            f"Calls {percent(round(shares.get('outlier', 0.0), 3))} of the held-out rows unusual",
            "There is no truth to compare with: look at the rows it picks.",
        )
    value = test["silhouette"]
    # Kaufman and Rousseeuw (1990), Finding Groups in Data, chapter 2.
    verdict = next(
        words
        for least, words in (
            (0.7, "they are far apart"),
            (0.5, "they are reasonably apart"),
            (OVERLAPPING, "they overlap"),
            (-1.0, "they are hardly told apart"),
        )
        if value >= least
    )
    return (
        f"Sorts rows into {_count(shares, 'group')}",
        f"With a silhouette of {value:.2f}, {verdict}. There is no truth to compare with.",
    )


def _metrics(run: Run) -> list[dict[str, Any]]:
    """Describe the metrics that are single numbers, the deciding one first."""
    test, base = run.metrics["test"], run.metrics.get("baseline", {})
    intervals = run.metrics.get("intervals", {})
    names = [name for name, value in test.items() if isinstance(value, int | float)]
    described = []
    for name in sorted(names, key=lambda name: name != run.primary):
        interval = intervals.get(name)
        shown = [x for x in (test[name], base.get(name), *(interval or ())) if x is not None]
        described.append(
            {
                "name": name,
                "called": _called(name),
                "meaning": MEANINGS.get(name, ("", False, ""))[2],
                "value": test[name],
                "baseline": base.get(name),
                "interval": interval,
                "primary": name == run.primary,
                "drawn": name != "log_loss" and all(0 <= x <= 1 for x in shown),
            }
        )
    return described


def _recalls(run: Run) -> dict[str, Any]:
    """Describe what is found of each class; of very many, those that are found least."""
    recalls = run.metrics["test"].get("recall", {})
    given = run.metrics.get("intervals", {}).get("recall", {})
    counts, trained = run.targets.get("test", {}), run.targets.get("train", {})
    rows = []
    for name, recall in recalls.items():
        held = counts.get(name, 0)
        interval = given.get(name) if isinstance(given, Mapping) else None
        if interval is None and held:
            interval = wilson(recall, held)
        rows.append(
            {
                "name": name,
                "recall": recall,
                "interval": interval,
                "test": held,
                "share": trained.get(name, 0) / max(sum(trained.values()), 1),
            }
        )
    if len(rows) > LISTED:
        rows = sorted(rows, key=lambda row: (row["recall"], row["name"]))[:LISTED]
    return {"rows": rows, "all": len(recalls)}


def _groups(run: Run) -> list[tuple[str, float]]:
    return _largest(run.metrics["test"].get("shares", {}))


def _folds(run: Run) -> dict[str, Any]:
    found = run.card["cross_validation"]
    drawn = all(0 <= value <= 1 for value in found["folds"])
    return {**found, "called": _called(found["metric"]), "drawn": drawn}


def _pictures(run: Run) -> list[dict[str, str]]:
    return [
        {
            "name": name.replace("_", " ").capitalize(),
            "caption": CAPTIONS.get(name, ""),
            "source": "data:image/png;base64," + base64.b64encode(run.pictures[name]).decode(),
        }
        for name in sorted(run.pictures, key=lambda name: (_position(name), name))
        # The same as the table, which has room for long names.
        if name != "importance"
    ]


def _position(name: str) -> int:
    return list(CAPTIONS).index(name) if name in CAPTIONS else len(CAPTIONS)


def _importance(run: Run) -> list[dict[str, Any]]:
    found = run.metrics.get("importance", {})
    highest = max((v["mean"] + v["std"] for v in found.values()), default=0.0)
    scale = highest if highest > 0 else 1.0
    return [
        {
            "name": name,
            "mean": value["mean"],
            "std": value["std"],
            "bar": round(100 * max(value["mean"], 0) / scale, 2),
            "from": round(100 * max(value["mean"] - value["std"], 0) / scale, 2),
            "to": round(100 * max(value["mean"] + value["std"], 0) / scale, 2),
            "clear": value["mean"] > 2 * value["std"] and value["mean"] > 0,
        }
        for name, value in found.items()
    ]


def _answers(run: Run) -> dict[str, Any]:
    """Show a few held-out rows with the columns that matter most."""
    ranked = list(run.metrics.get("importance", {})) or [c.name for c in run.contract.features]
    known = {column.name for column in run.contract.features}
    columns = [name for name in ranked if name in known][:4]
    rows = []
    for example in run.examples[:5]:
        answer = example["prediction"]
        probabilities = answer.get("probabilities") or {}
        rows.append(
            {
                "values": [example["row"].get(name) for name in columns],
                "truth": example["truth"],
                "answer": answer["prediction"],
                "certainty": max(probabilities.values()) if probabilities else None,
            }
        )
    return {"columns": columns, "rows": rows}


def _profiled(run: Run, column: Column) -> dict[str, Any]:
    found = run.reference["columns"].get(column.name, {})
    return {
        "name": column.name,
        "kind": column.kind,
        "missing": found.get("missing"),
        **_distribution(column.kind, found),
    }


def _target_profile(run: Run) -> dict[str, Any] | None:
    target = run.contract.target
    if target is None or not run.targets:
        return None
    if run.contract.classes:
        counts = run.targets["train"]
        rows = max(sum(counts.values()), 1)
        kind, found = "categorical", {"shares": {name: n / rows for name, n in counts.items()}}
    else:
        kind, found = "numeric", {"quantiles": run.targets["quantiles"]}
    described = {"name": target.name, "kind": kind, "missing": run.missing.get(target.name)}
    return described | _distribution(kind, found)


def _distribution(kind: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a column's values by bars or by its most frequent categories."""
    drawn: dict[str, Any] = {"top": [], "rest": 0, "rest_share": 0.0, "histogram": None}
    if shares := profile.get("shares"):
        ranked = _largest(shares)
        shown = ranked if len(ranked) <= TOP + 1 else ranked[:TOP]
        rest = ranked[len(shown) :]
        return drawn | {
            "top": shown,
            "rest": len(rest),
            "rest_share": sum(share for _, share in rest),
        }
    quantiles = profile.get("quantiles")
    if not quantiles:
        return drawn
    middle = quantiles[len(quantiles) // 2]
    shape = histogram(quantiles, whole=kind == "integer")
    as_text = _moment if kind == "datetime" else number
    return drawn | {
        "histogram": shape,
        "shown": (as_text(shape["low"]), as_text(shape["high"])),
        "range": (as_text(quantiles[0]), as_text(quantiles[-1])),
        "middle": as_text(middle),
    }


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    at_midnight = (moment.hour, moment.minute, moment.second) == (0, 0, 0)
    return moment.strftime("%Y-%m-%d" if at_midnight else "%Y-%m-%d %H:%M")


def _allowed(column: Column) -> str:
    """Say what the contract lets pass without a warning."""
    if column.kind in ("numeric", "integer"):
        low, high = allowed_range(column)
        return (
            f"{number(column.minimum)} to {number(column.maximum)}; "
            f"a warning below {number(low)} or above {number(high)}"
        )
    if column.kind == "datetime":
        span = (str(end).replace("T00:00:00", "") for end in (column.minimum, column.maximum))
        written = f"; also written as {column.format}" if column.format else ""
        return f"seen: {' to '.join(span)}{written}"
    return ""


def _comparison(run: Run) -> dict[str, Any] | None:
    if run.decision is None:
        return None
    reason = str(run.decision["reason"]).removeprefix("refused: ")
    return {**run.decision, "reason": reason}


def _trials(run: Run) -> dict[str, Any]:
    """Summarise a search: how many trials ended how, and the ten best."""
    states = Counter(trial["state"] for trial in run.trials)
    complete = [trial for trial in run.trials if trial["state"] == "complete"]
    best = sorted(complete, key=lambda trial: -trial["value"])[:10]
    return {"count": len(run.trials), "states": sorted(states.items()), "best": best}


def _tracked(run: Run) -> dict[str, Any] | None:
    """Name run and model version, and link them where the tracking store has pages."""
    if run.tracked is None:
        return None
    found = dict(run.tracked)
    uri = urlsplit(str(found.get("tracking_uri", "")))
    name, version = found.get("model"), found.get("model_version")
    links: dict[str, str | None] = {"run": None, "model": None}
    if uri.scheme in ("http", "https"):
        # Without the user and password that the address may carry.
        host = uri.netloc.rpartition("@")[2]
        base = urlunsplit((uri.scheme, host, uri.path.rstrip("/"), "", ""))
        if identity := found.get("run_id"):
            links["run"] = f"{base}/#/runs/{quote(identity)}"
        if name and version:
            links["model"] = f"{base}/#/models/{quote(str(name))}/versions/{version}"
    return {"run_id": found.get("run_id"), "model": name, "version": version, "links": links}


def _called(metric: str) -> str:
    return MEANINGS[metric][0] if metric in MEANINGS else metric.replace("_", " ").capitalize()


def _largest(shares: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: -item[1])


def _named(names: Sequence[str]) -> str:
    return _listed([_quoted(name) for name in names])


def _quoted(name: str) -> str:
    return f"“{name if len(name) <= NAME else name[: NAME - 1] + '…'}”"


def _listed(texts: Sequence[str], most: int = 6) -> str:
    shown = list(texts[:most])
    if len(texts) > most:
        shown.append(f"{len(texts) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _count(items: Any, noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _targets(agreed: Contract) -> dict[str, Any]:
    """Count the classes of training and test rows; quantiles of a numeric target."""
    if agreed.target is None:
        return {}
    import numpy as np

    codes = {}
    for part, path in (("train", TRAIN), ("test", TEST)):
        found = encode_target(agreed, read_table(path, "prepare", [agreed.target.name]))
        codes[part] = found[~np.isnan(found)]
    if not agreed.classes:
        return {"quantiles": np.quantile(codes["train"], np.linspace(0, 1, 21)).tolist()}
    return {
        part: dict(
            zip(
                agreed.class_names,
                np.bincount(found.astype(int), minlength=len(agreed.classes)).tolist(),
                strict=True,
            )
        )
        for part, found in codes.items()
    }


def missing_shares(path: Path) -> dict[str, float]:
    """Read the missing share of every column from a Parquet file's footer, not from its rows.

    Returns
    -------
    dict
        Without columns of which the footer does not tell; empty where there is no file.
    """
    if not path.is_file():
        return {}
    from pyarrow.parquet import read_metadata

    footer = read_metadata(path)
    counts: dict[str, int] = {}
    unknown = set()
    for i in range(footer.num_row_groups):
        group = footer.row_group(i)
        for j in range(group.num_columns):
            chunk = group.column(j)
            name, facts = chunk.path_in_schema, chunk.statistics
            if facts is None or not facts.has_null_count:
                unknown.add(name)
                continue
            counts[name] = counts.get(name, 0) + facts.null_count
    return {
        name: nulls / max(footer.num_rows, 1)
        for name, nulls in counts.items()
        if name not in unknown
    }
