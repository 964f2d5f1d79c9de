"""The monitor: looks at the events that came since it looked last, and says how things stand."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from .. import bundle, checks, contract, reference
from ..checks import CHECKED, Look, Model, Status, Window
from ..contract import Contract
from ..reference import LOSS, WINDOWS, Sample
from ..serving import source
from ..settings import Events, Monitoring, Settings
from ..store import Store, opened
from . import drift, performance, windows
from .windows import Place

# More windows than these are not looked at one by one after a long pause: the newest are.
MOST_WINDOWS = 100
# Of a history, from which streaks are told.
REMEMBERED = 1000
# Of the truths that came last, in windows: the newest events among them are looked at.
RECENT = 10
# Windows that are counted again, as events of a clock that lags come after they were checked.
RECOUNTED = 20
EXAMPLES = 5
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
    watched : Subject or None
        What was looked at; None where that is told by the store alone.
    """

    model: Model
    status: Status
    drift: Window
    performance: Window
    fresh: int = 0
    overtaken: bool = False
    watched: "Subject | None" = field(default=None, repr=False, compare=False)

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
        drifted = _Drift(store, watched, settings, moment)
        waiting, fresh, overtaken = drifted.run(progress or (lambda window: None))
        unlabelled, more, also = _performance(store, watched, settings)
        look = Look(watched.model, "waiting", _told(waiting), _told(unlabelled))
        with store.reading() as connection:
            found = _outcome(connection, look, fresh + more, overtaken or also)
        if not found.overtaken:
            checks.looked(store, replace(look, status=found.status))
    return replace(found, watched=watched)


def current(settings: Settings) -> Outcome | None:
    """Return how things stood when a monitor looked last; None where none ever did."""
    with opened(settings.events.store) as store, store.reading() as connection:
        look = checks.last_look(connection)
        return _outcome(connection, look) if look else None


def _outcome(
    connection: sa.Connection, look: Look, fresh: int = 0, overtaken: bool = False
) -> Outcome:
    drifted, performed = checks.verdicts(connection, look)
    # The store names examples alone, so that what is erased there is erased here as well.
    rows = windows.rows(connection, drifted.detail.get("examples", ()))
    drifted = replace(drifted, detail={**drifted.detail, "examples": rows})
    status = _status(drifted, performed)
    return Outcome(look.model, status, drifted, performed, fresh, overtaken)


def _told(window: Window) -> dict[str, Any]:
    """Return what a look found besides windows that were checked."""
    return {"state": window.state, "detail": {} if window.state == CHECKED else window.detail}


class _Drift:
    """The windows of events, from the place where they were left."""

    def __init__(self, store: Store, watched: Subject, settings: Settings, now: float) -> None:
        self.store, self.watched, self.settings = store, watched, settings.monitoring
        self.kept = kept(settings.events, watched.contract)
        self.now, self.until = now, now - settings.monitoring.settle_seconds
        self.samples = [each for each in watched.samples if each.name != LOSS]
        self.size = drift.window_size(self.samples, self.settings)
        self.step = drift.step_size(self.samples, self.settings)
        self.known: list[Window] = []

    def run(self, progress: Callable[[Window], None]) -> tuple[Window, int, bool]:
        """Check all that is complete.

        Returns
        -------
        look : Window
            Why no more was checked.
        fresh : int
            Windows that were.
        overtaken : bool
            Whether another monitor was faster; it goes on with what this one has left.
        """
        model, fresh = self.watched.model, 0
        with self.store.reading() as connection:
            self.known = checks.read(connection, model, "drift", REMEMBERED, findings=False)
            after, skipped = self._begin(connection)
        while True:
            with self.store.reading() as connection:
                events = self._next(connection, after)
                if events is None:
                    return self._waiting(connection), fresh, False
                passed = windows.count(connection, model, after, events.places[-1])
            window = self._check(events, passed, skipped)
            written = checks.write(self.store, window, self.known[-1].id if self.known else None)
            if written is None:
                return window, fresh, True
            self.known.append(written)
            after, skipped = events.places[-1], 0
            fresh += 1
            progress(written)

    def _begin(self, connection: sa.Connection) -> tuple[Place | None, int]:
        """Return the place behind which to look, and how many events are passed over for it."""
        model = self.watched.model
        after = _end(self.known[-1]) if self.known else None
        far = windows.place_before(connection, model, MOST_WINDOWS * self.step, self.until)
        skipped = windows.passed(connection, model, after, far) if far else 0
        return (far, skipped) if skipped else (after, 0)

    def _next(self, connection: sa.Connection, after: Place | None) -> windows.Events | None:
        """Read the next window; return None where events are missing for it."""
        if self.size < drift.LEAST_ROWS:
            return None
        model, until = self.watched.model, self.until
        place = windows.place(connection, model, after, self.step if after else self.size, until)
        if place is None:
            return None
        events = windows.read(connection, model, place, self.size)
        if len(events) == self.size:
            return events
        # Older ones were deleted meanwhile.
        place = windows.place(connection, model, None, self.size, until)
        return windows.read(connection, model, place, self.size) if place else None

    def _check(self, events: windows.Events, passed: int, skipped: int) -> Window:
        agreed = self.watched.contract
        columns, untested = windows.columns(events, agreed, self.samples, self.kept)
        found = drift.check(self.samples, columns, self.settings, events.entities)
        first, last = events.places[0], events.places[-1]
        history = [(each.last or 0.0, each.detail.get("drifted", ())) for each in self.known]
        counted = drift.confirmed([*history, (last.ts, found.drifted)], self.settings)
        detail: dict[str, Any] = {
            "drifted": list(found.drifted),
            "confirmed": [vars(streak) for streak in counted],
            "untested": {**found.untested, **untested},
            "tests": found.tests,
            "estimated": performance.estimated(agreed, events),
            "examples": [events.places[i].id for i in drift.examples(found, columns, EXAMPLES)],
            "first_id": first.id,
            "passed": passed,
        }
        if skipped:
            detail["skipped"] = skipped
        return Window(
            self.watched.model,
            "drift",
            found.state,
            found.events,
            found.rows,
            first.ts,
            last.ts,
            last.id,
            found.alarm,
            bool(counted),
            found.findings,
            detail,
        )

    def _waiting(self, connection: sa.Connection) -> Window:
        """Say which events wait for others, and what is odd about them."""
        model, before = self.watched.model, self.known[-1] if self.known else None
        detail: dict[str, Any] = {}
        if ahead := windows.future(connection, model, self.now):
            detail["future"] = ahead
        if late := self._late(connection):
            detail["late"] = late
        newest = windows.newest(connection, self.now)
        if newest and newest != model:
            detail["other"] = vars(newest)
        if self.size < drift.LEAST_ROWS:
            rows = max((len(sample.values) for sample in self.samples), default=0)
            detail |= {"waiting": rows, "needed": drift.LEAST_ROWS * WINDOWS}
            return Window(model, "drift", "reference too small", detail=detail)
        after = _end(before) if before else None
        waiting = windows.count(connection, model, after, self.until)
        detail |= {"waiting": waiting, "needed": self.step if before else self.size}
        state = "window not full" if waiting or before else "no events"
        return Window(model, "drift", state, waiting, detail=detail)

    def _late(self, connection: sa.Connection) -> int:
        """Return how many events of the last windows came after these were checked."""
        known = self.known[-RECOUNTED:]
        there = windows.there(connection, [each.detail.get("first_id", "") for each in known])
        recounted: list[Window] = []
        for window in reversed(known):
            # What was deleted, or passed over, cannot be counted again.
            if window.detail.get("first_id") not in there:
                break
            recounted.append(window)
            if "skipped" in window.detail:
                break
        if not recounted or not (end := _end(recounted[0])):
            return 0
        *others, first = recounted
        begin = Place(first.first or 0.0, first.detail["first_id"])
        held = windows.count(connection, first.model, begin, end) + 1
        before: int = first.events + sum(each.detail["passed"] for each in others)
        return max(0, held - before)


def kept(settings: Events, agreed: Contract) -> Collection[str]:
    """Return the columns of an event that are looked at: all kept ones but whom it is about."""
    names = settings.features
    if names is None:
        names = tuple(each.name for each in agreed.features)
    return [name for name in names if name != settings.entity]


def recent(connection: sa.Connection, model: Model, settings: Monitoring) -> list[windows.Truth]:
    """Return the truths that came last, among which the newest labelled events are."""
    return windows.truths(connection, model, RECENT * performance.window_size(settings))


def _performance(store: Store, watched: Subject, settings: Settings) -> tuple[Window, int, bool]:
    """Check the newest labelled events, once enough truths came since the last check.

    Returns
    -------
    look : Window
        What was checked, or why nothing was.
    fresh : int
        Windows that were checked.
    overtaken : bool
        Whether another monitor was faster.
    """
    model, sample, wanted = watched.model, watched.sample(LOSS), settings.monitoring
    if sample is None:
        return Window(model, "performance", "no target"), 0, False
    with store.reading() as connection:
        known = checks.read(connection, model, "performance", REMEMBERED, findings=False)
        since = float(known[-1].detail["received"]) if known else 0.0
        truths = recent(connection, model, wanted)
        fresh = sum(truth.received > since for truth in truths)
        needed = min(wanted.step, wanted.labels) if known else wanted.labels
        if fresh < needed:
            detail = {"waiting": fresh, "needed": needed}
            state = "too few truths" if fresh or known else "no truths"
            return Window(model, "performance", state, detail=detail), 0, False
        events = windows.labelled(connection, truths, performance.window_size(wanted))
    received = max(truth.received for truth in truths)
    window = _labelled(watched, sample, events, received, known, settings)
    if window.state != CHECKED:
        return window, 0, False
    written = checks.write(store, window, known[-1].id if known else None)
    return written or window, int(written is not None), written is None


def _labelled(
    watched: Subject,
    sample: Sample,
    events: windows.Events,
    received: float,
    known: Sequence[Window],
    settings: Settings,
) -> Window:
    agreed, wanted = watched.contract, settings.monitoring
    losses = performance.losses(agreed, events)
    found = performance.check(agreed, sample, losses, events.entities, wanted)
    if found.finding is None:
        detail: dict[str, Any] = {"waiting": found.labelled, "needed": wanted.labels}
        return Window(watched.model, "performance", found.state, detail=detail)
    measured, intervals = performance.metrics(agreed, events)
    names = kept(settings.events, agreed)
    columns = [column for column in agreed.features if column.name in names]
    groups = performance.slices(columns, events, losses, drift.LEAST_ROWS)
    alarm = found.finding.alarm
    first, last = events.places[0], events.places[-1]
    return Window(
        watched.model,
        "performance",
        found.state,
        len(events),
        found.labelled,
        first.ts,
        last.ts,
        last.id,
        alarm,
        alarm and checks.alarms(known) + 1 >= wanted.confirmations,
        (found.finding,),
        {
            "labelled": found.labelled,
            "received": received,
            "loss": found.loss,
            "reference": found.reference,
            "metrics": measured,
            "intervals": intervals,
            "trained": watched.card["metrics"],
            "slices": groups[:SLICES],
        },
    )


def _end(window: Window) -> Place | None:
    if window.last is None or window.last_id is None:
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
