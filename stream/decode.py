"""Records to row events: each topic by its sources in the schema, and what cannot be one to the dead letters.

    Batch ─┬─ protobuf: bytes pass straight through (private values are hashed first)
           ├─ json: flat objects          ─┐
           ├─ row_event_json: whole events ─┼► RowEvent bytes ─► Decoded.events
           ├─ debezium: change events     ──┘
           └─ undecodable: exact bytes and the reason ─► Decoded.dead

A topic that the schema does not list carries RowEvents, the canonical form, which needs no mapping. What is well formed
but does not fit the schema is refused by the graph itself, in the same words: a reason and a detail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from google.protobuf.message import DecodeError

from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Batch, DeadLetter, Decoded
from stream.debezium import DebeziumDecoder
from stream.errors import ConfigurationError
from stream.json_decode import JsonDecoder, RowEventJsonDecoder
from stream.privacy import HASHED_HEADER, Privacy, is_private
from stream.settings import StreamSettings
from stream.values import RowError
from temporal_graph.schema import Schema, Source


class TopicDecoder(Protocol):
    """Decodes the batches of one topic."""

    def decode(self, batch: Batch) -> Decoded:
        """Return the events and dead letters of a batch; never raises for what is in a record."""


class Decoder:
    """Decodes batches of any topic. Not for several threads at once."""

    def __init__(
        self, schema: Schema, privacy: Privacy | None = None, *, settings: StreamSettings | None = None
    ) -> None:
        if privacy is None and any(is_private(table) for table in schema.tables):
            raise ConfigurationError("the schema has private values: make the decoder with privacy_for(schema, secret)")
        self._schema = schema
        self._privacy = privacy
        self._bytes_max = (settings or StreamSettings()).record_bytes_max
        self._topics: dict[str, TopicDecoder] = {}
        for topic in dict.fromkeys(source.topic for source in schema.sources):
            self._topics[topic] = self._make([source for source in schema.sources if source.topic == topic])

    def decode(self, batch: Batch) -> Decoded:
        """Return what a batch says; a batch that its source has decoded already is returned as it is."""
        if batch.decoded is not None:
            return batch.decoded
        decoder = self._topics.get(batch.topic)
        if decoder is None:
            decoder = self._topics[batch.topic] = ProtobufDecoder(self._privacy, self._bytes_max)
        return decoder.decode(batch)

    def _make(self, sources: Sequence[Source]) -> TopicDecoder:
        source = sources[0]
        if source.format == "json":
            return JsonTopicDecoder(JsonDecoder(self._schema, source, self._privacy), self._bytes_max)
        if source.format == "row_event_json":
            return JsonTopicDecoder(RowEventJsonDecoder(self._privacy), self._bytes_max)
        if source.format == "debezium":
            return DebeziumTopicDecoder(DebeziumDecoder(self._schema, source, self._privacy), self._bytes_max)
        return ProtobufDecoder(self._privacy, self._bytes_max)


class ProtobufDecoder:
    """Passes RowEvent bytes through: the graph's native decoder validates them, once."""

    def __init__(self, privacy: Privacy | None, bytes_max: int) -> None:
        self._privacy = privacy
        self._bytes_max = bytes_max

    def decode(self, batch: Batch) -> Decoded:
        """Return the values as events; without private tables no byte of them is looked at."""
        values = batch.values
        bad = [i for i, value in enumerate(values) if not value or len(value) > self._bytes_max]
        if not bad and self._privacy is None:
            index = np.arange(len(values), dtype=np.int32)
            return Decoded([value for value in values if value is not None], index, batch.timestamp_us)
        collector = _Collector(batch, self._bytes_max)
        for i, value in enumerate(values):
            if collector.refuses(i, value):
                continue
            assert value is not None
            try:
                hashed = self._privacy is not None and HASHED_HEADER in batch.headers(i)
                collector.add(i, value if hashed else self._protected(value))
            except RowError as error:
                collector.refuse(i, error)
        return collector.decoded()

    def _protected(self, value: bytes) -> bytes:
        if self._privacy is None:
            return value
        event = row_event_pb2.RowEvent()
        try:
            event.ParseFromString(value)
        except DecodeError as error:
            raise RowError("invalid_protobuf", "no RowEvent") from error
        return event.SerializeToString() if self._privacy.protect(event) else value


class JsonTopicDecoder:
    """Decodes a topic of JSON objects: flat rows, or whole RowEvents."""

    def __init__(self, decoder: JsonDecoder | RowEventJsonDecoder, bytes_max: int) -> None:
        self._decoder = decoder
        self._bytes_max = bytes_max

    def decode(self, batch: Batch) -> Decoded:
        """Return the events of the batch; unknown fields are counted."""
        collector = _Collector(batch, self._bytes_max)
        before = self._decoder.ignored_fields
        for i, value in enumerate(batch.values):
            if collector.refuses(i, value):
                continue
            assert value is not None
            try:
                event, event_time_us = self._decoder.decode(value)
            except RowError as error:
                collector.refuse(i, error)
            else:
                collector.add(i, event, event_time_us)
        return collector.decoded(ignored_fields=self._decoder.ignored_fields - before)


class DebeziumTopicDecoder:
    """Decodes a topic of change events; tombstones (null values) are skipped by design."""

    def __init__(self, decoder: DebeziumDecoder, bytes_max: int) -> None:
        self._decoder = decoder
        self._bytes_max = bytes_max

    def decode(self, batch: Batch) -> Decoded:
        """Return the events of the batch: none, one or two of each record."""
        collector = _Collector(batch, self._bytes_max)
        before, skipped = self._decoder.ignored_fields, 0
        for i, value in enumerate(batch.values):
            if value is None:
                skipped += 1
                continue
            if collector.refuses(i, value):
                continue
            try:
                events = self._decoder.decode(value)
            except RowError as error:
                collector.refuse(i, error)
                continue
            skipped += not events
            for event, event_time_us in events:
                collector.add(i, event, event_time_us)
        return collector.decoded(ignored_fields=self._decoder.ignored_fields - before, skipped=skipped)


class _Collector:
    """Gathers the events and dead letters of one batch."""

    def __init__(self, batch: Batch, bytes_max: int) -> None:
        self._batch = batch
        self._bytes_max = bytes_max
        self._events: list[bytes] = []
        self._index: list[int] = []
        self._times: list[int] = []
        self._dead: list[DeadLetter] = []

    def refuses(self, index: int, value: bytes | None) -> bool:
        """Turn a record without a usable value into a dead letter."""
        if value is None:
            self.refuse(index, RowError("null_value", "the record has no value"))
        elif not value:
            self.refuse(index, RowError("empty_value", "the record's value has no bytes"))
        elif len(value) > self._bytes_max:
            self.refuse(index, RowError("too_large", f"{len(value)} bytes, the limit is {self._bytes_max}"))
        else:
            return False
        return True

    def refuse(self, index: int, error: RowError) -> None:
        self._dead.append(self._batch.dead_letter(index, error.reason, error.detail))

    def add(self, index: int, event: bytes, event_time_us: int | None = None) -> None:
        self._events.append(event)
        self._index.append(index)
        if event_time_us is not None:
            self._times.append(event_time_us)

    def decoded(self, *, ignored_fields: int = 0, skipped: int = 0) -> Decoded:
        index = np.array(self._index, dtype=np.int32)
        times = np.array(self._times, dtype=np.int64) if len(self._times) == len(self._events) else None
        return Decoded(
            events=self._events,
            record_index=index,
            broker_time_us=self._batch.timestamp_us[index],
            dead=self._dead,
            event_time_us=times,
            ignored_fields=ignored_fields,
            skipped=skipped,
        )
