import asyncio
import json
from dataclasses import asdict

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.inference import output
from {{ cookiecutter.package }}.ingestion import Backlog, State
from {{ cookiecutter.package }}.serving import routes
from {{ cookiecutter.package }}.serving.app import create_app

LIMIT = 2000
ROW = {"Höhe (cm)": 99.5, "leaves": 20, "bed": "Nord", "treated": "yes", "planted": "2024-05-01"}
MODULES = ("api", "batch", "card", "csv", "dom", "fields", "page", "plots", "single")
SCRIPTS = [f"/{name}.js" for name in MODULES]
PAGE_FILES = ["/", "/page.css", "/icon.svg", "/favicon.ico", *SCRIPTS]


@pytest.fixture(scope="module", name="hot", params=[True, False], ids=["hot", "ordinary"])
def hot_fixture(request):
    """Both ways to an answer: past the routing, and through it."""
    return request.param


@pytest.fixture(scope="module", name="client")
def client_fixture(road, hot):
    section = road.settings.serving.model_copy(update={"max_body_bytes": LIMIT})
    return TestClient(create_app(road.settings.model_copy(update={"serving": section}), hot=hot))


def predicted(answer):
    """The predictions of an answer, without their ids."""
    assert 200 == answer.status_code
    found = answer.json()["predictions"]
    base = found[0]["id"].removesuffix("-0")
    assert [f"{base}-{i}" for i in range(len(found))] == [each.pop("id") for each in found]
    return found


def post(client, content, content_type="application/json", **headers):
    """Send a body as it is."""
    return client.post(
        "/predict", content=content, headers={"content-type": content_type, **headers}
    )


def records(frame):
    """Rows as JSON has them."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def test_service_predictor_and_pipeline_agree(each_road, hot):
    """The same rows get the same answer in all three places, for every task."""
    client = TestClient(create_app(each_road.settings, hot=hot))
    predictor, rows = each_road.predictor, records(each_road.test)
    answer = client.post("/predict", json={"rows": rows})
    expected = json.loads(json.dumps([asdict(each) for each in predictor.predict(rows)]))
    given = predicted(answer)
    assert expected == given
    card = predictor.card
    assert {"name": "Garden", "version": card["version"]} == answer.json()["model"]
    matrix = encode_frame(predictor.contract, each_road.test)
    fitted = output(each_road.pipeline, predictor.contract, matrix)
    for name, values in (("prediction", fitted.labels), ("score", fitted.scores)):
        if values is not None:
            assert pytest.approx(values.tolist()) == [each[name] for each in given]
    if fitted.probabilities is not None:
        shares = [list(each["probabilities"].values()) for each in given]
        np.testing.assert_allclose(shares, fitted.probabilities, atol=1e-12)


def test_columns_that_are_no_features_are_ignored(client):
    """A raw row, with its target and its excluded columns, gets the answer of its features."""
    raw = {**ROW, "id": 7, "note": None, "unit": ["cm"], "variety": "dwarf"}
    raw_answer = client.post("/predict", json={"rows": [raw]})
    assert predicted(client.post("/predict", json={"rows": [ROW]})) == predicted(raw_answer)


@pytest.mark.parametrize(
    "same",
    [{"leaves": 20.0}, {"treated": True}, {"treated": "YES"}, {"planted": "2024-05-01T00:00:00Z"}],
    ids=str,
)
def test_spellings_of_one_value(client, same):
    """A whole number, a flag and a date may be written in several ways."""
    answer = predicted(client.post("/predict", json={"rows": [{**ROW, **same}, ROW]}))
    assert answer[1] == answer[0]


def test_unfamiliar_values_are_answered_with_a_warning(client):
    """An unseen category and a far number get an answer, and a word on each."""
    body = {"rows": [{**ROW, "bed": "Mars", "leaves": 9000}, ROW]}
    strange, plain = client.post("/predict", json=body).json()["predictions"]
    assert [
        "leaves: 9000 lies far outside the training range 5 to 59",
        "bed: 'Mars' was not seen in training (Nord, Süd, Île)",
    ] == strange["warnings"]
    assert [] == plain["warnings"]


def test_what_may_be_missing_may_be_null_or_left_out(client):
    """Null and a column left out mean the same."""
    null = {**ROW, "bed": None, "Höhe (cm)": None}
    without = {name: value for name, value in null.items() if value is not None}
    answer = predicted(client.post("/predict", json={"rows": [null, without]}))
    assert answer[1] == answer[0]


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        ({"rows": [{**ROW, "Höhe (cm)": "x"}]}, "rows.0.Höhe (cm)", "expected a number, not 'x'"),
        ({"rows": [{**ROW, "Höhe (cm)": True}]}, "rows.0.Höhe (cm)", "expected a number, not True"),
        (
            {"rows": [ROW, {**ROW, "leaves": 1.5}]},
            "rows.1.leaves",
            "expected a whole number, not 1.5",
        ),
        ({"rows": [{**ROW, "leaves": None}]}, "rows.0.leaves", "missing, expected a whole number"),
        ({"rows": [{**ROW, "bed": 3}]}, "rows.0.bed", "expected text, not 3"),
        (
            {"rows": [{**ROW, "treated": "maybe"}]},
            "rows.0.treated",
            "expected true, false, 'yes' or 'no', not 'maybe'",
        ),
        (
            {"rows": [{**ROW, "planted": "soon"}]},
            "rows.0.planted",
            "expected an ISO 8601 date or time, not 'soon'",
        ),
        ({"rows": [{**ROW, "leafs": 3}]}, "rows.0.leafs", "unknown column; did you mean 'leaves'?"),
        ({"rows": [{**ROW, "zzz": 3}]}, "rows.0.zzz", "unknown column"),
        ({"rows": [7]}, "rows.0", "expected an object with a value for each column"),
        ({"rows": []}, "rows", "expected a list of at least one row"),
        ({"rows": {}}, "rows", "expected a list of at least one row"),
        ({}, "rows", "expected a list of at least one row"),
        ({"rows": [ROW], "row": 1}, "row", "unknown, expected 'rows' only"),
        ([ROW], "", "expected an object with 'rows'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_values_are_named(client, body, path, message):
    """422 says where the value stands and what was expected there."""
    answer = client.post("/predict", json=body)
    assert 422 == answer.status_code
    assert {
        "error": {
            "code": "invalid",
            "message": f"{path or 'body'}: {message}",
            "details": [{"path": path, "message": message}],
        }
    } == answer.json()


def test_column_left_out_is_named(client):
    """A row without a column that cannot be missing is refused."""
    row = {name: value for name, value in ROW.items() if name != "treated"}
    answer = client.post("/predict", json={"rows": [row]}).json()["error"]
    message = "missing, expected true, false, 'yes' or 'no'"
    assert [{"path": "rows.0.treated", "message": message}] == answer["details"]


def test_many_wrong_values_are_counted(client):
    """The first twenty are named, all are counted."""
    error = client.post("/predict", json={"rows": [1] * 30}).json()["error"]
    wanted = "rows.0: expected an object with a value for each column (and 29 more)"
    assert wanted == error["message"]
    assert 20 == len(error["details"])


def test_long_values_are_shortened(client):
    """A message does not repeat a whole body."""
    answer = client.post("/predict", json={"rows": [{**ROW, "leaves": "9" * 1000}]})
    assert "expected a whole number, not '999" in answer.json()["error"]["message"]
    assert len(answer.content) < 700


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"rows":', b"\xff\xfe", '{"rows": []}'.encode("utf-16"), b'{"rows": [NaN]}'],
    ids=str,
)
def test_broken_json_is_malformed(client, body):
    """What is no JSON in UTF-8 is answered 400."""
    answer = post(client, body)
    assert 400 == answer.status_code
    assert "malformed" == answer.json()["error"]["code"]
    assert answer.json()["error"]["message"].startswith("the body is no JSON: ")


@pytest.mark.parametrize("value", ["1e999", "-1e999", "1" + "0" * 400])
def test_numbers_beyond_all_bounds_are_refused(client, value):
    """A number that no float can hold is named, not taken for infinity."""
    answer = post(client, json.dumps({"rows": [{**ROW, "leaves": "N"}]}).replace('"N"', value))
    assert 422 == answer.status_code
    assert ["rows.0.leaves"] == [each["path"] for each in answer.json()["error"]["details"]]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"content-type": "text/plain"}, "expected content-type application/json in UTF-8, not"),
        ({"content-type": "application/json; charset=latin-1"}, "expected content-type"),
        ({"content-encoding": "gzip"}, "content-encoding 'gzip' is not supported"),
    ],
    ids=str,
)
def test_other_content_is_malformed(client, headers, message):
    """Forms, other character sets and compressed bodies are answered 400, saying so."""
    answer = client.post(
        "/predict",
        content=json.dumps({"rows": [ROW]}),
        headers={"content-type": "application/json", **headers},
    )
    assert 400 == answer.status_code
    assert answer.json()["error"]["message"].startswith(message)


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8"])
def test_json_content_types_are_taken(client, content_type):
    """The character set may be named."""
    assert 200 == post(client, json.dumps({"rows": [ROW]}), content_type).status_code


def padded(size):
    """A body of one row and as many bytes as wanted."""
    return json.dumps({"rows": [ROW]}).encode().ljust(size)


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
def test_body_limit(client, chunked):
    """A body of the limit is answered, one byte more is 413, whether its length is told or not."""

    def send(size):
        body = padded(size)
        return post(client, iter([body[:900], body[900:]]) if chunked else body)

    assert 200 == send(LIMIT).status_code
    answer = send(LIMIT + 1)
    assert 413 == answer.status_code
    assert "close" == answer.headers["connection"]
    message = "the body is larger than 2000 bytes (serving.max_body_bytes): send fewer rows"
    assert {"error": {"code": "too_large", "message": message, "details": []}} == answer.json()


def test_connection_closed_within_a_body(client):
    """A client that goes away in the middle is no fault of the service."""
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
    asyncio.run(client.app({**scope, "query_string": b""}, receive, send))
    assert 400 == sent[0]["status"]


def test_model_tells_card_contract_and_examples(client, road):
    """What the page is made from."""
    answer = client.get("/model").json()
    assert road.predictor.card == answer["card"]
    assert road.predictor.examples == answer["examples"]
    assert [column.name for column in road.predictor.contract.columns] == [
        column["name"] for column in answer["contract"]["columns"]
    ]


def test_live(client):
    """The process answers."""
    answer = client.get("/health/live")
    assert (200, {"status": "ok"}) == (answer.status_code, answer.json())


def test_ready_tells_what_needs_a_look(client, road, monkeypatch):
    """With a model the service is ready; what waits, and why, stands beside."""
    waiting = Backlog(2, 300, State(error="the store is away"))
    monkeypatch.setattr(routes, "backlog", lambda folder: waiting)
    answer = client.get("/health/ready")
    assert 200 == answer.status_code
    assert {
        "status": "ok",
        "model": {"name": "Garden", "version": road.predictor.card["version"]},
        "refused": None,
        "events": {
            "backlog_bytes": 300,
            "backlog_segments": 2,
            "store_error": "the store is away",
        },
    } == answer.json()


@pytest.mark.parametrize("path", PAGE_FILES)
def test_page_is_sent_with_its_policy(client, path):
    """Nothing on the page comes from elsewhere, and nothing in it runs inline."""
    answer = client.get(path)
    assert 200 == answer.status_code
    assert "nosniff" == answer.headers["x-content-type-options"]
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "https://" not in answer.text


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANY_ROW = st.fixed_dictionaries({}, optional=dict.fromkeys([*ROW, "variety", "else"], JSON))


@given(st.lists(st.just(ROW) | ANY_ROW | JSON, max_size=4))
@settings(max_examples=60)
def test_every_body_is_answered_or_explained(client, rows):
    """Whatever stands in the rows: predictions for all of them, or what is wrong."""
    answer = post(client, json.dumps({"rows": rows}, allow_nan=True))
    content = answer.json()
    if answer.status_code == 200:
        assert len(rows) == len(content["predictions"])
    else:
        assert answer.status_code in (400, 413, 422)
        assert content["error"]["message"]
