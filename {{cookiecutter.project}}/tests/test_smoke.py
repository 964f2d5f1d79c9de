import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.errors import SmokeError
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.smoke import smoke


class Stage:
    """A server whose answers are the real service's, or those that a test puts in their place."""

    def __init__(self, settings):
        self.client = TestClient(create_app(settings))
        self.instead, self.asked = {}, []
        stage = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                stage.asked.append((self.path, self.headers["x-request-id"]))
                real = stage.client.request(
                    self.command, self.path, content=body, headers=dict(self.headers)
                )
                change = stage.instead.get(self.path, lambda status, said: (status, said))
                status, said = change(real.status_code, real.content)
                self.send_response(status)
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_words):
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture(name="stage")
def start(road):
    """A server of the road's bundle."""
    stage = Stage(road.settings)
    thread = threading.Thread(target=stage.server.serve_forever)
    thread.start()
    yield stage
    stage.server.shutdown()
    thread.join()
    stage.server.server_close()


def edited(**changes):
    """Change parts of an answer in JSON."""

    def change(status, said):
        return status, json.dumps(json.loads(said) | changes).encode()

    return change


def wrong_number(status, said):
    """Answer with something else than the model did."""
    if status != 200:
        return status, said
    answer = json.loads(said)
    answer["predictions"][1]["prediction"] = "weed"
    return status, json.dumps(answer).encode()


def test_the_service_of_a_bundle_passes(road, stage):
    """Every request is known as a test's."""
    card = road.predictor.card
    count = len(road.predictor.examples)
    said = smoke(stage.url + "/", road.settings.serving.bundle)
    assert f"serves Garden {card['version']}; {count} examples answered as stored" in said
    paths = ["/health/ready", "/model", "/predict", "/predict"]
    assert paths == [path for path, _ in stage.asked]
    assert all(name.startswith("smoke-") for _, name in stage.asked)


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("/model", edited(contract={}), "under another contract"),
        ("/predict", wrong_number, "prediction of example 1 is weed, was "),
        ("/predict", lambda *_: (200, b"{}"), "answers as nobody expects: KeyError"),
        ("/model", lambda *_: (502, b"bad gateway"), "/model answers 502, expected 200: bad gate"),
        ("/model", lambda *_: (200, b"<html>"), "/model answers no JSON: <html>"),
        ("/health/ready", lambda *_: (503, b"{}"), "/health/ready answers 503, expected 200"),
    ],
    ids=["contract", "answer", "shape", "status", "words", "unready"],
)
def test_what_is_not_as_promised_is_named(road, stage, path, change, message):
    """The first difference ends the test, with what was expected."""
    stage.instead[path] = change
    with pytest.raises(SmokeError, match=message):
        smoke(stage.url, road.settings.serving.bundle, seconds=0)


def test_what_accepts_anything_is_refused(road, stage):
    """A service that takes a row with an unknown column enforces no contract."""
    stage.instead["/predict"] = lambda status, said: (200, said)
    with pytest.raises(SmokeError, match="/predict answers 200, expected 422"):
        smoke(stage.url, road.settings.serving.bundle)


def test_another_version_is_named(road, weak_road, stage):
    """The old model behind the new address is the most common failure."""
    served, expected = (each.predictor.card["version"] for each in (road, weak_road))
    with pytest.raises(SmokeError, match=f"serves version {served}, expected {expected}"):
        smoke(stage.url, weak_road.settings.serving.bundle)


def test_nobody_answers(road):
    """Where nothing listens, the last word is the system's."""
    with pytest.raises(SmokeError, match=r"does not answer: .*refused"):
        smoke("http://127.0.0.1:9", road.settings.serving.bundle, seconds=0.2)


@pytest.mark.parametrize("url", ["penguins.example", "file:///etc/passwd", ""])
def test_what_is_no_address_is_named(road, url):
    """Only the web is asked."""
    with pytest.raises(SmokeError, match=f"{url!r} is no address of a service; expected http"):
        smoke(url, road.settings.serving.bundle)
