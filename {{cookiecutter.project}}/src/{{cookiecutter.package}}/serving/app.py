"""The app, and the process around it."""

import contextlib
import errno
import gc
import socket
from collections.abc import Callable
from functools import partial, reduce
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from ..errors import ServingError
from ..events import EventLog
from ..settings import DELIMITER, PREFIX, Serving, Settings
from . import errors, inference_protocol, invocations, routes, schemas
from .batching import Batcher
from .front import Front
from .metrics import Metrics, measure
from .served import Served
from .slot import Slot
from .trace import identify

DOORS = (invocations, inference_protocol)
ROUTERS = (routes.router, *(door.router for door in DOORS))
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
    )
    app.state.settings = settings
    app.state.slot = Slot(settings.serving.bundle)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.state.metrics = metrics = Metrics(_paths(app), folder)
    metrics.models = partial(_models, app.state.slot)
    events = settings.events
    log = None
    if events.mode != "off":
        log = EventLog(events.folder, durable=events.mode == "disk")
    app.state.batcher = Batcher(log, metrics)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    # Around all of the framework: what it answers by itself, such as a fault, passes here too.
    inner = app.build_middleware_stack
    app.build_middleware_stack = lambda: reduce(  # type: ignore[method-assign]
        lambda wrapped, layer: layer(wrapped), layers(app, hot), inner()
    )
    app.state.slot.fill()
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
        slot=state.slot,
        batcher=state.batcher,
        metrics=state.metrics,
        most_bytes=state.settings.serving.max_body_bytes,
    )
    return [*ordinary, front]


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
    with listen(settings.serving) as listener:
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


def _models(slot: Slot) -> list[tuple[str, str, str]]:
    model = slot.served.model if slot.served else None
    return [(model.name, model.version, "champion")] if model else []


def _way_out(key: str) -> str:
    return f"set serving.{key} in params.yaml, or {PREFIX}SERVING{DELIMITER}{key.upper()}"
