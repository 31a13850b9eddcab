"""What the server tells Prometheus: base units, edges on the objectives, labels with few values."""

from __future__ import annotations

from importlib import metadata
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server

# Edges on the latency objectives (5, 10, 25, 50, 100 ms), with room below for stages and above for what went wrong.
LATENCY_EDGES_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
STAGES = ("queue", "freshness", "sample", "collate", "forward", "total")


class Metrics:
    """The server's own registry, so that two servers in one process do not share numbers."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("nowgraph_requests", "Requests answered.", ["method", "code"], registry=r)
        self.request_seconds = Histogram(
            "nowgraph_request_seconds", "From handler entry to answer.", ["method"], buckets=LATENCY_EDGES_S, registry=r
        )
        stage = Histogram(
            "nowgraph_stage_seconds", "Time of one stage of a score.", ["stage"], buckets=LATENCY_EDGES_S, registry=r
        )
        self.stages = {name: stage.labels(name) for name in STAGES}
        self.batch_rows = Histogram("nowgraph_batch_rows", "Rows in one forward pass.", buckets=BATCH_EDGES, registry=r)
        self.model_rows = Counter("nowgraph_model_rows", "Rows that reached the model.", registry=r)
        abandoned = Counter("nowgraph_abandoned", "Requests dropped before the model saw them.", ["reason"], registry=r)
        self.expired = abandoned.labels("expired")
        self.cancelled = abandoned.labels("cancelled")
        self.shed = Counter("nowgraph_shed", "Requests refused at a full buffer.", ["buffer"], registry=r)
        self.queue_rows = Gauge("nowgraph_queue_rows", "Rows waiting for the worker.", registry=r)
        self.empty_history = Counter(
            "nowgraph_empty_history", "Scores of rows whose neighborhood had no timed row.", registry=r
        )
        predictions = Counter(
            "nowgraph_predictions_published", "Answers by what became of their audit record.", ["outcome"], registry=r
        )
        self.predictions_delivered = predictions.labels("delivered")
        self.predictions_retried = predictions.labels("retried")
        self.predictions_lost = predictions.labels("lost")
        self.predictions_waiting = Gauge(
            "nowgraph_predictions_waiting", "Answers not yet confirmed by Kafka.", registry=r
        )
        self.ingested = Counter("nowgraph_ingested_events", "Events confirmed by Kafka.", registry=r)
        self.graph_staleness = Gauge(
            "nowgraph_graph_staleness_seconds", "Server's clock minus the graph's watermark.", registry=r
        )
        self.graph_watermark = Gauge(
            "nowgraph_graph_watermark_timestamp_seconds", "The newest event time in the graph.", registry=r
        )
        self.graph_events = Gauge("nowgraph_graph_events", "Events applied in the graph's generation.", registry=r)
        self.graph_generation = Gauge("nowgraph_graph_generation", "The arena's generation being read.", registry=r)
        self.build = Info("nowgraph_build", "What is running.", registry=r)

    def describe(self, *, model_version: str, task: str, kind: str, schema_fingerprint: str) -> None:
        """Names the package, the model, what it predicts (`binary`, `regression`, ...) and the schema being served."""
        self.build.info(
            {
                "version": package_version(),
                "model_version": model_version,
                "task": task,
                "kind": kind,
                "schema_fingerprint": schema_fingerprint,
            }
        )


def package_version() -> str:
    """The installed distribution's version; `unknown` in a folder that was never installed."""
    try:
        return metadata.version("nowgraph")
    except metadata.PackageNotFoundError:
        return "unknown"


class MetricsEndpoint:
    """The HTTP face of a registry, on a thread of its own; port 0 takes a free one."""

    def __init__(self, metrics: Metrics, *, host: str, port: int) -> None:
        server: WSGIServer
        thread: Thread
        server, thread = start_http_server(port, addr=host, registry=metrics.registry)
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Stops answering scrapes and frees the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
