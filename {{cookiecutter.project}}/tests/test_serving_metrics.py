import signal
import subprocess
import sys

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from {{ cookiecutter.package }}.serving import metrics
from {{ cookiecutter.package }}.serving.app import create_app
from {{ cookiecutter.package }}.serving.metrics import Backlog, Metrics


@pytest.fixture(name="client")
def client_fixture(road):
    return TestClient(create_app(road.settings))


def parsed(text):
    """All numbers, by name and labels."""
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def samples(client):
    return parsed(client.get("/metrics").text)


def told(counted):
    return parsed(counted.exposition().decode())


def requests(numbers, route, status, method="GET"):
    labels = (("method", method), ("route", route), ("status", status))
    return numbers.get(("http_requests_total", *labels), 0)


def test_predictions_and_warnings_are_counted(client, road):
    """Rows count, not requests; so do the warnings in them."""
    row = road.predictor.examples[0]["row"]
    client.post("/predict", json={"rows": [row, {**row, "bed": "Mars"}]})
    numbers = samples(client)
    assert 2 == numbers[("model_predictions_total", ("role", "champion"))]
    assert 1 == numbers[("prediction_warnings_total",)]


def test_requests_are_counted_by_route_and_status(client, road):
    """A prediction and a refusal are told apart, and timed."""
    client.post("/predict", json={"rows": [road.predictor.examples[0]["row"]]})
    client.post("/predict", json={"rows": []})
    client.post("/predict", json={"rows": []})
    numbers = samples(client)
    assert 1 == requests(numbers, "/predict", "200", "POST")
    assert 2 == requests(numbers, "/predict", "422", "POST")
    assert 3 == numbers[("http_request_duration_seconds_count", ("route", "/predict"))]


def test_failed_predictions_are_counted_by_reason(client):
    """Whatever door they came through; the reasons are few, and each is there from the start."""
    client.post("/predict", content=b"{", headers={"content-type": "application/json"})
    client.post("/invocations", json={"inputs": []})
    client.post("/predict", json={"rows": []})
    client.post("/v2/models/other/infer", json={})
    client.get("/predict")
    client.post("/feedback", json={})
    name = "model_prediction_errors_total"
    numbers = {each[1][1]: n for each, n in samples(client).items() if each[0] == name}
    assert {"malformed": 1, "invalid": 2, "other": 1} == {r: n for r, n in numbers.items() if n}
    assert {*metrics.REASONS.values(), "other"} == set(numbers)


def test_unknown_names_share_one_label(client):
    """Whatever is asked for, there are no more labels than routes, methods and statuses."""
    for path in ("/a", "/b?c=d", "/predict/7"):
        client.get(path)
    client.request("BREW", "/predict")
    numbers = samples(client)
    assert 3 == requests(numbers, "other", "404")
    assert 1 == requests(numbers, "/predict", "405", "other")
    counted = Metrics(["/predict"])
    counted.request(counted.door("POST", "/predict"), 418, 0.0)
    assert 1 == requests(told(counted), "/predict", "other", "POST")


def test_the_model_is_named(client, road):
    """Name, version and role of the model in service are there to join with."""
    labels = ("name", "Garden"), ("role", "champion"), ("version", road.predictor.card["version"])
    assert 1 == samples(client)[("model_info", *labels)]


def test_apps_count_apart(client, road):
    """Each app has numbers of its own."""
    client.get("/health/live")
    assert 0 == requests(samples(TestClient(create_app(road.settings))), "/health/live", "200")


def test_each_cell_is_told_by_its_name():
    """What is counted by one method comes out under one name, in the right bucket."""
    counted = Metrics(["/predict"])
    counted.request(counted.door("POST", "/predict"), 200, 0.025)
    counted.phase(metrics.MODEL, 0.00003)
    counted.phase(metrics.WRITE, 7)
    counted.predicted("champion", 5, 3)
    counted.predicted("shadow", 2)
    counted.batch(3)
    counted.batch(9999)
    counted.queued(4)
    counted.events(6)
    counted.events_refused(2)
    counted.swap("refused")
    counted.backlog = lambda: Backlog(1024, 3, True)
    numbers = told(counted)
    labels = (("le", "0.01"), ("route", "/predict")), (("le", "0.025"), ("route", "/predict"))
    buckets = [numbers[("http_request_duration_seconds_bucket", *each)] for each in labels]
    assert [0, 1] == buckets
    wanted = {
        ("http_request_duration_seconds_sum", ("route", "/predict")): 0.025,
        ("model_predict_duration_seconds_bucket", ("le", "2.5e-05")): 0,
        ("model_predict_duration_seconds_bucket", ("le", "5e-05")): 1,
        ("prediction_phase_seconds_count", ("phase", "decode")): 0,
        ("prediction_phase_seconds_bucket", ("le", "1.0"), ("phase", "write")): 0,
        ("prediction_phase_seconds_sum", ("phase", "write")): 7,
        ("model_predictions_total", ("role", "champion")): 5,
        ("model_predictions_total", ("role", "canary")): 0,
        ("model_predictions_total", ("role", "shadow")): 2,
        ("prediction_warnings_total",): 3,
        ("prediction_batch_size_bucket", ("le", "2.0")): 0,
        ("prediction_batch_size_bucket", ("le", "4.0")): 1,
        ("prediction_batch_size_count",): 2,
        ("prediction_batch_size_sum",): 10002,
        ("prediction_queue_depth",): 4,
        ("events_written_total",): 6,
        ("events_refused_total",): 2,
        ("events_backlog_bytes",): 1024,
        ("events_backlog_segments",): 3,
        ("events_store_up",): 1,
        ("model_swaps_total", ("result", "refused")): 1,
        ("model_swaps_total", ("result", "loaded")): 0,
    }
    assert wanted == {name: numbers[name] for name in wanted}


def test_without_events_there_is_no_backlog():
    """Where no events are kept, nothing is said of their store."""
    assert ("events_store_up",) not in told(Metrics([]))


WORKER = """
import sys, time
from pathlib import Path
from {{ cookiecutter.package }}.serving.metrics import Metrics

counted = Metrics(["/predict"], Path(sys.argv[1]))
door = counted.door("POST", "/predict")
for _ in range(1000):
    counted.request(door, 200, 0.5)
counted.queued(9)
print("counted", flush=True)
time.sleep(60)
"""


def test_workers_are_summed_and_the_dead_are_not_forgotten(tmp_path):
    """Counters outlive a killed worker, its gauges do not; its successor counts on in its file."""
    counted = Metrics(["/predict"], tmp_path)
    counted.request(counted.door("POST", "/predict"), 200, 0.25)
    counted.queued(1)
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        worker.stdout.readline()
        alive = told(counted)
        worker.send_signal(signal.SIGKILL)
    dead = told(counted)
    successor = Metrics(["/predict"], tmp_path)
    successor.request(successor.door("POST", "/predict"), 200, 0.25)
    later = told(counted)
    assert [1001, 1001, 1002] == [
        requests(each, "/predict", "200", "POST") for each in (alive, dead, later)
    ]
    seconds = ("http_request_duration_seconds_sum", ("route", "/predict"))
    assert [500.25, 500.25, 500.5] == [each[seconds] for each in (alive, dead, later)]
    assert [10, 1, 1] == [each[("prediction_queue_depth",)] for each in (alive, dead, later)]
    assert later == told(successor) | {name: later[name] for name in later if "process" in name[0]}
    assert 2 == len(list(tmp_path.iterdir()))


def test_workers_of_another_layout_count_apart(tmp_path):
    """After a restart with other routes, numbers are not read from the wrong cells."""
    old = Metrics(["/a", "/predict"], tmp_path)
    old.request(old.door("POST", "/predict"), 200, 0.25)
    assert 0 == requests(told(Metrics(["/predict"], tmp_path)), "/predict", "200", "POST")


def test_processes_are_measured_with_their_children():
    """Memory and time are those of the whole tree, also of children that ended."""
    counted = Metrics([])
    before = told(counted)
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    spent = ("process_cpu_seconds_total",)
    assert 0.15 < told(counted)[spent] - before[spent]
    command = [sys.executable, "-c", "print(flush=True); input()"]
    memory = ("process_resident_memory_bytes",)
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **streams) as child:
        child.stdout.readline()
        assert 2_000_000 < told(counted)[memory] - before[memory]
        child.stdin.write(b"\n")
