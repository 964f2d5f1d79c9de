"""MLflow's scoring protocol: takes and answers what `mlflow models serve` does for the same model.

Rows in any of its forms are written as /predict has them, and go the same way. What the contract
does not know is refused here, too; MLflow would drop it without a word.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from ..contract import Contract
from ..encoding import shortened
from .answers import encode
from .batching import Call
from .bodies import JSON, aside, loads, native, read
from .errors import malformed, refused
from .routes import FAILURES, ChampionDep, ChosenDep, answered
from .schemas import HealthAnswer

CSV = "text/csv"
SPLIT = {"columns", "data", "index"}
FORMS = ("dataframe_split", "dataframe_records", "inputs", "instances")
# The MLflow whose protocol this is.
VERSION = "3.17"
# What stands for nothing in a CSV file: what pandas and `score` read so.
MISSING = {"", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "None", "n/a", "null"}
MISSING |= {"-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan", "NaN", "nan"}

router = APIRouter(tags=["MLflow scoring protocol"])


@router.post("/invocations", responses=FAILURES)
async def invocations(request: Request, served: ChosenDep) -> Response:
    """Predict rows in any form of MLflow's scoring protocol; ``params`` are ignored, as there."""
    start = perf_counter()
    media_type, body = await read(request, (JSON, CSV))
    write = from_csv if media_type == CSV else from_json
    rows = await aside(len(body), write, served.predictor.contract, body)
    call = await answered(request, served, rows, start)
    content = await aside(len(call.answer), table, call)
    return Response(content, headers={"x-model-version": served.model.version}, media_type=JSON)


@router.get("/ping", responses={503: FAILURES[503]})
@router.get("/health", responses={503: FAILURES[503]})
async def ping(_: ChampionDep) -> HealthAnswer:
    """Answer 200 if a model is loaded."""
    return HealthAnswer(status="ok")


@router.get("/version", response_class=PlainTextResponse)
async def version() -> str:
    """Tell which MLflow's protocol is spoken."""
    return VERSION


def from_json(contract: Contract, body: bytes) -> bytes:
    """Write a JSON body as /predict takes it.

    Parameters
    ----------
    contract : Contract
        Its order of features is that of values that come without names.
    body : bytes
        An object with one of `FORMS`; whatever else stands in it is ignored.

    Returns
    -------
    bytes

    Raises
    ------
    RequestError
        Where the body is no JSON, or does not have the form that it names.
    """
    content = loads(body)
    given = [form for form in FORMS if form in content] if isinstance(content, dict) else []
    if len(given) != 1:
        found = f", not {' and '.join(given)}" if given else ""
        raise refused("", f"expected an object with exactly one of {', '.join(FORMS)}{found}")
    form, value = given[0], content[given[0]]
    names = [column.name for column in contract.features]
    if form == "dataframe_split":
        return native(_split(names, value))
    if form != "dataframe_records":
        if isinstance(value, dict):
            return native(_columns(form, value))
        if isinstance(value, list) and value and isinstance(value[0], list):
            return native(_named(form, names, value))
    if not isinstance(value, list) or not value:
        raise refused(form, "expected a list of at least one row")
    return native(value)


def from_csv(contract: Contract, body: bytes) -> bytes:
    """Write a CSV body as /predict takes it.

    Parameters
    ----------
    contract : Contract
        Says which columns are numbers.
    body : bytes
        UTF-8, separated by commas, with a header; blanks around a value do not count, and a column
        without a name, in which pandas writes its index, neither.

    Returns
    -------
    bytes

    Raises
    ------
    RequestError
        Where it is no CSV, or a row is not as long as the header.
    """
    try:
        text = body.decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise malformed(f"the body is no CSV: {error}") from error
    if len(lines) < 2:
        raise refused("rows", "expected a header and at least one row")
    header = [name.strip() for name in lines[0]]
    numbers = {c.name for c in contract.features if c.kind in ("numeric", "integer")}
    readers = [_number if name in numbers else _text for name in header]
    rows = [
        {name: read(value) for name, read, value in zip(header, readers, line, strict=True) if name}
        for line in _as_long(header, "rows", lines[1:])
    ]
    _require_different("rows", [name for name in header if name])
    return native(rows)


def table(call: Call) -> bytes:
    """Write the answer to a call as MLflow writes the table that the registered model gives."""
    rows = []
    for each in call.predictions:
        row: dict[str, Any] = {"prediction": each.prediction}
        if each.probabilities is not None:
            row |= {f"probability_{name}": share for name, share in each.probabilities.items()}
        if each.score is not None:
            row["score"] = each.score
        rows.append(row)
    return encode({"predictions": rows})


def describe(description: dict[str, Any], contract: Contract | None, row: dict[str, Any]) -> None:
    """Complete OpenAPI's description with the forms that are taken.

    Parameters
    ----------
    description : dict
        Of the whole service.
    contract : Contract or None
        None where no model is loaded.
    row : dict
        A row that is answered.
    """
    if contract is None:
        return
    rows = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Row"}}
    lines = {"type": "array", "minItems": 1, "items": {"type": "array"}}
    split = {
        "type": "object",
        "properties": {"columns": {"type": "array", "items": {"type": "string"}}, "data": lines}
        | {"index": {"description": "Ignored."}},
        "required": ["data"],
        "additionalProperties": False,
    }
    any_form = {"anyOf": [rows, lines, {"type": "object", "minProperties": 1}]}
    forms: dict[str, Any] = {"dataframe_split": split, "dataframe_records": rows}
    forms |= {"inputs": any_form, "instances": any_form}
    names = [column.name for column in contract.features]
    header = io.StringIO()
    csv.writer(header).writerows([names, [row.get(name) for name in names]])
    operation = description["paths"]["/invocations"]["post"]
    operation["requestBody"] = {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "type": "object",
                    "properties": forms,
                    "oneOf": [{"required": [form]} for form in FORMS],
                },
                "example": {"dataframe_records": [row]},
            },
            CSV: {"schema": {"type": "string"}, "example": header.getvalue()},
        },
    }
    answer = {
        "type": "object",
        "properties": {
            "predictions": {
                "type": "array",
                "items": {"type": "object", "required": ["prediction"]},
                "description": "prediction, and probability_<class> or score, of each row.",
            }
        },
        "required": ["predictions"],
    }
    operation["responses"]["200"]["content"] = {JSON: {"schema": answer}}


def _split(names: list[str], value: Any) -> list[dict[str, Any]]:
    form = "dataframe_split"
    if not isinstance(value, dict) or "data" not in value or value.keys() - SPLIT:
        raise refused(form, "expected an object with data, and perhaps columns and index")
    names = value.get("columns", names)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise refused(f"{form}.columns", "expected a list of names")
    _require_different(f"{form}.columns", names)
    return _named(f"{form}.data", names, value["data"])


def _named(path: str, names: Sequence[str], lines: Any) -> list[dict[str, Any]]:
    if not isinstance(lines, list) or not lines:
        raise refused(path, "expected a list of at least one row")
    return [dict(zip(names, line, strict=True)) for line in _as_long(names, path, lines)]


def _columns(form: str, columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Make rows of columns: lists of values, or of lists of one; single values are one row."""
    if not any(isinstance(values, list) for values in columns.values()):
        return [columns]
    lists = {}
    for name, values in columns.items():
        if not isinstance(values, list) or not values:
            raise refused(f"{form}.{name}", "expected a list of at least one value")
        single = all(isinstance(value, list) and len(value) == 1 for value in values)
        lists[name] = [value[0] for value in values] if single else values
    lengths = {name: len(values) for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise refused(form, f"expected as many values in each column: {found}")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _as_long(names: Sequence[str], path: str, lines: list[Any]) -> list[list[Any]]:
    for i, line in enumerate(lines):
        if not isinstance(line, list) or len(line) != len(names):
            found = f"{len(line)}" if isinstance(line, list) else repr(line)
            raise refused(f"{path}.{i}", f"expected {len(names)} values, not {found}")
    return lines


def _require_different(path: str, names: Sequence[str]) -> None:
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise refused(path, f"{shortened(doubled)}: more than once")


def _text(value: str) -> str | None:
    value = value.strip()
    return None if value in MISSING else value


def _number(value: str) -> float | str | None:
    """Read a number; what is none stays text, for the contract to say so."""
    text = _text(value)
    if text is None or "_" in text:
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
