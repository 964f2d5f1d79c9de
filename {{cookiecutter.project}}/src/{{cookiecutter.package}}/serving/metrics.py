"""Numbers for Prometheus: plain cells in memory that all workers share, put in words when asked.

A client library's counters cost a tenth of a request; an addition to a mapped array does not. Each
worker has a file of its own, so that nothing is locked, and a scrape of any of them sums them all.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from struct import unpack
from tempfile import mkstemp
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from ..events import Role

OTHER = "other"
METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", OTHER)
STATUSES: tuple[int | str, ...] = (
    *(200, 201, 202, 204, 206, 304, 307, 400, 401, 403, 404, 405, 406, 408, 409, 413),
    *(415, 416, 422, 429, 500, 501, 502, 503, 504, OTHER),
)
PHASES = ("decode", "queue", "model", "write")
DECODE, QUEUE, MODEL, WRITE = range(len(PHASES))
SWAPS = ("loaded", "refused", "rolled_back")
ROLES: tuple[Role, ...] = ("champion", "canary", "shadow")
# What became of a truth that was told; of unknown ones no prediction is kept.
TOLD = ("new", "known", "unknown")
# What routes that predict end in, and why they failed to: the code that answers of a status have.
PREDICTING = ("/predict", "/invocations", "/infer")
REASONS = {
    400: "malformed",
    401: "unauthorized",
    408: "request_timeout",
    413: "too_large",
    422: "invalid",
    429: "busy",
    500: "internal",
    503: "unavailable",
    504: "timeout",
}
FAILED = 400
REQUEST_SECONDS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
PHASE_SECONDS = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005),
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
BATCH_ROWS = tuple(float(1 << i) for i in range(13))

# The cells: gauges first, then counters; a histogram is a cell a bucket, and the sum.
IN_FLIGHT, QUEUED, WARNINGS, WRITTEN, REFUSED, DROPPED, SWAPPED = range(7)
GAUGES = 2
PREDICTED = SWAPPED + len(SWAPS)
RECORDED = PREDICTED + len(ROLES)
PHASED = RECORDED + len(TOLD)
PHASE_CELLS = len(PHASE_SECONDS) + 2
BATCHED = PHASED + len(PHASES) * PHASE_CELLS
TIMED = BATCHED + len(BATCH_ROWS) + 2
ROUTE_CELLS = len(REQUEST_SECONDS) + 2
DOORS = len(METHODS)
DOOR_CELLS = len(STATUSES)

_STATUS = {status: i for i, status in enumerate(STATUSES)}
_METHOD = {method: i for i, method in enumerate(METHODS)}
_PREDICTED = {role: PREDICTED + i for i, role in enumerate(ROLES)}
_REASON = {
    i: OTHER if isinstance(status, str) else REASONS.get(status, OTHER)
    for i, status in enumerate(STATUSES)
    if isinstance(status, str) or status >= FAILED
}
_LAST_STATUS, _LAST_METHOD = len(STATUSES) - 1, len(METHODS) - 1


class Backlog(NamedTuple):
    """Events that are in the log and not yet in the store, and whether the store answers."""

    bytes: int
    segments: int
    store_up: bool


class Metrics:
    """The numbers of one worker, and how all of them are told.

    The methods that count are called from the event loop's thread; each takes less than a
    microsecond.

    Parameters
    ----------
    routes : sequence of str
        The paths that requests are counted by, as the router spells them; the same in all workers.
    folder : Path or None
        Where workers keep their files, made by their parent; None for the only worker.

    Attributes
    ----------
    cells : memoryview of float
        Where this worker counts.
    models : callable
        Returns name, version and role of each model in service; asked at each scrape.
    backlog : callable
        Returns a `Backlog`, None where no events are kept; asked at each scrape.
    """

    def __init__(self, routes: Iterable[str], folder: Path | None = None) -> None:
        self.routes = {path: i for i, path in enumerate(dict.fromkeys([*routes, OTHER]))}
        self.models: Callable[[], Iterable[tuple[str, str, str]]] = tuple
        self.backlog: Callable[[], Backlog | None] = lambda: None
        self._counted = TIMED + len(self.routes) * ROUTE_CELLS
        self._size = self._counted + len(self.routes) * DOORS * DOOR_CELLS
        self._folder = folder
        self._root = os.getppid() if folder else os.getpid()
        # Workers of another version of this code count in other cells.
        names = (*self.routes, METHODS, STATUSES, PHASES, SWAPS, ROLES, TOLD)
        layout = (*names, REQUEST_SECONDS, PHASE_SECONDS)
        self._prefix = f"{crc32(repr(layout).encode()):08x}-"
        self.cells = memoryview(_mapping(folder, self._prefix, 8 * self._size)).cast("d")
        for gauge in range(GAUGES):
            self.cells[gauge] = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def door(self, method: str, path: str) -> int:
        """Return the number by which requests of a method to a route are counted.

        Parameters
        ----------
        method : str
        path : str
            The route's, or one that no route has: those are counted together.

        Returns
        -------
        int
            For `request`.
        """
        route = self.routes.get(path)
        if route is None:
            route = len(self.routes) - 1
        return route * DOORS + _METHOD.get(method, _LAST_METHOD)

    def request(self, door: int, status: int, seconds: float) -> None:
        """Count an answered request, and the time until its answer was given to the transport."""
        cells = self.cells
        cells[self._counted + door * DOOR_CELLS + _STATUS.get(status, _LAST_STATUS)] += 1
        start = TIMED + door // DOORS * ROUTE_CELLS
        cells[start + bisect_left(REQUEST_SECONDS, seconds)] += 1
        cells[start + ROUTE_CELLS - 1] += seconds

    def phase(self, phase: int, seconds: float) -> None:
        """Count the time of a phase: DECODE, QUEUE, MODEL or WRITE."""
        cells, start = self.cells, PHASED + phase * PHASE_CELLS
        cells[start + bisect_left(PHASE_SECONDS, seconds)] += 1
        cells[start + PHASE_CELLS - 1] += seconds

    def predicted(self, role: Role, rows: int, warnings: int = 0) -> None:
        """Count rows that a model predicted, and the warnings in their answers."""
        self.cells[_PREDICTED[role]] += rows
        if warnings:
            self.cells[WARNINGS] += warnings

    def truths(self, result: str, number: int) -> None:
        """Count truths that were told; the result is one of `TOLD`."""
        self.cells[RECORDED + TOLD.index(result)] += number

    def batch(self, rows: int) -> None:
        """Count a run of the model over so many rows."""
        cells = self.cells
        cells[BATCHED + bisect_left(BATCH_ROWS, rows)] += 1
        cells[TIMED - 1] += rows

    def queued(self, requests: int) -> None:
        """Say how many requests wait for the model now."""
        self.cells[QUEUED] = requests

    def events(self, written: int) -> None:
        """Count events that are in the log."""
        self.cells[WRITTEN] += written

    def events_refused(self, refused: int) -> None:
        """Count events that the log could not take."""
        self.cells[REFUSED] += refused

    def shadow_dropped(self, requests: int) -> None:
        """Count requests that the shadow had no time for."""
        self.cells[DROPPED] += requests

    def swap(self, result: str) -> None:
        """Count a change of the model: ``loaded``, ``refused`` or ``rolled_back``."""
        self.cells[SWAPPED + SWAPS.index(result)] += 1

    def join(self, collector: Collector) -> None:
        """Let numbers that are kept elsewhere be told with these."""
        self._registry.register(collector)

    def exposition(self) -> bytes:
        """Return the numbers of all workers as Prometheus reads them."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the numbers of all workers; called by prometheus_client."""
        cells = self._sums()
        yield from self._requests(cells)
        yield from self._predictions(cells)
        yield _gauge("http_requests_in_flight", "Requests being answered.", cells[IN_FLIGHT])
        spent = HistogramMetricFamily(
            "prediction_phase_seconds", "Time of what is around the model.", labels=["phase"]
        )
        text = "Time of a run of the model."
        took = HistogramMetricFamily("model_predict_duration_seconds", text)
        for i, phase in enumerate(PHASES):
            labels, family = ([], took) if i == MODEL else ([phase], spent)
            _add(family, labels, PHASE_SECONDS, cells[PHASED + i * PHASE_CELLS :])
        yield took
        yield spent
        unfamiliar = "Values unlike those the model was trained on."
        passed = "Requests that the shadow had no time for."
        yield _counter("prediction_shadow_dropped", passed, cells[DROPPED])
        yield _counter("prediction_warnings", unfamiliar, cells[WARNINGS])
        sizes = HistogramMetricFamily("prediction_batch_size", "Rows in one run of the model.")
        _add(sizes, [], BATCH_ROWS, cells[BATCHED:])
        yield sizes
        yield _gauge("prediction_queue_depth", "Requests that wait for the model.", cells[QUEUED])
        yield from self._models(cells)
        yield from self._truths(cells)
        yield from self._events(cells)
        yield from _processes(self._root)

    def _requests(self, cells: list[float]) -> Iterator[Metric]:
        answered = CounterMetricFamily(
            "http_requests", "Requests answered.", labels=["route", "method", "status"]
        )
        seconds = HistogramMetricFamily(
            "http_request_duration_seconds", "Time to the end of the answer.", labels=["route"]
        )
        names = ((r, m, str(s)) for r in self.routes for m in METHODS for s in STATUSES)
        for name, number in zip(names, cells[self._counted :], strict=True):
            if number:
                answered.add_metric(name, number)
        for path, i in self.routes.items():
            start = TIMED + i * ROUTE_CELLS
            if any(cells[start : start + ROUTE_CELLS - 1]):
                _add(seconds, [path], REQUEST_SECONDS, cells[start:])
        yield answered
        yield seconds

    def _predictions(self, cells: list[float]) -> Iterator[Metric]:
        rows = CounterMetricFamily("model_predictions", "Rows predicted.", labels=["role"])
        for role, cell in _PREDICTED.items():
            rows.add_metric([role], cells[cell])
        yield rows
        text = "Requests for predictions that were answered with an error."
        errors = CounterMetricFamily("model_prediction_errors", text, labels=["reason"])
        failed = dict.fromkeys(_REASON.values(), 0.0)
        for path, route in self.routes.items():
            if path.endswith(PREDICTING):
                start = self._counted + (route * DOORS + _METHOD["POST"]) * DOOR_CELLS
                for i, reason in _REASON.items():
                    failed[reason] += cells[start + i]
        for reason, number in failed.items():
            errors.add_metric([reason], number)
        yield errors

    def _truths(self, cells: list[float]) -> Iterator[Metric]:
        told = CounterMetricFamily("model_truths", "Truths told to /feedback.", labels=["result"])
        for i, result in enumerate(TOLD):
            told.add_metric([result], cells[RECORDED + i])
        yield told

    def _models(self, cells: list[float]) -> Iterator[Metric]:
        labels = ["name", "version", "role"]
        info = GaugeMetricFamily("model_info", "The models in service.", labels=labels)
        for model in self.models():
            info.add_metric(model, 1)
        yield info
        swaps = CounterMetricFamily("model_swaps", "Changes of the model.", labels=["result"])
        for i, result in enumerate(SWAPS):
            swaps.add_metric([result], cells[SWAPPED + i])
        yield swaps

    def _events(self, cells: list[float]) -> Iterator[Metric]:
        yield _counter("events_written", "Events in the log.", cells[WRITTEN])
        yield _counter("events_refused", "Events that the log could not take.", cells[REFUSED])
        if (waiting := self.backlog()) is not None:
            waits = "of the event log, not yet in the store."
            yield _gauge("events_backlog_bytes", f"Bytes {waits}", waiting.bytes)
            yield _gauge("events_backlog_segments", f"Files {waits}", waiting.segments)
            yield _gauge("events_store_up", "Whether the store answers.", waiting.store_up)

    def _sums(self) -> list[float]:
        """Sum the cells of all workers; of those that are gone all but the gauges."""
        if self._folder is None:
            return list(self.cells)
        totals = [0.0] * self._size
        for path in sorted(self._folder.glob(f"{self._prefix}*")):
            with path.open("rb") as file:
                cells = list(unpack(f"{self._size}d", file.read().ljust(8 * self._size, b"\0")))
                if _lock(file.fileno(), fcntl.LOCK_SH):
                    cells[:GAUGES] = [0.0] * GAUGES
            totals = [total + cell for total, cell in zip(totals, cells, strict=True)]
        return totals


def measured(app: ASGIApp, metrics: Metrics) -> ASGIApp:
    """Wrap an app so that every request is counted and timed.

    Parameters
    ----------
    app : ASGIApp
    metrics : Metrics

    Returns
    -------
    ASGIApp
    """

    async def measure(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status, start = 500, perf_counter()
        told = False

        def tell() -> None:
            nonlocal told
            told = True
            # A raw path would be a label of unlimited values.
            path = str(getattr(scope.get("route"), "path", scope["path"]))
            metrics.request(metrics.door(scope["method"], path), status, perf_counter() - start)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body") and not told:
                # Whoever has the answer finds it counted.
                tell()
            await send(message)

        try:
            await app(scope, receive, watch)
        finally:
            if not told:
                tell()

    return measure


def _mapping(folder: Path | None, prefix: str, size: int) -> mmap.mmap:
    """Map memory; in a folder the file of a worker that is gone, or a new one, locked for life."""
    if folder is None:
        return mmap.mmap(-1, size)
    left = sorted(folder.glob(f"{prefix}*"))
    while True:
        path = left.pop() if left else None
        file = os.open(path, os.O_RDWR) if path else mkstemp(prefix=prefix, dir=folder)[0]
        try:
            # A new one may seem abandoned to another worker that starts at the same time.
            if _lock(file, fcntl.LOCK_EX):
                os.truncate(file, size)
                # The mapping has a duplicate of the file, and with it the lock.
                return mmap.mmap(file, size)
        finally:
            os.close(file)


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _add(
    family: HistogramMetricFamily,
    labels: Sequence[str],
    bounds: Sequence[float],
    cells: Sequence[float],
) -> None:
    counts = accumulate(cells[: len(bounds) + 1])
    names = [*map(floatToGoString, bounds), "+Inf"]
    family.add_metric(labels, list(zip(names, counts, strict=True)), cells[len(bounds) + 1])


def _processes(root: int) -> Iterator[Metric]:
    """Yield the process metrics of the whole service: a process and all that it started.

    Time spent by children that ended is in the numbers of their parents (``proc_pid_stat(5)``), so
    the sum does not go backwards when a worker is replaced.
    """
    seconds = memory = files = 0.0
    ticks, page, born = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE"), None
    for pid in _tree(root):
        with suppress(OSError):
            folder = Path("/proc", str(pid))
            values = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            files += sum(1 for _ in (folder / "fd").iterdir())
            seconds += sum(map(int, values[11:15])) / ticks
            memory += int(values[21]) * page
            if born is None:
                born = int(values[19]) / ticks
    if born is None:
        return
    yield _counter("process_cpu_seconds", "CPU time of all processes.", seconds)
    yield _gauge("process_resident_memory_bytes", "Memory of all processes.", memory)
    yield _gauge("process_open_fds", "Open files of all processes.", files)
    booted = int(Path("/proc/stat").read_text(encoding="utf-8").partition("\nbtime ")[2].split()[0])
    yield _gauge("process_start_time_seconds", "When the service started.", booted + born)


def _tree(root: int) -> Iterator[int]:
    yield root
    with suppress(OSError):
        for task in Path("/proc", str(root), "task").iterdir():
            for child in (task / "children").read_text(encoding="utf-8").split():
                yield from _tree(int(child))
