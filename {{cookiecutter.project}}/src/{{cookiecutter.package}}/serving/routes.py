"""The addresses of the service."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ..ingestion import backlog
from .batching import Call
from .errors import ErrorAnswer, malformed, too_large
from .front import MOST_BYTES
from .headers import PAGE_HEADERS
from .metrics import Metrics
from .rollout import Rollout
from .schemas import EventsAnswer, HealthAnswer, ModelAnswer, ReadyAnswer
from .served import Served
from .slot import Slot
from .trace import new_base

PAGE = Path(__file__).with_name("page")
FILES = {
    "/": "index.html",
    "/favicon.ico": "icon.svg",
    "/icon.svg": "icon.svg",
    "/page.css": "page.css",
    **{f"/{path.name}": path.name for path in sorted(PAGE.glob("*.js"))},
}
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "malformed: the body is no JSON"},
    401: {"model": ErrorAnswer, "description": "unauthorized: an API key is asked for"},
    408: {"model": ErrorAnswer, "description": "request_timeout: the body did not arrive"},
    413: {"model": ErrorAnswer, "description": "too_large, too_many_rows: over the limit"},
    422: {"model": ErrorAnswer, "description": "invalid: a value is not what the contract says"},
    429: {"model": ErrorAnswer, "description": "busy: too many requests are being answered"},
    503: {"model": ErrorAnswer, "description": "no_model: there is nothing to predict with"},
    504: {"model": ErrorAnswer, "description": "timeout: the answer takes too long"},
}

router = APIRouter()


def _slot(request: Request) -> Slot:
    slot: Slot = request.app.state.slot
    return slot


async def _champion(request: Request) -> Served:
    return _slot(request).require()


async def _chosen(request: Request) -> Served:
    rollout: Rollout = request.app.state.rollout
    return rollout.choose(request.scope["request_id"]) or rollout.champion.require()


ChampionDep = Annotated[Served, Depends(_champion)]
ChosenDep = Annotated[Served, Depends(_chosen)]


@router.post("/predict", tags=["model"], responses=FAILURES)
async def predict(request: Request, served: ChosenDep) -> Response:
    """Predict rows; a value that the model has not seen the like of is answered with a warning."""
    start, serving = perf_counter(), request.app.state.settings.serving
    body = await read_body(request, serving.max_body_bytes)
    if len(body) < MOST_BYTES:
        rows = served.decode(body, serving.max_rows)
    else:
        rows = await run_in_threadpool(served.decode, body, serving.max_rows)
    call = Call(served, body, rows, new_base(), request.scope["request_id"], start)
    await request.app.state.batcher.answer(call)
    headers = {"x-model-version": served.model.version}
    return Response(call.answer, headers=headers, media_type="application/json")


@router.get("/model", tags=["model"], response_model=ModelAnswer, responses={503: FAILURES[503]})
async def model(served: ChampionDep) -> Response:
    """Tell what is known of the model: its card, its contract and held-out examples."""
    predictor = served.predictor
    content = {
        "card": predictor.card,
        "contract": asdict(predictor.contract),
        "examples": predictor.examples,
    }
    return _json(content)


@router.get("/health/live", tags=["operation"], response_model=HealthAnswer)
async def live() -> HealthAnswer:
    """Answer as long as the process does."""
    return HealthAnswer(status="ok")


@router.get("/health/ready", tags=["operation"], responses={503: FAILURES[503]})
def ready(request: Request) -> ReadyAnswer:
    """Answer 200 if a model is loaded; where none is, try to load it again."""
    slot, settings = _slot(request), request.app.state.settings.events
    slot.fill()
    served, events = slot.require(), None
    if settings.mode != "off":
        waiting = backlog(settings.folder)
        events = EventsAnswer(
            backlog_bytes=waiting.bytes,
            backlog_segments=waiting.segments,
            store_error=waiting.state.error,
        )
    return ReadyAnswer(status="ok", model=served.model, refused=slot.reason or None, events=events)


@router.get("/metrics", tags=["operation"], response_class=Response)
def metrics(request: Request) -> Response:
    """Give the numbers that Prometheus collects."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.exposition(), media_type=CONTENT_TYPE_LATEST)


async def page(request: Request) -> Response:
    """Send a file of the page."""
    return FileResponse(PAGE / FILES[request.scope["route"].path], headers=PAGE_HEADERS)


for path in FILES:
    router.add_api_route(path, page, include_in_schema=False)


async def read_body(request: Request, limit: int) -> bytes:
    """Read a JSON body, never more of it than the limit."""
    _require_plain_json(request)
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
    return bytes(body)


def _require_plain_json(request: Request) -> None:
    content_type = request.headers.get("content-type", "")
    media_type, *parameters = content_type.lower().replace(" ", "").split(";")
    charsets = [each.partition("=")[2].strip('"') for each in parameters if "charset=" in each]
    if media_type != "application/json" or charsets not in ([], ["utf-8"]):
        raise malformed(f"expected content-type application/json in UTF-8, not {content_type!r}")
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise malformed(f"content-encoding {encoding!r} is not supported: send the body as it is")


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
