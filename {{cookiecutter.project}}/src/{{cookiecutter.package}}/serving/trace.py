"""Which request is being answered: its id, and the trace that it belongs to."""

import re
from collections.abc import Mapping
from contextvars import ContextVar

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..events import Ids

REQUEST_ID = b"x-request-id"
TRACEPARENT = b"traceparent"

# https://www.w3.org/TR/trace-context/: a later version may say more after what is known today.
_ACCEPTED = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_PARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    rb"(?P<more>-.*)?"
)
new_base = Ids().next

current: ContextVar[tuple[str, str | None]] = ContextVar("current")


def trace_id(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the trace that a request belongs to, None where it names none in W3C's grammar.

    Parameters
    ----------
    headers : mapping of bytes to bytes
        By lower-case name.

    Returns
    -------
    str or None
        32 hexadecimal digits.
    """
    value = headers.get(TRACEPARENT)
    if value is None or (parent := _PARENT.fullmatch(value)) is None:
        return None
    if parent["more"] and value.startswith(b"00"):
        return None
    return parent["trace"].decode()


def request_id(headers: Mapping[bytes, bytes], base: str) -> str:
    """Return the id of a request: the client's, else its trace's, else `base`.

    Parameters
    ----------
    headers : mapping of bytes to bytes
        By lower-case name. An ``X-Request-ID`` of other than letters, digits, ``.``, ``_`` and
        ``-``, or of more than 128 characters, is passed over.
    base : str
        As `new_base` makes it.

    Returns
    -------
    str
    """
    given = headers.get(REQUEST_ID)
    if given is not None and _ACCEPTED.fullmatch(given):
        return given.decode()
    if TRACEPARENT in headers:
        return trace_id(headers) or base
    return base


def identify(scope: Scope, base: str) -> str:
    """Let every log line from here on know its request; return the request's id."""
    headers = dict(scope["headers"])
    name: str = request_id(headers, base)
    scope["request_id"] = name
    current.set((name, trace_id(headers)))
    return name


def identified(app: ASGIApp) -> ASGIApp:
    """Wrap an app so that every answer carries its request's id, and every log line knows it.

    Parameters
    ----------
    app : ASGIApp

    Returns
    -------
    ASGIApp
        Leaves the id in the scope as ``request_id``, and in `current` together with the trace.
    """

    async def identifying(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        name = identify(scope, new_base())

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = name
            await send(message)

        await app(scope, receive, named)

    return identifying
