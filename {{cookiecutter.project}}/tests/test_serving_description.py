import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }}.serving.app import create_app


@pytest.fixture(scope="module", name="client")
def client_fixture(road):
    return TestClient(create_app(road.settings))


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
    given = {"id": f"{answer['request_id']}-0", "probabilities": shares}
    assert [{**shown["predictions"][0], **given}] == answer["predictions"]
    assert shown.keys() == answer.keys()


def test_openapi_names_the_failures(openapi):
    """Every error that a client has to expect is documented, in one shape."""
    responses = openapi["paths"]["/predict"]["post"]["responses"]
    failures = {"400", "401", "408", "413", "422", "429", "503", "504"}
    assert {"200", *failures} == set(responses)
    shapes = {
        code: responses[code]["content"]["application/json"]["schema"]["$ref"] for code in failures
    }
    assert {"#/components/schemas/ErrorAnswer"} == set(shapes.values())


def test_openapi_types_follow_from_the_task(each_road):
    """A regression answers numbers, a classification the type of its classes."""
    client = TestClient(create_app(each_road.settings))
    shown = client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]["properties"]
    types = {"multiclass": "string", "binary": "boolean", "regression": "number"}
    assert types.get(each_road.predictor.contract.task) == shown["prediction"].get("type")


def test_docs_work_offline(client):
    """The page of the API loads nothing from another host."""
    page = client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert 200 == client.get("/static-offline-docs/swagger-ui-bundle.js").status_code
