import re

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.serving import trace
from {{ cookiecutter.package }}.serving.app import create_app

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(scope="module", name="client")
def client_fixture(road):
    return TestClient(create_app(road.settings), raise_server_exceptions=False)


@pytest.mark.parametrize(
    "value", [TRACEPARENT, f"00-{TRACE}-{PARENT}-00", f"01-{TRACE}-{PARENT}-01-and-more"]
)
def test_traceparent_is_read(value):
    """The trace id of this version and of later ones."""
    assert TRACE == trace.trace_id({b"traceparent": value.encode()})


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACEPARENT.upper(),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-and-more",
        f"01-{TRACE}-{PARENT}-01and-more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}",
        f" {TRACEPARENT}",
        f"{TRACEPARENT}\n",
    ],
)
def test_what_is_no_traceparent_is_ignored(value):
    """What W3C's grammar does not allow names no trace."""
    assert trace.trace_id({b"traceparent": value.encode()}) is None
    assert "base" == trace.request_id({b"traceparent": value.encode()}, "base")


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"x-request-id": "order-7_a.B", "traceparent": TRACEPARENT}, "order-7_a.B"),
        ({"x-request-id": "x" * 128}, "x" * 128),
        ({"x-request-id": "two words", "traceparent": TRACEPARENT}, TRACE),
        ({"x-request-id": "x" * 129, "traceparent": TRACEPARENT}, TRACE),
    ],
    ids=["client", "longest", "blank", "too long"],
)
def test_every_answer_carries_the_id_of_its_request(client, headers, name):
    """The client's id comes first, then its trace's; one that is no id is passed over."""
    for path in ("/health/live", "/nowhere", "/", "/predict"):
        assert name == client.get(path, headers=headers).headers["x-request-id"]


def test_ids_are_made_where_none_came(client):
    """32 hexadecimal digits, no two alike."""
    names = {client.get("/health/live").headers["x-request-id"] for _ in range(3)}
    assert 3 == len(names)
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in names)


def test_a_fault_carries_the_id_too(client, road, monkeypatch):
    """The answer that a client complains about is the one that must be found in the log."""
    monkeypatch.setattr(Predictor, "predict", lambda *_: 1 / 0)
    body = {"rows": [road.predictor.examples[0]["row"]]}
    answer = client.post("/predict", json=body, headers={"x-request-id": "order-7"})
    assert (500, "order-7") == (answer.status_code, answer.headers["x-request-id"])
