"""What one request may take: a place among those under way, and time."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import busy, late, response, slow
from .metrics import IN_FLIGHT, Metrics

# Asked most urgently when the service has no place left.
PROBES = frozenset(
    (
        *("/health/live", "/health/ready", "/metrics", "/ping", "/health"),
        *("/v2/health/live", "/v2/health/ready"),
    )
)


class Places:
    """The requests under way in this worker; probes need no place.

    Parameters
    ----------
    most : int
        At the same time.
    metrics : Metrics
        Where they are counted, for all to see.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.most = most
        self._cells = metrics.cells

    def enter(self) -> bool:
        """Take a place; return False where there is none: the answer is `errors.busy`."""
        cells = self._cells
        if cells[IN_FLIGHT] >= self.most:
            return False
        cells[IN_FLIGHT] += 1
        return True

    def leave(self) -> None:
        """Give a place back."""
        self._cells[IN_FLIGHT] -= 1


def limited(app: ASGIApp, places: Places, seconds: float) -> ASGIApp:
    """Wrap an app so that a request waits for neither a place nor an answer for long.

    Parameters
    ----------
    app : ASGIApp
    places : Places
    seconds : float
        From the head of a request until its answer begins.

    Returns
    -------
    ASGIApp
    """

    async def within(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await app(scope, receive, send)
        elif places.enter():
            try:
                await _in_time(app, seconds, scope, receive, send)
            finally:
                places.leave()
        else:
            await response(busy(places.most), scope["path"])(scope, receive, send)

    return within


async def _in_time(
    app: ASGIApp, seconds: float, scope: Scope, receive: Receive, send: Send
) -> None:
    read = False

    async def watched_receive() -> Message:
        nonlocal read
        message = await receive()
        read = read or not message.get("more_body")
        return message

    async def watched_send(message: Message) -> None:
        # A client may take its time for what it is sent.
        limit.reschedule(None)
        await send(message)

    try:
        async with asyncio.timeout(seconds) as limit:
            await app(scope, watched_receive, watched_send)
    except TimeoutError:
        if not limit.expired():
            raise
        error = late(seconds) if read else slow(seconds)
        await response(error, scope["path"])(scope, receive, send)
