"""Degraded answers over gRPC, and on the predictions topic: a real server, a real model that is made to fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from graph_transformer.predictor import Predictor
from graph_updater.embedded import UpdaterThread
from graph_updater.settings import UpdaterSettings
from graph_updater.updater import Updater
from model_server import degraded_answer
from model_server.background import BackgroundServer
from model_server.errors import NotConfiguredError
from model_server.settings import ServerSettings
from nowgraph.client import Client, Degraded, InvalidRequestError, NotReadyError, Row, ServerFailureError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from stream.dead_letters import DeadLetters
from stream.decode import Decoder
from stream.embedded_broker import EmbeddedBroker
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration

RULES = """
rules:
  - {name: large, when: {column: tx_amount, above: 1000}, decision: review, probability: 0.9}
  - {name: web, when: {column: channel, equals: web}, decision: approve}
"""


@pytest.fixture
def with_policy(settings: ServerSettings, tmp_path: Path) -> Callable[[str], ServerSettings]:
    """Gives settings with a policy's file."""

    def build(text: str) -> ServerSettings:
        path = tmp_path / "degraded.yaml"
        path.write_text(text)
        return settings.model_copy(update={"degraded_path": path})

    return build


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000


def break_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on every prediction fails, as it would with a broken device."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(Predictor, "predict", fail)


def test_a_stale_graph_is_flagged_until_it_has_caught_up(world: Any, with_policy: Callable) -> None:
    """The answer is there, with how far the graph lies behind its log; a quiet log alone flags nothing."""
    settings = with_policy("stale_graph: {bound: 30s, answer: flag}")
    with BackgroundServer(lambda: world.server(settings)) as server, Client(server.target, timeout_s=20) as client:
        world.graph.set_complete_time(now_us() - 60_000_000)
        answers = [client.score("transactions", 1), *client.score_batch([Row("transactions", 1)])]
        for score in answers:
            assert isinstance(score.degraded, Degraded)
            assert score.degraded.reason == "stale_graph"
            assert 60_000_000 <= (score.degraded.graph_staleness_us or 0) < 120_000_000
            assert score.model_version
        world.graph.set_complete_time(now_us())
        assert client.score("transactions", 1).degraded is None  # its newest event is from years ago
        value = server.server.metrics.families.registry.total
        assert value("nowgraph_degraded_total", reason="stale_graph") == 2


def test_a_stale_graph_is_refused_where_the_policy_says_so(world: Any, with_policy: Callable) -> None:
    """FAILED_PRECONDITION, and the model never sees the row."""
    settings = with_policy("stale_graph: {bound: 30s, answer: refuse}")
    with BackgroundServer(lambda: world.server(settings)) as server, Client(server.target, timeout_s=20) as client:
        world.graph.set_complete_time(now_us() - 60_000_000)
        rows = server.server.metrics.families.registry.total("nowgraph_model_rows_total")
        with pytest.raises(NotReadyError, match="behind its log"):
            client.score("transactions", 1)
        assert server.server.metrics.families.registry.total("nowgraph_model_rows_total") == rows
        world.graph.set_complete_time(now_us())
        assert client.score("transactions", 1).degraded is None


def test_a_quiet_log_is_fresh_and_an_updater_that_ends_is_not(world: Any, with_policy: Callable) -> None:
    """With a real updater: nothing comes for longer than the bound, and answers are fresh; it ends, and they are not.

    What was never on the log of this graph, its history of years ago, plays no part.
    """
    settings = with_policy("stale_graph: {bound: 3s, answer: flag}").model_copy(update={"lag_interval_s": 0.2})
    inputs = {"transactions": 1, "transaction_events": 1}
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker({**inputs, "nowgraph.dead-letters": 1}))
        stream = StreamSettings(kafka_bootstrap=broker.bootstrap)
        producer = stack.enter_context(EventProducer(stream))
        source = KafkaSource(list(inputs), settings=stream)
        decoder = Decoder(world.schema, world.privacy, settings=stream)
        letters = DeadLetters(producer, settings=stream)
        looking = UpdaterSettings(lag_interval_s=settings.lag_interval_s)
        updater = Updater(world.graph, [source], decoder, letters, settings=looking)
        server = stack.enter_context(BackgroundServer(lambda: world.server(settings)))
        client = stack.enter_context(Client(server.target, timeout_s=20))
        with UpdaterThread(updater):
            until_s = time.monotonic() + 20
            while not updater.caught_up() and time.monotonic() < until_s:
                time.sleep(0.05)
            for _ in range(7):
                time.sleep(0.5)
                assert client.score("transactions", 1).degraded is None
        time.sleep(4)
        found = client.score("transactions", 1).degraded
        assert found is not None
        assert found.reason == "stale_graph"
        behind = server.server.metrics.families.registry.get_sample_value("nowgraph_graph_behind_seconds")
        assert behind is not None
        assert behind > 2.0


def test_a_list_on_a_stale_graph_says_so(shop: Any, with_policy: Callable) -> None:
    """Lists are flagged as scores are; rules are none of theirs."""
    settings = with_policy("stale_graph: {bound: 30s, answer: flag}")
    with (
        BackgroundServer(lambda: shop.server(settings)) as server,
        Client(server.target, timeout_s=20) as client,
    ):
        shop.graph.set_complete_time(now_us() - 60_000_000)
        found = client.rank(1)
        assert found.items
        assert found.degraded is not None
        assert found.degraded.reason == "stale_graph"
        shop.graph.set_complete_time(now_us())
        assert client.rank(1).degraded is None
    with pytest.raises(NotConfiguredError, match=r"degraded\.rules: a ranking answers lists"):
        shop.server(with_policy(RULES))


def test_a_rule_answers_and_is_recorded(world: Any, with_policy: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Single, batch and stream; where no rule fits the failure stands; what was answered is on the topic, marked."""
    topics = {"nowgraph.predictions": 1}
    large = Row("transactions", 1, {"tx_amount": 5000.0})
    with EmbeddedBroker(topics) as broker:
        stream = StreamSettings(kafka_bootstrap=broker.bootstrap)
        with (
            EventProducer(stream) as producer,
            BackgroundServer(lambda: world.server(with_policy(RULES), event_log=producer)) as server,
            Client(server.target, timeout_s=20) as client,
        ):
            assert client.score("transactions", 1, large.cells).degraded is None
            break_model(monkeypatch)
            answers = [
                client.score("transactions", 1, large.cells),
                *client.score_batch([large, Row("transactions", 2, {"channel": "shop"})]),
                *client.score_stream([large]),
            ]
            marked = [score for score in answers if not isinstance(score, ServerFailureError)]
            assert len(marked) == 3
            for score in marked:
                assert score.degraded == Degraded("rule", rule="large", decision="review")
                assert (score.probability, score.model_version) == (0.9, "")
            approved = client.score("transactions", 3, {"channel": "web"})
            assert approved.degraded == Degraded("rule", rule="web", decision="approve")
            assert approved.probability is None  # the rule has none, and 0 would say that it is no fraud
            with pytest.raises(ServerFailureError):
                client.score("transactions", 2)
            with pytest.raises(InvalidRequestError):
                client.score("transactions", 2, {"amount": 5000.0})
        source = KafkaSource(["nowgraph.predictions"], settings=stream)
        records: list[service_pb2.Prediction] = []
        until_s = time.monotonic() + 20
        while len(records) < 5 and time.monotonic() < until_s:
            records += [service_pb2.Prediction.FromString(value or b"") for value in source.poll(100, 0.2).values]
        source.close()
    assert [record.response.degraded.rule for record in records].count("large") == 3
    assert [record.response.HasField("degraded") for record in records].count(False) == 1


def test_a_late_answer_is_a_rules_in_time(world: Any, with_policy: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the policy says so: the model takes too long, and before the deadline the rule has answered."""
    settings = with_policy(RULES + "rules_on: [late]\n")
    # The rule's turn comes after .4 s; a busy machine may take longer than usual for it.
    monkeypatch.setattr(degraded_answer, "LATE_RESERVE_S", 9.6)
    with BackgroundServer(lambda: world.server(settings)) as server, Client(server.target, timeout_s=20) as client:
        quick = Predictor.predict

        def slow(*asked: Any, **more: Any) -> Any:
            time.sleep(1.2)
            return quick(*asked, **more)

        monkeypatch.setattr(Predictor, "predict", slow)
        score = client.score("transactions", 1, {"tx_amount": 5000.0}, timeout_s=10)
        assert score.degraded == Degraded("rule", rule="large", decision="review")


def test_a_policy_that_does_not_fit_keeps_the_server_from_starting(world: Any, with_policy: Callable) -> None:
    """With the path of its key."""
    with pytest.raises(NotConfiguredError, match=r"degraded\.rules\[0\]\.when\.column: .* has no column 'amount'"):
        world.server(with_policy("rules: [{name: a, when: {column: amount, above: 1}, decision: review}]"))
