import subprocess
import sys

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from {{ cookiecutter.package }}.serving.app import create_app

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture(name="taken")
def taken_fixture(served):
    """What a collector is sent, and its address."""
    requests, collector = [], FastAPI()

    @collector.post("/v1/traces")
    async def take(request: Request) -> Response:
        requests.append(ExportTraceServiceRequest.FromString(await request.body()))
        return Response()

    with served(collector) as (host, port):
        yield requests, f"http://{host}:{port}/"


def attributes(found):
    return {each.key: each.value.string_value or each.value.int_value for each in found.attributes}


def test_spans_arrive(road, taken):
    """A prediction is a span of its caller's trace, sent before the end; probes are none."""
    requests, endpoint = taken
    section = road.settings.serving.model_copy(update={"otlp": endpoint})
    app = create_app(road.settings.model_copy(update={"serving": section}))
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = {"rows": [road.predictor.examples[0]["row"]]}
    with TestClient(app) as client:
        answer = client.post("/predict", json=body, headers=headers)
        client.get("/health/live")
        client.get("/metrics")
    assert (200, TRACE) == (answer.status_code, answer.headers["x-request-id"])
    ((spans,),) = [request.resource_spans for request in requests]
    ((span,),) = [scope.spans for scope in spans.scope_spans]
    assert "POST /predict" == span.name
    assert (TRACE, PARENT) == (span.trace_id.hex(), span.parent_span_id.hex())
    version = road.predictor.card["version"]
    named = {"service.name": "Garden", "service.version": version}
    assert named.items() <= attributes(spans.resource).items()
    assert 200 == attributes(span)["http.status_code"]


def test_without_a_collector_nothing_is_imported():
    """Who sends no traces does not pay for it, but for the interface that FastAPI imports."""
    code = f"import sys; import {create_app.__module__}; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "opentelemetry.sdk" not in found
    assert "opentelemetry.instrumentation" not in found
