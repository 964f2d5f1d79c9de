"""The addresses of the service."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from ..ingestion import backlog
from .batching import Call
from .bodies import JSON, aside, read
from .errors import ErrorAnswer
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
    start = perf_counter()
    _, body = await read(request)
    call = await answered(request, served, body, start)
    return Response(call.answer, headers={"x-model-version": served.version}, media_type=JSON)


async def answered(request: Request, served: Served, body: bytes, start: float) -> Call:
    """Answer a body as /predict takes it, whatever door it came through.

    Parameters
    ----------
    request : Request
    served : Served
    body : bytes
    start : float
        When the request came, as `time.perf_counter` has it.

    Returns
    -------
    Call
        Answered, and its event is in the log.

    Raises
    ------
    RequestError
        Where the body is not what the contract says, or the event cannot be kept.
    """
    most = request.app.state.settings.serving.max_rows
    rows = await aside(len(body), served.decode, body, most)
    call = Call(served, body, rows, new_base(), request.scope["request_id"], start)
    await request.app.state.batcher.answer(call)
    return call


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


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type=JSON)
