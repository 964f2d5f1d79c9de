"""Bodies of requests: read within the limit, in the form that they say, and decoded as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from .answers import encode
from .errors import malformed, too_large
from .front import MOST_BYTES

JSON = "application/json"

Result = TypeVar("Result")


async def read(request: Request, media_types: Collection[str] = (JSON,)) -> tuple[str, bytes]:
    """Read a body, never more of it than the limit.

    Parameters
    ----------
    request : Request
    media_types : collection of str
        Those that are taken; the empty one is a body that does not say what it is.

    Returns
    -------
    media_type : str
    body : bytes

    Raises
    ------
    RequestError
        Where it is in another form, is too large, or ends early.
    """
    limit = request.app.state.settings.serving.max_body_bytes
    media_type = _media_type(request, media_types)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_large(limit)
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large(limit)
    except ClientDisconnect as error:
        raise malformed("the connection was closed before the end of the body") from error
    return media_type, bytes(body)


async def aside(size: int, work: Callable[..., Result], *args: Any) -> Result:
    """Do some work on so many bytes: in a thread where others would have to wait for it."""
    return work(*args) if size < MOST_BYTES else await run_in_threadpool(work, *args)


def loads(body: bytes) -> Any:
    """Decode JSON as Python's clients write it, with NaN for what is missing.

    Raises
    ------
    RequestError
        Where it is none, or holds a number that no float can.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(body.decode(), parse_float=_finite, parse_constant=_constant)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the body is no JSON: {error}") from error


def native(rows: Any) -> bytes:
    """Write rows as /predict takes them; NaN becomes null.

    Raises
    ------
    RequestError
        Where a text is no Unicode.
    """
    try:
        return encode({"rows": rows})
    except (ValueError, RecursionError) as error:
        raise malformed(f"the body is no JSON: {error}") from error


def _media_type(request: Request, taken: Collection[str]) -> str:
    content_type = request.headers.get("content-type", "")
    media_type, *parameters = content_type.lower().replace(" ", "").split(";")
    charsets = [each.partition("=")[2].strip('"') for each in parameters if "charset=" in each]
    if media_type not in taken or charsets not in ([], ["utf-8"]):
        wanted = " or ".join(filter(None, taken))
        raise malformed(f"expected content-type {wanted} in UTF-8, not {content_type!r}")
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise malformed(f"content-encoding {encoding!r} is not supported: send the body as it is")
    return media_type


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is beyond all bounds")
    return number


def _constant(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is no number")
