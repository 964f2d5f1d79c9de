import json
import struct

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from {{ cookiecutter.package }}.contract import Contract, Target
from {{ cookiecutter.package }}.serving import inference_protocol, tensors
from {{ cookiecutter.package }}.serving.app import create_app

PATH = "/v2/models/Garden/infer"
LENGTH = "Inference-Header-Content-Length"
TENSORS = [
    {"name": "Höhe (cm)", "datatype": "FP64", "shape": [2], "data": [99.5, None]},
    {"name": "leaves", "datatype": "INT64", "shape": [2], "data": [20, 21]},
    {"name": "bed", "datatype": "BYTES", "shape": [2], "data": ["Nord", ""]},
    {"name": "treated", "datatype": "BOOL", "shape": [2], "data": [True, False]},
    {"name": "planted", "datatype": "BYTES", "shape": [2], "data": ["2024-05-01", "2024-05-02"]},
]
ROWS = [
    {"Höhe (cm)": 99.5, "leaves": 20, "bed": "Nord", "treated": True, "planted": "2024-05-01"},
    {"Höhe (cm)": None, "leaves": 21, "bed": None, "treated": False, "planted": "2024-05-02"},
]


@pytest.fixture(scope="module", name="client")
def client_fixture(road):
    return TestClient(create_app(road.settings))


def changed(which, **parts):
    """The tensors, one of them in another way."""
    return [{**each, **parts} if each["name"] == which else each for each in TENSORS]


def binary(name, datatype, packed, shape=(2,)):
    """A request in which one tensor comes as bytes."""
    parts = {"datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(packed)}}
    inputs = changed(name, **parts)
    for each in inputs:
        if each["name"] == name:
            del each["data"]
    head = json.dumps({"inputs": inputs}).encode()
    return head + packed, {LENGTH: str(len(head))}


def outputs(answer):
    """The data of an answer by the names of its outputs, without the ids."""
    assert 200 == answer.status_code, answer.text
    return {e["name"]: e["data"] for e in answer.json()["outputs"] if e["name"] != "id"}


def test_answer_is_that_of_predict(client):
    """Null, an empty text and a tensor left out are missing values."""
    predictions = client.post("/predict", json={"rows": ROWS}).json()["predictions"]
    given = client.post(PATH, json={"inputs": TENSORS})
    wanted = [share for each in predictions for share in each["probabilities"].values()]
    assert wanted == outputs(given)["probabilities"]
    assert [each["prediction"] for each in predictions] == outputs(given)["prediction"]
    first = [{**each, "shape": [1, 1], "data": [[each["data"][1]]]} for each in TENSORS]
    without = [each for each in first if each["name"] not in ("Höhe (cm)", "bed")]
    some = outputs(client.post(PATH, json={"inputs": without}))
    assert some == outputs(client.post(PATH, json={"inputs": first}))
    assert wanted[3:] == some["probabilities"]


@pytest.mark.parametrize("datatype", tensors.NUMBERS)
def test_numbers_of_every_type(client, datatype):
    """A column of numbers takes all of them, as bytes in little-endian order."""
    wanted = outputs(client.post(PATH, json={"inputs": TENSORS}))
    packed = np.array([20, 21], tensors.LAYOUT[datatype]).tobytes()
    body, headers = binary("leaves", datatype, packed)
    assert wanted == outputs(client.post(PATH, content=body, headers=headers))
    inputs = changed("leaves", datatype=datatype)
    assert wanted == outputs(client.post(PATH, json={"inputs": inputs}))


def test_columns_that_are_no_features_are_ignored(client):
    """The target and excluded columns may be there, of any type."""
    more = [
        {"name": "variety", "datatype": "BYTES", "shape": [2], "data": ["tall", "?"]},
        {"name": "id", "datatype": "UINT8", "shape": [2, 1], "data": [1, 2]},
    ]
    assert outputs(client.post(PATH, json={"inputs": TENSORS})) == outputs(
        client.post(PATH, json={"inputs": [*TENSORS, *more]})
    )


def test_outputs_that_are_asked_for(client):
    """Only those come, in the order of the metadata, each as it is wanted."""
    asked = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "prediction", "parameters": {"binary_data": False}},
    ]
    request = {"inputs": TENSORS, "id": "7", "outputs": asked}
    request["parameters"] = {"binary_data_output": True}
    answer = client.post(PATH, json=request)
    assert "application/octet-stream" == answer.headers["content-type"]
    length = int(answer.headers[LENGTH])
    content = json.loads(answer.content[:length])
    assert "7" == content["id"]
    labels, shares = content["outputs"]
    assert {"name": "prediction", "datatype": "BYTES", "shape": [2]} == {
        name: labels[name] for name in labels if name != "data"
    }
    assert {
        "name": "probabilities",
        "datatype": "FP64",
        "shape": [2, 3],
        "parameters": {"binary_data_size": 48},
    } == shares
    assert pytest.approx(2) == np.frombuffer(answer.content[length:]).sum()


def test_warnings_stand_among_the_parameters(client):
    """They name the row; an answer without any has none."""
    answer = client.post(PATH, json={"inputs": changed("bed", data=["Nord", "Mars"])})
    wanted = "row 1: bed: 'Mars' was not seen in training (Nord, Süd, Île)"
    assert {"warnings": wanted} == answer.json()["parameters"]
    assert "parameters" not in client.post(PATH, json={"inputs": TENSORS}).json()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "leaves: missing, expected a tensor of INT64"),
        (
            [{**each, "shape": [0], "data": []} for each in TENSORS],
            "inputs: expected a tensor for each column, of at least one row",
        ),
        (TENSORS[:1], "leaves: missing, expected a tensor of INT64"),
        ([*TENSORS, TENSORS[0]], "Höhe (cm): more than one tensor of this name"),
        (changed("bed", name="beds"), "beds: unknown tensor, expected Höhe (cm), leaves, bed, "),
        (changed("bed", datatype="FP64"), "bed: expected datatype BYTES, not 'FP64'"),
        (changed("leaves", datatype="BOOL"), "leaves: expected datatype INT8 or "),
        (changed("leaves", shape=[3]), "leaves: 2 values, but shape [3]"),
        (changed("leaves", shape=[2, 2]), "leaves: expected shape [n] or [n, 1], not [2, 2]"),
        (changed("leaves", shape=[]), "leaves: expected shape [n] or [n, 1], not []"),
        (changed("leaves", shape=[1], data=[1]), "leaves: 1 values, but Höhe (cm) has 2"),
        (changed("leaves", data=[1, "2"]), "leaves: expected values of INT64 only, or null"),
        (changed("leaves", data=[1, True]), "leaves: expected values of INT64 only, or null"),
        (changed("leaves", data=None), "leaves: expected data, or binary_data_size among"),
        (changed("leaves", data=[1, 1.5]), "rows.1.leaves: expected a whole number, not 1.5"),
        (changed("leaves", data=[1, None]), "rows.1.leaves: missing, expected a whole number"),
        (changed("treated", data=[1, 0]), "treated: expected values of BOOL only, or null"),
        (changed("planted", data=["a", "b"]), "rows.0.planted: expected an ISO 8601 date or"),
        (changed("leaves", shape="x"), "inputs[1].shape: Expected `array`, got `str`"),
        (
            changed("leaves", parameters={"binary_data_size": 9}),
            "leaves: binary_data_size 9 is not",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_wrong_tensors_are_named(client, inputs, message):
    """422, with one string that says which tensor and what was expected of it."""
    answer = client.post(PATH, json={"inputs": inputs})
    assert 422 == answer.status_code
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize(
    ("column", "datatype", "packed", "message"),
    [
        ("leaves", "INT64", b"\0" * 15, "leaves: expected a multiple of 8 bytes of INT64, not 15"),
        ("leaves", "INT64", b"\0" * 24, "leaves: 3 values, but shape [2]"),
        ("Höhe (cm)", "FP32", struct.pack("<ff", 1, float("inf")), "Höhe (cm): expected numbers, "),
        ("bed", "BYTES", b"\1\0\0\0a\2\0\0\0b", "bed: value 1 is longer than binary_data_size"),
        ("bed", "BYTES", b"\1\0\0\0a\1\0", "bed: value 1: expected UTF-8 with its length before"),
        ("bed", "BYTES", b"\1\0\0\0\xff\0\0\0\0", "bed: value 0: expected UTF-8 with its length"),
    ],
)
def test_wrong_bytes_are_named(client, column, datatype, packed, message):
    """Infinity must not become a value that is missing, nor broken text one that is unseen."""
    body, headers = binary(column, datatype, packed)
    answer = client.post(PATH, content=body, headers=headers)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"].startswith(message)


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "99999", "", "٣"])
def test_wrong_header_length(client, length):
    """It has to lie within the body."""
    body, _ = binary("leaves", "INT64", b"\0" * 16)
    answer = client.post(PATH, content=body, headers={LENGTH: length.encode()})
    assert 422 == answer.status_code
    assert answer.json()["error"].startswith(f"{LENGTH}: expected a number of bytes within")


def test_bytes_of_no_tensor(client):
    """What is left at the end shows that lengths were told wrong."""
    body, headers = binary("leaves", "INT64", np.array([20, 21]).tobytes())
    answer = client.post(PATH, content=body + b"12", headers=headers)
    assert "inputs: 2 bytes belong to no tensor" == answer.json()["error"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([{"name": "score"}], "outputs.score: unknown output, expected prediction, probabilities"),
        (
            [{"name": "prediction", "parameters": {"classification": 2}}],
            "outputs.prediction: classification is not supported",
        ),
    ],
)
def test_wrong_outputs_are_named(client, asked, message):
    """An output that is not there, or in a form that is not spoken."""
    answer = client.post(PATH, json={"inputs": TENSORS, "outputs": asked})
    assert (422, True) == (answer.status_code, answer.json()["error"].startswith(message))


@pytest.mark.parametrize("path", ["", "/ready", "/infer"])
def test_unknown_models_and_versions(client, road, path):
    """404 says which there are."""
    version = road.predictor.card["version"]
    ask = client.post if path == "/infer" else client.get
    for place, message in (
        ("Beet", "no model 'Beet', expected 'Garden'"),
        ("Garden/versions/1", f"no version '1', expected {version!r}"),
    ):
        answer = ask(f"/v2/models/{place}{path}")
        assert (404, {"error": message}) == (answer.status_code, answer.json())
    if path != "/infer":
        assert 200 == client.get(f"/v2/models/Garden/versions/{version}{path}").status_code


@pytest.mark.parametrize("path", ["/v2/else", "/v2/models/Garden/infer"])
def test_errors_of_the_framework_are_strings_too(client, path):
    """A client of this protocol can show them."""
    assert client.get(path).json()["error"].startswith(f"GET {path}: ")
    assert isinstance(client.get("/else").json()["error"], dict)


def test_metadata(each_road):
    """The tensors follow from the contract; the outputs from the task, as they are answered."""
    client = TestClient(create_app(each_road.settings))
    found = client.get("/v2/models/Garden").json()
    assert [
        ("Höhe (cm)", "FP64", [-1, 1]),
        ("leaves", "INT64", [-1, 1]),
        ("bed", "BYTES", [-1, 1]),
        ("treated", "BOOL", [-1, 1]),
        ("planted", "BYTES", [-1, 1]),
    ] == [tuple(each[name] for name in ("name", "datatype", "shape")) for each in found["inputs"]]
    answer = client.post(PATH, json={"inputs": TENSORS}).json()
    assert [(e["name"], e["datatype"], [2, *e["shape"][1:]]) for e in found["outputs"]] == [
        (e["name"], e["datatype"], e["shape"]) for e in answer["outputs"]
    ]
    names = each_road.predictor.contract.class_names
    classes = [e["parameters"]["classes"] for e in found["outputs"] if e["parameters"]]
    assert [list(names)] * bool(names) == [json.loads(each) for each in classes]


@pytest.mark.parametrize(
    ("classes", "datatype"),
    [((False, True), "BOOL"), ((1, 2), "INT64"), ((1, 2.5), "FP64"), (("a", "b"), "BYTES")],
)
def test_label_types(road, classes, datatype):
    """A label is sent as what it is."""
    contract = road.predictor.contract
    client = TestClient(create_app(road.settings))
    served = client.app.state.slot.served
    target = Target("variety", classes)
    served.predictor.contract = Contract(contract.task, target, contract.columns)
    label, *_ = client.get("/v2/models/Garden").json()["outputs"]
    assert datatype == label["datatype"]
    values = [*classes, *classes]
    packed = tensors.pack(datatype, values)
    if datatype != "BYTES":
        assert values == np.frombuffer(packed, tensors.LAYOUT[datatype]).tolist()


SCALARS = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
NAMES = st.sampled_from([each["name"] for each in TENSORS]) | st.text()
TENSOR = st.fixed_dictionaries(
    {
        "name": NAMES,
        "datatype": st.sampled_from(tensors.DATATYPES) | st.text(),
        "shape": st.sampled_from([[2], [2, 1], [1], [0], [-1], [2, 2], [10**30], []]),
    },
    optional={
        "data": st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3) | SCALARS,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "x"]), st.integers(-3, 20) | SCALARS, max_size=2
        ),
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR | st.sampled_from(TENSORS), max_size=7) | st.just(TENSORS)},
    optional={
        "id": st.text() | SCALARS,
        "outputs": st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2) | SCALARS,
        "parameters": st.dictionaries(st.just("binary_data_output"), SCALARS) | SCALARS,
    },
)


@given(
    st.one_of(REQUEST, SCALARS).map(lambda content: json.dumps(content).encode()),
    st.binary(max_size=40),
    st.integers(-2, 2) | st.none(),
)
@settings(max_examples=200)
def test_every_request_is_answered_or_explained(client, head, behind, off):
    """Whatever stands in the JSON, behind it, and in the header that says where it ends."""
    headers = {} if off is None else {LENGTH: str(len(head) + off)}
    explained(client.post(PATH, content=head + behind, headers=headers))


@given(st.binary(max_size=60), st.text("0123456789-+. xe", max_size=5) | st.none())
def test_any_bytes_are_answered_or_explained(client, body, length):
    """As JSON, as bytes, and as neither."""
    headers = {} if length is None else {LENGTH: length.strip()}
    explained(client.post(PATH, content=body, headers=headers))


@given(
    st.sampled_from(["leaves", "Höhe (cm)", "bed", "treated", "planted"]),
    st.sampled_from(tensors.DATATYPES),
    st.binary(max_size=40)
    | st.lists(st.text(max_size=5), max_size=3).map(lambda texts: tensors.pack("BYTES", texts))
    | st.binary(min_size=16, max_size=16),
)
@settings(max_examples=200)
def test_any_tensor_is_answered_or_explained(client, name, datatype, packed):
    """Every type for every column, of any bytes."""
    body, headers = binary(name, datatype, packed)
    explained(client.post(PATH, content=body, headers=headers))


def explained(answer):
    """See that an answer has outputs, or an error of one string."""
    if answer.status_code == 200:
        assert int(answer.headers.get(LENGTH, len(answer.content)))
        assert b'"outputs"' in answer.content
    else:
        assert answer.status_code in (400, 422)
        assert answer.json().keys() == {"error"}
        assert isinstance(answer.json()["error"], str)
        assert answer.json()["error"]


def test_description(client):
    """Without a model it is whole as well: every reference in it leads somewhere."""
    assert inference_protocol.EXTENSIONS == client.get("/v2").json()["extensions"]
    client.app.state.slot.served, kept = None, client.app.state.slot.served
    try:
        text = json.dumps(client.app.openapi())
    finally:
        client.app.state.slot.served = kept
    schemas = json.loads(text)["components"]["schemas"]
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert set() == named - set(schemas)
