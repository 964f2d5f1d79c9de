"""All doors of the service: the same rows get the same answer, whatever protocol they come in."""

import csv
import io
import json
import struct
from dataclasses import asdict

import numpy as np
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.package }} import events
from {{ cookiecutter.package }}.encoding import encode_frame
from {{ cookiecutter.package }}.inference import output
from {{ cookiecutter.package }}.serving.app import create_app

FIELDS = ("prediction", "probabilities", "score")
DATATYPES = {"numeric": "FP64", "integer": "INT64"}


def rows_of(road):
    """Rows of a test table, and all that may be strange in one."""
    frame = road.test.head(12)
    names = [column.name for column in road.predictor.contract.features]
    rows = frame[names].astype(object).where(frame[names].notna(), None).to_dict("records")
    strange = [
        {"Höhe (cm)": None, "bed": None},
        {"bed": "Mars 🚀, “north”"},
        {"bed": "Île", "treated": "YES"},
        {"leaves": 9_000_000_000, "Höhe (cm)": -1e300},
        {"Höhe (cm)": -0.0, "planted": "1999-12-31T23:59:59+02:00"},
        {"Höhe (cm)": 5e-324},
    ]
    rows += [rows[i] | changed for i, changed in enumerate(strange)]
    return [{**row, "leaves": int(row["leaves"])} for row in rows]


def split(rows):
    """The values of rows, with their names beside them."""
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


def columns(rows):
    """Rows, column by column."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def as_csv(rows):
    """Rows as a CSV file."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def tensor(column, rows, binary):
    """A column of rows as a tensor, and the bytes that belong to it."""
    values = [row[column.name] for row in rows]
    datatype = DATATYPES.get(column.kind, "BYTES")
    made = {"name": column.name, "datatype": datatype, "shape": [len(rows)]}
    if not binary:
        return {**made, "data": values}, b""
    if datatype == "BYTES":
        texts = [(value or "").encode() for value in values]
        packed = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    else:
        layout = "<i8" if datatype == "INT64" else "<f8"
        packed = np.array(values, dtype=layout).tobytes()
    made["parameters"] = {"binary_data_size": len(packed)}
    return {**made, "shape": [len(rows), 1]}, packed


def of_table(content):
    """The predictions of MLflow's protocol, as /predict has them."""
    found = []
    for row in content["predictions"]:
        shares = {
            name.removeprefix("probability_"): share
            for name, share in row.items()
            if name.startswith("probability_")
        }
        found.append((row["prediction"], shares or None, row.get("score")))
    return found


def of_outputs(values, classes):
    """The predictions of the Open Inference Protocol, as /predict has them."""
    labels = values["prediction"]
    shares, scores = [None] * len(labels), [None] * len(labels)
    if "probabilities" in values:
        width = len(classes)
        flat = values["probabilities"]
        shares = [
            dict(zip(classes, flat[i * width : (i + 1) * width], strict=True))
            for i in range(len(labels))
        ]
    if "score" in values:
        scores = values["score"]
    return list(zip(labels, shares, scores, strict=True))


def unpacked(answer):
    """The outputs of an answer whose tensors come as bytes."""
    length = int(answer.headers["inference-header-content-length"])
    content, rest = json.loads(answer.content[:length]), answer.content[length:]
    values = {}
    for each in content["outputs"]:
        size = each["parameters"]["binary_data_size"]
        chunk, rest = rest[:size], rest[size:]
        match each["datatype"]:
            case "BYTES":
                values[each["name"]] = texts = []
                while chunk:
                    end = 4 + struct.unpack_from("<I", chunk)[0]
                    texts.append(chunk[4:end].decode())
                    chunk = chunk[end:]
            case kind:
                layout = {"FP64": "<f8", "INT64": "<i8", "BOOL": "?"}[kind]
                values[each["name"]] = np.frombuffer(chunk, layout).tolist()
    assert b"" == rest
    return values


class Doors:
    """The doors of a service."""

    def __init__(self, road):
        self.road = road
        self.client = TestClient(create_app(road.settings))
        self.ordinary = TestClient(create_app(road.settings, hot=False))
        contract = road.predictor.contract
        self.features = contract.features
        self.classes = contract.class_names

    def native(self, rows, client=None):
        """Ask /predict."""
        answer = (client or self.client).post("/predict", json={"rows": rows})
        return [tuple(each[name] for name in FIELDS) for each in answer.json()["predictions"]]

    def invocations(self, body, content_type="application/json"):
        """Ask /invocations."""
        content = body if isinstance(body, bytes) else json.dumps(body)
        answer = self.client.post(
            "/invocations", content=content, headers={"content-type": content_type}
        )
        assert 200 == answer.status_code, answer.text
        return of_table(answer.json())

    def infer(self, rows, binary):
        """Ask /v2."""
        made = [tensor(column, rows, binary) for column in self.features]
        request = {"inputs": [each for each, _ in made]}
        request["parameters"] = {"binary_data_output": binary}
        head, headers = json.dumps(request).encode(), {}
        if binary:
            headers["Inference-Header-Content-Length"] = str(len(head))
        body = b"".join([head, *(packed for _, packed in made)])
        answer = self.client.post("/v2/models/Garden/infer", content=body, headers=headers)
        assert 200 == answer.status_code, answer.text
        if binary:
            return of_outputs(unpacked(answer), self.classes)
        outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        return of_outputs(outputs, self.classes)

    def all(self, rows):
        """Ask everywhere."""
        by_column = columns(rows)
        nested = {name: [[value] for value in values] for name, values in by_column.items()}
        yield self.native(rows)
        yield self.native(rows, self.ordinary)
        yield self.invocations({"dataframe_split": split(rows)})
        yield self.invocations({"dataframe_records": rows})
        for word in ("inputs", "instances"):
            yield self.invocations({word: rows})
            yield self.invocations({word: by_column})
            yield self.invocations({word: nested})
            yield self.invocations({word: [[row[c.name] for c in self.features] for row in rows]})
        yield self.invocations(as_csv(rows), "text/csv; charset=utf-8")
        yield self.infer(rows, binary=False)
        yield self.infer(rows, binary=True)


@pytest.mark.parametrize("most", [1, 100], ids=["one row", "many"])
def test_every_door_gives_the_same_numbers(each_road, most):
    """To the last bit those of the predictor; missing, unseen, far and odd values included."""
    rows = rows_of(each_road)[:most]
    expected = json.loads(json.dumps([asdict(p) for p in each_road.predictor.predict(rows)]))
    wanted = [tuple(each[name] for name in FIELDS) for each in expected]
    answers = list(Doors(each_road).all(rows))
    assert [wanted] * len(answers) == answers


def test_every_door_leaves_native_events(road):
    """The log holds each request and its answer in the form of /predict, with ids and numbers."""
    rows = rows_of(road)[:3]
    doors = Doors(road)
    log = doors.client.app.state.batcher.log
    wanted = json.loads(json.dumps([asdict(each) for each in road.predictor.predict(rows)]))
    answers = list(doors.all(rows))
    logged = [event for event, _ in events.read(log.path)]
    # The ordinary routes of the second app have a log of their own.
    assert len(answers) - 1 == len(logged)
    for event in logged:
        body, answer = json.loads(event.body), json.loads(event.answer)
        assert rows == [{**row, "leaves": int(row["leaves"])} for row in body["rows"]]
        ids = [each.pop("id") for each in answer["predictions"]]
        assert [f"{event.base}-{i}" for i in range(3)] == ids
        assert wanted == answer["predictions"]
        assert event.request_id == answer["request_id"]
        assert road.predictor.card["version"] == event.version == answer["model"]["version"]


def test_every_door_agrees_with_the_pipeline(each_road):
    """Those numbers are the fitted pipeline's, which sees a table."""
    frame, contract = each_road.test, each_road.predictor.contract
    names = [column.name for column in contract.features]
    rows = frame[names].astype(object).where(frame[names].notna(), None).to_dict("records")
    fitted = output(each_road.pipeline, contract, encode_frame(contract, frame))
    labels, shares, scores = zip(*Doors(each_road).infer(rows, binary=True), strict=True)
    if fitted.probabilities is not None:
        given = [list(share.values()) for share in shares]
        np.testing.assert_allclose(given, fitted.probabilities, atol=1e-12)
    if fitted.scores is not None:
        np.testing.assert_allclose(scores, fitted.scores, atol=1e-12)
    assert pytest.approx(fitted.labels.tolist()) == list(labels)


def test_answers_say_who_gave_them(road):
    """The version stands in a header of every door, with the request's id."""
    client, row = TestClient(create_app(road.settings)), rows_of(road)[:1]
    version = road.predictor.card["version"]
    tensors = [tensor(column, row, binary=False)[0] for column in road.predictor.contract.features]
    for path, body in (
        ("/invocations", {"dataframe_records": row}),
        (f"/v2/models/Garden/versions/{version}/infer", {"inputs": tensors}),
    ):
        answer = client.post(path, json=body, headers={"x-request-id": "mine-1"})
        assert 200 == answer.status_code
        assert version == answer.headers["x-model-version"]
        assert "mine-1" == answer.headers["x-request-id"]
        last = list(events.read(client.app.state.batcher.log.path))[-1][0]
        assert "mine-1" == last.request_id
    content = answer.json()
    assert ("Garden", version, "mine-1") == (
        content["model_name"],
        content["model_version"],
        content["id"],
    )


@pytest.mark.parametrize(
    "path", ["/invocations", "/ping", "/health", "/v2/health/ready", "/v2/models/Garden/infer"]
)
def test_no_model(road, tmp_path, path):
    """Without a model every door says 503, and why; only the service itself is alive."""
    section = road.settings.serving.model_copy(update={"bundle": tmp_path / "none"})
    client = TestClient(create_app(road.settings.model_copy(update={"serving": section})))
    post = path.endswith(("infer", "invocations"))
    answer = client.post(path, json={}) if post else client.get(path)
    assert 503 == answer.status_code
    error = answer.json()["error"]
    message = error if path.startswith("/v2") else error["message"]
    assert message.startswith("no model is loaded: no bundle in")
    assert 200 == client.get("/v2/health/live").status_code
    assert "" == client.get("/v2").json()["version"]
