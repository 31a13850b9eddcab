"""What can go wrong with a graph in Redis."""

from __future__ import annotations

from temporal_graph.errors import TemporalGraphError


class StoreError(TemporalGraphError):
    """The root of what a graph in Redis raises about its operation."""


class StoreUnavailableError(StoreError):
    """A shard does not answer, cannot write, or has fewer replicas than asked for. Trying again may do."""


class StoreLostError(StoreError):
    """Data that was there is gone: a shard was flushed, or came back empty. The graph must be built anew."""


class StoreNotReadyError(StoreError):
    """There is no graph, or one that does not yet hold what its log held when it was begun."""


class ErasingError(StoreError):
    """Something is being erased, or was since this one looked: look again, and try again."""


class StaleWriterError(StoreError):
    """Another writer has claimed a partition of this batch since: nothing of it may be written."""


class RecordsLostError(StoreError):
    """The log no longer has records that the graph was never given: it can't become what the log was."""
