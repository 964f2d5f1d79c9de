import shutil
import threading

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.inference import Predictor
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.serving.slot import Slot


@pytest.fixture(name="bundle")
def bundle_fixture(tmp_path):
    return tmp_path / "bundle"


@pytest.fixture(name="client")
def client_fixture(road, bundle):
    section = road.settings.serving.model_copy(update={"bundle": bundle})
    return TestClient(create_app(road.settings.model_copy(update={"serving": section})))


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/predict"), ("GET", "/model"), ("GET", "/health/ready")]
)
def test_without_a_bundle_there_is_no_answer(client, bundle, method, path):
    """What needs a model is answered 503, with the reason."""
    answer = client.request(method, path)
    assert 503 == answer.status_code
    error = answer.json()["error"]
    assert "no_model" == error["code"]
    assert error["message"].startswith(f"no model is loaded: no bundle in {bundle}")


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/health/live", "/metrics"])
def test_without_a_bundle_the_rest_works(client, path):
    """The process lives, and shows its page, without a model."""
    assert 200 == client.get(path).status_code


def test_a_bundle_that_appears_is_served(client, bundle, road):
    """The next readiness check loads it; then it answers, and OpenAPI shows its fields."""
    assert 503 == client.get("/health/ready").status_code
    assert "Row" not in client.get("/openapi.json").json()["components"]["schemas"]
    shutil.copytree(road.settings.serving.bundle, bundle)
    assert 200 == client.get("/health/ready").status_code
    example = road.predictor.examples[0]
    answer = client.post("/predict", json={"rows": [example["row"]]}).json()
    assert example["prediction"]["prediction"] == answer["predictions"][0]["prediction"]
    assert "Row" in client.get("/openapi.json").json()["components"]["schemas"]


def test_a_damaged_bundle_is_not_served(client, bundle, road, caplog):
    """A file that was altered keeps the service not ready; the log says which, once."""
    shutil.copytree(road.settings.serving.bundle, bundle)
    with (bundle / "model.onnx").open("ab") as model:
        model.write(b"x")
    caplog.clear()
    reasons = [client.get("/health/ready").json()["error"]["message"] for _ in range(2)]
    reason = f"no model is loaded: {bundle / 'model.onnx'} was altered"
    assert [True, True] == [each.startswith(reason) for each in reasons]
    assert [True] == [record.getMessage().startswith(reason) for record in caplog.records]


def test_a_model_is_loaded_once(road, monkeypatch):
    """Checks at the same time do not load it twice."""
    loads = []
    load = Predictor.load
    monkeypatch.setattr(Predictor, "load", lambda path: loads.append(path) or load(path))
    slot = Slot(road.settings.serving.bundle)
    threads = [threading.Thread(target=slot.fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [road.settings.serving.bundle] == loads
    assert road.predictor.card["version"] == slot.require().model.version
