"""The shadow: what the challenger would have answered, found out after the answer has left."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING

from .batching import Call, event, predict
from .errors import RequestError

if TYPE_CHECKING:
    from ..events import EventLog
    from .metrics import Metrics
    from .rollout import Rollout
    from .served import Served

logger = logging.getLogger(__name__)

MOST_WAITING = 1000
MOST_AT_ONCE = 32


class Shadow:
    """Asks the challenger in a thread of its own; its events stand beside the champion's.

    Where it is slower than the requests come, some are passed over.

    Parameters
    ----------
    rollout : Rollout
    log : EventLog
    metrics : Metrics
    """

    def __init__(self, rollout: Rollout, log: EventLog, metrics: Metrics) -> None:
        self.rollout = rollout
        self.log = log
        self.metrics = metrics
        self._thread = ThreadPoolExecutor(1, "shadow")
        self._waiting: list[Call] = []
        self._work: asyncio.Task[None] | None = None

    def offer(self, calls: Sequence[Call]) -> None:
        """Take answered calls; returns at once."""
        if self.rollout.shadow() is None:
            return
        room = MOST_WAITING - len(self._waiting)
        self._waiting += calls[:room]
        self.metrics.shadow_dropped(len(calls[room:]))
        if self._work is None:
            self._work = asyncio.create_task(self._answer())
            self._work.add_done_callback(self._ended)

    async def close(self) -> None:
        """Finish what waits."""
        if self._work:
            await asyncio.wait([self._work])

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and (served := self.rollout.shadow()):
            calls = self._waiting[:MOST_AT_ONCE]
            del self._waiting[:MOST_AT_ONCE]
            answered = await loop.run_in_executor(self._thread, _answered, served, calls)
            self.metrics.predicted(served.role, sum(len(call.rows) for call in answered))
            now, end = time.time(), perf_counter()
            # The champion's log is full, or its disk away: then nobody is answered either.
            with suppress(OSError):
                self.log.append([event(call, now, end) for call in answered])
                self.metrics.events(len(answered))

    def _ended(self, work: asyncio.Task[None]) -> None:
        self._work = None
        if not work.cancelled() and (error := work.exception()):
            logger.error("the shadow failed", exc_info=error)


def _answered(served: Served, calls: Sequence[Call]) -> list[Call]:
    """Answer calls once more by another version; what its contract does not take is left out."""
    again = []
    for call in calls:
        with suppress(RequestError):
            start = perf_counter()
            rows = served.decode(call.body)
            again.append(Call(served, call.body, rows, call.base, call.request_id, start))
    if again:
        predict(served, again)
    return again
