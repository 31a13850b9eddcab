"""The shell on the Kafka client that everything else here uses: all partitions from their beginning, no group.

    KafkaSource(predictions topic, the schema's topics) ─► Feed ─► Report ─► QualityMetrics

Nothing is committed and nothing stored: a start reads what the topics hold, which takes as long as they are, and
figures are shown once that is done. It is the same state that the process before had, as far as retention reaches.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from stream.errors import SilentLogError
from stream.kafka_source import KafkaSource
from stream.present import POLL_RECORDS, POLL_S, present
from stream.quality.exposition import QualityMetrics
from stream.quality.feed import Feed
from stream.quality.report import Report
from stream.settings import StreamSettings


class QualityReader:
    """Reads until it is told to stop. One thread; `metrics` may be scraped from any."""

    def __init__(
        self, feed: Feed, settings: StreamSettings, *, topics: Sequence[str] | None = None, report_every_s: float = 15.0
    ) -> None:
        """Raises ConfigurationError for a topic that does not exist; `topics` defaults to the feed's."""
        self._feed = feed
        self._every_s = report_every_s
        self._source = KafkaSource(topics or feed.topics, settings=settings)
        self.metrics = QualityMetrics()

    def catch_up(self, stop: Callable[[], bool] = lambda: False) -> Report:
        """Read to the present end of every partition, and report; what a broker that is silent holds comes later."""
        with suppress(SilentLogError):
            for batch in present(self._source, stop):
                self._feed.take(batch)
        return self.report()

    def run(self, stop: Callable[[], bool], on_report: Callable[[Report], object] = lambda _: None) -> None:
        """Catch up, then read on and report every `report_every_s`, until `stop` says so.

        Raises:
            SourceError: Kafka can not be read any more; GapError where retention overtook the reading.
        """
        on_report(self.catch_up(stop))
        next_s = time.monotonic() + self._every_s
        while not stop():
            self._feed.take(self._source.poll(POLL_RECORDS, POLL_S))
            if time.monotonic() >= next_s:
                on_report(self.report())
                next_s = time.monotonic() + self._every_s

    def report(self) -> Report:
        """Measure what was read so far, and show it."""
        report = self._feed.report()
        self.metrics.show(report, lag_records=self._source.lag_records())
        return report

    def partitions(self) -> dict[str, int]:
        """Return how many partitions each topic has."""
        return dict(Counter(topic for topic, _ in self._source.positions))

    def close(self) -> None:
        """Leave the broker."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
