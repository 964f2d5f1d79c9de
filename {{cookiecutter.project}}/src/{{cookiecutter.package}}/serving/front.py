"""The front: takes the hot route from the raw request, before FastAPI looks for a route.

Routing, dependencies and pydantic cost three times as much as a whole prediction. So a request of
the usual form, which is almost every one, is answered here; all others, and all that goes wrong,
are left to the ordinary routes, which can do everything that is done here.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import logs, trace
from .batching import Batcher, Call
from .headers import NOSNIFF
from .trace import new_base, request_id

if TYPE_CHECKING:
    from ..settings import Serving
    from .keys import Keys
    from .limits import Places
    from .metrics import Metrics
    from .rollout import Rollout

PATH = "/predict"
# With any of these a request is unusual.
UNUSUAL = frozenset([b"content-encoding", b"expect", b"origin"])
JSON = frozenset([b"application/json", b"application/json; charset=utf-8"])
MOST_BYTES = 65536


class Front:
    """An ASGI app around another one.

    Parameters
    ----------
    app : ASGIApp
        The ordinary routes.
    rollout : Rollout
    batcher : Batcher
    metrics : Metrics
    places : Places
    keys : Keys or None
    serving : Serving
    """

    def __init__(
        self,
        app: ASGIApp,
        rollout: Rollout,
        batcher: Batcher,
        metrics: Metrics,
        places: Places,
        keys: Keys | None,
        serving: Serving,
    ) -> None:
        self.app = app
        self.rollout = rollout
        self.batcher = batcher
        self.metrics = metrics
        self.places = places
        self.keys = keys
        self.most_bytes = min(serving.max_body_bytes, MOST_BYTES)
        self.most_rows = serving.max_rows
        self.seconds = serving.timeout_seconds
        self.log = serving.log_requests
        self.door = metrics.door("POST", PATH)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        start = perf_counter()
        try:
            async with asyncio.timeout(self.seconds):
                message = await receive()
        except TimeoutError:
            await self.app(scope, receive, send)
            return
        call = self._call(scope, message, start)
        if call is None or not await self._answered(call):
            await self.app(scope, _again(message, receive), send)
            return
        length = str(len(call.answer)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", length),
            (b"x-request-id", call.request_id.encode()),
            (b"x-model-version", call.served.model.version.encode()),
            NOSNIFF,
        ]
        self.metrics.request(self.door, 200, perf_counter() - start)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": call.answer})
        if self.log:
            trace.current.set((call.request_id, trace.trace_id(dict(scope["headers"]))))
            logs.request("POST", PATH, 200, perf_counter() - start)

    async def _answered(self, call: Call) -> bool:
        if not self.places.enter():
            return False
        try:
            return not await self.batcher.submit(call)
        finally:
            self.places.leave()

    def _call(self, scope: Scope, message: Message, start: float) -> Call | None:
        body = message.get("body")
        if not body or message.get("more_body") or len(body) > self.most_bytes:
            return None
        headers = dict(scope["headers"])
        if headers.get(b"content-type") not in JSON or not UNUSUAL.isdisjoint(headers):
            return None
        if self.keys and not self.keys.allowed(headers):
            return None
        base = new_base()
        name = request_id(headers, base)
        if (served := self.rollout.choose(name)) is None:
            return None
        rows = served.decode.quick(body)
        if rows is None or len(rows) > min(served.rows_at_once, self.most_rows):
            return None
        return Call(served, body, rows, base, name, start)


def _again(message: Message, receive: Receive) -> Receive:
    """Give a message back to those who come next."""
    messages = [message]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received
