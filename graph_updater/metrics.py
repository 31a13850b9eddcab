"""What the updater tells Prometheus. Labels are bounded by the schema's tables and the assigned partitions."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge

from graph_updater.histogram import BatchHistogram
from temporal_graph.memory import Memory

# The promise is 20 ms at the 99th percentile; the buckets are close around it and reach to a minute for a catch-up.
_VISIBLE_BUCKETS_S = (
    0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.008, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0,
)  # fmt: skip
_APPLY_BUCKETS_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)


class UpdaterMetrics:
    """The updater's counters, gauges and histograms in one registry; one updater a registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.records = Counter("nowgraph_records", "Records read, by topic.", ["topic"], registry=self.registry)
        self.applied = Counter("nowgraph_events_applied", "Events that changed the graph.", registry=self.registry)
        self.duplicate = Counter("nowgraph_events_duplicate", "Events the graph had already.", registry=self.registry)
        self.rejected = Counter(
            "nowgraph_events_rejected",
            "Events sent to the dead letters, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.erased = Counter(
            "nowgraph_events_erased", "Changes of what is erased, dropped as they came.", registry=self.registry
        )
        self.rows_erased = Counter(
            "nowgraph_rows_erased", "Rows that erasures removed, by table.", ["table"], registry=self.registry
        )
        self.evicted = Counter("nowgraph_rows_evicted", "Rows that retention forgot.", registry=self.registry)
        self.rows = Gauge("nowgraph_rows", "Rows of a table.", ["table"], registry=self.registry)
        self.lag = Gauge(
            "nowgraph_lag_records", "Records of a partition not yet applied.", ["topic", "partition"],
            registry=self.registry,
        )  # fmt: skip
        self.behind = Gauge("nowgraph_behind", "1 while the graph is behind its log.", registry=self.registry)
        self.watermark = Gauge(
            "nowgraph_watermark_seconds", "Newest event time in the graph, seconds since the epoch.",
            registry=self.registry,
        )  # fmt: skip
        self.visible_seconds = BatchHistogram(
            "nowgraph_event_to_visible_seconds",
            "From the broker's timestamp to visible in the graph.",
            _VISIBLE_BUCKETS_S,
            self.registry,
        )
        self.apply_seconds = BatchHistogram(
            "nowgraph_apply_seconds", "One batch from bytes to published.", _APPLY_BUCKETS_S, self.registry
        )
        self.memory_bytes = Gauge(
            "nowgraph_memory_bytes", "Memory of the graph, by part.", ["part"], registry=self.registry
        )

        self.snapshots = Counter("nowgraph_snapshots", "Snapshots, by outcome.", ["outcome"], registry=self.registry)
        for outcome in ("made", "failed"):
            self.snapshots.labels(outcome=outcome)
        self.snapshot_seconds = Gauge(
            "nowgraph_snapshot_seconds", "The last snapshot, from its begin to its last byte.", registry=self.registry
        )
        self.snapshot_pause_seconds = Gauge(
            "nowgraph_snapshot_pause_seconds", "How long the writer rested for the last one.", registry=self.registry
        )
        self.snapshot_bytes = Gauge(
            "nowgraph_snapshot_bytes", "Bytes of the graph in the last one.", registry=self.registry
        )
        self.snapshot_timestamp = Gauge(
            "nowgraph_snapshot_timestamp_seconds", "When the last one was made.", registry=self.registry
        )
        self.ready_seconds = Gauge(
            "nowgraph_ready_seconds",
            "From the start, or from when a standby took the place, until the graph had caught up.",
            registry=self.registry,
        )
        self.standing_by = Gauge("nowgraph_standing_by", "1 while another one writes.", registry=self.registry)

    def set_memory(self, parts: Mapping[str, int]) -> None:
        """Sets the bytes of every part of the graph's memory."""
        for part, size in parts.items():
            self.memory_bytes.labels(part=part).set(size)


def memory_parts(memory: Memory) -> dict[str, int]:
    """The bytes of the graph's memory by part; "used" is all that was taken of the arena, "arena" what there is.

    "disk" is no memory: the columns of tables that keep them there.
    """
    tables = memory.tables
    return {
        "arena": memory.arena_bytes,
        "used": memory.used_bytes,
        "idle": memory.idle_bytes,
        "links": memory.adjacency_bytes,
        "versions": memory.version_bytes + sum(table.version_head_bytes for table in tables),
        "topology": sum(table.topology_bytes for table in tables),
        "keys": sum(table.key_bytes + table.key_map_bytes for table in tables),
        "cells": sum(table.cell_bytes for table in tables),
        "disk": memory.columns_bytes,
        "dictionaries": sum(table.dictionary_bytes for table in tables),
    }
