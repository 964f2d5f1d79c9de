import asyncio
import json

import pytest

from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.serving.front import MOST_BYTES, Front


@pytest.fixture(scope="module", name="app")
def app_fixture(road):
    return create_app(road.settings, hot=False)


@pytest.fixture(name="ask")
def ask_fixture(app, road):
    """The function that sends a request to a front, and gives back who answered and what."""
    row = road.predictor.examples[0]["row"]

    def ask(*chunks, headers=(), wait=False, **serving):
        taken = []

        async def ordinary(_, receive, send):
            while (message := await receive()).get("more_body"):
                taken.append(message["body"])
            taken.append(message.get("body"))
            await send({"type": "http.response.start", "status": 299, "headers": []})

        section = road.settings.serving.model_copy(update=serving)
        front = Front(ordinary, app.state, section)
        messages = [
            {"type": "http.request", "body": chunk, "more_body": i < len(chunks)}
            for i, chunk in enumerate(chunks or [json.dumps({"rows": [row]}).encode()], 1)
        ]
        messages[-1]["more_body"] = False
        sent = []

        async def receive():
            if wait:
                await asyncio.sleep(0)
                await asyncio.sleep(0.001)
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        given = {b"content-type": b"application/json", **dict(headers)}
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": given.items()}
        asyncio.run(front({**scope, "app": app}, receive, send))
        return sent, b"".join(taken)

    return ask


def test_a_usual_request_meets_no_router(ask, road):
    """It is answered before FastAPI hears of it, with the length and the id of the answer."""
    (start, body), taken = ask(headers={b"x-request-id": b"order-7"})
    assert (200, b"") == (start["status"], taken)
    headers = dict(start["headers"])
    assert b"order-7" == headers[b"x-request-id"]
    assert str(len(body["body"])).encode() == headers[b"content-length"]
    (given,) = json.loads(body["body"])["predictions"]
    assert road.predictor.examples[0]["prediction"]["prediction"] == given["prediction"]


@pytest.mark.parametrize(
    "headers",
    [
        {b"content-type": b"text/plain"},
        {b"content-encoding": b"gzip"},
        {b"origin": b"https://shop.example"},
    ],
    ids=str,
)
def test_unusual_headers_are_for_the_routes(ask, headers):
    """The routes get the whole body, and know what to do with it."""
    (start, *_), taken = ask(headers=headers)
    assert 299 == start["status"]
    assert taken.startswith(b'{"rows": ')


@pytest.mark.parametrize(
    "chunks",
    [(b"",), (b"{",), (b'{"rows": []}',), (b'{"rows":', b" [7]}"), (b" " * (MOST_BYTES + 1),)],
    ids=["empty", "broken", "no rows", "in parts", "large"],
)
def test_unusual_bodies_are_for_the_routes(ask, chunks):
    """Whatever the front has read of a body is given to them again."""
    (start, *_), taken = ask(*chunks)
    assert (299, b"".join(chunks)) == (start["status"], taken)


def test_a_body_that_is_late_is_for_the_routes(ask):
    """They have a clock for it; what the front began to wait for comes to them."""
    (start, *_), taken = ask(b'{"rows":', b" [7]}", wait=True)
    assert (299, b'{"rows": [7]}') == (start["status"], taken)


def test_limits_of_the_settings_hold(ask, app, road):
    """More bytes or rows than allowed, or more requests, are for the routes to refuse."""
    row = road.predictor.examples[0]["row"]
    assert 299 == ask(max_body_bytes=20)[0][0]["status"]
    two = json.dumps({"rows": [row, row]}).encode()
    assert 299 == ask(two, max_rows=1)[0][0]["status"]
    places = app.state.places
    entered = 0
    while places.enter():
        entered += 1
    assert 299 == ask()[0][0]["status"]
    for _ in range(entered):
        places.leave()
    assert 200 == ask()[0][0]["status"]


def test_what_cannot_be_kept_is_for_the_routes(ask, app, monkeypatch):
    """Where the log fails, they try again, and say so."""

    def full(_):
        raise OSError("full")

    monkeypatch.setattr(app.state.log, "append", full)
    assert 299 == ask()[0][0]["status"]


def test_without_a_model_the_routes_answer(ask, app, monkeypatch):
    """They say why there is none."""
    monkeypatch.setattr(app.state.slot, "served", None)
    assert 299 == ask()[0][0]["status"]
