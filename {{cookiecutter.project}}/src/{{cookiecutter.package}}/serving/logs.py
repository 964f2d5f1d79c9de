"""The log: one line an event, as JSON for machines or as text for people, to stderr."""

import json
import logging
import sys
from datetime import UTC, datetime
from time import perf_counter
from typing import Any
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..settings import Serving
from . import trace
from .limits import PROBES

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}

logger = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message; the request that it is about; what else was said of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line of JSON."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_request(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Time, level, message and the request's id."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line, and a traceback where there is one."""
        name = _request().get("request_id")
        time = self.formatTime(record, "%H:%M:%S")
        about = f" [{name}]" if name else ""
        line = f"{time} {record.levelname.lower():<7} {record.getMessage()}{about}"
        if record.exc_info:
            line += f"\n{self.formatException(record.exc_info)}"
        return line


def configuration(serving: Serving) -> dict[str, Any]:
    """Return what `logging.config.dictConfig` needs.

    Parameters
    ----------
    serving : Serving
        Its ``log_format`` is ``json``, ``text``, or ``auto``: text where somebody sits at it.

    Returns
    -------
    dict
    """
    text = serving.log_format == "text" or (serving.log_format == "auto" and sys.stderr.isatty())
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": TextFormatter if text else JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        # It tells that it starts and stops.
        "loggers": {"uvicorn": {"level": "WARNING"}},
    }


def request(method: str, path: str, status: int, seconds: float) -> None:
    """Log an answered request: a failure of the service as an error.

    Parameters
    ----------
    method, path : str
    status : int
    seconds : float
    """
    ms = round(seconds * 1000, 2)
    place = quote(path)
    logger.log(
        logging.ERROR if status >= 500 else logging.INFO,
        "%s %s %d in %s ms",
        method,
        place,
        status,
        ms,
        extra={"method": method, "path": place, "status": status, "ms": ms},
    )


def recorded(app: ASGIApp, every: bool) -> ASGIApp:
    """Wrap an app so that its failures are logged, or all requests.

    Parameters
    ----------
    app : ASGIApp
    every : bool
        Whether requests that went well, and probes, are worth a line.

    Returns
    -------
    ASGIApp
    """

    async def record(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        status, start = 0, perf_counter()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # The server logs what is raised, with its traceback.
        await app(scope, receive, watch)
        if every or (status >= 500 and scope["path"] not in PROBES):
            request(scope["method"], scope["path"], status, perf_counter() - start)

    return record


def _request() -> dict[str, str]:
    name, belongs = trace.current.get(("", None))
    found = {"request_id": name, "trace_id": belongs}
    return {key: value for key, value in found.items() if value}
