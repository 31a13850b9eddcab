"""`nowgraph dead-letters` shows what was refused and sends it again once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stream.batch import DeadLetter
from stream.dead_letters import DeadLetters
from stream.embedded_broker import EmbeddedBroker
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings

pytestmark = pytest.mark.integration


def test_listed_filtered_sent_again_and_then_gone(run_json: Callable, run_command: Callable) -> None:
    """Two letters: one by its reason; sent again to their topic with their bytes; then none is left but with --all."""
    with EmbeddedBroker({"payments": 1, "nowgraph.dead-letters": 1}) as broker:
        settings = StreamSettings(kafka_bootstrap=broker.bootstrap)
        where = ("--bootstrap-servers", broker.bootstrap)
        assert run_json("dead-letters", "list", *where) == []
        with EventProducer(settings) as producer:
            letters = DeadLetters(producer, settings=settings)
            letters.append(
                [
                    DeadLetter("payments", 0, 7, 1_600_000_000_000_000, b"k", b"\xff\x00", "invalid_json", "no JSON"),
                    DeadLetter("payments", 0, 9, -1, None, b"{}", "missing_key", "no key"),
                ]
            )
            letters.flush(10)
        (found,) = run_json("dead-letters", "list", *where, "--reason", "invalid_json", "--values")
        assert (found["offset"], found["bytes"], found["value"]) == (7, 2, repr(b"\xff\x00"))
        shown = run_command("dead-letters", "list", *where).stdout
        assert "2 dead letters" in shown
        assert r"\xff" not in shown
        assert len(run_json("dead-letters", "redrive", *where)) == 2
        assert run_json("dead-letters", "redrive", *where) == []
        assert run_json("dead-letters", "list", *where) == []
        assert len(run_json("dead-letters", "list", *where, "--all")) == 2
        source = KafkaSource(["payments"], settings=settings)
        assert list(source.poll(10, 5.0).values) == [b"\xff\x00", b"{}"]
        source.close()


def test_a_broker_that_is_not_there_is_an_error_of_one_line(
    run_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback, exit code 2, and the address."""
    monkeypatch.setenv("NOWGRAPH_BROKER_TIMEOUT_S", "1")
    result = run_command("dead-letters", "list", "--bootstrap-servers", "127.0.0.1:1", exit_code=2)
    assert result.stderr.startswith("nowgraph: ")
