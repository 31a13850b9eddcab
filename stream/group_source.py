"""Records of the partitions that a consumer group gives to this member, from where the store says that they stand.

    group ─► partitions ─► take: claim them, then ask how far each is ─► assign ─► poll ─► Batch of one topic

The store's positions say where to go on, as for `KafkaSource`; the group only says who reads what, and commits nothing.
A member that does not know that it was replaced is kept out by the store's fences, not by the group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from stream.batch import Batch, Positions
from stream.errors import SourceError, StoppedError
from stream.kafka_source import OFFSET_GONE, KafkaSource, Start
from stream.settings import StreamSettings
from stream.topic_ids import KeepId

Place = tuple[str, int]

SESSION_TIMEOUT_MS: Final = 6_000
"""After such a silence a member counts as gone and its partitions go to others: the least that brokers allow."""
HEARTBEAT_MS: Final = 500
"""How often a member asks whether partitions move: they have moved after about two of these."""
JOIN_TIMEOUT_S: Final = 60.0
"""How long the first partitions may take to come."""


class GroupSource(KafkaSource):
    """Reads what the group gives this member, which may be nothing; the constructor returns once it has been told."""

    def __init__(
        self,
        topics: Sequence[str],
        *,
        group: str,
        take: Callable[[Sequence[Place], Callable[[Place], int]], Positions],
        later: Sequence[str] = (),
        keep_id: KeepId | None = None,
        stopped: Callable[[], bool] = lambda: False,
        settings: StreamSettings | None = None,
    ) -> None:
        """Joins.

        Args:
            topics: what is read.
            group: its name; the members of one group share the partitions.
            take: makes this member the only one that may write what comes of these partitions, all that it has from
                now on, and returns how far each is; told how to ask for the first offset that the log still has.
            later: what is read too, and need not exist yet: the group gives its partitions once it does.
            keep_id: as of `KafkaSource`.
            stopped: ends the wait for the first partitions.
            settings: where the broker is.

        Raises:
            ReplacedTopicError: a topic is not the one whose id `keep_id` has.
            SourceError: the broker does not answer, or gave nothing, not even nothing, in `JOIN_TIMEOUT_S`.
            StoppedError: `stopped` said so.
        """
        self._group, self._take = group, take
        self._joined = False
        super().__init__(topics, later=later, keep_id=keep_id, settings=settings)
        try:
            self._join(stopped)
        except BaseException:
            self._consumer.close()  # else the group would keep partitions for a member that is none
            raise

    def all_end_positions(self) -> Positions:
        """Ask the broker for the end of every partition of the topics, whoever reads it; raises SourceError."""
        try:
            metadata = self._consumer.list_topics(timeout=self._settings.broker_timeout_s)
        except KafkaException as error:
            raise SourceError(f"group {self._group!r}: {self._errors.explain(error.args[0])}") from error
        return self._ends(self._all_places(metadata))

    def _config(self) -> dict[str, Any]:
        return {
            **super()._config(),
            "group.id": self._group,
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
            # How soon the group sees a topic or a partition that came.
            "topic.metadata.refresh.interval.ms": int(self._settings.partition_check_s * 1000),
        }

    def _starting_positions(self, known: Positions, start: Start) -> Positions:  # noqa: ARG002
        self._first_places()  # a topic that does not exist, or is another one, is said now
        self._consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)
        return {}

    def _join(self, stopped: Callable[[], bool]) -> None:
        until_s = time.monotonic() + JOIN_TIMEOUT_S
        while not self._joined:
            if stopped():
                raise StoppedError(f"group {self._group!r}: stopped before it gave this member its partitions")
            self._ready.extend(self._batches(self._consumer.consume(1, 0.1)))
            if time.monotonic() > until_s:
                raise SourceError(f"group {self._group!r} gave this member no partitions in {JOIN_TIMEOUT_S:g} s")

    def _batches(self, messages: list[Message]) -> list[Batch]:
        # Partitions may have moved within the very poll that gave these: what was read before is then another's, or is
        # read once more from where the store says.
        kept, ahead = [], dict(self._positions)
        for message in messages:
            place = message.topic() or "", int(message.partition() or 0)
            error, offset = message.error(), message.offset()
            if error is not None:
                if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and place[0] in self._later:
                    continue
                if place in ahead or error.code() != OFFSET_GONE:
                    kept.append(message)
            elif place in ahead and offset is not None and offset >= ahead[place]:
                ahead[place] = offset + 1
                kept.append(message)
        return super()._batches(kept)

    def _add_new_partitions(self, metadata: Any) -> None:
        """The group finds them."""

    def _on_assign(self, consumer: Any, given: Sequence[TopicPartition]) -> None:
        places = [(one.topic, one.partition) for one in given]
        known = self._take(places, lambda place: self._watermarks(*place)[0])
        self._positions = {place: known[place] for place in places}
        consumer.assign([TopicPartition(*place, offset) for place, offset in self._positions.items()])
        self._joined = True

    def _on_revoke(self, consumer: Any, _: Sequence[TopicPartition]) -> None:
        # Within a poll, which comes once all that was read before is handed over, and applied.
        self._positions = {}
        consumer.unassign()
