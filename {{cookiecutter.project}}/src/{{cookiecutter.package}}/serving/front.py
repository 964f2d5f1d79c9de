"""The front: takes the hot route from the raw request, before FastAPI looks for a route.

Routing, dependencies and pydantic cost three times as much as a whole prediction. So a request of
the usual form, which is almost every one, is answered here; all others, and all that goes wrong,
are left to the ordinary routes, which can do everything that is done here.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from time import perf_counter
from types import coroutine
from typing import TYPE_CHECKING, Any

from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import logs
from .batching import Batcher, Call
from .trace import identify, new_base, request_id

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
    state : State
        Of the service: its ``rollout``, ``batcher``, ``metrics``, ``places`` and ``keys``.
    serving : Serving
    """

    def __init__(self, app: ASGIApp, state: State, serving: Serving) -> None:
        self.app = app
        self.rollout: Rollout = state.rollout
        self.batcher: Batcher = state.batcher
        self.metrics: Metrics = state.metrics
        self.places: Places = state.places
        self.keys: Keys | None = state.keys
        self.door = state.metrics.door("POST", PATH)
        self.most_bytes = min(serving.max_body_bytes, MOST_BYTES)
        self.most_rows = serving.max_rows
        self.logged = serving.log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        start = perf_counter()
        receiving: Coroutine[Any, Any, Message] = receive()  # type: ignore[assignment]
        try:
            waits_for = receiving.send(None)
        except StopIteration as received:
            message = received.value
        else:
            # The ordinary routes lose patience with a body that does not come. A timer for all
            # bodies, which mostly are there, would cost as much as decoding them.
            await self.app(scope, _later(receiving, waits_for, receive), send)
            return
        call, error = self._call(scope, message, start), None
        if call is not None and self.places.enter():
            error = await self.batcher.submit(call)
            self.places.leave()
        if call is None or not call.answer or error:
            await self.app(scope, _again(message, receive), send)
            return
        length = str(len(call.answer)).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", length),
            (b"x-request-id", call.request_id.encode()),
        ]
        seconds = perf_counter() - start
        self.metrics.request(self.door, 200, seconds)
        if self.logged:
            identify(scope, call.base)
            logs.request("POST", PATH, 200, seconds)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": call.answer})

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


def _later(receiving: Coroutine[Any, Any, Message], waits_for: Any, receive: Receive) -> Receive:
    """Go on receiving where the first message is waited for already."""
    begun = [receiving]

    @coroutine
    def rest(receiving: Coroutine[Any, Any, Message]) -> Generator[Any, Any, Message]:
        waits = waits_for
        try:
            while True:
                yield waits
                waits = receiving.send(None)
        except StopIteration as received:
            message: Message = received.value
            return message
        finally:
            receiving.close()

    async def received() -> Message:
        return await (rest(begun.pop()) if begun else receive())

    return received
