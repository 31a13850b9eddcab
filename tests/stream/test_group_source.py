"""Partitions that a group of Apache Kafka gives."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from confluent_kafka import TopicPartition, admin

from stream.errors import ConfigurationError
from stream.group_source import JOIN_TIMEOUT_S, GroupSource, Place
from stream.patience import patiently
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

Topic = Callable[..., str]


@pytest.fixture
def broker(kafka_settings: StreamSettings, kafka_topic: Topic) -> tuple[StreamSettings, Topic]:
    """A real one: the embedded broker's groups take a quarter of a minute to settle."""
    return kafka_settings, kafka_topic


class Store:
    """Who may write a partition, and how far it is: what a store with fences keeps."""

    def __init__(self) -> None:
        self.owner: dict[Place, str] = {}
        self.positions: dict[Place, int] = {}
        self.read: list[tuple[Place, int]] = []
        self.lock = threading.Lock()

    def take(self, member: str) -> Callable[..., dict[Place, int]]:
        """What a member calls."""

        def take(places: Sequence[Place], begin_of: Callable[[Place], int]) -> dict[Place, int]:
            with self.lock:
                self.owner.update(dict.fromkeys(places, member))
                return {
                    place: self.positions[place] if place in self.positions else begin_of(place) for place in places
                }

        return take

    def apply(self, member: str, batch: Any) -> None:
        """Applies a batch, unless its member is not the owner."""
        for number, offset in zip(batch.partition.tolist(), batch.offset.tolist(), strict=True):
            place = batch.topic, number
            with self.lock:
                assert self.owner[place] == member
                assert offset == self.positions.get(place, 0)
                self.positions[place] = offset + 1
                self.read.append((place, offset))


def publish(settings: StreamSettings, topic: str, numbers: range) -> None:
    """Numbers over four partitions."""
    with EventProducer(settings) as producer:
        for number in numbers:
            producer.send(topic, value=b"%d" % number, partition=number % 4)
        assert producer.flush(10) == 0


def poll_until(sources: dict[str, GroupSource], store: Store, count: int) -> None:
    """Polls all members in turn until so many records are applied."""
    deadline_s = time.monotonic() + 60
    while len(store.read) < count:
        assert time.monotonic() < deadline_s
        for member, source in sources.items():
            batch = source.poll(1_000, 0.05)
            if len(batch):
                store.apply(member, batch)


def test_members_share_the_partitions_and_lose_none(broker: tuple[StreamSettings, Topic]) -> None:
    """One member reads all, a second takes a part of it over where the first stood, and leaves it again."""
    settings, topics = broker
    topic, store = topics(4), Store()

    def member(name: str) -> GroupSource:
        return GroupSource([topic], group=f"of-{topic}", take=store.take(name), settings=settings)

    publish(settings, topic, range(40))
    first = member("first")
    assert set(first.positions) == {(topic, number) for number in range(4)} == set(first.all_end_positions())
    poll_until({"first": first}, store, 40)
    joining: dict[str, GroupSource] = {}
    thread = threading.Thread(target=lambda: joining.update(second=member("second")))
    thread.start()  # it is given its part once the first has let go, which it does when it polls
    while thread.is_alive():
        batch = first.poll(1_000, 0.05)
        assert not len(batch)
    second = joining["second"]
    publish(settings, topic, range(40, 80))
    poll_until({"first": first, "second": second}, store, 80)
    assert set(store.owner.values()) == {"first", "second"}
    assert second.positions.keys() | first.positions.keys() == first.all_end_positions().keys()
    second.close()
    publish(settings, topic, range(80, 120))
    poll_until({"first": first}, store, 120)
    assert store.positions == first.all_end_positions()
    assert len(set(store.read)) == len(store.read) == 120
    first.close()


class _MovedMeanwhile:
    """A consumer whose partitions move within the call that gave the first records, after it gave them."""

    def __init__(self, source: GroupSource, given: Sequence[Place]) -> None:
        self._source, self._consumer, self._given = source, source._consumer, given
        self.moved = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def consume(self, count: int, timeout_s: float) -> list[Any]:
        messages: list[Any] = self._consumer.consume(count, timeout_s)
        if messages and not self.moved:
            self.moved = True
            self._source._on_revoke(self._consumer, [])
            self._source._on_assign(self._consumer, [TopicPartition(*place) for place in self._given])
        return messages


@pytest.mark.parametrize("kept", [4, 1])
def test_partitions_that_move_within_a_poll_give_each_record_once(
    broker: tuple[StreamSettings, Topic], kept: int
) -> None:
    """What the same poll had read of those that stay is not lost and comes once; what it had of the others is left."""
    settings, topics = broker
    topic, store = topics(4), Store()
    source = GroupSource([topic], group=f"of-{topic}", take=store.take("one"), settings=settings)
    moving = _MovedMeanwhile(source, [(topic, number) for number in range(kept)])
    source._consumer = moving
    publish(settings, topic, range(40))
    poll_until({"one": source}, store, 10 * kept)
    assert moving.moved
    assert len(source.poll(1_000, 0.5)) == 0
    assert sorted(store.read) == sorted({((topic, number), at) for number in range(kept) for at in range(10)})
    source.close()


def test_a_topic_that_does_not_exist_is_said(broker: tuple[StreamSettings, Topic]) -> None:
    """At once, and by name."""
    settings, _ = broker
    with pytest.raises(ConfigurationError, match="no-such-topic"):
        GroupSource(["no-such-topic"], group="g", take=lambda *_: {}, settings=settings)


def test_a_topic_that_is_made_later_is_given_to_the_group(broker: tuple[StreamSettings, Topic]) -> None:
    """It need not exist when a member joins; once it does, all of it is read."""
    settings, topics = broker
    settings = settings.model_copy(update={"partition_check_s": 1.0})
    topic, later, store = topics(4), f"later-{uuid.uuid4().hex[:8]}", Store()
    member = GroupSource([topic], group=f"of-{topic}", take=store.take("one"), later=[later], settings=settings)
    publish(settings, topic, range(8))
    poll_until({"one": member}, store, 8)
    client = admin.AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    client.create_topics([admin.NewTopic(later, 4, 1)])[later].result(20)
    publish(settings, later, range(8))
    poll_until({"one": member}, store, 16)
    assert {place for place, _ in store.read} == {(name, number) for name in (topic, later) for number in range(4)}
    member.close()


def test_a_stop_ends_the_wait_for_partitions(broker: tuple[StreamSettings, Topic]) -> None:
    """A member that is given none, because another one does not let go of them, stops long before it would give up."""
    settings, topics = broker
    topic, store = topics(4), Store()
    holding = GroupSource([topic], group=f"of-{topic}", take=store.take("one"), settings=settings)  # is not polled
    started_s = time.monotonic()
    made = patiently(
        lambda: GroupSource(
            [topic],
            group=f"of-{topic}",
            take=store.take("two"),
            stopped=lambda: time.monotonic() > started_s + 1.0,
            settings=settings,
        ),
        settings.start_patience_s,
        lambda _: False,
    )
    assert made is None
    assert time.monotonic() - started_s < JOIN_TIMEOUT_S / 2
    assert set(store.owner.values()) == {"one"}
    holding.close()
