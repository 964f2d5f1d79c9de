"""The Open Inference Protocol, version 2: what clients of Triton and KServe speak.

https://github.com/kserve/open-inference-protocol, with Triton's binary tensor data. A column is a
tensor of shape [n] or [n, 1]. What is missing is NaN, null, an empty text, or a tensor left out.
Clients read errors as one string, so they come as one here.
"""

from __future__ import annotations

import json
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field

from ..contract import Contract
from .batching import Call
from .bodies import JSON, aside, read
from .errors import InferenceError, RequestError, refused
from .routes import FAILURES as ALL_FAILURES
from .routes import ChampionDep, answered
from .schemas import REFERENCE
from .served import Served
from .tensors import DATATYPES, STATED, Inference, answer, parse

BINARY = "application/octet-stream"
HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data"]
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {**failure, "model": InferenceError} for status, failure in ALL_FAILURES.items()
}
NO_MODEL: dict[int | str, dict[str, Any]] = {503: FAILURES[503]}
ABSENT: dict[int | str, dict[str, Any]] = {
    404: {"model": InferenceError, "description": "not_found: no such model, or not this version"}
}
UNKNOWN = ABSENT | NO_MODEL

router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


class ServerAnswer(BaseModel):
    """Who answers."""

    name: str
    version: str
    extensions: list[str] = Field(examples=[EXTENSIONS])


class LiveAnswer(BaseModel):
    """Whether the service runs."""

    live: bool


class ReadyAnswer(BaseModel):
    """Whether a model can be asked."""

    ready: bool


class TensorKind(BaseModel):
    """A tensor that is taken or given."""

    name: str
    datatype: str = Field(examples=["FP64"])
    shape: list[int] = Field(examples=[[-1, 1]])
    parameters: dict[str, str] = {}


class ModelAnswer(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorKind]
    outputs: list[TensorKind]


class InputTensor(BaseModel):
    """The values of one column; without ``data`` they come as bytes behind the JSON."""

    name: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, max_length=2, examples=[[1, 1]])
    datatype: Literal[DATATYPES]  # type: ignore[valid-type]
    data: list[Any] | None = None
    parameters: dict[str, Any] = Field({}, examples=[{"binary_data_size": 8}])


class RequestedOutput(BaseModel):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Any] = Field({}, examples=[{"binary_data": False}])


class InferenceRequest(BaseModel):
    """Rows as tensors, one for each column; no outputs are all."""

    inputs: list[InputTensor] = Field(min_length=1)
    id: str = ""
    outputs: list[RequestedOutput] = []
    parameters: dict[str, Any] = Field({}, examples=[{"binary_data_output": False}])


class OutputTensor(BaseModel):
    """What the model says of each row; without ``data`` it comes as bytes behind the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] = {}


class InferenceAnswer(BaseModel):
    """The predictions; among the parameters a word on values unlike those of the training."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, Any] = {}
    outputs: list[OutputTensor]


INFER: dict[str, Any] = {
    "responses": {
        200: {"model": InferenceAnswer, "content": {BINARY: {}}},
        **ABSENT,
        **FAILURES,
    },
    "openapi_extra": {
        "parameters": [
            {
                "name": HEADER,
                "in": "header",
                "schema": {"type": "integer", "minimum": 0},
                "description": "Length of the JSON, where tensors come behind it as bytes.",
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {"schema": {"$ref": "#/components/schemas/InferenceRequest"}},
                BINARY: {"schema": {"type": "string", "format": "binary"}},
            },
        },
    },
}


async def _model(name: Annotated[str, Path()], served: ChampionDep) -> Served:
    if name != served.model.name:
        raise _unknown(f"no model {name!r}, expected {served.model.name!r}")
    return served


ModelDep = Annotated[Served, Depends(_model)]


async def _version(version: Annotated[str, Path()], served: ModelDep) -> None:
    if version != served.model.version:
        raise _unknown(f"no version {version!r}, expected {served.model.version!r}")


VERSION = [Depends(_version)]


# First, as the framework looks at one route after the other.
@router.post("/models/{name}/infer", **INFER)
@router.post("/models/{name}/versions/{version}/infer", dependencies=VERSION, **INFER)
async def infer(request: Request, served: ModelDep) -> Response:
    """Predict rows that come as tensors, one for each column."""
    start = perf_counter()
    if "version" not in request.path_params:
        served = request.app.state.rollout.choose(request.scope["request_id"]) or served
    _, body = await read(request, (JSON, BINARY, ""))
    length = request.headers.get(HEADER, str(len(body)))
    if not length.isdecimal() or int(length) > len(body):
        raise refused(HEADER, f"expected a number of bytes within the body, not {length!r}")
    asked, rows = await aside(len(body), parse, served.predictor.contract, body, int(length))
    wanted = _wanted(asked, [name for name, *_ in _outputs(served)])
    call = await answered(request, served, rows, start)
    content, header = await aside(len(call.answer), _answer, call, asked, wanted)
    headers = {"x-model-version": served.model.version}
    if header is not None:
        headers[HEADER] = str(header)
    return Response(content, headers=headers, media_type=JSON if header is None else BINARY)


@router.get("")
async def server(request: Request) -> ServerAnswer:
    """Tell what is spoken here."""
    slot = request.app.state.slot
    version = slot.served.model.version if slot.served else ""
    return ServerAnswer(name=request.app.title, version=version, extensions=EXTENSIONS)


@router.get("/health/live")
async def live() -> LiveAnswer:
    """Answer as long as the process does."""
    return LiveAnswer(live=True)


@router.get("/health/ready", responses=NO_MODEL)
async def ready(_: ChampionDep) -> ReadyAnswer:
    """Answer 200 if a model is loaded."""
    return ReadyAnswer(ready=True)


@router.get("/models/{name}", responses=UNKNOWN)
@router.get("/models/{name}/versions/{version}", responses=UNKNOWN, dependencies=VERSION)
async def metadata(served: ModelDep) -> ModelAnswer:
    """Tell which tensors the model takes and gives."""
    contract, model = served.predictor.contract, served.model
    inputs = [
        TensorKind(name=column.name, datatype=STATED[column.kind], shape=[-1, 1])
        for column in contract.features
    ]
    outputs = [
        TensorKind(name=name, datatype=datatype, shape=[-1, *more])
        for name, datatype, more in _outputs(served)
    ]
    for output in outputs:
        if output.name == "probabilities":
            output.parameters["classes"] = json.dumps(contract.class_names, ensure_ascii=False)
    platform = str(served.predictor.card["plan"]["form"])
    return ModelAnswer(
        name=model.name,
        versions=[model.version],
        platform=platform,
        inputs=inputs,
        outputs=outputs,
    )


@router.get("/models/{name}/ready", responses=UNKNOWN)
@router.get("/models/{name}/versions/{version}/ready", responses=UNKNOWN, dependencies=VERSION)
async def model_ready(_: ModelDep) -> ReadyAnswer:
    """Answer 200 if this model is loaded."""
    return ReadyAnswer(ready=True)


def describe(description: dict[str, Any], contract: Contract | None, row: dict[str, Any]) -> None:
    """Complete OpenAPI's description with the request, and one that is answered.

    Parameters
    ----------
    description : dict
        Of the whole service.
    contract : Contract or None
        None where no model is loaded.
    row : dict
        A row that is answered.
    """
    schema = InferenceRequest.model_json_schema(ref_template=REFERENCE)
    description["components"]["schemas"] |= schema.pop("$defs") | {"InferenceRequest": schema}
    tensors = [
        {"name": column.name, "shape": [1, 1], "datatype": STATED[column.kind], "data": [value]}
        for column in (contract.features if contract else ())
        if (value := row.get(column.name)) is not None
    ]
    for tensor in tensors:
        if isinstance(tensor["data"][0], str):
            tensor["datatype"] = "BYTES"
    for path, operations in description["paths"].items():
        if tensors and path.endswith("/infer"):
            content = operations["post"]["requestBody"]["content"]
            content[JSON] = {**content[JSON], "example": {"inputs": tensors}}


def _outputs(served: Served) -> list[tuple[str, str, list[int]]]:
    """Name the outputs of a model, with their datatype and the size of their second dimension."""
    contract = served.predictor.contract
    outputs: list[tuple[str, str, list[int]]] = [("prediction", _label_type(served), [])]
    if contract.classes:
        outputs.append(("probabilities", "FP64", [len(contract.classes)]))
    if contract.task == "clustering":
        outputs.append(("score", "FP64", []))
    return [*outputs, ("id", "BYTES", [])]


def _label_type(served: Served) -> str:
    contract = served.predictor.contract
    if contract.task == "clustering":
        return "INT64" if served.predictor.plan.offset is None else "BYTES"
    types = set(map(type, contract.classes))
    if types == {bool}:
        return "BOOL"
    if types == {int}:
        return "INT64"
    # A regression has no classes at all.
    return "FP64" if types <= {int, float} else "BYTES"


def _wanted(asked: Inference, known: list[str]) -> dict[str, bool]:
    """Return the outputs that are asked for, and whether they are to be sent as bytes."""
    default = asked.parameters.get("binary_data_output", False)
    wanted = {each.name: each.parameters for each in asked.outputs} or {name: {} for name in known}
    for name, parameters in wanted.items():
        if name not in known:
            raise refused(f"outputs.{name}", f"unknown output, expected {', '.join(known)}")
        for word in ("classification", "shared_memory_region"):
            if word in parameters:
                raise refused(f"outputs.{name}", f"{word} is not supported")
    return {name: bool(each.get("binary_data", default)) for name, each in wanted.items()}


def _answer(call: Call, asked: Inference, wanted: dict[str, bool]) -> tuple[bytes, int | None]:
    model, predictions = call.served.model, call.predictions
    content: dict[str, Any] = {
        "model_name": model.name,
        "model_version": model.version,
        "id": asked.id or call.request_id,
    }
    warnings = [
        f"row {i}: {warning}" for i, each in enumerate(predictions) for warning in each.warnings
    ]
    if warnings:
        content["parameters"] = {"warnings": "\n".join(warnings)}
    outputs = []
    for name, datatype, more in _outputs(call.served):
        if name in wanted:
            if name == "probabilities":
                values = [p for each in predictions for p in (each.probabilities or {}).values()]
            else:
                values = [getattr(each, name) for each in predictions]
            outputs.append((name, datatype, [len(predictions), *more], values, wanted[name]))
    return answer(content, outputs)


def _unknown(message: str) -> RequestError:
    return RequestError(404, "not_found", message)
