"""Records from Kafka: every partition assigned explicitly from the positions of the graph, in columnar batches.

    graph.positions ─► assign ─► librdkafka's queue (bounded) ─► poll ─► Batch of one topic

The graph's own state says where to go on, so there is no consumer group and nothing is committed: after a crash the
positions are exactly those of what is in the graph.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, overload

import confluent_kafka
import numpy as np
import structlog
from confluent_kafka import OFFSET_END, TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message, TopicPartition
from numpy.typing import NDArray

from stream.batch import NO_TIMESTAMP_US, Batch, Header, Positions, empty_batch
from stream.client_errors import ClientErrors, make_client
from stream.errors import ConfigurationError, GapError, SourceError, UnreachableError
from stream.settings import StreamSettings
from stream.source import Hysteresis
from stream.topic_ids import KeepId, TopicIds

log = structlog.get_logger(__name__)

Start = Literal["beginning", "end"]
_PASSED_INTERVAL_S = 1.0  # while records come; where none do, each poll looks
_PAUSE_S = 0.1
_CHECK_TIMEOUT_S = 1.0  # polling waits for the look at the partitions, so it must not wait for a broker that is away


class KafkaSource:
    """Reads all partitions of `topics`, each from its position or, where it has none, from `start`.

    `gaps` says what a missing offset means: "error" (GapError) for logs whose offsets are dense, such as the embedded
    broker's ring, "allow" for Kafka's compacted or transactional topics. An offset that the broker no longer has is a
    GapError in both, and so is a beginning that is gone, of a dense log or of a partition without a position whose
    topic has others: the constructor raises it.

    Partitions that a topic gets while it is read are found within `partition_check_s` and read from their beginning,
    and so are those of `later`: topics that need not exist yet. Then, and at the start, ids are held against those that
    `keep_id` has; None asks for none. `paused` fetching keeps what is queued.

    Raises:
        ConfigurationError: a topic does not exist, or a setting is none that a Kafka client takes.
        UnreachableError: no broker answers, or a partition has no leader, which may pass by itself.
        ReplacedTopicError: a topic is not the one whose id `keep_id` has.
        SourceError: the broker refuses this client.
    """

    def __init__(
        self,
        topics: Sequence[str],
        *,
        positions: Mapping[tuple[str, int], int] | None = None,
        start: Start = "beginning",
        gaps: Literal["error", "allow"] = "allow",
        later: Sequence[str] = (),
        keep_id: KeepId | None = None,
        settings: StreamSettings | None = None,
    ) -> None:
        self._settings = settings or StreamSettings()
        self._topics = [*topics, *later]
        self._later = frozenset(later)
        self._dense = gaps == "error"
        self._switch = Hysteresis(self._settings.pause_queue_bytes, self._settings.resume_queue_bytes)
        self._paused = False
        self._ready: deque[Batch] = deque()
        self._next_check_s = time.monotonic() + self._settings.partition_check_s
        self._next_passed_s = 0.0
        self._ids = TopicIds(self._settings, keep_id)
        self._errors = ClientErrors()
        self._consumer = make_client(confluent_kafka.Consumer, self._config(), self._errors)
        try:
            self._positions = self._starting_positions(dict(positions or {}), start)
            self._consumer.assign([TopicPartition(*place, offset) for place, offset in self._positions.items()])
        except KafkaException as error:
            self._consumer.poll(0)  # nothing is assigned: this only hands over what its connections complain of
            self._consumer.close()
            failed = UnreachableError if self._errors.may_pass(error.args[0]) else SourceError
            raise failed(f"Kafka at {self._settings.kafka_bootstrap}: {self._errors.explain(error.args[0])}") from error
        except Exception:
            self._consumer.close()
            raise

    @property
    def positions(self) -> Positions:
        """The next offset of every partition that `poll` has not returned."""
        return dict(self._positions)

    @property
    def exhausted(self) -> bool:
        """Never: a log has no end."""
        return False

    @property
    def paused(self) -> bool:
        """Whether fetching is paused."""
        return self._paused

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        """Return the records of one topic that are there, or wait for the first until `timeout_s`.

        Where a log goes on without records (marks of transactions, and what an aborted one has left), the batch is
        empty and says how far that is: who waits for the log's end would else wait for ever.

        Raises:
            GapError: records that were never polled are gone.
            ReplacedTopicError: a topic was deleted and made anew.
            SourceError: the broker reports an error that does not pass by itself.
        """
        if self._ready:
            return self._next()
        if time.monotonic() >= self._next_check_s:
            self._look()
        if time.monotonic() >= self._next_passed_s and (passed := self._passed()):
            return empty_batch(passed)
        messages = self._consumer.consume(max_records, 0.0)
        if not messages and timeout_s > 0:
            # consume(n) would wait for n records or the whole timeout: wait for one, then take what came with it.
            messages = self._consumer.consume(1, timeout_s)
            if messages and max_records > 1:
                messages += self._consumer.consume(max_records - 1, 0.0)
        if not messages:
            return empty_batch(self._passed())
        self._ready.extend(self._batches(messages))
        return self._next() if self._ready else empty_batch()

    def _next(self) -> Batch:
        batch = self._ready.popleft()
        self._positions.update(batch.next_positions())
        return batch

    def _passed(self) -> Positions:
        """The partitions whose log the client has read beyond the last record; all those were handed over."""
        self._next_passed_s = time.monotonic() + _PASSED_INTERVAL_S
        reached = {(one.topic, one.partition): one.offset for one in self._consumer.position(self._partitions())}
        passed = {place: at for place, at in reached.items() if at > self._positions[place]}
        self._positions.update(passed)
        return passed

    def pause(self) -> None:
        """Stop fetching; what is already in the client's queue is discarded there and fetched again on resume."""
        if not self._paused:
            self._consumer.pause(self._partitions())
            self._paused = True

    def resume(self) -> None:
        """Fetch again, from where polling stopped."""
        if self._paused:
            self._consumer.resume(self._partitions())
            self._paused = False

    def backpressure(self, queued_bytes: int) -> bool:
        """Pause or resume for a reader that holds `queued_bytes` unapplied; returns whether fetching is paused."""
        if self._switch.update(queued_bytes):
            self.pause()
        else:
            self.resume()
        return self._paused

    def end_positions(self) -> Positions:
        """Ask the broker for the end of every partition: the offset that the next record will get.

        Raises:
            SourceError: the broker did not answer in `broker_timeout_s`.
        """
        return self._ends(self._positions)

    def lag_records(self) -> int:
        """Return how many records the broker has beyond those polled; one request a partition."""
        ends = self.end_positions()
        return sum(max(0, ends[place] - offset) for place, offset in self._positions.items())

    def close(self) -> None:
        """Leave the broker; nothing is committed."""
        self._consumer.close()
        self._ids.close()

    def _config(self) -> dict[str, Any]:
        settings = self._settings
        return {
            **settings.client_config(),
            "group.id": "nowgraph-assigned",  # librdkafka wants a name; no group is ever joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # a lost position is an error, never a silent jump
            "enable.partition.eof": False,
            "queued.max.messages.kbytes": settings.fetch_queue_bytes >> 10,
            "queued.min.messages": settings.fetch_queue_records_min,
            "fetch.wait.max.ms": settings.fetch_wait_ms,
            "fetch.message.max.bytes": settings.record_bytes_max,
            "socket.nagle.disable": True,
            "log_level": 4,
        }

    def _starting_positions(self, known: Positions, start: Start) -> Positions:
        begun = {topic for topic, _ in known}
        positions: Positions = {}
        for topic, partition in self._first_places():
            if (topic, partition) in known:
                positions[topic, partition] = known[topic, partition]
                continue
            low, high = self._watermarks(topic, partition)
            # A partition that is new to who has read the topic before has come since, and is missing from 0 on.
            if (self._dense or topic in begun) and start == "beginning" and low > 0:
                raise GapError(topic, partition, 0, low)
            positions[topic, partition] = low if start == "beginning" else high
        return positions

    def _first_places(self) -> list[tuple[str, int]]:
        """Every partition, of topics that are those whose positions are known."""
        metadata = self._first_metadata()
        self._ids.compare(self._topics, metadata, timeout_s=self._settings.broker_timeout_s)
        return self._all_places(metadata)

    def _first_metadata(self) -> Any:
        """What the broker has; asked again within its time, so that a refusal is heard before that is over.

        Only before partitions are assigned: hearing what the connections complain of would also take a record.
        """
        left_s, slice_s = self._settings.broker_timeout_s, _CHECK_TIMEOUT_S
        while True:
            try:
                return self._consumer.list_topics(timeout=min(slice_s, left_s))
            except KafkaException as error:
                self._consumer.poll(0)
                left_s -= slice_s
                if left_s <= 0 or not self._errors.may_pass(error.args[0]):
                    raise
                slice_s *= 2  # a broker that is slow to answer is not asked for ever

    def _all_places(self, metadata: Any) -> list[tuple[str, int]]:
        """Every partition of the topics; raises ConfigurationError for a topic that has to exist and does not."""
        found = _places(self._topics, metadata)
        for topic in {*self._topics} - {topic for topic, _ in found}:
            if topic not in self._later:
                raise ConfigurationError(f"topic {topic!r} does not exist at {self._settings.kafka_bootstrap}")
            waits = f"read from its beginning, at most {self._settings.partition_check_s:g} s after it is made"
            log.info("topic_does_not_exist_yet", topic=topic, then=waits)
        return found

    def _look(self) -> None:
        self._next_check_s = time.monotonic() + self._settings.partition_check_s
        try:
            metadata = self._consumer.list_topics(timeout=_CHECK_TIMEOUT_S)
        except KafkaException:
            return  # the broker is away: there is nothing to read either, and the next look will tell
        self._ids.compare(self._topics, metadata, timeout_s=_CHECK_TIMEOUT_S)
        self._add_new_partitions(metadata)

    def _add_new_partitions(self, metadata: Any) -> None:
        new = {place: 0 for place in _places(self._topics, metadata) if place not in self._positions}
        if new:
            log.info("partitions_found", partitions=[f"{topic}/{number}" for topic, number in new])
            # A partition that is born begins at 0; assigning it leaves the others as they are.
            self._positions = {**self._positions, **new}
            self._consumer.incremental_assign([TopicPartition(*place, 0) for place in new])
            if self._paused:
                self._consumer.pause(self._partitions())

    def _watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        place, timeout_s = TopicPartition(topic, partition), self._settings.broker_timeout_s
        until_s = time.monotonic() + timeout_s
        while True:  # while its leader moves, or is not yet chosen, it is not the one that is asked
            try:
                answer = self._consumer.get_watermark_offsets(place, timeout=timeout_s)
            except KafkaException as error:
                if time.monotonic() >= until_s or not self._errors.may_pass(error.args[0]):
                    raise self._no_offsets(place, error.args[0]) from error
                time.sleep(_PAUSE_S)
                continue
            if answer is None:
                raise UnreachableError(f"{topic}[{partition}]: no offsets within {timeout_s} s")
            return int(answer[0]), int(answer[1])

    def _ends(self, places: Iterable[tuple[str, int]]) -> Positions:
        """The ends of these partitions, asked for in one request of each broker.

        A request waits for the fetch before it, so asking for one partition after the other would keep records waiting
        a hundred milliseconds where there are sixteen of them.
        """
        asked = [TopicPartition(*place, OFFSET_END) for place in places]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=self._settings.broker_timeout_s) if asked else []
        except KafkaException as error:
            raise self._no_offsets(asked[0], error.args[0]) from error
        for one in found:
            if one.error is not None:
                raise self._no_offsets(one, one.error)
        return {(one.topic, one.partition): one.offset for one in found}

    def _no_offsets(self, place: TopicPartition, error: Any) -> SourceError:
        failed = UnreachableError if self._errors.may_pass(error) else SourceError
        return failed(f"{place.topic}[{place.partition}]: no offsets: {self._errors.explain(error)}")

    def _partitions(self) -> list[TopicPartition]:
        return [TopicPartition(topic, partition) for topic, partition in self._positions]

    def _batches(self, messages: list[Message]) -> list[Batch]:
        if any(map(Message.error, messages)):
            for message in filter(Message.error, messages):
                self._raise_unless_passing(message)
            messages = [message for message in messages if message.error() is None]
        if len(self._topics) == 1:
            return [self._batch(self._topics[0], messages)] if messages else []
        by_topic: dict[str, list[Message]] = {}
        for message in messages:
            by_topic.setdefault(message.topic() or "", []).append(message)
        return [self._batch(topic, group) for topic, group in by_topic.items()]

    def _batch(self, topic: str, messages: list[Message]) -> Batch:
        # map() over the client's own methods: no Python runs between two records.
        count = len(messages)
        partition = np.fromiter(map(Message.partition, messages), np.int32, count)
        offset = np.fromiter(map(Message.offset, messages), np.int64, count)
        stamps = np.fromiter(chain.from_iterable(map(Message.timestamp, messages)), np.int64, 2 * count).reshape(-1, 2)
        self._check_gaps(topic, partition, offset)

        def headers(index: int) -> list[Header]:
            pairs: Any = messages[index].headers()
            return list(pairs or ())

        return Batch(
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp_us=np.where(stamps[:, 0] == TIMESTAMP_NOT_AVAILABLE, NO_TIMESTAMP_US, stamps[:, 1] * 1000),
            keys=_Keys(messages),
            values=list(map(Message.value, messages)),
            headers=headers,
        )

    def _check_gaps(self, topic: str, partition: NDArray[np.int32], offset: NDArray[np.int64]) -> None:
        for number in np.unique(partition).tolist():
            offsets = offset[partition == number]
            expected = self._positions[topic, number]
            steps = np.diff(offsets, prepend=expected - 1)
            wrong = np.flatnonzero(steps != 1) if self._dense else np.flatnonzero(steps < 1)
            if wrong.size:
                at = int(wrong[0])
                before = int(offsets[at - 1]) + 1 if at else expected
                raise GapError(topic, number, before, int(offsets[at]))

    def _raise_unless_passing(self, message: Message) -> None:
        """librdkafka reconnects by itself; what it does not repair is raised."""
        error: Any = message.error()
        if error.code() == OFFSET_GONE:
            place = (message.topic() or "", int(message.partition() or 0))
            raise GapError(*place, self._positions[place], -1)
        if error.fatal() or not (error.retriable() or error.code() in _PASSING):
            raise SourceError(f"Kafka at {self._settings.kafka_bootstrap}: {error.name()}: {error.str()}")


def _places(topics: Sequence[str], metadata: Any) -> list[tuple[str, int]]:
    """The partitions of those topics that exist, as the broker's metadata has them."""
    known = [(topic, metadata.topics[topic]) for topic in topics if topic in metadata.topics]
    return [(topic, number) for topic, told in known for number in sorted(told.partitions)]


class _Keys(Sequence[bytes | None]):
    """The keys of messages, read when asked: only dead letters need them."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes | None]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes | None] | None:
        if isinstance(index, slice):
            return _Keys(self._messages[index])
        key: Any = self._messages[index].key()
        return None if key is None else bytes(key)

    def __len__(self) -> int:
        return len(self._messages)


# librdkafka's own codes (negative) have names with an underscore, which are public all the same.
OFFSET_GONE: int = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001
# Reported once and repaired by the client: a broker that restarts, a leader that moves.
_PASSING = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
