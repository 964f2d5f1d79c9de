import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from {{ cookiecutter.package }}.serving.app import create_app


@pytest.fixture(name="client")
def client_fixture(road):
    return TestClient(create_app(road.settings))


def samples(client):
    """All numbers, by name and labels."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def requests(client, route, status):
    return samples(client).get(("http_requests_total", ("route", route), ("status", status)), 0)


def test_predictions_and_warnings_are_counted(client, road):
    """Rows count, not requests; so do the warnings in them."""
    row = road.predictor.examples[0]["row"]
    client.post("/predict", json={"rows": [row, {**row, "bed": "Mars"}]})
    numbers = samples(client)
    assert 2 == numbers[("predictions_total",)]
    assert 1 == numbers[("prediction_warnings_total",)]


def test_requests_are_counted_by_route_and_status(client, road):
    """A prediction and a refusal are told apart, and timed."""
    client.post("/predict", json={"rows": [road.predictor.examples[0]["row"]]})
    client.post("/predict", json={"rows": []})
    client.post("/predict", json={"rows": []})
    assert 1 == requests(client, "/predict", "200")
    assert 2 == requests(client, "/predict", "422")
    assert 3 == samples(client)[("http_request_seconds_count", ("route", "/predict"))]


def test_unknown_paths_share_one_label(client):
    """Whatever is asked for, there are no more labels than routes."""
    for path in ("/a", "/b?c=d", "/predict/7"):
        client.get(path)
    assert 3 == requests(client, "other", "404")


def test_the_model_is_named(client, road):
    """Name and version of the model in service are there to join with."""
    labels = (("name", "Garden"), ("version", road.predictor.card["version"]))
    assert 1 == samples(client)[("model_info", *labels)]


def test_apps_count_apart(client, road):
    """Each app has numbers of its own."""
    client.get("/health/live")
    assert 0 == requests(TestClient(create_app(road.settings)), "/health/live", "200")
