import shutil

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.serving.app import create_app

# Not ASCII, as a password may be.
WORD = "s3cret-ключ"
HEADERS = {"authorization": f"Bearer {WORD}".encode()}


@pytest.fixture(name="place")
def place_fixture(tmp_path, weak_road):
    return shutil.copytree(weak_road.settings.serving.bundle, tmp_path / "bundle")


@pytest.fixture(name="client_with")
def client_with_fixture(road, place):
    """The function that starts a service with a token."""

    def start(token):
        update = {"bundle": place, "state": place.with_name("state"), "admin_token": token}
        section = type(road.settings.serving)(**update)
        return TestClient(create_app(road.settings.model_copy(update={"serving": section})))

    return start


@pytest.fixture(name="client")
def client_fixture(client_with):
    return client_with(WORD)


@pytest.fixture(name="model")
def model_fixture():
    def model(road):
        return {"name": "Garden", "version": road.predictor.card["version"]}

    return model


def replace(client, place, road):
    """Offer another bundle, and let the service look."""
    shutil.rmtree(place)
    shutil.copytree(road.settings.serving.bundle, place)
    client.app.state.slot.refresh()


def test_rollback_and_back_again(client, place, road, weak_road, model):
    """A rollback answers both versions and changes what is predicted; ending it does so, too."""
    replace(client, place, road)
    body = {"rows": [road.predictor.examples[0]["row"]]}
    new, old = model(road), model(weak_road)
    assert new == client.post("/predict", json=body).json()["model"]
    answer = client.post("/admin/rollback", headers=HEADERS)
    assert (200, {"serving": old, "held": new}) == (answer.status_code, answer.json())
    assert old == client.post("/predict", json=body).json()["model"]
    answer = client.delete("/admin/rollback", headers=HEADERS)
    assert (200, {"serving": new, "held": None}) == (answer.status_code, answer.json())
    assert new == client.post("/predict", json=body).json()["model"]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("POST", "there is no previous version to go back to"),
        ("DELETE", "no version is held: nothing was rolled back"),
    ],
)
def test_nothing_to_go_back_to(client, method, message):
    """Without a swap before there is nothing to roll back, and nothing to end."""
    answer = client.request(method, "/admin/rollback", headers=HEADERS)
    problem = {"code": "conflict", "message": message, "details": []}
    assert (409, {"error": problem}) == (answer.status_code, answer.json())


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(
    "given",
    [None, "", "Bearer", "Bearer ", f"Bearer {WORD}x", f"Bearer {WORD[:-1]}", f"Basic {WORD}"],
)
def test_another_token_is_refused(client, place, road, method, given):
    """The answer says which header is expected; the service goes on as it was."""
    replace(client, place, road)
    headers = {} if given is None else {"authorization": given.encode()}
    answer = client.request(method, "/admin/rollback", headers=headers)
    assert (401, "Bearer") == (answer.status_code, answer.headers["www-authenticate"])
    assert "unauthorized" == answer.json()["error"]["code"]
    assert WORD not in answer.text
    assert road.predictor.card["version"] == client.app.state.slot.require().version


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_the_addresses_are_not_there(client_with, token):
    """What no operator asked for cannot be found, in the documentation neither."""
    client = client_with(token)
    for method in ("POST", "DELETE"):
        answer = client.request(method, "/admin/rollback", headers={"authorization": "Bearer "})
        unknown = client.request(method, "/admin/rollbacc")
        assert (404, unknown.json()["error"]["code"]) == (
            answer.status_code,
            answer.json()["error"]["code"],
        )
    assert "/admin/rollback" not in client.get("/openapi.json").json()["paths"]


def test_the_documentation_asks_for_the_token(client):
    """/docs has a field for it, and every error that is to be expected."""
    operations = client.get("/openapi.json").json()["paths"]["/admin/rollback"]
    for operation in operations.values():
        assert [{"HTTPBearer": []}] == operation["security"]
        assert {"200", "401", "409"} == set(operation["responses"])


def test_the_token_is_not_shown(client):
    """Whoever prints the settings does not print it."""
    assert WORD not in repr(client.app.state.settings)
