"""The monitor: looks at the events that came since it looked last, and says how things stand."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .. import bundle, checks, contract, reference
from ..checks import CHECKED, Finding, Look, Model, Status, Window
from ..contract import Contract
from ..reference import LOSS, Sample
from ..serving import source
from ..settings import Monitoring, Settings
from ..store import Store, opened
from . import drift, performance, windows
from .windows import Place

# More windows than these are not looked at one by one after a long pause: the newest are.
MOST_WINDOWS = 100
# Of a history, from which streaks are told.
REMEMBERED = 1000
SLICES = 5


@dataclass(frozen=True)
class Outcome:
    """How things stand with the model that is served.

    Attributes
    ----------
    model : Model
    status : str
        As a `Look` has it.
    drift, performance : Window
        The last verdicts, brought up to date by what the look found besides.
    fresh : int
        Windows that were checked now.
    overtaken : bool
        Whether another monitor was at work, and this one left it alone.
    """

    model: Model
    status: Status
    drift: Window
    performance: Window
    fresh: int = 0
    overtaken: bool = False

    @property
    def streaks(self) -> list[dict[str, Any]]:
        """Return the drift that is confirmed: column, checks in a row, since when."""
        return list(self.drift.detail.get("confirmed", ()))


@dataclass(frozen=True)
class Subject:
    """What is monitored: the model that is served and what it was trained on."""

    model: Model
    contract: Contract
    samples: tuple[Sample, ...]
    card: dict[str, Any]
    folder: Path

    def sample(self, name: str) -> Sample | None:
        """Return a sample by its name."""
        return next((each for each in self.samples if each.name == name), None)


def subject(settings: Settings) -> Subject:
    """Read what is monitored from the bundle that is served.

    Raises
    ------
    BundleError
        Where there is none, or it holds no reference.
    RegistryError
        Where the registry does not answer.
    """
    served = source.of(settings)
    folder = served.fetch(served.fingerprint())
    card = bundle.verify(folder)
    agreed = contract.read(folder / bundle.CONTRACT)
    model = Model(card["name"], card["version"])
    return Subject(model, agreed, reference.read(folder, agreed), card, folder)


def monitor(
    settings: Settings, now: float | None = None, progress: Callable[[Window], None] | None = None
) -> Outcome:
    """Check the windows of events, and of truths, that are complete by now.

    Parameters
    ----------
    settings : Settings
    now : float or None
        Seconds since 1970; None for the present.
    progress : callable or None
        Is told each window that was checked.

    Returns
    -------
    Outcome

    Raises
    ------
    StoreError
        Where the store cannot be used.
    BundleError, RegistryError
        Where what is served cannot be read.
    """
    watched = subject(settings)
    moment = time.time() if now is None else now
    with opened(settings.events.store) as store:
        drifted = _Drift(store, watched, settings.monitoring, moment)
        fresh, overtaken = drifted.run(progress or (lambda window: None))
        performed, since, more = _performance(store, watched, settings.monitoring)
        status = _status(drifted.verdict, performed)
        look = Look(watched.model, status, _told(drifted.look), _told(since))
        if not overtaken:
            checks.looked(store, look)
        with store.reading() as connection:
            return _outcome(connection, look, fresh + more, overtaken)


def current(settings: Settings) -> Outcome | None:
    """Return how things stood when a monitor looked last; None where none ever did."""
    with opened(settings.events.store) as store, store.reading() as connection:
        look = checks.last_look(connection)
        return _outcome(connection, look) if look else None


def _outcome(
    connection: sa.Connection, look: Look, fresh: int = 0, overtaken: bool = False
) -> Outcome:
    drifted, performed = (checks.verdict(connection, look, kind) for kind in checks.KINDS)
    return Outcome(look.model, look.status, drifted, performed, fresh, overtaken)


def _told(window: Window) -> dict[str, Any]:
    return {"state": window.state, "detail": {} if window.state == CHECKED else window.detail}


def explain(outcome: Outcome) -> str:
    """Say how things stand, in one line and one more for each confirmed finding."""
    drifted, performed = outcome.drift, outcome.performance
    told = [f"{outcome.status}, version {outcome.model.version}: events {_state(drifted)}"]
    told.append(f"truths {_state(performed)}")
    lines = ["; ".join(told)]
    since = {streak["column"]: streak["since"] for streak in outcome.streaks}
    for finding in (*drifted.findings, *performed.findings):
        if finding.alarm:
            counted = finding.column in since or (finding.kind == "loss" and performed.confirmed)
            state = "confirmed" if counted else "not confirmed yet"
            lines.append(f"  {finding.column}: {finding.change} by {finding.score:.3g}, {state}")
    return "\n".join(lines)


def _state(window: Window) -> str:
    waiting = window.detail.get("waiting", window.detail.get("labelled", 0))
    needed = window.detail.get("needed")
    if window.state == CHECKED:
        return f"checked ({window.events:,})"
    return f"{window.state} ({waiting:,} of {needed:,})" if needed else window.state


class _Drift:
    """The windows of events, from the place where they were left."""

    def __init__(self, store: Store, watched: Subject, settings: Monitoring, now: float) -> None:
        self.store, self.watched, self.settings, self.now = store, watched, settings, now
        self.samples = [each for each in watched.samples if each.name != LOSS]
        self.size = drift.window_size(self.samples, settings)
        self.step = drift.step_size(self.samples, settings)
        with store.reading() as connection:
            known = checks.read(connection, watched.model, "drift", REMEMBERED, findings=False)
        self.known = known
        self.look = Window(watched.model, "drift", "no events")

    @property
    def verdict(self) -> Window:
        """The last window that was checked; the last look where none ever was."""
        return self.known[-1] if self.known else self.look

    def run(self, progress: Callable[[Window], None]) -> tuple[int, bool]:
        """Check all that is complete; return how many windows, and whether another was faster."""
        fresh = 0
        while True:
            with self.store.reading() as connection:
                self.look = self._next(connection)
            if self.look.state != CHECKED:
                return fresh, False
            after = self.known[-1].id if self.known else None
            written = checks.write(self.store, self.look, after)
            if written is None:
                return fresh, True
            self.known.append(written)
            fresh += 1
            progress(written)

    def _next(self, connection: sa.Connection) -> Window:
        """Look at the next window, or say why there is none yet."""
        model, until = self.watched.model, self.now - self.settings.settle_seconds
        before = self.known[-1] if self.known else None
        after = _place(before)
        waiting = windows.count(connection, model, after, until)
        detail: dict[str, Any] = {"waiting": waiting}
        if ahead := windows.future(connection, model, self.now):
            detail["future"] = ahead
        if before and (late := self._late(connection, before)):
            detail["late"] = late
        if self.size < drift.LEAST_ROWS:
            return Window(model, "drift", "reference too small", waiting, detail=detail)
        if (skipped := waiting - MOST_WINDOWS * self.step) > 0 and before:
            after = windows.place(connection, model, after, skipped, until)
            detail["skipped"] = skipped
        place = windows.place(connection, model, after, self.step if before else self.size, until)
        if place is None:
            return self._incomplete(connection, waiting, detail)
        events = windows.read(connection, model, place, self.size)
        if len(events) < self.size:
            # Older ones were deleted meanwhile.
            missing = self.size - len(events)
            place = windows.place(connection, model, place, missing, until)
            if place is None:
                return self._incomplete(connection, waiting, detail)
            events = windows.read(connection, model, place, self.size)
        return self._checked(events, place, detail)

    def _checked(self, events: windows.Events, place: Place, detail: dict[str, Any]) -> Window:
        columns, new = windows.columns(events, self.watched.contract, self.samples)
        found = drift.check(self.samples, columns, self.settings, events.entities)
        untested = dict(found.untested) | dict.fromkeys(new, "new since the reference")
        history = [(each.last or 0.0, each.detail.get("drifted", ())) for each in self.known]
        history.append((place.ts, found.drifted))
        counted = drift.confirmed(history, self.settings)
        named = [(each, "confirmed") for each in counted]
        detail |= {
            "drifted": list(found.drifted),
            "confirmed": [vars(streak) for streak, _ in named],
            "untested": untested,
            "tests": found.tests,
            "estimated": performance.estimated(self.watched.contract, events),
        }
        return Window(
            self.watched.model,
            "drift",
            found.state,
            found.events,
            found.rows,
            float(events.moments[0]),
            place.ts,
            place.id,
            found.alarm,
            bool(counted),
            found.findings,
            detail,
        )

    def _incomplete(
        self, connection: sa.Connection, waiting: int, detail: dict[str, Any]
    ) -> Window:
        """Say that events are missing; name the model that others are of."""
        model = self.watched.model
        newest = windows.newest(connection)
        if newest and newest != model:
            detail["other"] = vars(newest)
        needed = self.step if self.known else self.size
        detail["needed"] = needed
        state = "window not full" if waiting or self.known else "no events"
        return Window(model, "drift", state, waiting, detail=detail)

    def _late(self, connection: sa.Connection, before: Window) -> int:
        """Return how many events of the last window came after it was checked."""
        if before.first is None:
            return 0
        place = _place(before)
        since = Place(before.first, "")
        held = windows.count(connection, before.model, since, before.last or 0.0)
        beyond = windows.count(connection, before.model, place, before.last or 0.0)
        return max(0, held - beyond - before.events)


def _performance(
    store: Store, watched: Subject, settings: Monitoring
) -> tuple[Window, Window, int]:
    """Check the newest labelled events, once enough truths came since the last check.

    Returns
    -------
    verdict, look : Window
        The last window that was checked, and what this look found.
    fresh : int
        Windows that were checked now.
    """
    with store.reading() as connection:
        before = checks.read(connection, watched.model, "performance", REMEMBERED, findings=False)
        since = float(before[-1].detail.get("received", 0.0)) if before else 0.0
        fresh, last = windows.received(connection, watched.model, since)
        if before and fresh < (needed := min(settings.step, settings.labels)):
            detail = {"waiting": fresh, "needed": needed}
            state = "too few truths since"
            return before[-1], Window(watched.model, "performance", state, detail=detail), 0
        events = windows.labelled(connection, watched.model, settings.window)
    losses = performance.losses(watched.contract, events)
    found = performance.check(watched.sample(LOSS), losses, events.entities, settings)
    window = _labelled(watched, events, losses, found, before, last, settings)
    if window.state != CHECKED:
        return (before[-1] if before else window), window, 0
    written = checks.write(store, window, before[-1].id if before else None)
    # Another monitor looked at the same truths meanwhile.
    if written is None:
        return (before[-1] if before else window), window, 0
    return written, written, 1


def _labelled(
    watched: Subject,
    events: windows.Events,
    losses: Any,
    found: performance.Check,
    before: Sequence[Window],
    received: float,
    settings: Monitoring,
) -> Window:
    findings: tuple[Finding, ...] = (found.finding,) if found.finding else ()
    alarm = any(finding.alarm for finding in findings)
    detail: dict[str, Any] = {"labelled": found.labelled, "needed": settings.labels}
    if found.state == CHECKED:
        measured, intervals = performance.metrics(watched.contract, events)
        detail |= {
            "received": received,
            "loss": found.loss,
            "reference": found.reference,
            "metrics": measured,
            "intervals": intervals,
            "trained": watched.card["metrics"],
            "slices": performance.slices(watched.contract, events, losses, drift.LEAST_ROWS)[
                :SLICES
            ],
        }
    confirmed = alarm and checks.alarms(before) + 1 >= settings.confirmations
    return Window(
        watched.model,
        "performance",
        found.state,
        len(events),
        found.labelled,
        float(events.moments[0]) if len(events) else None,
        events.last.ts if events.last else None,
        events.last.id if events.last else None,
        alarm,
        confirmed,
        findings,
        detail,
    )


def _place(window: Window | None) -> Place | None:
    if window is None or window.last is None or window.last_id is None:
        return None
    return Place(window.last, window.last_id)


def _status(drifted: Window, performed: Window) -> Status:
    if performed.confirmed:
        return "degraded"
    if drifted.confirmed:
        return "drift"
    if drifted.alarm or performed.alarm:
        return "suspected"
    both = (drifted, performed)
    return "steady" if any(window.state == CHECKED for window in both) else "waiting"
