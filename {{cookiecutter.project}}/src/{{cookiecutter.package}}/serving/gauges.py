"""Gauges of the monitor: what it found last, read from the store when somebody collects.

A thread reads, and is waited for only shortly: a store that does not answer is told as such, and
what was known before is told on.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from threading import Lock, Thread
from time import monotonic

from prometheus_client import Metric
from prometheus_client.metrics_core import GaugeMetricFamily

from ..errors import StoreError

logger = logging.getLogger(__name__)

STATES = ("waiting", "steady", "suspected", "drift", "degraded")
# Events that a look tells of beside those that it checked.
ASIDE = ("waiting", "late", "future", "skipped")
FRESH_SECONDS = 5.0
PATIENCE_SECONDS = 0.5
# A longer row of alarms is told as this one.
MOST_ALARMS = 100


@dataclass(frozen=True)
class Known:
    """What the store says; without a look, that no monitor ever came to an end."""

    state: str | None = None
    success: float = 0.0
    scores: tuple[tuple[str, str, float], ...] = ()
    alarms: int = 0
    untested: int = 0
    aside: tuple[tuple[str, float], ...] = ()
    labelled: int = 0
    excess: float | None = None
    unknown: int = 0


class Gauges:
    """A collector for prometheus_client.

    Parameters
    ----------
    address : str
        Of the store.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._known: Known | None = None
        self._up = False
        self._error = ""
        self._lock = Lock()
        self._reader: Thread | None = None
        self._started = float("-inf")

    def collect(self) -> Iterator[Metric]:
        """Yield what is known; called by prometheus_client in a thread of a request."""
        # SQLAlchemy is loaded by the first scrape, not by the start of the service, nor is it what
        # the store is given its time for.
        import_module("..store", __package__)
        with self._lock:
            reading = self._reader is not None and self._reader.is_alive()
            if not reading and monotonic() - self._started >= FRESH_SECONDS:
                self._started = monotonic()
                self._reader = Thread(target=self._read, name="gauges", daemon=True)
                self._reader.start()
            reader = self._reader
        if reader:
            # Whoever comes while an old attempt hangs does not wait as well.
            reader.join(max(0.0, self._started + PATIENCE_SECONDS - monotonic()))
        up = self._up and not (reader and reader.is_alive())
        yield _gauge("model_monitor_store_up", "Whether the store told what was found.", up)
        if self._known:
            yield from _told(self._known)

    def _read(self) -> None:
        up, error = False, ""
        try:
            self._known = read(self.address)
            up = True
        except StoreError as reason:
            error = str(reason)
        finally:
            self._up = up
        if error and error != self._error:
            logger.warning("what the monitor found is not told: %s", error)
        self._error = error


def read(address: str) -> Known:
    """Read what the monitor found last.

    Raises
    ------
    StoreError
        Where the store does not answer.
    """
    import sqlalchemy as sa

    from .. import checks
    from ..store import Store, monitor_look

    store = Store(address)
    try:
        if store.is_sqlite and not Path(str(store.url.database)).exists():
            return Known()
        with store.reading() as connection:
            if not sa.inspect(connection).has_table(monitor_look.name):
                return Known()
            imports = checks.actions(connection, checks.IMPORT)
            unknown = int(imports[0]["detail"]["unknown"]) if imports else 0
            if not (look := checks.last_look(connection)):
                return Known(unknown=unknown)
            drift, performance = checks.verdicts(connection, look)
            windows = checks.read(connection, look.model, "drift", MOST_ALARMS, findings=False)
    finally:
        store.close()
    loss = next((each for each in performance.findings if each.kind == "loss"), None)
    return Known(
        look.status,
        look.ts,
        # What is no number is kept as nothing.
        tuple((f.column, f.kind, f.score) for f in drift.findings if f.score is not None),
        checks.alarms(windows),
        len(drift.detail.get("untested", ())),
        tuple((name, float(drift.detail.get(name, 0))) for name in ASIDE),
        int(performance.detail.get("labelled", 0)),
        loss.low if loss else None,
        unknown,
    )


def _told(known: Known) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "model_monitor_state", "What the monitor says of the model: 1 for one.", labels=["state"]
    )
    for state in STATES:
        states.add_metric([state], state == known.state)
    yield states
    text = "When a monitor last came to its end; 0: never."
    yield _gauge("model_monitor_last_success_timestamp_seconds", text, known.success)
    text = "Events that the last look did not check, and why."
    aside = GaugeMetricFamily("model_monitor_events", text, labels=["state"])
    for name, events in known.aside:
        aside.add_metric([name], events)
    yield aside
    text = "How much a column differs from its reference."
    scores = GaugeMetricFamily("model_drift_score", text, labels=["column", "kind"])
    for column, kind, score in known.scores:
        scores.add_metric([column, kind], score)
    yield scores
    text = "Windows in a row in which something drifts."
    yield _gauge("model_drift_consecutive_alarms", text, known.alarms)
    text = "Columns that could not be tested: gone, new, or empty."
    yield _gauge("model_drift_untested_columns", text, known.untested)
    text = "Predictions whose truth is known, in the last look."
    yield _gauge("model_loss_labelled_events", text, known.labelled)
    text = "Truths of the last import whose predictions the store does not hold."
    yield _gauge("model_truths_import_unknown", text, known.unknown)
    if known.excess is not None:
        text = "By how much the loss exceeds its reference, at least."
        yield _gauge("model_loss_excess_lower_bound", text, known.excess)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)
