"""The app: the routes, and what is around them all."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial, reduce
from pathlib import Path

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from .. import ingestion
from ..events import EventLog, Role
from ..settings import Settings
from . import admin, errors, feedback, routes, source
from .batching import Batcher
from .description import DOORS, openapi
from .front import Front
from .gauges import Gauges
from .headers import completed
from .holds import Holds
from .keys import Keys, guarded
from .limits import Places, limited
from .logs import recorded
from .metrics import Backlog, Metrics, measured
from .rollout import Rollout
from .shadow import Shadow
from .slot import Slot, watching
from .trace import identified

ROUTERS = (routes.router, feedback.router, *(door.router for door in DOORS))
REQUEST_HEADERS = ("authorization", "content-type", "traceparent", "x-api-key", "x-request-id")
ANSWER_HEADERS = ("retry-after", "x-model-version", "x-request-id")
# New objects, less those that are gone, between collections.
GARBAGE = 20_000


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
        metrics.join(Gauges(settings.events.store))
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
        # What is there now stays, and requests leave few cycles: collections are seldom and short.
        gc.freeze()
        gc.set_threshold(GARBAGE)
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
