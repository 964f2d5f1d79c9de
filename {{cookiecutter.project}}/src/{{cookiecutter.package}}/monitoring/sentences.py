"""Sentences: what a monitor found, as a person says it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checks import CHECKED, Finding, Window
from ..encoding import UNSEEN, Matrix
from ..reference import PREDICTION, SCORE
from ..wording import listed, number, percent, quoted
from .account import Account

NAMED = {PREDICTION: "the prediction", SCORE: "the score"}
CHANGES = {
    "higher": "is higher",
    "lower": "is lower",
    "wider": "varies more",
    "narrower": "varies less",
    "another shape": "is spread in another way",
}
NEXT = {
    "waiting": "Nothing is to be done.",
    "steady": "Nothing is to be done.",
    "suspected": "The next check confirms it, or not: chance alone makes one check in a hundred "
    "an alarm.",
    "drift": "Is it the data, such as a unit that changed, or the world? docs/monitoring.md says "
    "what to do about either.",
    "degraded": "The model answers worse than it did: docs/monitoring.md says what to do.",
    "failed": "Until it can look again, nobody knows whether anything changed.",
}


@dataclass(frozen=True)
class Change:
    """One alarm in words.

    Attributes
    ----------
    finding : Finding
    title : str
        Such as ``mass is higher than in training``.
    amount : str
        By how much; empty where the events are gone.
    confirmed : bool
    checks : int
        For how many in a row.
    since : float or None
    """

    finding: Finding
    title: str
    amount: str
    confirmed: bool
    checks: int = 1
    since: float | None = None

    def __str__(self) -> str:
        return f"{self.title}: {self.amount}" if self.amount else self.title


def moment(ts: float, now: float) -> str:
    """Write a moment, short where it is of the same day."""
    then, today = datetime.fromtimestamp(ts, UTC), datetime.fromtimestamp(now, UTC)
    clock = f"{then:%H:%M} UTC"
    if then.date() == today.date():
        return f"{clock} today"
    year = "" if then.year == today.year else f" {then.year}"
    return f"{then.day} {then:%B}{year}, {clock}"


def headline(account: Account) -> str:
    """Say in one sentence how things stand."""
    outcome = account.outcome
    if outcome is None:
        return "The monitor could not look"
    if outcome.status == "degraded":
        return _errors(account)
    if outcome.status == "waiting":
        return _waiting(account)
    if outcome.status == "steady":
        return _steady(account)
    found = [each for each in changes(account) if each.confirmed or outcome.status == "suspected"]
    if not found:
        return _errors(account)
    first = found[0]
    others = len({each.finding.column for each in found} - {first.finding.column})
    more = f", and {others} more column{'s' if others > 1 else ''} changed," if others else ""
    if outcome.status == "suspected":
        return capital(f"{first.title}{more} in one check: not confirmed yet")
    since = f" since {moment(first.since, account.now)}" if first.since is not None else ""
    return capital(f"{first.title}{more}{since}; confirmed in {first.checks} checks")


def summary(account: Account) -> str:
    """Say what there is to know, in lines: how things stand, what changed, what is odd."""
    version = f", version {account.outcome.model.version}" if account.outcome else ""
    lines = [f"{account.status}{version}: {headline(account)}"]
    for each in changes(account):
        lines.append(f"  {each}{'' if each.confirmed else ' (not confirmed yet)'}")
    return "\n".join([*lines, *(f"  {each}" for each in notes(account))])


def changes(account: Account) -> list[Change]:
    """Return the alarms of drift, the confirmed ones first and of these the largest."""
    if account.outcome is None:
        return []
    streaks = {each["column"]: each for each in account.outcome.streaks}
    found = []
    for finding in account.outcome.drift.findings:
        if finding.alarm:
            streak = streaks.get(finding.column, {})
            found.append(
                Change(
                    finding,
                    title(account, finding),
                    amount(account, finding),
                    bool(streak),
                    int(streak.get("checks", 1)),
                    streak.get("since"),
                )
            )
    return sorted(found, key=lambda each: (not each.confirmed, each.finding.p, -each.finding.score))


def title(account: Account, finding: Finding) -> str:
    """Say what changed in a column."""
    column, change = finding.column, finding.change
    name = NAMED.get(column, column)
    compared = "than on the held-out rows" if column in NAMED else "than in training"
    way, _, what = change.partition(" ")
    if finding.kind == "missing":
        return f"{name} is missing {way} often {compared}"
    if finding.kind == "unseen":
        return (
            f"{name} has {'more' if way == 'more' else 'fewer'} values that training did not have"
        )
    if change in CHANGES and not _is_category(account, column):
        if column == SCORE:
            return _scored(account, change)
        return f"{name} {CHANGES[change]} {compared}"
    if what == "what is unseen":
        return f"{name} has {way} values that training did not have"
    if column == PREDICTION:
        return f"{quoted(what)} is predicted {way} often {compared}"
    return f"{name} is {quoted(what)} {way} often {compared}"


def amount(account: Account, finding: Finding) -> str:
    """Say by how much a column changed, in its own unit."""
    sample, values = account.compared.get(finding.column, (None, None))
    if sample is None or values is None or not values.size:
        return ""
    gone, known_gone = (np.isnan(each) for each in (values, sample.values))
    if finding.kind == "missing":
        return _before(percent(_share(gone)), percent(_share(known_gone)), "missing")
    given, known = values[~gone], sample.values[~known_gone]
    if finding.kind == "unseen":
        now, before = (percent(_share(each == UNSEEN)) for each in (given, known))
        return _before(now, before, "unknown")
    if sample.categories is not None:
        what = finding.change.partition(" ")[2]
        code = sample.categories.index(what) if what in sample.categories else UNSEEN
        now, before = (percent(_share(each == code)) for each in (given, known))
        return f"{now} of the rows; {before} before"
    shown = spelled(account, finding.column)
    if finding.change in ("higher", "lower"):
        now, before = (shown(float(np.median(each))) for each in (given, known))
        if now != before:
            return f"half of the values are above {now}; before, above {before}"
    elif finding.change in ("wider", "narrower"):
        now, before = (
            " to ".join(shown(float(end)) for end in np.quantile(each, (0.25, 0.75)))
            for each in (given, known)
        )
        if now != before:
            return f"the middle half is {now}; before, {before}"
    return apart(given, known, shown)


def apart(given: Matrix, known: Matrix, shown: Callable[[float], str]) -> str:
    """Say where both distribution functions are farthest apart."""
    places = np.unique(np.concatenate([given, known]))
    below = [np.searchsorted(np.sort(each), places, "right") / len(each) for each in (given, known)]
    worst = int(np.abs(below[0] - below[1]).argmax())
    now, before = (percent(round(float(each[worst]), 3)) for each in below)
    place, end = (shown(float(each)) for each in (places[worst], places[-1]))
    # A probability of nearly 1 is written as 1, and all are that or less.
    limit = f"below {place}" if place == end else f"{place} or less"
    return f"{now} of the values are {limit}; before, {before}"


def unknown(account: Account, column: str, most: int) -> list[str]:
    """Return values of a category that training did not have, the most frequent first."""
    if account.watched is None or account.events is None:
        return []
    known = {each.name: each.codes for each in account.watched.contract.features}
    counts: dict[str, int] = {}
    for row in account.events.rows:
        if (value := row.get(column)) is not None and value not in known.get(column, {}):
            counts[str(value)] = counts.get(str(value), 0) + 1
    return sorted(counts, key=lambda each: -counts[each])[:most]


def notes(account: Account) -> Iterator[str]:
    """Say everything else that a reader has to know to trust what is told."""
    outcome = account.outcome
    if outcome is None:
        yield f"{account.error}."
        return
    detail = outcome.drift.detail
    if outcome.overtaken:
        yield "Another monitor was at work at the same time, and this one left it alone."
    if other := detail.get("other"):
        yield (
            f"The newest predictions are of version {other['version']} of {other['name']}, and "
            f"what is watched is version {outcome.model.version}: check serving.source, or wait "
            "until the service has swapped."
        )
    if outcome.drift.state == "reference too small":
        yield (
            "The reference is too small for tests of drift: a window is a tenth of it and needs 30 "
            "rows. Train with 300 rows or more."
        )
    yield from _clocks(detail)
    if untested := detail.get("untested"):
        told = [f"{quoted(name)}: {why}" for name, why in untested.items()]
        yield f"Not tested, or only in part: {listed(told)}."
    yield from _truths(outcome.performance)
    rows, unknown = account.imported
    if unknown:
        yield (
            f"{unknown:,} of the {rows:,} truths imported last are of predictions that the store "
            "does not hold: their ids have to be those of the answers, and not be deleted yet."
        )


def spelled(account: Account, column: str) -> Callable[[float], str]:
    """Return the function that writes values of a column."""
    features = account.watched.contract.features if account.watched else ()
    kind = next((each.kind for each in features if each.name == column), "numeric")
    return _date if kind == "datetime" else number


def about_groups(account: Account) -> str:
    """Name what the score of a clustering tells."""
    estimator = account.watched.card.get("estimator") if account.watched else None
    if estimator == "k_means":
        return "Distance to the nearest centroid"
    return "How unusual rows are"


def _clocks(detail: Mapping[str, Any]) -> Iterator[str]:
    if future := detail.get("future"):
        yield (
            f"Clock skew: {future:,} predictions bear a time that has not come. They wait until it "
            "has; set the clock of the machine that serves."
        )
    if late := detail.get("late"):
        yield (
            f"{late:,} predictions came after their window was checked, and are in no check: raise "
            "monitoring.settle_seconds, or set the clock of the machine that lags behind."
        )
    if skipped := detail.get("skipped"):
        yield f"{skipped:,} older predictions were left out, as the monitor had paused for long."


def _truths(window: Window) -> Iterator[str]:
    labelled, needed = window.detail.get("waiting", 0), window.detail.get("needed", 0)
    if window.state == "no truths":
        yield (
            "No truths yet, so nobody knows how often it is right: send them to /feedback, or "
            "import them."
        )
    elif window.state == "too few truths":
        yield f"Too few truths for a verdict about errors: {labelled:,} of {needed:,}."
    elif window.state == "reference too small":
        yield "Too few rows were held out in training to compare errors with."


def _errors(account: Account) -> str:
    performed = account.outcome.performance if account.outcome else None
    if performed is None or "loss" not in performed.detail:
        return "The model errs more than on the held-out rows"
    loss, reference = performed.detail["loss"], performed.detail["reference"]
    state = "" if performed.confirmed else " in one check: not confirmed yet"
    if account.watched and account.watched.contract.task == "regression":
        more = percent(round(loss / reference - 1, 3)) if reference else "much"
        return f"Predictions are {more} farther off than on the held-out rows{state}"
    return (
        f"The model errs more than on the held-out rows: {percent(round(loss, 3))} of its answers "
        f"are wrong, {percent(round(reference, 3))} then{state}"
    )


def _waiting(account: Account) -> str:
    window = account.outcome.drift if account.outcome else None
    version = account.outcome.model.version if account.outcome else ""
    if window is None or window.state == "no events":
        return f"No predictions of version {version} yet"
    if window.state == "reference too small":
        return "Drift cannot be tested: the reference is too small"
    waiting, needed = window.detail.get("waiting", 0), window.detail.get("needed", 0)
    return f"Too few predictions of version {version} yet: {waiting:,} of {needed:,}"


def _steady(account: Account) -> str:
    drifted = account.outcome.drift if account.outcome else None
    performed = account.outcome.performance if account.outcome else None
    told = []
    if drifted and drifted.state == CHECKED:
        told.append(f"no drift in the last {drifted.events:,} predictions")
    if performed and performed.state == CHECKED:
        told.append(f"no more errors than on the held-out rows in {performed.rows:,} with a truth")
    return capital(" and ".join(told))


def _scored(account: Account, change: str) -> str:
    contract = account.watched.contract if account.watched else None
    if contract is not None and contract.classes:
        said = {"higher": "surer", "lower": "less sure"}
        if change in said:
            return f"the model is {said[change]} of its answers than on the held-out rows"
        return f"how sure the model is of its answers {CHANGES[change]} than on the held-out rows"
    said = {"higher": "lie farther from", "lower": "lie closer to"}
    if change in said:
        return f"rows {said[change]} what is usual than in training"
    return f"how far rows lie from what is usual {CHANGES[change]} than in training"


def _is_category(account: Account, column: str) -> bool:
    samples = account.watched.samples if account.watched else ()
    return any(each.name == column and each.categories is not None for each in samples)


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _before(now: str, before: str, what: str) -> str:
    return f"{now} of the rows are {what}; {before} before"


def _share(chosen: npt.NDArray[np.bool_]) -> float:
    return float(chosen.mean()) if len(chosen) else 0.0


def capital(text: str) -> str:
    """Begin a sentence with a capital letter, unless it begins with the name of a column."""
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first in ("the", "no", "rows", "how") else text
