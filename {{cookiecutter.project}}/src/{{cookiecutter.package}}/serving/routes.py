"""The addresses of the service."""

from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json

from .batching import Call
from .bodies import JSON, aside, read
from .errors import ErrorAnswer
from .metrics import Metrics
from .schemas import HealthAnswer, ModelAnswer
from .served import Served
from .slot import Slot
from .trace import new_base

PAGE = Path(__file__).with_name("page")
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
FILES = {
    "/": "index.html",
    "/page.css": "page.css",
    "/page.js": "page.js",
    "/icon.svg": "icon.svg",
    "/favicon.ico": "icon.svg",
}
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorAnswer, "description": "malformed: the body is no JSON"},
    413: {"model": ErrorAnswer, "description": "too_large: the body is over the limit"},
    422: {"model": ErrorAnswer, "description": "invalid: a value is not what the contract says"},
    503: {"model": ErrorAnswer, "description": "no_model: there is nothing to predict with"},
}

router = APIRouter()


def _slot(request: Request) -> Slot:
    slot: Slot = request.app.state.slot
    return slot


async def _served(request: Request) -> Served:
    return _slot(request).require()


ServedDep = Annotated[Served, Depends(_served)]


@router.post("/predict", tags=["model"], responses=FAILURES)
async def predict(request: Request, served: ServedDep) -> Response:
    """Predict rows; a value that the model has not seen the like of is answered with a warning."""
    start = perf_counter()
    _, body = await read(request)
    call = await answered(request, served, body, start)
    return Response(call.answer, media_type=JSON)


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
    rows = await aside(len(body), served.decode, body)
    call = Call(served, body, rows, new_base(), request.scope["request_id"], start)
    await request.app.state.batcher.answer(call)
    return call


@router.get("/model", tags=["model"], response_model=ModelAnswer, responses={503: FAILURES[503]})
async def model(served: ServedDep) -> Response:
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
def ready(request: Request) -> HealthAnswer:
    """Answer 200 if a model is loaded; where none is, try to load it again."""
    slot = _slot(request)
    slot.fill()
    slot.require()
    return HealthAnswer(status="ok")


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
