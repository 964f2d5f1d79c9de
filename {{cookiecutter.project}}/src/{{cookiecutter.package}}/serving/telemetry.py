"""OpenTelemetry: a span of every request, sent to a collector; imported only where one is set."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette.types import ASGIApp

from .limits import PROBES


def traced(app: ASGIApp, provider: TracerProvider) -> ASGIApp:
    """Wrap an app so that each request, but for probes, becomes a span of its caller's trace.

    Parameters
    ----------
    app : ASGIApp
    provider : TracerProvider

    Returns
    -------
    ASGIApp
    """
    wrapped: ASGIApp = OpenTelemetryMiddleware(
        app,
        excluded_urls=",".join(f"{path}$" for path in sorted(PROBES)),
        tracer_provider=provider,
        exclude_spans=["receive", "send"],
    )
    return wrapped


def provider(endpoint: str, name: str, version: str) -> TracerProvider:
    """Return what collects spans and sends them in batches.

    Parameters
    ----------
    endpoint : str
        The collector's address for OTLP over HTTP, such as ``http://collector.example:4318``.
    name, version : str
        Of the service.

    Returns
    -------
    TracerProvider
        Its ``shutdown`` sends what is left.
    """
    collected = TracerProvider(
        resource=Resource.create({"service.name": name, "service.version": version})
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces")
    collected.add_span_processor(BatchSpanProcessor(exporter))
    return collected
