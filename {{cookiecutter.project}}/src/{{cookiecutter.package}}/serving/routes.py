"""The addresses of the service."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from .errors import ErrorAnswer, invalid, malformed, too_large
from .metrics import Metrics
from .schemas import HealthAnswer, ModelAnswer, rows_by_name
from .slot import Served, Slot

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
    body = await read_body(request, request.app.state.settings.serving.max_body_bytes)
    return await run_in_threadpool(_answer, served, body, request.app.state.metrics)


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
    return Response(counted.exposition(_slot(request)), media_type=CONTENT_TYPE_LATEST)


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


def read_json(body: bytes) -> Any:
    """Parse a body, or refuse it."""
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise malformed(f"the body is no JSON: {error}") from error


def _answer(served: Served, body: bytes, counted: Metrics) -> Response:
    content = read_json(body)
    try:
        rows = rows_by_name(served.request.model_validate(content))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), served.predictor.contract) from error
    predictions = served.predictor.predict(rows)
    counted.count(predictions)
    return _json({"predictions": predictions, "model": served.model})


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
