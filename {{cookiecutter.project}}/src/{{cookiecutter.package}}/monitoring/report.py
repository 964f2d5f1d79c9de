"""The monitor's report: a page for people, Markdown for an issue, JSON for workflows."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..artifacts import REPORTS, replacing, write_json
from ..checks import CHECKED, Finding, Window
from ..encoding import UNSEEN, Matrix
from ..markup import code, table, text
from ..reference import PREDICTION, SCORE, Sample
from ..report import page
from ..settings import Monitoring, Settings
from ..wording import MEANINGS, called, percent, score
from . import performance, sentences
from .account import Account
from .sentences import Change

PAGE, MARKDOWN, FACTS = (REPORTS / f"monitoring.{kind}" for kind in ("html", "md", "json"))
BINS = 24
# What is drawn of a column with many categories, of a table with many columns.
CATEGORIES = 8
COLUMNS = 200
DRAWN = 12
CELLS = 8
PSEUDO = {PREDICTION: "prediction", SCORE: "score"}


def write(account: Account, settings: Settings) -> None:
    """Write reports/monitoring.html, .md and .json."""
    told = facts(account)
    for path, content in (
        (PAGE, build(account, settings, told)),
        (MARKDOWN, markdown(account, settings.monitoring, told)),
    ):
        with replacing(path) as partial:
            partial.write_text(content, encoding="utf-8", newline="\n")
    write_json(told, FACTS)


def facts(account: Account) -> dict[str, Any]:
    """Return what a program wants to know.

    Returns
    -------
    dict
        ``status`` (`monitor.Status`, or ``failed``), ``headline``, ``error``, ``looked``,
        ``model``, ``version``, ``notes``; under ``drift`` and ``performance`` the last window:
        ``window`` (its id in the store), ``state``, ``first``, ``last``, ``confirmed``; of drift
        ``drifted``, ``streaks``, ``untested``; of performance ``loss``, ``reference``, ``excess``.
    """
    outcome = account.outcome
    told: dict[str, Any] = {
        "status": account.status,
        "headline": sentences.headline(account),
        "error": account.error or None,
        "looked": _iso(account.now),
        "model": outcome.model.name if outcome else None,
        "version": outcome.model.version if outcome else None,
        "drift": None,
        "performance": None,
        "notes": list(sentences.notes(account)),
    }
    if outcome is None:
        return told
    detail = outcome.drift.detail
    told["drift"] = _window(outcome.drift) | {
        "drifted": list(detail.get("drifted", ())),
        "streaks": [each | {"since": _iso(each["since"])} for each in outcome.streaks],
        "untested": dict(detail.get("untested", {})),
    }
    detail, found = outcome.performance.detail, outcome.performance.findings
    told["performance"] = _window(outcome.performance) | {
        "loss": detail.get("loss"),
        "reference": detail.get("reference"),
        "excess": [found[0].score, found[0].low] if found else None,
    }
    return told


def markdown(account: Account, settings: Monitoring, told: Mapping[str, Any]) -> str:
    """Tell the same in Markdown, without any row: an issue may be public."""
    parts = [f"**{_quiet(told['headline'])}.**", sentences.NEXT[account.status]]
    if found := sentences.changes(account):
        lines = [
            [
                code(each.finding.column),
                _quiet(each.title),
                _quiet(each.amount),
                text(_since(each, account.now)),
            ]
            for each in found
        ]
        parts.append(table(["Column", "What changed", "By how much", "Since"], lines))
    if metrics := _metrics(account):
        rows = [
            [
                text(each["called"]),
                score(each["value"], each["name"]),
                _interval(each),
                score(each["trained"], each["name"]),
            ]
            for each in metrics
        ]
        head = ["Metric", "Now", "95 % interval", "Held-out rows"]
        parts.append(table(head, rows))
    parts += [f"- {_quiet(note)}" for note in told["notes"]]
    version = f" of version {code(told['version'])}" if told["version"] else ""
    parts.append(
        f"Looked at {sentences.moment(account.now, account.now).removesuffix(' today')}, "
        f"{told['looked'][:10]}{version}. A check finds drift where there is none in "
        f"{percent(settings.alpha)} of cases; {settings.confirmations} in a row confirm it. "
        "The plots are in reports/monitoring.html."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def build(account: Account, settings: Settings, told: Mapping[str, Any]) -> str:
    """Render the page; it asks for nothing from elsewhere."""
    contract = account.watched.contract if account.watched else None
    found = sentences.changes(account)
    drawn = {each.finding.column for each in found}
    return page(
        "monitoring/report.html",
        account=account,
        told=told,
        looked=f"{datetime.fromtimestamp(account.now, UTC):%-d %B %Y, %H:%M} UTC",
        next=sentences.NEXT[account.status],
        detail=account.outcome.drift.detail if account.outcome else {},
        changes=_described(account, found),
        groups=_groups(account) if contract and contract.task == "clustering" else [],
        timelines=_timelines(account, settings.monitoring),
        span=_span(account),
        columns=_columns(account, settings.monitoring, drawn),
        metrics=_metrics(account),
        losses=_losses(account),
        slices=account.outcome.performance.detail.get("slices", []) if account.outcome else [],
        is_share=contract is None or contract.task != "regression",
        estimated=account.outcome.drift.detail.get("estimated") if account.outcome else None,
        examples=_examples(account, settings, found),
        mistakes=_mistakes(account, settings),
        settings=settings.monitoring,
    )


def drawing(sample: Sample, values: Matrix, spelled: Any) -> dict[str, Any]:
    """Describe the values of a window beside those of the reference.

    Returns
    -------
    dict
        Numbers: two ``paths`` over equal bins of an SVG of 100 by 40, and the ends of the axis.
        Categories: ``shares``, the name with both; the ``rest`` of many.
    """
    given, known = (each[~np.isnan(each)] for each in (values, sample.values))
    if sample.categories is not None:
        return _shares(sample.categories, given, known)
    if not len(known) or not len(given):
        return {}
    both = np.concatenate([given, known])
    low, high = float(both.min()), float(both.max())
    ends = [np.quantile(each, (0.01, 0.99)) for each in (given, known)]
    near, far = float(min(end[0] for end in ends)), float(max(end[1] for end in ends))
    # A few that lie far out would push all others into one bin.
    tails = far > near and high - low > 1.5 * (far - near)
    if tails:
        low, high = near, far
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = [
        np.histogram(each, bins=BINS, range=(low, high))[0] / len(each) for each in (known, given)
    ]
    highest = max(float(each.max()) for each in counts) or 1.0
    return {
        "paths": [_path(each / highest) for each in counts],
        "low": spelled(low),
        "high": spelled(high),
        "tails": tails,
    }


def _path(heights: Matrix) -> str:
    """Draw steps from left to right over an SVG of 100 by 40."""
    width = 100 / len(heights)
    steps = (
        f"V{40 - 38 * height:.2f}H{(i + 1) * width:.2f}".replace(".00", "")
        for i, height in enumerate(heights)
    )
    return f"M0 40{''.join(steps)}V40"


def _shares(categories: Sequence[str], given: Matrix, known: Matrix) -> dict[str, Any]:
    names, last = [*categories, "unknown in training"], len(categories)
    counts = [
        np.bincount(np.where(each == UNSEEN, last, each).astype(int), minlength=last + 1)
        / max(len(each), 1)
        for each in (known, given)
    ]
    ranked = sorted(range(len(names)), key=lambda i: -max(counts[0][i], counts[1][i]))
    ranked = [i for i in ranked if counts[0][i] or counts[1][i]]
    shown, rest = ranked[:CATEGORIES], ranked[CATEGORIES:]
    return {
        "shares": [(names[i], float(counts[0][i]), float(counts[1][i])) for i in shown],
        "rest": (len(rest), *(float(each[rest].sum()) for each in counts)) if rest else None,
    }


def _described(account: Account, found: Sequence[Change]) -> list[dict[str, Any]]:
    """Draw each column that changed once, with all that changed in it."""
    compared = sentences.columns(account)
    described: dict[str, dict[str, Any]] = {}
    for each in found:
        column = each.finding.column
        if column not in described and len(described) < DRAWN:
            pair = compared.get(column)
            described[column] = {
                "column": PSEUDO.get(column, column),
                "changes": [],
                "drawing": _drawn(account, found, column, pair),
            }
        if column in described:
            described[column]["changes"].append(
                {
                    "title": each.title[:1].upper() + each.title[1:]
                    if column in PSEUDO
                    else each.title,
                    "amount": each.amount,
                    "since": _since(each, account.now),
                    "confirmed": each.confirmed,
                    "score": each.finding.score,
                }
            )
    return list(described.values())


def _drawn(
    account: Account,
    found: Sequence[Change],
    column: str,
    pair: tuple[Sample, Matrix] | None,
) -> dict[str, Any]:
    if pair is None:
        return {}
    sample, values = pair
    if all(each.finding.kind == "missing" for each in found if each.finding.column == column):
        shares = [float(np.isnan(each).mean()) for each in (sample.values, values)]
        return {"shares": [("missing", *shares)], "rest": None}
    return drawing(sample, values, sentences.spelled(account, column))


def _groups(account: Account) -> list[dict[str, Any]]:
    """Draw the clusters, which have no truth to be compared with."""
    compared = sentences.columns(account)
    titles = {
        SCORE: sentences.about_groups(account),
        PREDICTION: "How many rows fall into each group",
    }
    return [
        {
            "title": title,
            "column": PSEUDO[name],
            "drawing": drawing(*compared[name], sentences.spelled(account, name)),
        }
        for name, title in titles.items()
        if name in compared
    ]


def _timelines(account: Account, settings: Monitoring) -> list[dict[str, Any]]:
    """Draw the scores of the last checks: of what had an alarm, and of the largest others."""
    checked = account.drifts
    series: dict[tuple[str, str], list[Finding | None]] = {}
    for i, window in enumerate(checked):
        for finding in window.findings:
            key = (finding.column, finding.kind)
            series.setdefault(key, [None] * len(checked))[i] = finding
    least = {"shape": settings.least_shape}
    described = [
        _timeline(column, kind, found, least.get(kind, settings.least_share))
        for (column, kind), found in series.items()
    ]
    described.sort(key=lambda each: (-each["alarms"], -each["highest"] / each["least"]))
    alarmed = sum(each["alarms"] > 0 for each in described)
    return described[: max(5, min(alarmed, DRAWN))]


def _timeline(
    column: str, kind: str, found: Sequence[Finding | None], least: float
) -> dict[str, Any]:
    highest = max((each.score for each in found if each), default=0.0)
    last = found[-1]
    return {
        "name": PSEUDO.get(column, column),
        "kind": {"shape": "values", "missing": "missing share", "unseen": "unknown share"}[kind],
        "alarms": sum(each is not None and each.alarm for each in found),
        "highest": highest,
        "least": least or 1e-9,
        "last": last.score if last else None,
        **_bars([(each.score, each.alarm) if each else None for each in found], least),
    }


def _bars(found: Sequence[tuple[float, bool] | None], line: float) -> dict[str, Any]:
    """Lay out a bar a check in an SVG of 100 by 24, with a line across."""
    top = max([2 * line, *(each[0] for each in found if each)]) or 1.0
    width = 100 / max(len(found), 10)
    return {
        "bars": [
            {
                "x": round(i * width, 2),
                "width": round(0.8 * width, 2),
                "height": round(max(22 * value[0] / top, 0.6), 2),
                "alarm": value[1],
            }
            for i, value in enumerate(found)
            if value
        ],
        "line": round(24 - 22 * line / top, 2),
        "checks": len(found),
    }


def _span(account: Account) -> tuple[str, str] | None:
    """Return when the first and the last check of the timelines looked."""
    moments = [each.last for each in account.drifts if each.last]
    if not moments:
        return None
    return (
        sentences.moment(moments[0], account.now),
        sentences.moment(moments[-1], account.now),
    )


def _columns(account: Account, settings: Monitoring, drawn: set[str]) -> list[dict[str, Any]]:
    """Describe every column that was looked at in the last window."""
    if account.outcome is None or account.watched is None:
        return []
    window, compared = account.outcome.drift, sentences.columns(account)
    if window.state != CHECKED:
        return []
    by_column: dict[str, list[Finding]] = {}
    for finding in window.findings:
        by_column.setdefault(finding.column, []).append(finding)
    untested = window.detail.get("untested", {})
    names = [each.name for each in account.watched.contract.features] + [PREDICTION, SCORE]
    names += [each for each in untested if each not in names]
    confirmed = {each["column"] for each in account.outcome.streaks}
    described: list[dict[str, Any]] = []
    for name in names[:COLUMNS]:
        found = by_column.get(name, [])
        if not found and name not in untested and name not in settings.ignore:
            continue
        worst = min(found, key=lambda each: (not each.alarm, each.p), default=None)
        verdict = "as in training"
        if any(each.alarm for each in found):
            verdict = "changed" if name in confirmed else "changed in one check"
        elif name in settings.ignore:
            verdict = "ignored by the settings"
        elif name in untested:
            verdict = ("tested in part: " if found else "not tested: ") + untested[name]
        pair = compared.get(name) if name not in drawn and len(described) < 40 else None
        described.append(
            {
                "name": PSEUDO.get(name, name),
                "verdict": verdict,
                "alarm": any(each.alarm for each in found),
                "score": worst.score if worst else None,
                "p": worst.p if worst else None,
                "drawing": drawing(*pair, sentences.spelled(account, name)) if pair else {},
            }
        )
    return described


def _metrics(account: Account) -> list[dict[str, Any]]:
    """Describe the metrics of the labelled events beside those of the held-out rows."""
    detail = account.outcome.performance.detail if account.outcome else {}
    measured, trained = detail.get("metrics", {}), detail.get("trained", {})
    described = []
    for name, value in measured.items():
        if not isinstance(value, int | float):
            continue
        interval = detail.get("intervals", {}).get(name)
        before = trained.get(name)
        shown = [each for each in (value, before, *(interval or ())) if each is not None]
        described.append(
            {
                "name": name,
                "called": called(name),
                "meaning": MEANINGS.get(name, ("", False, ""))[2],
                "value": value,
                "interval": interval,
                "trained": before,
                "drawn": name != "log_loss" and all(0 <= each <= 1 for each in shown),
            }
        )
    return described


def _losses(account: Account) -> dict[str, Any]:
    """Draw the mean losses of the last checks, and say what the test found."""
    checked = account.performances
    if not checked or account.outcome is None:
        return {}
    reference = float(checked[-1].detail["reference"])
    finding = checked[-1].findings[0]
    return {
        "loss": checked[-1].detail["loss"],
        "reference": reference,
        "excess": finding.score,
        "low": finding.low,
        "p": finding.p,
        "alarm": finding.alarm,
        "rows": checked[-1].rows,
        **_bars([(float(each.detail["loss"]), each.alarm) for each in checked], reference),
    }


def _examples(account: Account, settings: Settings, found: Sequence[Change]) -> dict[str, Any]:
    """Choose rows that show what changed most."""
    most, first = settings.monitoring.examples, next(iter(found), None)
    if account.events is None or first is None or not most:
        return {}
    name, change = first.finding.column, first.finding.change
    sample, values = sentences.columns(account).get(name, (None, None))
    if sample is None or values is None:
        return {}
    missing = np.isnan(values)
    rank = np.where(missing, -np.inf, values)
    if first.finding.kind == "missing":
        rank = missing.astype(float)
    elif first.finding.kind == "unseen":
        rank = (values == UNSEEN).astype(float)
    elif sample.categories is not None:
        what = change.partition(" ")[2]
        rank = (values == _code(sample.categories, what)).astype(float)
    elif change == "lower":
        rank = np.where(missing, -np.inf, -values)
    elif change == "wider":
        rank = np.where(missing, -np.inf, np.abs(values - np.nanmedian(sample.values)))
    chosen = np.argsort(-rank, kind="stable")[:most]
    return _rows(
        account, settings, [int(i) for i in chosen], [each.finding.column for each in found]
    )


def _mistakes(account: Account, settings: Settings) -> dict[str, Any]:
    """Choose the rows in which the model is farthest from the truth."""
    outcome, labelled = account.outcome, account.labelled
    if not (outcome and outcome.performance.alarm and account.watched and labelled):
        return {}
    losses = performance.losses(account.watched.contract, labelled)
    chosen = [int(i) for i in np.argsort(-losses, kind="stable") if losses[i] > 0]
    chosen = chosen[: settings.monitoring.examples]
    return _rows(account, settings, chosen, [], mistakes=True) if chosen else {}


def _rows(
    account: Account,
    settings: Settings,
    chosen: Sequence[int],
    first: Sequence[str],
    mistakes: bool = False,
) -> dict[str, Any]:
    """Lay out some rows, with the columns that changed first; never whom they are about."""
    events = account.labelled if mistakes else account.events
    if events is None or account.watched is None:
        return {}
    known = [each.name for each in account.watched.contract.features]
    kept = [each for each in dict.fromkeys([*first, *known]) if each in known]
    kept = [each for each in kept if each != settings.events.entity][:CELLS]
    return {
        "columns": kept,
        "changed": [each in first for each in kept],
        "rows": [
            {
                "values": [events.rows[i].get(name) for name in kept],
                "answer": events.outputs[i].get("prediction"),
                "truth": events.labels[i] if mistakes else None,
            }
            for i in chosen
        ],
    }


def _quiet(value: str) -> str:
    """Write text that calls nobody, whatever it holds."""
    return text(value).replace("@", "@\N{ZERO WIDTH SPACE}")


def _code(categories: Sequence[str], name: str) -> float:
    return float(categories.index(name)) if name in categories else UNSEEN


def _window(window: Window) -> dict[str, Any]:
    return {
        "window": window.id,
        "state": window.state,
        "events": window.events,
        "first": _iso(window.first),
        "last": _iso(window.last),
        "alarm": window.alarm,
        "confirmed": window.confirmed,
    }


def _since(change: Change, now: float) -> str:
    if not change.confirmed or change.since is None:
        return "one check, not confirmed yet"
    return f"{sentences.moment(change.since, now)}, {change.checks} checks"


def _interval(metric: Mapping[str, Any]) -> str:
    if not metric["interval"]:
        return ""
    return " to ".join(score(end, metric["name"]) for end in metric["interval"])


def _iso(ts: float | None) -> str | None:
    return None if ts is None else f"{datetime.fromtimestamp(ts, UTC):%Y-%m-%dT%H:%M:%SZ}"
