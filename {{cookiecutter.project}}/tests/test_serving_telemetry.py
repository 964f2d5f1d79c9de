import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from {{ cookiecutter.package }}.serving.app import create_app

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(BaseHTTPRequestHandler):
    """Takes spans as a collector does."""

    def do_POST(self):  # pylint: disable=invalid-name
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.taken.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(name="collector")
def collector_fixture():
    server = HTTPServer(("127.0.0.1", 0), Collector)
    server.taken = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def attributes(found):
    return {each.key: each.value.string_value or each.value.int_value for each in found.attributes}


def test_spans_arrive(road, collector):
    """A prediction is a span of its caller's trace, sent before the end; probes are none."""
    endpoint = f"http://127.0.0.1:{collector.server_port}/"
    section = road.settings.serving.model_copy(update={"otlp": endpoint})
    app = create_app(road.settings.model_copy(update={"serving": section}))
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {"rows": [road.predictor.examples[0]["row"]]}
    with TestClient(app) as client:
        answer = client.post("/predict", json=body, headers=headers)
        client.get("/health/live")
        client.get("/metrics")
    assert (200, TRACE) == (answer.status_code, answer.headers["x-request-id"])
    ((path, request),) = collector.taken
    assert "/v1/traces" == path
    (resource,) = (each.resource for each in request.resource_spans)
    (span,) = (
        each for r in request.resource_spans for scope in r.scope_spans for each in scope.spans
    )
    assert "POST /predict" == span.name
    assert (TRACE, PARENT) == (span.trace_id.hex(), span.parent_span_id.hex())
    version = road.predictor.card["version"]
    named = {"service.name": "Garden", "service.version": version}
    assert named.items() <= attributes(resource).items()
    assert 200 == attributes(span)["http.status_code"]


def test_without_a_collector_nothing_is_imported():
    """Who sends no traces does not pay for it, but for the interface that FastAPI imports."""
    code = f"import sys; import {create_app.__module__}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "opentelemetry.sdk" not in found
    assert "opentelemetry.instrumentation" not in found
