"""Replicas: each reads all of one Kafka into a graph of its own, and their answers say how far that was."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from graph_updater.embedded import UpdaterThread
from graph_updater.settings import UpdaterSettings
from graph_updater.updater import Updater
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import Client
from nowgraph.client_errors import NotReadyError
from nowgraph.client_values import FreshnessToken
from stream.dead_letters import DeadLetters, list_dead_letters
from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.privacy import HASHED_HEADER
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

PAYMENTS = 400
MINUTE_US = 60_000_000


def publish(world: Any, settings: StreamSettings, topic: str, numbers: range) -> None:
    """Payments over the partitions by customer, every tenth twice, and one record that is none."""
    with EventProducer(settings) as producer:
        for number in numbers:
            at_us = world.start_us + (200 + number) * MINUTE_US
            event = world.event(1_000 + number, at_us, customer=number % 20, terminal=number % 10)
            for _ in range(2 if number % 10 == 0 else 1):
                producer.send(topic, value=event, key=b"%d" % (number % 20), headers=[HASHED_HEADER])
        producer.send(topic, value=b"\xff no event", partition=0)
        assert producer.flush(20) == 0


@contextmanager
def replica(world: Any, settings: StreamSettings, topic: str, *, at_once: int) -> Iterator[Updater]:
    """An updater of the world's graph, which runs until the block ends."""
    with EventProducer(settings) as producer:
        updater = Updater(
            world.graph,
            [KafkaSource([topic], positions=world.graph.positions, settings=settings)],
            Decoder(world.schema, world.privacy, settings=settings),
            DeadLetters(producer, settings=settings),
            settings=UpdaterSettings(poll_records_max=at_once),
        )
        with UpdaterThread(updater):
            yield updater


def caught_up(updater: Updater) -> None:
    """Returns once it holds all that the log held when it began."""
    until_s = time.monotonic() + 30
    while not updater.caught_up():
        assert time.monotonic() < until_s
        time.sleep(0.02)


def test_replicas_agree_and_their_answers_tell_which_is_behind(
    world_of: Callable[[str], Any],
    settings: ServerSettings,
    kafka_settings: StreamSettings,
    kafka_topic: Callable[..., str],
) -> None:
    """Equal graphs at equal positions, however each reads; with a token the one behind refuses, then agrees."""
    ahead, behind = world_of("fraud"), world_of("fraud")
    stream = kafka_settings.model_copy(update={"dead_letter_topic": kafka_topic(1)})
    topic = kafka_topic(3)
    publish(ahead, stream, topic, range(PAYMENTS))
    for world, at_once in ((ahead, 7), (behind, 1_000)):
        with replica(world, stream, topic, at_once=at_once) as updater:
            caught_up(updater)
    assert ahead.graph.positions == behind.graph.positions
    assert ahead.graph.canonical_hash() == behind.graph.canonical_hash()
    assert len(list_dead_letters(stream)) == 1  # both wrote it

    publish(ahead, stream, topic, range(PAYMENTS, PAYMENTS + 100))
    with ExitStack() as stack:
        caught_up(stack.enter_context(replica(ahead, stream, topic, at_once=100)))
        one, other = (
            stack.enter_context(
                Client(stack.enter_context(BackgroundServer(lambda world=world: world.server(settings))).target)  # type: ignore[misc]
            )
            for world in (ahead, behind)
        )

        def ask(client: Client, token: FreshnessToken | None = None) -> Any:
            at_us = ahead.start_us + 1_000 * MINUTE_US
            return client.score("transactions", 9_999, event_time=at_us, freshness_token=token, timeout_s=1.0)

        first, second = ask(one).graph_position.offsets, ask(other).graph_position.offsets
        assert first == ahead.graph.positions
        assert second == behind.graph.positions
        assert first != second
        place = next(each for each in first if first[each] > second.get(each, 0) and each[0] == topic)
        token = FreshnessToken(*place, first[place] - 1)
        with pytest.raises(NotReadyError):
            ask(other, token)
        assert ask(one, token).probability is not None
        caught_up(stack.enter_context(replica(behind, stream, topic, at_once=1_000)))
        assert ask(other, token).probability == pytest.approx(ask(one, token).probability, abs=1e-5)
