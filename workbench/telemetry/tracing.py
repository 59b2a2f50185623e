"""OpenTelemetry: a tracer provider, so that every call has a trace id. Exporters are added by who wants them."""

from __future__ import annotations

from opentelemetry import trace


def ensure_tracing(service: str = "workbench") -> None:
    """Install the SDK's provider once; a provider that is there already is kept."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": service})))
