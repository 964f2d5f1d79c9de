"""Feedback: what turned out to be true of a prediction, as soon as it is known."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import State

from .. import events, ingestion
from ..contract import Contract
from ..encoding import label
from ..errors import StoreError
from ..settings import Events
from .bodies import read
from .errors import MOST_DETAILS, Detail, ErrorAnswer, RequestError
from .routes import FAILURES, ChampionDep
from .rows import read_json

if TYPE_CHECKING:
    from ..store import Store
    from .metrics import Metrics

logger = logging.getLogger(__name__)

RETRY_SECONDS = 30
_opening = Lock()
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00]*$")]
AnyLabel = Annotated[Any, WithJsonSchema({"type": ["string", "number", "boolean"]})]


class Truth(BaseModel):
    """What is true of one prediction."""

    model_config = ConfigDict(extra="forbid")

    prediction_id: Text = Field(description="As the answer to the prediction gave it.")
    label: AnyLabel = Field(description="The class, or the number.")
    observed_at: datetime | None = Field(None, description="When; without a zone it is UTC.")
    source: Text | None = Field(None, description="Who or what says so.")


class Truths(BaseModel):
    """What is true of some predictions."""

    model_config = ConfigDict(extra="forbid")

    truths: list[Truth] = Field(min_length=1)


class Recorded(BaseModel):
    """How one truth was recorded."""

    prediction_id: str
    revision: int = Field(description="1 for the first truth of a prediction, 2 for the next.")
    new: bool = Field(description="False where exactly this had been said before.")


class FeedbackAnswer(BaseModel):
    """How each truth was recorded, in the order of the request."""

    truths: list[Recorded]


TRUTHS = {"type": "array", "minItems": 1, "items": Truth.model_json_schema()}
SHAPE = {"type": "object", "properties": {"truths": TRUTHS}, "required": ["truths"]}
BODY = {
    "required": True,
    "content": {"application/json": {"schema": {**SHAPE, "additionalProperties": False}}},
}
RESPONSES: dict[int | str, dict[str, Any]] = {
    **{code: FAILURES[code] for code in (400, 413, 422)},
    404: {"model": ErrorAnswer, "description": "unknown_prediction: nothing has such an id"},
    503: {"model": ErrorAnswer, "description": "no_model, store_unavailable: try again later"},
}

router = APIRouter()


@router.post(
    "/feedback",
    tags=["model"],
    response_model=FeedbackAnswer,
    responses=RESPONSES,
    openapi_extra={"requestBody": BODY},
)
async def feedback(request: Request, served: ChampionDep) -> Response:
    """Record what was true; the same again changes nothing, anything else is the next revision."""
    state = request.app.state
    _, body = await read(request)
    truths = _truths(body, served.predictor.contract)
    recorded, unknown = await run_in_threadpool(_record, state, state.settings.events, truths)
    counted: Metrics = state.metrics
    if unknown:
        counted.truths("unknown", len(unknown))
        raise _unknown([truth.prediction_id for truth in truths], unknown)
    new = sum(each.new for each in recorded)
    counted.truths("new", new)
    counted.truths("known", len(recorded) - new)
    return Response(to_json(FeedbackAnswer(truths=recorded)), media_type="application/json")


def _truths(body: bytes, contract: Contract) -> list[Truth]:
    try:
        truths = Truths.model_validate(read_json(body)).truths
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise _invalid([(problem["loc"], problem["msg"]) for problem in problems]) from error
    wrong = []
    for i, truth in enumerate(truths):
        try:
            truth.label = label(contract, truth.label)
        except ValueError as error:
            wrong.append((("truths", i, "label"), str(error)))
    if wrong:
        raise _invalid(wrong)
    return truths


def _invalid(problems: Sequence[tuple[Sequence[int | str], str]]) -> RequestError:
    details = [
        Detail(path=".".join(map(str, place)), message=message)
        for place, message in problems[:MOST_DETAILS]
    ]
    more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
    first = f"{details[0].path or 'body'}: {details[0].message}"
    return RequestError(422, "invalid", first + more, details)


def _record(state: State, settings: Events, truths: list[Truth]) -> tuple[list[Recorded], set[str]]:
    """Record truths, all of them or, where ids are unknown, none; return those ids as well."""
    try:
        store = _store(state, settings)
        if missing := _missing(store, settings, {truth.prediction_id for truth in truths}):
            return [], missing
        recorded = store.record(
            [
                {
                    "prediction_id": truth.prediction_id,
                    "label": msgspec.json.encode(truth.label).decode(),
                    "observed_at": _seconds(truth.observed_at),
                    "source": truth.source,
                }
                for truth in truths
            ]
        )
    except StoreError as error:
        logger.warning("feedback is refused: %s", error)
        message = "the store of events cannot be used now; the service's log says why"
        headers = {"Retry-After": str(RETRY_SECONDS)}
        raise RequestError(503, "store_unavailable", message, headers=headers) from error
    answers = [
        Recorded(prediction_id=truth.prediction_id, revision=revision, new=new)
        for truth, (revision, new) in zip(truths, recorded, strict=True)
    ]
    return answers, set()


def _store(state: State, settings: Events) -> "Store":
    from ..store import connect

    with _opening:
        if not hasattr(state, "store"):
            state.store = connect(settings.store)
    found: Store = state.store
    return found


def _missing(store: "Store", settings: Events, ids: set[str]) -> set[str]:
    """Return ids that are neither stored nor wait to be; one may be stored while looked for."""
    names = [path.name for path in events.segments(settings.folder)]
    positions = store.positions(names)
    if missing := ids - store.known(sorted(ids)):
        bases = {each.rpartition("-")[0] for each in missing}
        missing -= ingestion.waiting(settings.folder, positions, bases)
    return missing and missing - store.known(sorted(missing))


def _unknown(ids: Sequence[str], missing: set[str]) -> RequestError:
    """Name the first of the ids that nothing has."""
    first = next(each for each in ids if each in missing)
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    message = f"no prediction has the id {first!r}{more}: nothing is kept"
    return RequestError(404, "unknown_prediction", message)


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
