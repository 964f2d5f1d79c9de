import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.serving.app import create_app

SHOP = "https://shop.example"


@pytest.fixture(scope="module", name="client")
def client_fixture(road):
    section = road.settings.serving.model_copy(update={"cors": (SHOP,)})
    return TestClient(create_app(road.settings.model_copy(update={"serving": section})))


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/model", "/predict", "/nowhere", "/health/live", "/metrics"]
)
def test_every_answer_names_the_model_and_its_type(client, road, path):
    """The version stands beside every answer, and no browser guesses at what it is."""
    headers = client.get(path).headers
    assert road.predictor.card["version"] == headers["x-model-version"]
    assert "nosniff" == headers["x-content-type-options"]


def test_docs_run_no_script_of_others(client):
    """Swagger UI gets what it needs, from here, and cannot be framed."""
    policy = client.get("/docs").headers["content-security-policy"]
    assert "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'" in policy
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy


def test_pages_of_named_sites_may_ask(client):
    """A listed origin is let in, with the headers it needs; another is not."""
    wanted = {"access-control-request-method": "POST"}
    wanted["access-control-request-headers"] = "content-type, x-api-key"
    allowed = client.options("/predict", headers={"origin": SHOP, **wanted})
    assert (200, SHOP) == (allowed.status_code, allowed.headers["access-control-allow-origin"])
    answer = client.get("/model", headers={"origin": SHOP})
    assert SHOP == answer.headers["access-control-allow-origin"]
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    for headers in ({"origin": "https://thief.example"}, {"origin": "null"}):
        assert 400 == client.options("/predict", headers={**headers, **wanted}).status_code
        assert "access-control-allow-origin" not in client.get("/model", headers=headers).headers


def test_without_the_setting_no_site_may_ask(road):
    """By default no page of another site reads an answer."""
    answer = TestClient(create_app(road.settings)).get("/model", headers={"origin": SHOP})
    assert "access-control-allow-origin" not in answer.headers
