"""Batching: the calls that wait in one tick of the event loop are one batch.

One run of the model, one write of their events, then they are answered. There is no timer: alone, a
call waits for nothing. An answer leaves only after its event is in the log.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from itertools import repeat
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from anyio import CapacityLimiter, to_thread

from ..encoding import Matrix, unfamiliar
from ..events import Event
from ..inference import plain
from .answers import Answer, Prediction, encode
from .errors import unrecorded
from .metrics import DECODE, MODEL, QUEUE, WRITE

if TYPE_CHECKING:
    from ..events import EventLog
    from .metrics import Metrics
    from .served import Served
    from .shadow import Shadow

Done: TypeAlias = "asyncio.Future[BaseException | None]"

THREADS = 2


class Call:
    """One request for predictions, on its way to its answer.

    Parameters
    ----------
    served : Served
        The one version that answers it.
    body : bytes
        The request as /predict takes it.
    rows : sequence of sequence of float
        The same as numbers; None is a missing one.
    base : str
        What the ids of its predictions begin with.
    request_id : str
    started : float
        When it came, as `time.perf_counter` has it.

    Attributes
    ----------
    predictions : list of Prediction
    answer : bytes
        The predictions as /predict answers them.
    """

    __slots__ = (
        "answer",
        "base",
        "body",
        "decoded",
        "predictions",
        "request_id",
        "rows",
        "served",
        "started",
    )

    def __init__(
        self,
        served: Served,
        body: bytes,
        rows: Sequence[Sequence[float | None]],
        base: str,
        request_id: str,
        started: float,
    ) -> None:
        self.served = served
        self.body = body
        self.rows = rows
        self.base = base
        self.request_id = request_id
        self.started = started
        self.decoded = perf_counter()
        self.predictions: list[Prediction] = []
        self.answer = b""


class Batcher:
    """Answers calls, and keeps their events.

    Parameters
    ----------
    log : EventLog or None
        None keeps no events. Where it is durable, they must have reached the disk.
    metrics : Metrics
    shadow : Shadow or None
        Is told of what was answered.
    """

    def __init__(
        self, log: EventLog | None, metrics: Metrics, shadow: Shadow | None = None
    ) -> None:
        self.log = log
        self.shadow = shadow
        self.metrics = metrics
        self._threads = CapacityLimiter(THREADS)
        self._waiting: dict[Served, tuple[list[Call], Done]] = {}
        self._disk = asyncio.Lock()
        self._sync: asyncio.Task[None] | None = None

    def submit(self, call: Call) -> Done:
        """Let a call be answered in the next tick.

        Returns
        -------
        Future of Exception or None
            What went wrong, if anything: RequestError where the event cannot be kept. It is shared
            by all calls of the tick, so whoever may be cancelled has to shield it.
        """
        if call.served not in self._waiting:
            done: Done = asyncio.get_running_loop().create_future()
            self._waiting[call.served] = [], done
            tick = asyncio.create_task(self._tick(call.served))
            tick.add_done_callback(lambda tick: done.set_result(tick.exception()))
        calls, done = self._waiting[call.served]
        calls.append(call)
        return done

    async def answer(self, call: Call) -> None:
        """Answer a call; a large one in a thread, so that others need not wait for it.

        Raises
        ------
        RequestError
            Where its event cannot be kept.
        Exception
            Whatever the model fails with; that it failed is an event as well.
        """
        try:
            await self._answer(call)
        except Exception:
            if not call.answer:
                self._failed(call)
            raise

    async def _answer(self, call: Call) -> None:
        if len(call.rows) <= call.served.rows_at_once:
            if error := await asyncio.shield(self.submit(call)):
                raise error
            return
        self.metrics.phase(DECODE, call.decoded - call.started)
        # Numbers are counted in the loop's thread alone: two would lose some.
        timed = await to_thread.run_sync(_timed, call.served, [call], limiter=self._threads)
        self._count(call.served, *timed)
        await asyncio.shield(self._record([call]))

    async def _tick(self, served: Served) -> None:
        calls, _ = self._waiting.pop(served)
        metrics, start = self.metrics, perf_counter()
        for call in calls:
            metrics.phase(DECODE, call.decoded - call.started)
            metrics.phase(QUEUE, start - call.decoded)
        self._count(served, *_timed(served, calls))
        await self._record(calls)

    def _count(self, served: Served, rows: int, warned: int, seconds: float) -> None:
        self.metrics.predicted(served.role, rows, warned)
        self.metrics.batch(rows)
        self.metrics.phase(MODEL, seconds)

    async def _record(self, calls: list[Call]) -> None:
        if self.log is None:
            return
        start, now = perf_counter(), time.time()
        try:
            self.log.append([event(call, now, start) for call in calls])
            if self.log.durable:
                await self._synced(self.log)
        except OSError as error:
            self.metrics.events_refused(len(calls))
            raise unrecorded(error) from error
        self.metrics.events(len(calls))
        self.metrics.phase(WRITE, perf_counter() - start)
        if self.shadow:
            self.shadow.offer(calls)

    def _failed(self, call: Call) -> None:
        """Keep that a call has no answer, where there is room for it."""
        if self.log is None:
            return
        failed = event(call, time.time(), perf_counter(), HTTPStatus.INTERNAL_SERVER_ERROR)
        with suppress(OSError):
            self.log.append([failed])
            self.metrics.events(1)

    async def _synced(self, log: EventLog) -> None:
        """Wait for a sync that begins after this moment; whoever waits meanwhile shares it."""
        if self._sync is None:
            self._sync = asyncio.create_task(self._write_through(log))
        await asyncio.shield(self._sync)

    async def _write_through(self, log: EventLog) -> None:
        async with self._disk:
            self._sync = None
            await asyncio.to_thread(log.sync)


def predict(served: Served, calls: Sequence[Call]) -> tuple[int, int]:
    """Run the model once over the rows of some calls, and answer each.

    Returns
    -------
    rows, warnings : int
        How many there were.
    """
    matrix = np.array([row for call in calls for row in call.rows], dtype=np.float64)
    predictor = served.predictor
    answers = plain(predictor.contract, predictor.output(matrix))
    low, high = served.bounds
    strange = ((matrix < low) | (matrix > high)).any()
    first = warned = 0
    for call in calls:
        last = first + len(call.rows)
        said = _warnings(call, matrix[first:last]) if strange else repeat(())
        call.predictions = [
            Prediction(f"{call.base}-{i}", *answer, warnings)
            for i, (answer, warnings) in enumerate(zip(answers[first:last], said, strict=False))
        ]
        call.answer = encode(Answer(call.predictions, served.stamp, call.request_id))
        if strange:
            warned += sum(len(prediction.warnings) for prediction in call.predictions)
        first = last
    return first, warned


def _timed(served: Served, calls: Sequence[Call]) -> tuple[int, int, float]:
    start = perf_counter()
    rows, warned = predict(served, calls)
    return rows, warned, perf_counter() - start


def event(call: Call, now: float, end: float, status: int = 200) -> Event:
    """Make the event of a call.

    Parameters
    ----------
    call : Call
    now : float
        Seconds since 1970.
    end : float
        The same moment, as `time.perf_counter` has it.
    status : int
        Of the HTTP answer.
    """
    served = call.served
    return Event(
        now,
        call.request_id,
        call.base,
        served.model.name,
        served.model.version,
        served.schema,
        served.role,
        status,
        (end - call.started) * 1000,
        call.body,
        call.answer,
    )


def _warnings(call: Call, encoded: Matrix) -> list[tuple[str, ...]]:
    """Say of each row of a call what is unlike the training data."""
    contract = call.served.predictor.contract
    rows = json.loads(call.body)["rows"]
    return [unfamiliar(contract, row, codes) for row, codes in zip(rows, encoded, strict=True)]
