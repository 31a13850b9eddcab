"""Records of the partitions that a consumer group gives to this member, from where the store says that they stand.

    group ─► partitions ─► take: claim them, then ask how far each is ─► assign ─► poll ─► Batch of one topic

The store's positions say where to go on, as for `KafkaSource`; the group only says who reads what, and commits nothing.
A member that does not know that it was replaced is kept out by the store's fences, not by the group.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition

from stream.batch import Positions
from stream.errors import SourceError
from stream.kafka_source import KafkaSource, Start
from stream.settings import StreamSettings

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
        take: Callable[[Sequence[Place]], Positions],
        settings: StreamSettings | None = None,
    ) -> None:
        """Joins.

        Args:
            topics: what is read.
            group: its name; the members of one group share the partitions.
            take: makes this member the only one that may write what comes of these partitions, and returns how far
                they are; one that it does not know is read from its beginning.
            settings: where the broker is.

        Raises:
            SourceError: the broker does not answer, or gave nothing, not even nothing, in `JOIN_TIMEOUT_S`.
        """
        self._group, self._take = group, take
        self._joined = False
        super().__init__(topics, settings=settings)
        until_s = time.monotonic() + JOIN_TIMEOUT_S
        while not self._joined:
            self._ready.extend(self._batches(self._consumer.consume(1, 0.1)))
            if time.monotonic() > until_s:
                self._consumer.close()
                raise SourceError(f"group {group!r} gave this member no partitions in {JOIN_TIMEOUT_S:g} s")

    def all_end_positions(self) -> Positions:
        """Ask the broker for the end of every partition of the topics, whoever reads it; raises SourceError."""
        try:
            metadata = self._consumer.list_topics(timeout=self._settings.broker_timeout_s)
        except KafkaException as error:
            raise SourceError(f"group {self._group!r}: {self._errors.explain(error.args[0])}") from error
        return {place: self._watermarks(*place)[1] for place in self._all_places(metadata)}

    def _config(self) -> dict[str, Any]:
        return {
            **super()._config(),
            "group.id": self._group,
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "heartbeat.interval.ms": HEARTBEAT_MS,
        }

    def _starting_positions(self, known: Positions, start: Start) -> Positions:  # noqa: ARG002
        self._all_places(self._first_metadata())  # a topic that does not exist is said now
        self._consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)
        return {}

    def _add_new_partitions(self) -> None:
        """The group finds them."""

    def _on_assign(self, consumer: Any, given: Sequence[TopicPartition]) -> None:
        places = [(one.topic, one.partition) for one in given]
        known = self._take(places)
        self._positions = {place: known[place] if place in known else self._watermarks(*place)[0] for place in places}
        consumer.assign([TopicPartition(*place, offset) for place, offset in self._positions.items()])
        self._joined = True

    def _on_revoke(self, consumer: Any, _: Sequence[TopicPartition]) -> None:
        # Within a poll, which comes once all that was read before is handed over, and applied.
        self._positions = {}
        consumer.unassign()
