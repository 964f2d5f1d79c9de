"""The monitor's report: a page for people, Markdown for an issue, JSON for workflows."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..artifacts import REPORTS, replacing, write_json
from ..checks import Window
from ..markup import code, table, text
from ..settings import Monitoring, Settings
from ..wording import percent, score
from . import sentences
from .account import Account
from .page import build, metrics, since

PAGE, MARKDOWN, FACTS = (REPORTS / f"monitoring.{kind}" for kind in ("html", "md", "json"))


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
        ``model``, ``version``, ``overtaken`` (another monitor was at work), ``notes``; under
        ``drift`` and ``performance`` the last window: ``window`` (its id in the store), ``state``,
        ``first``, ``last``, ``confirmed``; of drift ``drifted``, ``streaks``, ``untested``; of
        performance ``loss``, ``reference``, ``excess``.
    """
    outcome = account.outcome
    told: dict[str, Any] = {
        "status": account.status,
        "headline": sentences.headline(account),
        "error": account.error or None,
        "looked": _iso(account.now),
        "model": outcome.model.name if outcome else None,
        "version": outcome.model.version if outcome else None,
        "overtaken": bool(outcome and outcome.overtaken),
        **dict.fromkeys(("drift", "performance")),
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
                _quiet(sentences.capital(each.title)),
                _quiet(each.amount),
                text(since(each, account.now)),
            ]
            for each in found
        ]
        parts.append(table(["Column", "What changed", "By how much", "Since"], lines))
    if measured := metrics(account):
        rows = [
            [
                text(each["called"]),
                score(each["value"], each["name"]),
                _interval(each),
                score(each["trained"], each["name"]),
            ]
            for each in measured
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


def _quiet(value: str) -> str:
    """Write text that calls nobody, whatever it holds."""
    return text(value).replace("@", "@\N{ZERO WIDTH SPACE}")


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


def _interval(metric: Mapping[str, Any]) -> str:
    if not metric["interval"]:
        return ""
    return " to ".join(score(end, metric["name"]) for end in metric["interval"])


def _iso(ts: float | None) -> str | None:
    return None if ts is None else f"{datetime.fromtimestamp(ts, UTC):%Y-%m-%dT%H:%M:%SZ}"
