"""Headers of every answer: which model gave it, and what a browser must not do with it."""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOSNIFF = (b"x-content-type-options", b"nosniff")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
# Swagger UI is started by a script within its page, and draws icons from data.
DOCS_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
DOCS = ("/docs", "/docs/oauth2-redirect")


def completed(app: ASGIApp, version: Callable[[], str | None]) -> ASGIApp:
    """Wrap an app so that every answer has the headers that all have.

    Parameters
    ----------
    app : ASGIApp
    version : callable
        Returns the version of the model in service, None where there is none.

    Returns
    -------
    ASGIApp
    """

    async def complete(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        found = version()

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), NOSNIFF]
                headers = MutableHeaders(scope=message)
                if found:
                    headers.setdefault("x-model-version", found)
                if scope["path"] in DOCS:
                    headers.update(DOCS_HEADERS)
            await send(message)

        await app(scope, receive, with_headers)

    return complete
