"""The app, and the processes around it."""

import asyncio
import errno
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from functools import partial, reduce
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.supervisors import Multiprocess

from .. import ingestion
from ..errors import ServingError
from ..events import EventLog, Role
from ..settings import DELIMITER, PREFIX, Serving, Settings
from . import (
    admin,
    errors,
    feedback,
    inference_protocol,
    invocations,
    logs,
    routes,
    schemas,
    source,
)
from .batching import Batcher
from .front import Front
from .headers import completed
from .holds import Holds
from .keys import Keys, guarded
from .limits import Places, limited
from .logs import recorded
from .metrics import Backlog, Metrics, measured
from .rollout import Rollout
from .served import Served
from .shadow import Shadow
from .slot import Slot, watching
from .trace import identified

DOORS = (invocations, inference_protocol)
ROUTERS = (routes.router, feedback.router, *(door.router for door in DOORS))
REQUEST_HEADERS = ("authorization", "content-type", "traceparent", "x-api-key", "x-request-id")
ANSWER_HEADERS = ("retry-after", "x-model-version", "x-request-id")
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
REFERENCE = "#/components/schemas/{model}"

logger = logging.getLogger(__name__)


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
        # What FastAPI looks up for every request costs a quarter of a prediction; see `telemetry`.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=_lifespan,
    )
    serving = settings.serving
    app.state.settings = settings
    app.state.exits = ExitStack()
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
    app.state.places = Places(serving.max_concurrent, metrics)
    app.state.keys = Keys(serving.keys) if serving.keys else None
    app.state.log, shadow = None, None
    if settings.events.mode != "off":
        app.state.log = EventLog(settings.events.folder, durable=settings.events.mode == "disk")
        shadow = Shadow(rollout, app.state.log, metrics)
        metrics.backlog = partial(_backlog, settings.events.folder)
    app.state.batcher = Batcher(app.state.log, metrics, shadow)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    for each in rollout.slots:
        each.counted = metrics.swap
        each.fill()
    # Around all of the framework: what it answers by itself, such as a fault, passes here too.
    stack = app.build_middleware_stack()
    app.middleware_stack = reduce(lambda wrapped, layer: layer(wrapped), layers(app, hot), stack)
    return app


def entrance(settings: Settings, folder: Path | None = None) -> ASGIApp:
    """Build the service, as `create_app`, and return what its requests meet first."""
    app = create_app(settings, folder)
    outermost: ASGIApp = app.middleware_stack  # type: ignore[assignment]

    def entered(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        scope["app"] = app
        return outermost(scope, receive, send)

    return entered


def layers(app: FastAPI, hot: bool) -> list[Callable[[ASGIApp], ASGIApp]]:
    """Return what every request passes on its way to the routes, the innermost first."""
    state, serving = app.state, app.state.settings.serving
    wrapping: list[Callable[[ASGIApp], ASGIApp]] = [
        partial(limited, places=state.places, seconds=serving.timeout_seconds)
    ]
    if state.keys:
        wrapping.append(partial(guarded, keys=state.keys))
    if serving.cors:
        wrapping.append(
            partial(
                CORSMiddleware,
                allow_origins=serving.cors,
                allow_methods=("GET", "POST"),
                allow_headers=REQUEST_HEADERS,
                expose_headers=ANSWER_HEADERS,
            )
        )
    wrapping += [
        partial(measured, metrics=state.metrics),
        partial(recorded, every=serving.log_requests),
        partial(completed, version=partial(_version, state.slot)),
        identified,
    ]
    if hot:
        wrapping.append(partial(Front, state=state, serving=serving))
    if serving.otlp:
        from . import telemetry

        name, version = app.title, _version(state.slot) or "no model"
        provider = telemetry.provider(serving.otlp, name, version)
        state.exits.callback(provider.shutdown)
        wrapping.append(partial(telemetry.traced, provider=provider))
    return wrapping


def openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the service, with the fields of the model that is loaded now."""
    served: Served | None = app.state.slot.served
    version = served.model.version if served else "no model"
    description = get_openapi(
        title=app.title, version=version, description=app.description, routes=app.routes
    )
    contract, row = None, {}
    if served:
        row = _describe_prediction(description, served)
        contract = served.predictor.contract
    for door in DOORS:
        door.describe(description, contract, row)
    if app.state.keys:
        description["components"]["securitySchemes"] = SCHEMES
        description["security"] = [{name: []} for name in SCHEMES]
    return description


def _describe_prediction(description: dict[str, Any], served: Served) -> dict[str, Any]:
    """Describe /predict, and return a row that it answers."""
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
    example = schemas.example_request(predictor.contract, predictor.examples)
    request["example"] = example
    if given := schemas.example_answer(predictor.card, predictor.examples):
        answer["example"] = given
    operation = description["paths"]["/predict"]["post"]
    operation["requestBody"] = {"required": True, "content": {"application/json": request}}
    operation["responses"]["200"]["content"] = {"application/json": answer}
    row: dict[str, Any] = example["rows"][0]
    return row


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Watch and tick while requests are answered; close, after the last one, what is open."""
    state = app.state
    async with AsyncExitStack() as stack:
        stack.enter_context(state.exits)
        for slot in state.rollout.slots:
            stack.enter_context(watching(slot, state.settings.serving.watch_seconds))
        if state.log:
            await stack.enter_async_context(_ticking(state.log))
            stack.push_async_callback(state.batcher.shadow.close)
        # What is there now stays: no collection has to look at it again.
        gc.freeze()
        yield


@asynccontextmanager
async def _ticking(log: EventLog) -> AsyncIterator[None]:
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


def serve(settings: Settings) -> None:
    """Serve until interrupted; then answer what is under way.

    Parameters
    ----------
    settings : Settings

    Raises
    ------
    ServingError
        Where the address cannot be had, or the API keys cannot be read.
    """
    serving = settings.serving
    with listen(serving) as listener, suppress(KeyboardInterrupt), ExitStack() as exits:
        # The server raises what stopped it again, when it has stopped; that is no failure.
        exits.callback(
            signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler)
        )
        folder = Path(exits.enter_context(TemporaryDirectory())) if serving.workers > 1 else None
        config = uvicorn.Config(
            partial(entrance, settings, folder),
            factory=True,
            interface="asgi3",
            # Nobody asks where a request came from: what proxies say of it need not be read.
            proxy_headers=False,
            workers=serving.workers,
            log_config=logs.configuration(serving),
            log_level=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=serving.shutdown_seconds,
        )
        host, port, *_ = listener.getsockname()
        if serving.keys:
            Keys(serving.keys)
        elif not ip_address(host).is_loopback:
            logger.warning("anybody who reaches %s may ask: serving.keys is null", host)
        exits.enter_context(ingestion.running(settings.events))
        if serving.workers == 1:
            config.load()
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        print(f"{settings.project.name}: page {address}/  API {address}/docs", flush=True)
        if serving.workers == 1:
            uvicorn.Server(config).run([listener])
        else:
            # That a worker died is told by its parent only, as news among others.
            logging.getLogger("uvicorn.error").setLevel(logging.INFO)
            Multiprocess(config, [listener]).run()


def listen(serving: Serving) -> socket.socket:
    """Take the address of the settings, or raise ServingError, saying what to set."""
    host, port = serving.host, serving.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
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
    # Connections inherit it. asyncio sets it on none of a socket made elsewhere: the body of an
    # answer, sent after its head, then waits 40 ms for the client to acknowledge the head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _paths(app: FastAPI) -> list[str]:
    routes = [*app.routes, *(route for router in ROUTERS for route in router.routes)]
    return [path for route in routes if (path := getattr(route, "path", None))]


def _version(slot: Slot) -> str | None:
    return slot.served.model.version if slot.served else None


def _backlog(folder: Path) -> Backlog:
    waiting = ingestion.backlog(folder)
    return Backlog(waiting.bytes, waiting.segments, waiting.state.error is None)


def _challenger(settings: Settings) -> Slot | None:
    serving = settings.serving
    if serving.challenger is None:
        return None
    role: Role = "canary" if serving.canary else "shadow"
    found = source.of(settings, "challenger")
    return Slot(found, Holds(serving.state / "held-challengers"), True, role)


def _way_out(key: str) -> str:
    return f"set serving.{key} in params.yaml, or {PREFIX}SERVING{DELIMITER}{key.upper()}"
