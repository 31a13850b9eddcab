from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import structlog

from stream.embedded_broker import EmbeddedBroker
from stream.errors import SourceError, UnreachableError
from stream.kafka_source import KafkaSource
from stream.patience import PAUSE_MAX_S, patiently
from stream.settings import StreamSettings


def failing(times: int, error: Exception) -> Callable[[], str]:
    """Fails so many times, then makes something."""
    left = [error] * times

    def make() -> str:
        if left:
            raise left.pop()
        return "made"

    return make


class Waits:
    """Notes how long it is asked to wait, and waits for nothing; from the `stop_at`th on it is time to stop."""

    def __init__(self, stop_at: int = 1_000) -> None:
        self.seconds: list[float] = []
        self._stop_at = stop_at

    def __call__(self, wait_s: float) -> bool:
        self.seconds.append(wait_s)
        return len(self.seconds) >= self._stop_at


def test_what_is_unreachable_is_tried_again_ever_more_slowly() -> None:
    """The first try does not wait, later ones wait longer, to a limit; each is logged with its reason."""
    waits = Waits()
    with structlog.testing.capture_logs() as logs:
        assert patiently(failing(6, UnreachableError("nobody there")), 60.0, waits) == "made"
    assert waits.seconds == [0.0, 0.5, 1.0, 2.0, 4.0, PAUSE_MAX_S, PAUSE_MAX_S]
    assert [(one["event"], one["reason"]) for one in logs] == [("waiting_for_kafka", "nobody there")] * 6


def test_patience_ends_with_the_last_error() -> None:
    """Without patience at once; else once it is over, and no pause goes beyond its end."""
    waits = Waits(stop_at=10**9)
    with pytest.raises(UnreachableError, match="nobody there"):
        patiently(failing(1, UnreachableError("nobody there")), 0.0, waits)
    assert waits.seconds == [0.0]
    with pytest.raises(UnreachableError):
        patiently(failing(1_000_000, UnreachableError("nobody there")), 0.05, waits)
    assert max(waits.seconds) <= 0.05


def test_what_was_refused_is_not_tried_again() -> None:
    """A wrong password stays wrong."""
    waits = Waits()
    with pytest.raises(SourceError, match="wrong"):
        patiently(failing(1, SourceError("wrong")), 60.0, waits)
    assert waits.seconds == [0.0]


def test_a_stop_ends_the_waiting() -> None:
    """Before the first try, and between two."""
    assert patiently(failing(0, UnreachableError()), 60.0, Waits(1)) is None
    assert patiently(failing(5, UnreachableError("nobody there")), 60.0, Waits(3)) is None


@pytest.mark.integration
def test_a_source_is_made_once_its_broker_is_there() -> None:
    """While no broker answers it is unreachable; when it comes, the source reads."""
    with EmbeddedBroker({"t": 1}) as broker:
        settings = StreamSettings(kafka_bootstrap=broker.bootstrap, broker_timeout_s=0.5)
        broker.set_down(down=True)
        waited: list[float] = []

        def wait(wait_s: float) -> bool:
            if waited:
                broker.set_down(down=False)
            waited.append(wait_s)
            time.sleep(wait_s)
            return False

        source = patiently(lambda: KafkaSource(["t"], settings=settings), 60.0, wait)
        assert source is not None
        assert len(waited) >= 2
        assert source.positions == {("t", 0): 0}
        source.close()
