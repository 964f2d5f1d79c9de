import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.serving.limits import Places
from {{ cookiecutter.package }}.serving.metrics import Metrics
from {{ cookiecutter.package }}.serving.server import listen
from {{ cookiecutter.package }}.settings import Serving


@pytest.fixture(name="app_with")
def app_with_fixture(road):
    """The function that makes an app with other limits."""

    def make(**changed):
        section = road.settings.serving.model_copy(update=changed)
        return create_app(road.settings.model_copy(update={"serving": section}))

    return make


@pytest.fixture(name="row")
def row_fixture(road):
    return road.predictor.examples[0]["row"]


@contextmanager
def served(app):
    """A real server, as only its connections can be closed; yields its address."""
    with listen(Serving(port=0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


def problem(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["message"]


def test_too_many_rows_are_refused(app_with, row):
    """A body of the limit is answered; one row more is 413, whatever stands in it."""
    client = TestClient(app_with(max_rows=2))
    assert 200 == client.post("/predict", json={"rows": [row, row]}).status_code
    message = "3 rows are more than 2 (serving.max_rows): send them in parts"
    answer = client.post("/predict", json={"rows": [row, row, 7]})
    assert (413, "too_many_rows", message) == problem(answer)


def test_a_body_that_does_not_arrive_is_given_up(app_with):
    """A body that trickles in is answered 408, and its connection closed."""
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with served(app_with(timeout_seconds=0.2)) as address, socket.socket() as client:
        client.connect(address)
        client.sendall(head + b'content-length: 99\r\n\r\n{"rows":')
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"\r\nConnection: close\r\n" in answer.replace(b"connection", b"Connection")
    assert "request_timeout" == json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"]


def test_an_answer_that_does_not_come_is_given_up(app_with, row, monkeypatch):
    """504 comes in time, not when the model is done; the place is free again."""
    app, done = app_with(timeout_seconds=0.2), threading.Event()
    app.state.slot.served.rows_at_once = 0
    monkeypatch.setattr(Predictor, "output", lambda *_: done.wait(20) and 1 / 0)
    answer = TestClient(app).post("/predict", json={"rows": [row]})
    unfinished = not done.is_set()
    done.set()
    message = "no answer within 0.2 s (serving.timeout_seconds): send fewer rows"
    assert (504, "timeout", message) == problem(answer)
    assert unfinished
    assert app.state.places.enter()


def test_over_the_limit_of_requests(app_with, row):
    """A request that finds no place is answered 429, a probe is not; then there is place again."""
    app = app_with(max_concurrent=1)
    client = TestClient(app)
    assert app.state.places.enter()
    answer = client.post("/predict", json={"rows": [row]})
    message = "1 requests are being answered (serving.max_concurrent): try again"
    assert (429, "busy", message) == problem(answer)
    assert "1" == answer.headers["retry-after"]
    assert 200 == client.get("/health/ready").status_code
    assert "http_requests_in_flight 1.0" in client.get("/metrics").text
    app.state.places.leave()
    assert 200 == client.post("/predict", json={"rows": [row]}).status_code
    assert "http_requests_in_flight 0.0" in client.get("/metrics").text


def test_a_fault_gives_its_place_back(app_with, row, monkeypatch):
    """Whatever happens to a request, it does not stand in the way of others."""
    client = TestClient(app_with(max_concurrent=1), raise_server_exceptions=False)
    monkeypatch.setattr(Predictor, "output", lambda *_: 1 / 0)
    codes = [client.post("/predict", json={"rows": [row]}).status_code for _ in range(3)]
    assert [500, 500, 500] == codes


def test_places_are_counted():
    """So many as the limit, and one again for each that is left."""
    places = Places(2, Metrics([]))
    assert [True, True, False] == [places.enter() for _ in range(3)]
    places.leave()
    assert [True, False] == [places.enter() for _ in range(2)]


def test_a_slow_reader_is_waited_for(app_with):
    """The time limit ends when the answer begins: a client may take long to read it."""

    sent = []

    async def receive():
        await asyncio.Event().wait()

    async def send(message):
        sent.append(message)
        await asyncio.sleep(1.5)

    scope = {"type": "http", "method": "GET", "path": "/page.css", "headers": []}
    app = app_with(timeout_seconds=2)
    asyncio.run(app({**scope, "query_string": b""}, receive, send))
    assert 200 == sent[0]["status"]
    assert not sent[-1]["more_body"]
