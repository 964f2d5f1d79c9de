"""The page: what a monitor found, laid out for people."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ..checks import CHECKED, Finding
from ..encoding import Matrix
from ..reference import PREDICTION, SCORE, Sample
from ..report import page
from ..settings import Monitoring, Settings
from ..wording import MEANINGS, called, listed, quoted
from . import performance, sentences
from .account import Account
from .pictures import bars, drawing
from .sentences import Change

# Of a table with many columns, what is described, drawn, and drawn over time.
COLUMNS = 200
DRAWN = 12
SMALL = 40
CELLS = 8
UNKNOWN = 3
PSEUDO = {PREDICTION: "prediction", SCORE: "score"}


def build(account: Account, settings: Settings, told: Mapping[str, Any]) -> str:
    """Render the page; it asks for nothing from elsewhere."""
    contract = account.watched.contract if account.watched else None
    outcome = account.outcome
    drifted = outcome.drift.detail if outcome else {}
    performed = outcome.performance.detail if outcome else {}
    found = sentences.changes(account)
    drawn = {each.finding.column for each in found}
    return page(
        "monitoring/report.html",
        account=account,
        told=told,
        looked=f"{datetime.fromtimestamp(account.now, UTC):%-d %B %Y, %H:%M} UTC",
        next=sentences.NEXT[account.status],
        detail=drifted,
        changes=_described(account, settings, found),
        groups=_groups(account) if contract and contract.task == "clustering" else [],
        timelines=_timelines(account, settings.monitoring),
        span=_span(account),
        columns=_columns(account, settings.monitoring, drawn),
        metrics=metrics(account),
        losses=_losses(account),
        slices=performed.get("slices", []),
        is_share=contract is None or contract.task != "regression",
        estimated=drifted.get("estimated"),
        examples=examples(account, settings, found),
        mistakes=_mistakes(account, settings),
        settings=settings.monitoring,
    )


def metrics(account: Account) -> list[dict[str, Any]]:
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


def since(change: Change, now: float) -> str:
    """Say since when a change is seen, and how often."""
    if not change.confirmed or change.since is None:
        return "one check, not confirmed yet"
    return f"{sentences.moment(change.since, now)}, {change.checks} checks"


def _described(
    account: Account, settings: Settings, found: Sequence[Change]
) -> list[dict[str, Any]]:
    """Draw each column that changed once, with all that changed in it."""
    compared = account.compared
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
                    "title": sentences.capital(each.title),
                    "amount": each.amount + _such(account, settings, each.finding),
                    "since": since(each, account.now),
                    "confirmed": each.confirmed,
                    "score": each.finding.score,
                }
            )
    return list(described.values())


def _such(account: Account, settings: Settings, finding: Finding) -> str:
    """Show values that training did not have, as examples are shown: what a client sent."""
    most = min(settings.monitoring.examples, UNKNOWN)
    if finding.kind != "unseen" or finding.column == settings.events.entity or not most:
        return ""
    found = [quoted(each) for each in sentences.unknown(account, finding.column, most)]
    return f", such as {listed(found)}" if found else ""


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
    compared = account.compared
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
        **bars([(each.score, each.alarm) if each else None for each in found], least),
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
    window, compared = account.outcome.drift, account.compared
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
        pair = compared.get(name) if name not in drawn and len(described) < SMALL else None
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
        **bars([(float(each.detail["loss"]), each.alarm) for each in checked], reference),
    }


def examples(account: Account, settings: Settings, found: Sequence[Change]) -> dict[str, Any]:
    """Show the rows that the monitor chose as they show the first change most."""
    if account.outcome is None or account.events is None or not found:
        return {}
    rows = account.events.rows
    wanted = account.outcome.drift.detail.get("examples", ())
    chosen = [rows.index(each) for each in wanted if each in rows][: settings.monitoring.examples]
    changed = [each.finding.column for each in found]
    return _rows(account, settings, chosen, changed) if chosen else {}


def _mistakes(account: Account, settings: Settings) -> dict[str, Any]:
    """Choose the rows in which the model is farthest from the truth."""
    outcome, labelled = account.outcome, account.labelled
    if not (outcome and outcome.performance.alarm and account.watched and labelled):
        return {}
    losses = performance.losses(account.watched.contract, labelled)
    losses = np.nan_to_num(losses)
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
