"""Request and response models, built from the contract; OpenAPI shows the same."""

from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from ..contract import Column, Contract
from ..encoding import encode_value, shortened

TYPES = {"numeric": "number", "integer": "integer", "categorical": "string", "datetime": "string"}
MOST_CATEGORIES = 20
# How OpenAPI refers to a model.
REFERENCE = "#/components/schemas/{model}"
EXAMPLE_BASE = "019aa4d17c5e3f8b2d6a90c1000000a7"


class Model(BaseModel):
    """Which model answered."""

    name: str
    version: str


class ModelAnswer(BaseModel):
    """What is known of the model."""

    card: dict[str, Any] = Field(description="Version, metrics, data and libraries.")
    contract: dict[str, Any] = Field(description="Task, target and columns.")
    examples: list[dict[str, Any]] = Field(description="Held-out rows, their truth, their answer.")


class HealthAnswer(BaseModel):
    """A word on the state of the service."""

    status: str = Field(examples=["ok"])


class EventsAnswer(BaseModel):
    """What of the event log is not in the store yet."""

    backlog_bytes: int
    backlog_segments: int
    store_error: str | None = Field(description="Why the store takes nothing; events wait for it.")


class ReadyAnswer(HealthAnswer):
    """The state of the service: ready also where something needs a look."""

    model: Model
    refused: str | None = Field(description="Why what the source offers is not served.")
    events: EventsAnswer | None = Field(description="Null where no events are kept.")


class SwapAnswer(BaseModel):
    """Which model serves after an operator's request, and which one was put aside."""

    serving: Model
    held: Model | None = Field(description="Not taken from the source again; null: none is held.")


def request_model(contract: Contract) -> type[BaseModel]:
    """Build the model of a request: rows of one field a column.

    Parameters
    ----------
    contract : Contract

    Returns
    -------
    type of BaseModel
        Fields are named by position and known by their alias, as a column may have any name.
        Columns that the model does not see are taken and ignored, so that a raw row can be sent.
    """
    fields: dict[str, Any] = {}
    for i, column in enumerate(contract.features):
        default = None if column.nullable else ...
        field = Field(default, alias=column.name, title=column.name)
        fields[f"column_{i}"] = (_type(column), field)
    ignored = [(column.name, column.reason) for column in contract.excluded]
    if contract.target:
        ignored.append((contract.target.name, "it is what the model predicts"))
    for i, (name, reason) in enumerate(ignored):
        note = f"Ignored: {reason}." if reason else "Ignored."
        fields[f"ignored_{i}"] = (Any, Field(None, alias=name, title=name, description=note))
    row = create_model("Row", __config__=ConfigDict(extra="forbid"), **fields)
    return create_model(
        "PredictionRequest",
        __config__=ConfigDict(extra="forbid"),
        rows=(list[row], Field(min_length=1)),  # type: ignore[valid-type]
    )


def rows_by_name(request: BaseModel) -> list[dict[str, Any]]:
    """Return the rows of a request, by column name."""
    rows: list[dict[str, Any]] = request.model_dump(by_alias=True)["rows"]
    return rows


def answer_model(contract: Contract) -> type[BaseModel]:
    """Build the model of an answer: its types follow from the task."""
    label: Any = float
    shares: Any = None
    score: Any = None
    note = "The predicted number."
    if contract.task == "clustering":
        label, score = int | str, float
        note = "The group of the row, or whether it is an inlier or an outlier."
    elif contract.classes:
        label, shares = type(contract.classes[0]), dict[str, float]
        note = "The most probable class."
    examples = list(contract.classes) or None
    prediction = create_model(
        "Prediction",
        id=(str, Field(description="To tell the truth by, later.")),
        prediction=(label, Field(description=note, examples=examples)),
        probabilities=(shares, Field(description="By class; null if there are no classes.")),
        score=(score, Field(description="Clustering only: how unusual the row is.")),
        warnings=(list[str], Field(description="Values unlike those the model was trained on.")),
    )
    return create_model(
        "PredictionAnswer",
        predictions=list[prediction],  # type: ignore[valid-type]
        model=Model,
        request_id=(str, Field(description="That of X-Request-ID or traceparent, or a new one.")),
    )


def example_answer(card: dict[str, Any], examples: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the answer to the example, None if there is no held-out row."""
    if not examples:
        return None
    model = Model(name=card["name"], version=card["version"]).model_dump()
    prediction = {"id": f"{EXAMPLE_BASE}-0", "warnings": [], **examples[0]["prediction"]}
    return {"predictions": [prediction], "model": model, "request_id": EXAMPLE_BASE}


def example_request(contract: Contract, examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a body that the service answers: a held-out row, or the contract's typical values."""
    if examples:
        return {"rows": [examples[0]["row"]]}
    return {"rows": [{column.name: column.example for column in contract.features}]}


def _type(column: Column) -> Any:
    # The encoder is the one judge of values, so the service takes exactly what the model can read.
    readable = AfterValidator(partial(_readable, column))
    return Annotated[Any, readable, WithJsonSchema(_schema(column))]


def _readable(column: Column, value: Any) -> Any:
    encode_value(column, value)
    return value


def _schema(column: Column) -> dict[str, Any]:
    types = [TYPES[column.kind]] if column.kind in TYPES else ["boolean"]
    examples = [] if column.example is None else [column.example]
    note = ""
    if column.kind == "boolean":
        false, true = column.categories
        if (false, true) != ("false", "true"):
            types.append("string")
            note = f"true or {true!r}, false or {false!r}"
    elif column.kind == "categorical":
        examples = list(column.categories[:MOST_CATEGORIES])
        note = f"Seen in training: {shortened(column.categories, MOST_CATEGORIES)}"
    elif column.minimum is not None:
        note = f"{column.minimum} to {column.maximum} in training"
    if column.kind == "datetime":
        written = f" or {column.format}" if column.format else ""
        note = "; ".join(filter(None, [f"ISO 8601{written}", note]))
    if column.nullable:
        types.append("null")
        note = "; ".join(filter(None, [note, "may be missing"]))
    return {
        "title": column.name,
        "type": types[0] if len(types) == 1 else types,
        "description": note,
        "examples": examples,
    }
