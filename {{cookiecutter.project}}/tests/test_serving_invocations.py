import json
from importlib.metadata import version

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.io.parsers.readers import STR_NA_VALUES

from {{ cookiecutter.package }}.serving import invocations
from {{ cookiecutter.package }}.serving.app import create_app

ROW = {"Höhe (cm)": 99.5, "leaves": 20, "bed": "Nord", "treated": "yes", "planted": "2024-05-01"}
NAMES = list(ROW)
TWO = {name: [value, value] for name, value in ROW.items()}


@pytest.fixture(scope="module", name="client")
def client_fixture(road):
    return TestClient(create_app(road.settings))


def post(client, content, content_type="application/json"):
    """Send a body, as JSON where it is none yet."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post("/invocations", content=body, headers={"content-type": content_type})


def table(client, *rows):
    """A CSV file of a header and some rows."""
    return post(client, "\n".join([",".join(NAMES), *rows]).encode(), "text/csv")


def test_answer_is_a_table(client, road):
    """A row of the answer has a column for the prediction and one for each class."""
    (row,) = post(client, {"dataframe_records": [ROW]}).json()["predictions"]
    names = ["prediction", *(f"probability_{name}" for name in road.predictor.contract.classes)]
    assert names == list(row)


def test_probes(client):
    """What MLflow's clients and SageMaker ask first; the version is the installed one."""
    assert 200 == client.get("/ping").status_code == client.get("/health").status_code
    told = client.get("/version")
    assert version("mlflow").startswith(f"{told.text}.")
    assert told.headers["content-type"].startswith("text/plain")


def test_words_for_missing_are_those_of_pandas():
    """A CSV file means the same to the service as to `score` and to MLflow."""
    assert STR_NA_VALUES == invocations.MISSING


def test_csv_forms(client):
    """Blanks, quotes, a mark at the beginning, and the index that pandas writes do not count."""
    plain = table(client, "99.5,20,Nord,yes,2024-05-01").json()
    assert plain == post(client, {"dataframe_records": [ROW]}).json()
    header = ",".join(["", *NAMES])
    body = f'\ufeff{header}\r\n0, 99.5 ,2e1,"Nord", YES,2024-05-01\r\n\r\n'
    assert plain == post(client, body.encode(), "Text/CSV; charset=UTF-8").json()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x,20,Nord,yes,2024-05-01", "rows.0.Höhe (cm): expected a number, not 'x'"),
        ("1_0,20,Nord,yes,2024-05-01", "rows.0.Höhe (cm): expected a number, not '1_0'"),
        ("inf,20,Nord,yes,2024-05-01", "rows.0.Höhe (cm): expected a number, not 'inf'"),
        ("1,NA,Nord,yes,2024-05-01", "rows.0.leaves: missing, expected a whole number"),
        ("1,20,Nord,yes", "rows.0: expected 5 values, not 4"),
    ],
)
def test_wrong_csv_is_named(client, row, message):
    """Numbers that Python would take and CSV does not have are refused, too."""
    answer = table(client, row)
    assert (422, message) == (answer.status_code, answer.json()["error"]["message"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([ROW], "body: expected an object with exactly one of dataframe_split, dataframe_records,"),
        ({}, "body: expected an object with exactly one of"),
        ({"inputs": [ROW], "instances": [ROW]}, "body: expected an object with exactly one of "),
        ({"dataframe_split": [ROW]}, "dataframe_split: expected an object with data"),
        ({"dataframe_split": {"data": [[1]], "rows": 1}}, "dataframe_split: expected an object"),
        ({"dataframe_split": {"data": [[1, 2]]}}, "dataframe_split.data.0: expected 5 values"),
        (
            {"dataframe_split": {"columns": ["leaves", "leaves"], "data": [[1, 2]]}},
            "dataframe_split.columns: leaves: more than once",
        ),
        ({"dataframe_split": {"columns": [1], "data": [[1]]}}, "dataframe_split.columns: expected"),
        ({"dataframe_split": {"data": []}}, "dataframe_split.data: expected a list of at least"),
        ({"dataframe_records": ROW}, "dataframe_records: expected a list of at least one row"),
        ({"inputs": []}, "inputs: expected a list of at least one row"),
        ({"inputs": 1}, "inputs: expected a list of at least one row"),
        ({"inputs": {**TWO, "bed": "Nord"}}, "inputs.bed: expected a list of at least one value"),
        ({"instances": {**TWO, "bed": []}}, "instances.bed: expected a list of at least one value"),
        (
            {"inputs": {"leaves": [1], "bed": ["a", "b"]}},
            "inputs: expected as many values in each column: leaves has 1, bed has 2",
        ),
        ({"inputs": [[1, 2], 3]}, "inputs.0: expected 5 values, not 2"),
        ({"dataframe_records": [{**ROW, "leafs": 1}]}, "rows.0.leafs: unknown column; did you"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_wrong_forms_are_named(client, content, message):
    """422 in the one shape says where, and what was expected there."""
    answer = post(client, content)
    assert 422 == answer.status_code
    assert "invalid" == answer.json()["error"]["code"]
    assert answer.json()["error"]["message"].startswith(message)


def test_single_values_are_one_row(client):
    """Columns of one value each, not in lists."""
    assert post(client, {"inputs": ROW}).json() == post(client, {"dataframe_records": [ROW]}).json()


@pytest.mark.parametrize("word", ["NaN", "null"])
def test_nan_is_missing(client, word):
    """Python's clients write it so."""
    body = json.dumps({"dataframe_records": [{**ROW, "Höhe (cm)": "?"}]}).replace('"?"', word)
    without = {name: value for name, value in ROW.items() if name != "Höhe (cm)"}
    wanted = post(client, {"dataframe_records": [without]}).json()
    assert wanted == post(client, body.encode()).json()


@pytest.mark.parametrize(
    "literal", ["Infinity", "-Infinity", "1e999", '"\\ud800"', "[" * 5000 + "]" * 5000]
)
def test_what_is_no_json_is_malformed(client, literal):
    """A number beyond all bounds must not become one that is missing."""
    body = json.dumps({"dataframe_records": [{**ROW, "Höhe (cm)": "?"}]}).replace('"?"', literal)
    answer = post(client, body.encode())
    assert (400, "malformed") == (answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize("content_type", ["application/vnd.apache.parquet", "text/csv; charset=x"])
def test_other_content_is_malformed(client, content_type):
    """The error says what is taken."""
    answer = post(client, b"", content_type)
    assert 400 == answer.status_code
    wanted = "expected content-type application/json or text/csv in UTF-8, not"
    assert answer.json()["error"]["message"].startswith(wanted)


VALUES = st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.just([1])
CELLS = st.sampled_from([*ROW.values(), None])
LINES = st.lists(st.lists(VALUES | CELLS, min_size=4, max_size=6) | VALUES, max_size=3)
COLUMNS = st.dictionaries(st.sampled_from(NAMES) | st.text(), VALUES | st.lists(VALUES, max_size=2))
FORM = LINES | COLUMNS | st.lists(COLUMNS, max_size=2) | VALUES | st.just([ROW]) | st.just(TWO)
SPLIT = st.fixed_dictionaries({"data": LINES}, optional={"columns": st.just(NAMES) | VALUES})


@given(
    st.dictionaries(st.sampled_from([*invocations.FORMS, "params", "x"]), FORM | SPLIT, max_size=2)
    | FORM
)
@settings(max_examples=150)
def test_every_json_is_answered_or_explained(client, content):
    """Whatever stands in the forms: predictions, or what is wrong."""
    explained(post(client, content))


@given(
    st.binary(max_size=100)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
    | st.lists(st.sampled_from(["1", "Nord", ",", "\n", "\r", '"', "\x00", "é", *NAMES])).map(
        lambda parts: "".join(parts).encode()
    ),
    st.sampled_from(["text/csv", "application/json"]),
)
@settings(max_examples=150)
def test_any_bytes_are_answered_or_explained(client, body, content_type):
    """As CSV and as JSON, behind a right header or none."""
    explained(post(client, body, content_type))
    explained(post(client, ",".join(NAMES).encode() + b"\n" + body, content_type))


def explained(answer):
    """See that an answer has predictions, or the one shape of errors."""
    if answer.status_code == 200:
        assert answer.json()["predictions"]
    else:
        assert answer.status_code in (400, 422)
        assert {"code", "message", "details"} == answer.json()["error"].keys()
        assert answer.json()["error"]["message"]
