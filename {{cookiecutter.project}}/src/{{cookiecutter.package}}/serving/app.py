"""The app, and the process around it."""

import asyncio
import contextlib
import errno
import gc
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from .. import ingestion
from ..errors import ServingError
from ..events import EventLog, Role
from ..settings import DELIMITER, PREFIX, Serving, Settings
from . import admin, errors, feedback, routes, schemas, source
from .batching import Batcher
from .front import Front
from .holds import Holds
from .metrics import Metrics, measure
from .rollout import Rollout
from .served import Served
from .shadow import Shadow
from .slot import Slot, watching
from .trace import identify

ROUTERS = (routes.router, feedback.router)
REFERENCE = "#/components/schemas/{model}"


def create_app(settings: Settings, folder: Path | None = None, hot: bool = True) -> FastAPI:
    """Build the service and load its model.

    Parameters
    ----------
    settings : Settings
    folder : Path or None
        Where several workers keep their numbers; None for a worker alone.
    hot : bool
        Whether requests of the usual form go past the routing; they are answered alike.

    Returns
    -------
    FastAPI
        Without a bundle it starts as well, and answers 503 until there is one.
    """
    app = FastAPIOffline(
        title=settings.project.name,
        description=settings.project.description,
        favicon_url="icon.svg",
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    serving = settings.serving
    app.state.settings = settings
    app.state.slot = slot = Slot(
        source.of(settings), Holds(serving.state / "held"), serving.allow_breaking
    )
    app.state.rollout = rollout = Rollout(slot, _challenger(settings), serving.canary)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    if serving.admin_token and serving.admin_token.get_secret_value():
        app.include_router(admin.router)
    app.state.metrics = metrics = Metrics(_paths(app), folder)
    metrics.models = lambda: [(*each.stamp.values(), each.role) for each in rollout.served()]
    app.state.log, shadow = None, None
    if settings.events.mode != "off":
        app.state.log = EventLog(settings.events.folder, durable=settings.events.mode == "disk")
        shadow = Shadow(rollout, app.state.log, metrics)
    app.state.batcher = Batcher(app.state.log, metrics, shadow)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    # Around all of the framework: what it answers by itself, such as a fault, passes here too.
    inner = app.build_middleware_stack
    app.build_middleware_stack = lambda: reduce(  # type: ignore[method-assign]
        lambda wrapped, layer: layer(wrapped), layers(app, hot), inner()
    )
    for each in rollout.slots:
        each.fill()
    return app


def layers(app: FastAPI, hot: bool) -> list[Callable[[ASGIApp], ASGIApp]]:
    """Return what every request passes on its way to the routes, the innermost first."""
    state = app.state
    ordinary: list[Callable[[ASGIApp], ASGIApp]]
    ordinary = [partial(measure, metrics=state.metrics), identify]
    if not hot:
        return ordinary
    front = partial(
        Front,
        rollout=state.rollout,
        batcher=state.batcher,
        metrics=state.metrics,
        most_bytes=state.settings.serving.max_body_bytes,
    )
    return [*ordinary, front]


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    async with contextlib.AsyncExitStack() as stack:
        for slot in state.rollout.slots:
            stack.enter_context(watching(slot, state.settings.serving.watch_seconds))
        if state.log:
            await stack.enter_async_context(ticking(state.log))
            stack.push_async_callback(state.batcher.shadow.close)
        yield


def openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the service, with the fields of the model that is loaded now."""
    served: Served | None = app.state.slot.served
    version = served.model.version if served else "no model"
    description = get_openapi(
        title=app.title, version=version, description=app.description, routes=app.routes
    )
    if served:
        _describe_prediction(description, served)
    return description


def _describe_prediction(description: dict[str, Any], served: Served) -> None:
    models = {"request": served.request, "answer": served.answer}
    _, definitions = models_json_schema(
        [(served.request, "validation"), (served.answer, "serialization")],
        ref_template=REFERENCE,
    )
    description["components"]["schemas"].update(definitions["$defs"])
    request, answer = (
        {"schema": {"$ref": REFERENCE.format(model=model.__name__)}} for model in models.values()
    )
    predictor = served.predictor
    request["example"] = schemas.example_request(predictor.contract, predictor.examples)
    if example := schemas.example_answer(predictor.card, predictor.examples):
        answer["example"] = example
    operation = description["paths"]["/predict"]["post"]
    operation["requestBody"] = {"required": True, "content": {"application/json": request}}
    operation["responses"]["200"]["content"] = {"application/json": answer}


def serve(settings: Settings) -> None:
    """Serve until interrupted.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    ServingError
        Where the address cannot be had.
    """
    with listen(settings.serving) as listener, ingestion.running(settings.events):
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(settings), access_log=False, log_level="warning", server_header=False
            )
        )
        # What is there now stays: no collection has to look at it again.
        gc.freeze()
        host, port, *_ = listener.getsockname()
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"{settings.project.name}: page {address}/  API {address}/docs", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.run([listener])


def listen(serving: Serving) -> socket.socket:
    """Take the address of the settings, or raise ServingError, saying what to set."""
    host, port = serving.host, serving.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except socket.gaierror as error:
        raise ServingError(f"host {host!r} is unknown; {_way_out('host')}") from error
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                problem, key = f"port {port} on {host} is taken", "port"
            case errno.EACCES:
                problem, key = f"port {port} on {host} needs more rights than this user has", "port"
            case errno.EADDRNOTAVAIL:
                problem, key = f"{host} is no address of this machine", "host"
            case _:
                raise
        raise ServingError(f"{problem}; {_way_out(key)}") from error


def _paths(app: FastAPI) -> list[str]:
    routes = [*app.routes, *(route for router in ROUTERS for route in router.routes)]
    return [path for route in routes if (path := getattr(route, "path", None))]


def _challenger(settings: Settings) -> Slot | None:
    serving = settings.serving
    if serving.challenger is None:
        return None
    role: Role = "canary" if serving.canary else "shadow"
    found = source.of(settings, "challenger")
    return Slot(found, Holds(serving.state / "held-challengers"), True, role)


@contextlib.asynccontextmanager
async def ticking(log: EventLog) -> AsyncIterator[None]:
    """Leave segments to which nothing more comes, beside what the block does; at its end, all."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)
            log.tick()

    task = asyncio.create_task(tick())
    try:
        yield
    finally:
        task.cancel()
        log.close()


def _way_out(key: str) -> str:
    return f"set serving.{key} in params.yaml, or {PREFIX}SERVING{DELIMITER}{key.upper()}"
