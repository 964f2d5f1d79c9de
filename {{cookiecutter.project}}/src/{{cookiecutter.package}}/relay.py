"""The relay: Alertmanager's webhook in, the start of retraining out.

An alert only says that it is time to look. Whether there is reason to retrain is read from the
store, so that nobody can start it by a made-up alert, and nothing starts it twice.
"""

import asyncio
import logging
import logging.config
import os
import socket
from hmac import compare_digest
from http import HTTPStatus

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from . import dispatch
from .dispatch import Repository
from .errors import ProjectError, ServingError, SettingsError
from .serving import logs
from .settings import Settings

logger = logging.getLogger(__name__)

MOST_BYTES = 1_000_000


class Notification(msgspec.Struct):
    """What the relay reads of Alertmanager's message."""

    status: str


def create_app(settings: Settings, repository: Repository, token: str) -> Starlette:
    """Build the relay.

    Parameters
    ----------
    settings : Settings
    repository : Repository
        Where retraining is started.
    token : str
        Which Alertmanager has to show.

    Returns
    -------
    Starlette
        Takes ``POST /alerts``, and says at ``/health`` that it is there. What fails is answered
        502, and Alertmanager tries it again.
    """
    one_by_one = asyncio.Lock()
    expected = f"Bearer {token}".encode()

    async def alerts(request: Request) -> JSONResponse:
        if not compare_digest(request.headers.get("authorization", "").encode(), expected):
            return _refused(HTTPStatus.UNAUTHORIZED, "expected 'Authorization: Bearer <token>'")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {MOST_BYTES} bytes")
        try:
            notification = msgspec.json.decode(body, type=Notification)
        except msgspec.DecodeError as error:
            return _refused(HTTPStatus.BAD_REQUEST, f"no message of Alertmanager: {error}")
        if notification.status != "firing":
            return JSONResponse({"started": False, "told": "nothing fires"})
        try:
            async with one_by_one:
                done = await run_in_threadpool(dispatch.dispatch, settings, repository)
        except ProjectError as error:
            logger.error("%s", error)
            return _refused(HTTPStatus.BAD_GATEWAY, str(error))
        logger.info("%s", done.told)
        return JSONResponse({"started": done.started, "told": done.told})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    return Starlette(routes=[Route("/alerts", alerts, methods=["POST"]), Route("/health", health)])


def serve(settings: Settings, host: str, port: int) -> None:
    """Relay until interrupted.

    Raises
    ------
    SettingsError
        Where RELAY_TOKEN, GITHUB_REPOSITORY or GITHUB_TOKEN is missing.
    ServingError
        Where the address cannot be had.
    """
    if not (token := os.environ.get("RELAY_TOKEN", "").strip()):
        raise SettingsError("RELAY_TOKEN is not set: the token that Alertmanager shows")
    app = create_app(settings, Repository.from_environment(), token)
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ServingError(f"{host}:{port}: {error.strerror}; say another --port") from error
    logging.config.dictConfig(logs.configuration(settings.serving))
    logger.info("alerts are taken at http://%s:%d/alerts", host, listener.getsockname()[1])
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False)
    uvicorn.Server(config).run([listener])


def _refused(status: HTTPStatus, why: str) -> JSONResponse:
    return JSONResponse({"error": why}, status)
