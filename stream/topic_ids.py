"""Whether a topic is still the one that was read: deleted and made anew under its name, it has another id.

    Kafka's admin, at the start and with each look at the partitions ─► ids ─► kept, or held against those that were

Offsets alone do not tell: once the new topic has as many records as the old one had, its first ones would be passed
over as if they had been read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from stream.client_errors import ClientErrors, make_client
from stream.errors import ReplacedTopicError
from stream.settings import StreamSettings

log = structlog.get_logger(__name__)


KeepId = Callable[[str, str], str]
"""Takes a topic and its id, keeps it beside the topic's positions unless there is one, and returns the one kept."""


class TopicIds:
    """Holds the ids of topics against those that are kept with their positions.

    A broker that does not say leaves it to the next look. What is no Apache Kafka, or one before 2.8, has no ids.
    """

    def __init__(self, settings: StreamSettings, keep: KeepId | None) -> None:
        """Without `keep` nothing is asked."""
        self._settings = settings
        self._keep = keep
        self._admin: Any = None
        self._told = False

    def compare(self, topics: Sequence[str], metadata: Any, *, timeout_s: float) -> None:
        """Ask for the ids of those topics that exist, as the broker's metadata has them.

        Raises:
            ReplacedTopicError: one has another id than was kept.
        """
        there = [topic for topic in topics if topic in metadata.topics]
        # The embedded broker names a controller that it does not have, and questions to it would wait in vain.
        if self._keep is None or not there or metadata.controller_id not in metadata.brokers:
            return
        for topic, found in self._ask(there, timeout_s).items():
            kept = self._keep(topic, found)
            if kept != found:
                raise ReplacedTopicError(topic, kept, found)

    def close(self) -> None:
        """Leave the broker."""
        self._admin = None

    def _ask(self, topics: Sequence[str], timeout_s: float) -> dict[str, str]:
        if self._admin is None:
            self._admin = make_client(AdminClient, {**self._settings.client_config(), "log_level": 0}, ClientErrors())
        asked = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=timeout_s)
        ids: dict[str, str] = {}
        for topic, future in asked.items():
            try:
                given = future.result().topic_id
            except KafkaException as error:  # the broker is away, or the topic is gone again
                if not self._told:
                    self._told = True
                    log.info("topic_id_unknown", topic=topic, reason=error.args[0].str())
                continue
            if given is not None and (given.get_most_significant_bits() or given.get_least_significant_bits()):
                ids[topic] = str(given)
        return ids
