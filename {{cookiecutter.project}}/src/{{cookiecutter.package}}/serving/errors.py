"""Errors as the service answers them: one JSON shape, from a wrong path to a wrong value."""

from difflib import get_close_matches
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field
from pydantic_core import ErrorDetails, to_json
from starlette.exceptions import HTTPException

from ..contract import Contract
from ..encoding import expected

MOST_DETAILS = 20
LONGEST_MESSAGE = 200
INFERENCE = "/v2/"


class Detail(BaseModel):
    """One thing that is wrong with a body."""

    path: str = Field(examples=["rows.0.bill_length_mm"])
    message: str = Field(examples=["expected a number, not 'x'"])


class Problem(BaseModel):
    """What went wrong."""

    code: str = Field(examples=["invalid"])
    message: str
    details: list[Detail] = []


class ErrorAnswer(BaseModel):
    """The answer to every request that fails."""

    error: Problem


class InferenceError(BaseModel):
    """The same to a client of the Open Inference Protocol, which has a shape of its own."""

    error: str = Field(examples=["bill_length_mm: 2 values, but shape [3]"])


class RequestError(Exception):
    """A request that cannot be served, with its answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: list[Detail] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = Problem(code=code, message=message, details=details or [])
        self.headers = headers


def malformed(message: str) -> RequestError:
    """Refuse a body that is no JSON."""
    return RequestError(400, "malformed", message)


def too_large(limit: int) -> RequestError:
    """Refuse a body that is larger than the settings allow."""
    message = f"the body is larger than {limit} bytes (serving.max_body_bytes): send fewer rows"
    # What is left of the body is not worth reading.
    return RequestError(413, "too_large", message, headers={"Connection": "close"})


def too_many_rows(rows: int, limit: int) -> RequestError:
    """Refuse more rows than the settings allow."""
    message = f"{rows} rows are more than {limit} (serving.max_rows): send them in parts"
    return RequestError(413, "too_many_rows", message)


def slow(seconds: float) -> RequestError:
    """Refuse a body that does not arrive."""
    message = f"the body did not arrive within {seconds:g} s (serving.timeout_seconds)"
    return RequestError(408, "request_timeout", message, headers={"Connection": "close"})


def late(seconds: float) -> RequestError:
    """Give up an answer."""
    message = f"no answer within {seconds:g} s (serving.timeout_seconds): send fewer rows"
    return RequestError(504, "timeout", message)


def busy(most: int) -> RequestError:
    """Refuse a request while too many others are being answered."""
    message = f"{most} requests are being answered (serving.max_concurrent): try again"
    return RequestError(429, "busy", message, headers={"Retry-After": "1"})


def unauthorized() -> RequestError:
    """Refuse a request without a key."""
    message = "expected an API key, as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'"
    return RequestError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


def invalid(problems: list[ErrorDetails], contract: Contract) -> RequestError:
    """Refuse a body that is JSON, but not what the contract says."""
    details = [detail(problem, contract) for problem in problems[:MOST_DETAILS]]
    more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
    first = f"{details[0].path or 'body'}: {details[0].message}"
    return RequestError(422, "invalid", first + more, details)


def refused(path: str, message: str) -> RequestError:
    """Refuse a body that is not of the form that its protocol has."""
    message = _shortened(message)
    return RequestError(
        422, "invalid", f"{path or 'body'}: {message}", [Detail(path=path, message=message)]
    )


def no_model(reason: str) -> RequestError:
    """Say that there is nothing to predict with."""
    return RequestError(503, "no_model", f"no model is loaded: {reason}")


def unrecorded(error: OSError) -> RequestError:
    """Say that an answer is withheld, as its event cannot be kept."""
    message = f"the event log cannot be written ({error.strerror}): nothing was predicted"
    return RequestError(503, "unrecorded", message, headers={"Retry-After": "5"})


def no_token() -> RequestError:
    """Refuse who does not say the operator's token."""
    message = "expected the header Authorization: Bearer, with the token of serving.admin_token"
    return RequestError(401, "unauthorized", message, headers={"WWW-Authenticate": "Bearer"})


def conflict(message: str) -> RequestError:
    """Refuse what the state of the service does not allow."""
    return RequestError(409, "conflict", message)


def detail(problem: ErrorDetails, contract: Contract) -> Detail:
    """Say where a value stands, in the path of its column, and what was expected there."""
    place = problem["loc"]
    message = problem["msg"]
    match problem["type"], len(place):
        case "value_error", _:
            message = str(problem["ctx"]["error"])
        case "missing", 3:
            (column,) = (c for c in contract.features if c.name == place[-1])
            message = f"missing, expected {expected(column)}"
        case "extra_forbidden", 3:
            message = f"unknown column{_suggestion(str(place[-1]), contract)}"
        case "missing" | "list_type" | "too_short", 1:
            message = "expected a list of at least one row"
        case "extra_forbidden", _:
            message = "unknown, expected 'rows' only"
        case "model_type", 2:
            message = "expected an object with a value for each column"
        case "model_type", _:
            message = "expected an object with 'rows'"
    return Detail(path=".".join(map(str, place)), message=_shortened(message))


def response(error: RequestError, path: str) -> Response:
    """Return the answer to a request that is refused."""
    return _answer(path, error.status, error.problem, error.headers)


def install(app: FastAPI) -> None:
    """Give every error of an app the one shape."""
    app.add_exception_handler(RequestError, _answer_request_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_fault)


def _answer_request_error(request: Request, error: Any) -> Response:
    return response(error, request.scope["path"])


def _answer_http_exception(request: Request, error: Any) -> Response:
    phrase = HTTPStatus(error.status_code).phrase.lower()
    message = f"{request.method} {request.url.path}: {phrase}"
    problem = Problem(code=phrase.replace(" ", "_"), message=message)
    return _answer(request.scope["path"], error.status_code, problem, error.headers)


def _answer_fault(request: Request, __: Exception) -> Response:
    message = "the service failed; its log says why"
    return _answer(request.scope["path"], 500, Problem(code="internal", message=message), None)


def _answer(path: str, status: int, problem: Problem, headers: dict[str, str] | None) -> Response:
    answer: BaseModel = ErrorAnswer(error=problem)
    if f"{path}/".startswith(INFERENCE):
        answer = InferenceError(error=problem.message)
    return Response(to_json(answer), status, headers, "application/json")


def _suggestion(name: str, contract: Contract) -> str:
    near = get_close_matches(name, [column.name for column in contract.features], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _shortened(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
