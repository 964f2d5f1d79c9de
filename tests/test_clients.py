"""Clients that others wrote, at a service that runs: the protocols are what they think they are."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest
from conftest import Workspace, served, wait_until_answered
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from scripts.demo import free_port

ROWS = [
    {"island": "Biscoe", "bill_length_mm": 50.0, "bill_depth_mm": 15.3}
    | {"flipper_length_mm": 220, "body_mass_g": 5550, "sex": "male", "year": 2007},
    {"island": "Dream", "bill_length_mm": None, "bill_depth_mm": 17.9}
    | {"flipper_length_mm": None, "body_mass_g": None, "sex": None, "year": 2008},
    {"island": "Øya", "bill_length_mm": 39.1, "bill_depth_mm": None}
    | {"flipper_length_mm": 181, "body_mass_g": 3750, "sex": "female", "year": 2009},
]
# In `inputs` and `instances` MLflow makes the word None of a text that is missing.
WORDED = [ROWS[0], ROWS[2]]
TEXTS = ("island", "sex")
# A client of MLflow in the project's environment: asks, and prints what it is told.
SCORING_CLIENT = """
import json, sys
import pandas as pd
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
port, rows, broken = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
client = ScoringServerClient("127.0.0.1", port)
client.ping()
said = {"version": client.get_version()}
said["predictions"] = client.invoke(pd.DataFrame(rows)).get_predictions().to_dict("records")
said["with_params"] = client.invoke(pd.DataFrame(rows), params={"a": 1})["predictions"]
try:
    client.invoke(pd.DataFrame(broken))
except Exception as error:
    said["error"] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def project(default_project, tmp_path_factory):
    """A trained project of this file."""
    workspace = Workspace(default_project, tmp_path_factory.mktemp("clients") / "penguins")
    workspace.run(".venv/bin/python", "-m", "penguins", "pipeline")
    return workspace


@pytest.fixture(scope="module")
def address(project):
    """Where its service answers."""
    with served(project.folder, "penguins") as address:
        yield address


@pytest.fixture(scope="module")
def peer(project):
    """Where MLflow's own server answers with the same model."""
    project.run(".venv/bin/python", "-m", "penguins", "register")
    port = free_port()
    words = ["models", "serve", "--model-uri", "models:/penguins/1", "--env-manager", "local"]
    server = subprocess.Popen(
        [".venv/bin/mlflow", *words, "--port", str(port)],
        cwd=project.folder,
        env={
            **project.environment,
            "MLFLOW_TRACKING_URI": f"sqlite:///{project.folder}/mlflow.db",
            "PATH": f"{project.folder}/.venv/bin:{project.environment['PATH']}",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until_answered(f"http://127.0.0.1:{port}/ping")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


@pytest.fixture(scope="module")
def predictions(address):
    """What /predict says of the rows."""
    return json.loads(post(f"{address}/predict", {"rows": ROWS}))["predictions"]


def post(address, content, content_type="application/json"):
    """Send a body; give back the answer."""
    body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"content-type": content_type})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read().decode()


def as_csv():
    """The rows as a CSV file."""
    lines = [",".join(ROWS[0])]
    lines += [",".join("" if v is None else str(v) for v in row.values()) for row in ROWS]
    return "\n".join(lines) + "\n"


def rounded(content):
    """An answer as MLflow's protocol has it, without the last digits of its numbers."""
    return [
        {name: round(v, 12) if isinstance(v, float) else v for name, v in row.items()}
        for row in json.loads(content)["predictions"]
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"dataframe_split": {"columns": list(ROWS[0]), "data": [[*row.values()] for row in ROWS]}},
        {"dataframe_records": ROWS},
        {"inputs": WORDED},
        {"inputs": {name: [row[name] for row in WORDED] for name in ROWS[0]}},
        {"instances": WORDED},
        {"dataframe_records": ROWS, "params": {"a": 1}},
        as_csv(),
    ],
    ids=["split", "records", "inputs", "columns", "instances", "params", "csv"],
)
def test_answers_are_those_of_mlflow(address, peer, content):
    """The same body gets the same answer from `mlflow models serve` with the same model."""
    content_type = "text/csv" if isinstance(content, str) else "application/json"
    theirs = rounded(post(f"{peer}/invocations", content, content_type))
    ours = rounded(post(f"{address}/invocations", content, content_type))
    assert theirs == ours


def test_mlflow_client(project, address, predictions):
    """It pings, asks with a table that has gaps, and shows what is wrong with another."""
    broken = [{**ROWS[0], "bill_length_mm": "long"}]
    words = [address.rpartition(":")[2], json.dumps(ROWS), json.dumps(broken)]
    done = subprocess.run(
        [".venv/bin/python", "-c", SCORING_CLIENT, *words],
        cwd=project.folder,
        env=project.environment,
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stderr
    said = json.loads(done.stdout)
    assert said["with_params"] == said["predictions"]
    assert [
        {
            "prediction": each["prediction"],
            **{f"probability_{name}": share for name, share in each["probabilities"].items()},
        }
        for each in predictions
    ] == said["predictions"]
    assert "error code 422" in said["error"]
    assert "rows.0.bill_length_mm: expected a number, not 'long'" in said["error"]
    found = project.run(".venv/bin/python", "-c", "import mlflow; print(mlflow.__version__)")
    assert found.startswith(f"{said['version']}.")


@pytest.fixture(scope="module")
def triton(address):
    """Triton's client."""
    client = InferenceServerClient(address.removeprefix("http://"))
    yield client
    client.close()


def inputs(rows, binary, texts=np.object_):
    """Rows as tensors of Triton's client."""
    tensors = []
    for name in rows[0]:
        values = [row[name] for row in rows]
        if name in TEXTS:
            array, datatype = np.array([value or "" for value in values], dtype=texts), "BYTES"
        else:
            array, datatype = np.array(values, dtype=np.float64), "FP64"
        tensor = InferInput(name, [len(rows), 1], datatype)
        tensors.append(tensor.set_data_from_numpy(array.reshape(-1, 1), binary_data=binary))
    return tensors


def labels(array):
    """Text of a tensor."""
    return [value.decode() if isinstance(value, bytes) else value for value in array.tolist()]


def test_triton_client_finds_the_model(triton, address):
    """It sees a server and a model that are ready, and what the model takes and gives."""
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("Penguins")
    assert not triton.is_model_ready("Whales")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    found = triton.get_model_metadata("Penguins")
    assert list(ROWS[0]) == [each["name"] for each in found["inputs"]]
    assert ("island", "BYTES", [-1, 1]) == (
        found["inputs"][0]["name"],
        found["inputs"][0]["datatype"],
        found["inputs"][0]["shape"],
    )
    assert ["prediction", "probabilities", "id"] == [each["name"] for each in found["outputs"]]
    card = json.loads(wait_until_answered(f"{address}/model"))["card"]
    assert [card["version"]] == found["versions"]
    assert triton.is_model_ready("Penguins", card["version"])
    assert not triton.is_model_ready("Penguins", "0" * 12)


@pytest.mark.parametrize("given", [True, False], ids=["binary out", "JSON out"])
@pytest.mark.parametrize("sent", [True, False], ids=["binary in", "JSON in"])
def test_triton_client_gets_the_same_numbers(triton, predictions, sent, given):
    """Tensors as bytes and as JSON, there and back; missing numbers are NaN, missing text empty."""
    names = ("id", "probabilities", "prediction")
    outputs = [InferRequestedOutput(name, binary_data=given) for name in names]
    result = triton.infer("Penguins", inputs(ROWS, sent), outputs=outputs, request_id="7")
    assert "7" == result.get_response()["id"]
    assert [each["prediction"] for each in predictions] == labels(result.as_numpy("prediction"))
    np.testing.assert_array_equal(
        [list(each["probabilities"].values()) for each in predictions],
        result.as_numpy("probabilities"),
    )
    bases = {name.rpartition("-")[0] for name in labels(result.as_numpy("id"))}
    assert 1 == len(bases)
    warnings = result.get_response()["parameters"]["warnings"]
    assert "row 2: island: 'Øya' was not seen in training (Biscoe, Dream, Torgersen)" == warnings


def test_triton_client_asks_for_everything(triton, predictions):
    """Without a list of outputs all come, as bytes; numbers may be of any type."""
    tensors = inputs(ROWS[:1], binary=True, texts=np.bytes_)
    for i, tensor in enumerate(tensors):
        if tensor.name() == "year":
            tensors[i] = InferInput("year", [1], "UINT16").set_data_from_numpy(
                np.array([2007], np.uint16)
            )
        elif tensor.name() == "flipper_length_mm":
            tensors[i] = InferInput(tensor.name(), [1, 1], "FP16").set_data_from_numpy(
                np.array([[220]], np.float16)
            )
    result = triton.infer("Penguins", tensors)
    assert [predictions[0]["prediction"]] == labels(result.as_numpy("prediction"))
    given = result.as_numpy("probabilities").tolist()
    assert [list(predictions[0]["probabilities"].values())] == given


def test_triton_client_shows_what_is_wrong(triton):
    """Errors arrive as the client expects them: a message, and a status."""
    for tensors, options, status, message in (
        (inputs(ROWS, True)[1:], {}, "422", "island: missing, expected a tensor of BYTES"),
        (inputs(ROWS, True), {"model_version": "1"}, "404", "no version '1', expected '"),
        (
            inputs(ROWS, True),
            {"request_compression_algorithm": "gzip"},
            "400",
            "content-encoding 'gzip' is not supported: send the body as it is",
        ),
    ):
        with pytest.raises(InferenceServerException) as raised:
            triton.infer("Penguins", tensors, **options)
        assert (status, True) == (raised.value.status(), raised.value.message().startswith(message))


def test_errors_of_other_routes_keep_their_shape(address):
    """Under /v2 an error is one string; elsewhere it has a code, a message and details."""
    for path, kind in (("/v2/nothing", str), ("/nothing", dict)):
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(address + path)
        assert kind is type(json.load(raised.value)["error"])
