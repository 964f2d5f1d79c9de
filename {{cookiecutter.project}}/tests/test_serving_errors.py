import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.serving.app import create_app


@pytest.fixture(scope="module", name="client")
def client_fixture(road):
    return TestClient(create_app(road.settings), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "message"),
    [
        ("GET", "/nowhere", 404, "not_found", "GET /nowhere: not found"),
        ("GET", "/page.css/", 404, "not_found", "GET /page.css/: not found"),
        ("GET", "/predict", 405, "method_not_allowed", "GET /predict: method not allowed"),
        ("DELETE", "/model", 405, "method_not_allowed", "DELETE /model: method not allowed"),
    ],
)
def test_wrong_addresses_get_the_one_shape(client, method, path, status, code, message):
    """Errors of the router look like all others."""
    answer = client.request(method, path)
    assert status == answer.status_code
    assert "application/json" == answer.headers["content-type"]
    assert {"error": {"code": code, "message": message, "details": []}} == answer.json()


def test_wrong_method_names_the_right_ones(client):
    """405 says which methods there are."""
    assert "POST" == client.get("/predict").headers["allow"]


def test_fault_is_answered_without_its_inside(client, road, monkeypatch):
    """A bug is answered 500 in the one shape; what it says is for the log only."""

    def fail(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(Predictor, "output", fail)
    answer = client.post("/predict", json={"rows": [road.predictor.examples[0]["row"]]})
    assert 500 == answer.status_code
    message = "the service failed; its log says why"
    assert {"error": {"code": "internal", "message": message, "details": []}} == answer.json()
