import json
import logging
import sys

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.serving import logs, trace
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.settings import Serving

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(name="client_with")
def client_with_fixture(road):
    """The function that makes a client of an app with other settings."""

    def make(**changed):
        section = road.settings.serving.model_copy(update=changed)
        app = create_app(road.settings.model_copy(update={"serving": section}))
        return TestClient(app, raise_server_exceptions=False)

    return make


@pytest.fixture(name="record")
def record_fixture():
    """A record of an error, about a request."""
    error = ValueError("so\nnot")
    thrown = (ValueError, error, None)
    record = logging.LogRecord("shop", logging.ERROR, "", 1, "failed: %s", ("Höhe",), thrown)
    record.created, record.rows = 1767225600.25, 3
    token = trace.current.set(("order-7", TRACE))
    yield record
    trace.current.reset(token)


def lines(caplog):
    found = [record for record in caplog.records if record.name.endswith("serving.logs")]
    return [(each.levelname, each.method, each.path, each.status) for each in found]


def test_json_is_one_line(record):
    """Everything that is known of an event stands in one object on one line."""
    line = logs.JsonFormatter().format(record)
    assert "\n" not in line
    content = json.loads(line)
    assert content.pop("exception").endswith("ValueError: so\nnot")
    assert {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "error",
        "logger": "shop",
        "message": "failed: Höhe",
        "request_id": "order-7",
        "trace_id": TRACE,
        "rows": 3,
    } == content


def test_text_is_for_people(record):
    """Level, message and request id; the traceback below."""
    first, *more = logs.TextFormatter().format(record).splitlines()
    assert first.endswith(" error   failed: Höhe [order-7]")
    assert "ValueError: so" in more


@pytest.mark.parametrize(
    ("chosen", "terminal", "formatter"),
    [
        ("auto", True, logs.TextFormatter),
        ("auto", False, logs.JsonFormatter),
        ("json", True, logs.JsonFormatter),
        ("text", False, logs.TextFormatter),
    ],
)
def test_format(chosen, terminal, formatter, monkeypatch):
    """JSON unless somebody sits at it, or as the setting says."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configured = logs.configuration(Serving(log_format=chosen))
    assert formatter is configured["formatters"]["line"]["()"]


def test_requests_are_logged_if_wanted(client_with, caplog):
    """A line for each, with what a path cannot break."""
    caplog.set_level(logging.INFO)
    client = client_with(log_requests=True)
    client.get("/health/live")
    client.get("/no%0Awhere?secret")
    wanted = [("INFO", "GET", "/health/live", 200), ("INFO", "GET", "/no%0Awhere", 404)]
    assert wanted == lines(caplog)


def test_failures_are_always_logged(client_with, monkeypatch, caplog):
    """A failure of the service has a line, with its request's id; a client's has none."""
    client = client_with()
    client.get("/nowhere")
    monkeypatch.setattr(client.app.state.slot, "served", None)
    client.get("/model")
    assert [("ERROR", "GET", "/model", 503)] == lines(caplog)


def test_probes_that_fail_do_not_fill_the_log(client_with, tmp_path, caplog):
    """Why there is no model is said once, not with every probe."""
    client = client_with(bundle=tmp_path / "none")
    assert [503, 503] == [client.get("/health/ready").status_code for _ in range(2)]
    assert [] == lines(caplog)


def test_the_log_knows_the_request(client_with, road, monkeypatch):
    """What is logged while a request is answered carries its id and trace, also from threads."""
    client, seen = client_with(), []
    client.app.state.slot.served.rows_at_once = 0
    monkeypatch.setattr(Predictor, "output", lambda *_: seen.append(trace.current.get()) or 1 / 0)
    headers = {"x-request-id": "order-7", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    body = {"rows": [road.predictor.examples[0]["row"]]}
    client.post("/predict", json=body, headers=headers)
    assert [("order-7", TRACE)] == seen
