"""Records that somebody traces: a span says when each became visible in the graph.

    headers of a record ─► sampled `traceparent` ─► span `<topic> apply` in that trace

A trace of an Ingest goes on here: through Kafka to the moment when the next answer can know of the event. Only the
first records of a batch are looked at, and none unless this process has an exporter: reading headers costs too much to
do it for every record of a catch-up, and in a live stream batches are small.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Tracer, TracerProvider

from stream.batch import Batch
from stream.trace_context import sampled_context

# Of one batch: about ten microseconds of looking.
RECORDS_LOOKED_AT = 64


class ApplyTraces:
    """Writes the spans of traced records once their batch is applied."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """None stands for the process's provider, as it is now; without an SDK nothing is written."""
        provider = provider if provider is not None else trace.get_tracer_provider()
        off = isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer: Tracer | None = None if off else provider.get_tracer("nowgraph")

    def applied(self, batch: Batch, *, start_ns: int, end_ns: int) -> None:
        """Says that the batch was taken up and became visible at these times of the wall clock."""
        if self._tracer is None or batch.backfill:
            return
        for index in range(min(len(batch), RECORDS_LOOKED_AT)):
            context = sampled_context(batch.headers(index))
            if context is None:
                continue
            span = self._tracer.start_span(
                f"{batch.topic} apply",
                context=trace.set_span_in_context(trace.NonRecordingSpan(context)),
                kind=SpanKind.CONSUMER,
                links=[Link(context)],
                attributes={
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": batch.topic,
                    "messaging.destination.partition.id": str(batch.partition[index]),
                    "messaging.kafka.offset": int(batch.offset[index]),
                    "messaging.batch.message_count": len(batch),
                },
                start_time=start_ns,
            )
            span.end(end_ns)
