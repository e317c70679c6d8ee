"""OpenTelemetry spans, one for each request, with vLLM's names. Off unless --otlp-traces-endpoint says where they go.

Does not know: routes. Invariant: without the flag nothing of OpenTelemetry is imported; a collector that is away costs
spans, never answers. Called by: running.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from vllm.engine.deliver import Delivery
from vllm.errors import ValidationError

CARRIED = ("traceparent", "tracestate")
"""Headers that tie a span to its caller's."""


class Traces:
    """Where spans go. Close it at the end."""

    def __init__(self, endpoint: str, model_name: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise ValidationError(
                "otlp_traces_endpoint needs packages that are not here.",
                field="otlp_traces_endpoint",
                remedy="Install the extra: vllm[otel].",
            ) from None
        if not endpoint.startswith(("http://", "https://")):
            raise ValidationError.of("otlp_traces_endpoint", endpoint, "an http:// or https:// address")
        self._model = model_name
        self._provider = TracerProvider(resource=Resource.create({"service.name": "vllm"}))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        self._tracer = self._provider.get_tracer("vllm.llm_engine")
        self._propagator, self._kind = TraceContextTextMapPropagator(), SpanKind.SERVER

    def ended(self, name: str, deliveries: Sequence[Delivery], carried: Mapping[str, str]) -> None:
        """A request is over: its span."""
        arrived = min(d.metrics.arrival_time for d in deliveries)
        span = self._tracer.start_span(
            "llm_request",
            context=self._propagator.extract(carried),
            kind=self._kind,
            start_time=int(arrived * 1e9),
            attributes=_attributes(name, self._model, deliveries),
        )
        span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _attributes(name: str, model: str, deliveries: Sequence[Delivery]) -> dict[str, Any]:
    first, params = deliveries[0], deliveries[0].params
    m = first.metrics
    told: dict[str, Any] = {
        "gen_ai.response.model": model,
        "gen_ai.request.id": name,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.request.n": params.n,
        "gen_ai.usage.num_sequences": sum(d.params.n for d in deliveries),
        "gen_ai.usage.prompt_tokens": sum(len(d.taken.prompt_token_ids) for d in deliveries),
        "gen_ai.usage.completion_tokens": sum(d.metrics.num_generation_tokens for d in deliveries),
        "gen_ai.response.finish_reasons": [reason or "left" for d in deliveries for reason in d.finish_reasons],
        "gen_ai.latency.e2e": time.monotonic() - m.queued_ts,
    }
    if m.first_token_ts:
        told |= {
            "gen_ai.latency.time_in_queue": m.scheduled_ts - m.queued_ts,
            "gen_ai.latency.time_to_first_token": m.first_token_ts - m.queued_ts,
            "gen_ai.latency.time_in_model_prefill": m.first_token_ts - m.scheduled_ts,
            "gen_ai.latency.time_in_model_decode": m.last_token_ts - m.first_token_ts,
            "gen_ai.latency.time_in_model_inference": m.last_token_ts - m.scheduled_ts,
        }
    return {key: value for key, value in told.items() if value is not None}
