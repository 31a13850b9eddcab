"""OpenTelemetry's SDK by the standard OTEL_* variables; nothing is traced unless one of them says so.

    OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_* ─► exporter ─► provider of the process

The sampler (OTEL_TRACES_SAMPLER), the batches (OTEL_BSP_*) and the resource (OTEL_SERVICE_NAME,
OTEL_RESOURCE_ATTRIBUTES) are read by the SDK itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from nowgraph.errors import UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORTER = "OTEL_TRACES_EXPORTER"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_NEEDED = "pip install 'nowgraph[tracing]'"


def configure_tracing(service: str, environment: Mapping[str, str]) -> None:
    """Traces this process from now on, if the environment says so, under the name of the service unless it gives one.

    Call it in the process that is traced, after any fork: the exporter has a thread of its own. What is not sent yet is
    sent when the process ends. Raises UsageError for a variable that cannot be followed.
    """
    provider = provider_from(service, environment)
    if provider is not None:
        from opentelemetry import trace

        trace.set_tracer_provider(provider)


def provider_from(service: str, environment: Mapping[str, str]) -> TracerProvider | None:
    """The provider that the environment asks for; None when it asks for none. Raises as `configure_tracing`."""
    name = exporter_name(environment)
    if name is None:
        return None
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise UsageError(f"traces are asked for by the environment (OTEL_*), which needs {_NEEDED}") from None
    from nowgraph import __version__

    resource = Resource.create({"service.version": __version__})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(_exporter(name)))
    return provider


def exporter_name(environment: Mapping[str, str]) -> str | None:
    """The entry point of the exporter that is asked for, by its name or by an OTLP endpoint; None for none.

    Raises UsageError for a protocol that OTLP does not have.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    name = environment.get(EXPORTER, "").strip()
    if not name:
        name = "otlp" if any(environment.get(endpoint) for endpoint in ENDPOINTS) else "none"
    if name == "none":
        return None
    if name != "otlp":
        return name
    protocol = next((environment[key] for key in PROTOCOLS if environment.get(key)), "grpc")
    if protocol not in OTLP:
        raise UsageError(f"OTEL_EXPORTER_OTLP_PROTOCOL {protocol}: expected {' or '.join(OTLP)}")
    return OTLP[protocol]


def _exporter(name: str) -> Any:
    for found in entry_points(group="opentelemetry_traces_exporter", name=name):
        return found.load()()
    known = sorted({point.name for point in entry_points(group="opentelemetry_traces_exporter")})
    raise UsageError(
        f"{EXPORTER} {name}: expected none, otlp, or one that is installed: {', '.join(known)}; or {_NEEDED}"
    )
