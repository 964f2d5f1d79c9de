"""The report: one page about a run, for a person who has never seen the project."""

import base64
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from .artifacts import REPORT, replacing
from .contract import Column, allowed_range
from .findings import FEW_ROWS, OVERLAPPING, findings
from .outcome import Outcome, collect
from .profile import distribution
from .settings import Settings
from .wording import MEANINGS, called, counted, largest, number, percent, quoted, score

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
LISTED = 20


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


def build(run: Outcome) -> str:
    """Render the page: it asks for nothing from elsewhere, and equal runs give equal bytes.

    Parameters
    ----------
    run : Outcome

    Returns
    -------
    str
        HTML.
    """
    headline, beside = _headline(run)
    return page(
        "report.html",
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
        allowed=allowed,
        comparison=_comparison(run),
        trials=_trials(run),
        tracked=_tracked(run),
    )


def page(template: str, **content: Any) -> str:
    """Render a page of this package."""
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "percent": percent, "score": score}
    return environment.get_template(template).render(content)


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927, JASA 22, p. 209)."""
    z = 1.959964
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _headline(run: Outcome) -> tuple[str, str]:
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
    named = f", {quoted(most)}" if most is not None else ""
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
        f"Sorts rows into {counted(shares, 'group')}",
        f"With a silhouette of {value:.2f}, {verdict}. There is no truth to compare with.",
    )


def _metrics(run: Outcome) -> list[dict[str, Any]]:
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
                "called": called(name),
                "meaning": MEANINGS.get(name, ("", False, ""))[2],
                "value": test[name],
                "baseline": base.get(name),
                "interval": interval,
                "primary": name == run.primary,
                "drawn": name != "log_loss" and all(0 <= x <= 1 for x in shown),
            }
        )
    return described


def _recalls(run: Outcome) -> dict[str, Any]:
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


def _groups(run: Outcome) -> list[tuple[str, float]]:
    return largest(run.metrics["test"].get("shares", {}))


def _folds(run: Outcome) -> dict[str, Any]:
    found = run.card["cross_validation"]
    drawn = all(0 <= value <= 1 for value in found["folds"])
    return {**found, "called": called(found["metric"]), "drawn": drawn}


def _pictures(run: Outcome) -> list[dict[str, str]]:
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


def _importance(run: Outcome) -> list[dict[str, Any]]:
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


def _answers(run: Outcome) -> dict[str, Any]:
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


def _profiled(run: Outcome, column: Column) -> dict[str, Any]:
    found = run.reference["columns"].get(column.name, {})
    return {
        "name": column.name,
        "kind": column.kind,
        "missing": found.get("missing"),
        **distribution(column.kind, found),
    }


def _target_profile(run: Outcome) -> dict[str, Any] | None:
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
    return described | distribution(kind, found)


def allowed(column: Column) -> str:
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


def _comparison(run: Outcome) -> dict[str, Any] | None:
    if run.decision is None:
        return None
    reason = str(run.decision["reason"]).removeprefix("refused: ")
    return {**run.decision, "reason": reason}


def _trials(run: Outcome) -> dict[str, Any]:
    """Summarise a search: how many trials ended how, and the ten best."""
    states = Counter(trial["state"] for trial in run.trials)
    complete = [trial for trial in run.trials if trial["state"] == "complete"]
    best = sorted(complete, key=lambda trial: -trial["value"])[:10]
    return {"count": len(run.trials), "states": sorted(states.items()), "best": best}


def _tracked(run: Outcome) -> dict[str, Any] | None:
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
