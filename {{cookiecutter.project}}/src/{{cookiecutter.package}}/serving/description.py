"""The description of the API, OpenAPI 3.1, with the fields of the model that is served."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from . import inference_protocol, invocations, schemas
from .schemas import REFERENCE
from .served import Served

DOORS = (invocations, inference_protocol)
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


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
