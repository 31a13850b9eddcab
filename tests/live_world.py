"""A whole system in one process: an embedded broker, an updater and a server over a world's graph, and a client.

Heavy packages are imported where they are used: this file is loaded for every test run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from graph_updater.updater import Updater
    from model_server.background import BackgroundServer
    from model_server.server import Server
    from model_server.settings import ServerSettings
    from nowgraph.client import Client
    from stream.producer import EventProducer
    from stream.settings import StreamSettings


@dataclass(frozen=True)
class Live:
    """Everything, running."""

    world: Any
    client: Client
    server: BackgroundServer
    updater: Updater
    producer: EventProducer
    stream: StreamSettings


@pytest.fixture
def live() -> Iterator[Callable[..., Live]]:
    """Starts systems that end with the test: ask for it after the worlds that they are over.

    `inputs` are the partitions of each topic to read, `provider` traces updater and server, `served` may change the
    server before it starts, and the other options are those of the world's `server`.
    """
    from graph_updater.embedded import UpdaterThread
    from graph_updater.tracing import ApplyTraces
    from graph_updater.updater import Updater
    from model_server.background import BackgroundServer
    from model_server.tracing import TracingInterceptor
    from nowgraph.client import Client
    from stream.dead_letters import DeadLetters
    from stream.decode import Decoder
    from stream.embedded_broker import EmbeddedBroker
    from stream.kafka_source import KafkaSource
    from stream.producer import EventProducer
    from stream.settings import StreamSettings

    with ExitStack() as stack:

        def start(
            world: Any,
            inputs: Mapping[str, int],
            settings: ServerSettings,
            *,
            provider: TracerProvider | None = None,
            served: Callable[[Server], Server] = lambda server: server,
            **options: Any,
        ) -> Live:
            topics = {**inputs, "nowgraph.predictions": 2, "nowgraph.dead-letters": 1}
            stream = StreamSettings(kafka_bootstrap=stack.enter_context(EmbeddedBroker(topics)).bootstrap)
            producer = stack.enter_context(EventProducer(stream))
            updater = Updater(
                world.graph,
                [KafkaSource(list(inputs), gaps="error", settings=stream)],
                Decoder(world.schema, world.privacy, settings=stream),
                DeadLetters(producer, settings=stream),
                traces=None if provider is None else ApplyTraces(provider),
            )
            stack.enter_context(UpdaterThread(updater))
            if provider is not None:
                options["interceptors"] = (TracingInterceptor(provider),)
            server = stack.enter_context(
                BackgroundServer(lambda: served(world.server(settings, event_log=producer, **options)))
            )
            client = stack.enter_context(Client(server.target, timeout_s=20))
            return Live(world, client, server, updater, producer, stream)

        yield start
