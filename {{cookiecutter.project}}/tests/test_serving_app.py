import os
import signal
import socket
import threading
import time
import urllib.request
from contextlib import suppress

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.errors import ServingError
from {{ cookiecutter.package }}.serving import app as serving
from {{ cookiecutter.package }}.serving import logs
from {{ cookiecutter.package }}.settings import Serving


@pytest.fixture(scope="module", name="client")
def client_fixture(road):
    return TestClient(serving.create_app(road.settings))


@pytest.fixture(scope="module", name="openapi")
def openapi_fixture(client):
    return client.get("/openapi.json").json()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (
            "Höhe (cm)",
            {
                "type": ["number", "null"],
                "description": "62.2 to 133.7 in training; may be missing",
            },
        ),
        ("leaves", {"type": "integer", "description": "5 to 59 in training"}),
        (
            "bed",
            {
                "type": ["string", "null"],
                "description": "Seen in training: Nord, Süd, Île; may be missing",
                "examples": ["Nord", "Süd", "Île"],
            },
        ),
        (
            "treated",
            {"type": ["boolean", "string"], "description": "true or 'yes', false or 'no'"},
        ),
        ("id", {"description": "Ignored: identifier: every value differs."}),
        ("variety", {"description": "Ignored: it is what the model predicts."}),
    ],
)
def test_openapi_shows_each_column(openapi, name, shown):
    """Type, nullability, range and categories of a column stand in the request's schema."""
    field = openapi["components"]["schemas"]["Row"]["properties"][name]
    assert {"title": name, **shown}.items() <= field.items()


def test_openapi_requires_what_cannot_be_missing(openapi):
    """Columns that had no missing value must be sent."""
    row = openapi["components"]["schemas"]["Row"]
    assert ["leaves", "treated", "planted"] == row["required"]


def test_openapi_example_is_answered_as_shown(client, openapi):
    """The example body of /docs, posted, gives the example answer."""
    operation = openapi["paths"]["/predict"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["example"]
    shown = operation["responses"]["200"]["content"]["application/json"]["example"]
    answer = client.post("/predict", json=body).json()
    assert shown["model"] == answer["model"]
    # A matrix product of one row may differ from that of many in the last bit.
    shares = pytest.approx(shown["predictions"][0]["probabilities"], rel=1e-12)
    assert [{**shown["predictions"][0], "probabilities": shares}] == answer["predictions"]


def test_openapi_names_the_failures(openapi):
    """Every error that a client has to expect is documented, in one shape."""
    responses = openapi["paths"]["/predict"]["post"]["responses"]
    failures = {"400", "401", "408", "413", "422", "429", "503", "504"}
    assert {"200", *failures} == set(responses)
    shapes = {
        code: responses[code]["content"]["application/json"]["schema"]["$ref"]
        for code in failures
    }
    assert {"#/components/schemas/ErrorAnswer"} == set(shapes.values())


def test_openapi_types_follow_from_the_task(each_road):
    """A regression answers numbers, a classification the type of its classes."""
    client = TestClient(serving.create_app(each_road.settings))
    shown = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["properties"]
    types = {"multiclass": "string", "binary": "boolean", "regression": "number"}
    assert types.get(each_road.predictor.contract.task) == shown["prediction"].get("type")


def test_docs_work_offline(client):
    """The page of the API loads nothing from another host."""
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert 200 == client.get("/static-offline-docs/swagger-ui-bundle.js").status_code


def visit(port, page):
    """Wait for the service, keep what it answers, and press Ctrl-C."""
    for _ in range(200):
        with suppress(OSError):
            address = f"http://127.0.0.1:{port}/health/ready"
            with urllib.request.urlopen(address, timeout=1) as answer:
                page.append(answer.read())
                break
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)


def test_serve_until_interrupted(road, capfd, monkeypatch):
    """The service says where it is, answers there, and ends in peace on Ctrl-C."""
    # The log of the tests stays pytest's.
    unchanged = {"version": 1, "incremental": True}
    monkeypatch.setattr(logs, "configuration", lambda _: unchanged)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    section = road.settings.serving.model_copy(update={"port": port})
    page = []
    visitor = threading.Thread(target=visit, args=(port, page), daemon=True)
    visitor.start()
    serving.serve(road.settings.model_copy(update={"serving": section}))
    visitor.join()
    assert [b'{"status":"ok"}'] == page
    address = f"http://127.0.0.1:{port}"
    assert f"Garden: page {address}/  API {address}/docs\n" == capfd.readouterr().out


def test_taken_port_is_named_with_its_setting():
    """A port that somebody else listens on is reported in one line, with the way out."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServingError) as caught:
            serving.listen(Serving(port=port))
    assert (
        f"port {port} on 127.0.0.1 is taken; "
        "set serving.port in params.yaml, or APP_SERVING__PORT" == str(caught.value)
    )


def test_foreign_address_is_refused():
    """An address of another machine is reported, with the way out."""
    with pytest.raises(ServingError, match=r"192\.0\.2\.1 is no address of this machine; set serv"):
        serving.listen(Serving(host="192.0.2.1"))


def test_unknown_host_is_refused():
    """A name that nobody knows is reported, with the way out."""
    with pytest.raises(
        ServingError, match=r"host 'nowhere\.invalid' is unknown.*APP_SERVING__HOST"
    ):
        serving.listen(Serving(host="nowhere.invalid"))


def test_low_port_needs_rights(monkeypatch):
    """A port that only root may take is reported, with the way out."""

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ServingError, match=r"port 80 on 127\.0\.0\.1 needs more rights"):
        serving.listen(Serving(port=80))
