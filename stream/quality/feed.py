"""What every shell does with a batch of records, whichever client fetched it.

    Batch ─► predictions topic? PredictionReader : OutcomeReader ─► Monitor.add

A shell only fetches. A record that comes twice changes no figure, so a shell may read from the beginning again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from stream.batch import NO_TIMESTAMP_US, Batch
from stream.decode import Decoder
from stream.privacy import Privacy
from stream.quality.config import QualitySettings, QualityTask
from stream.quality.monitor import Monitor
from stream.quality.records import Record
from stream.quality.report import Report
from stream.quality.translate import OutcomeReader, PredictionReader
from stream.settings import StreamSettings
from temporal_graph.schema import Schema


class Feed:
    """Feeds a monitor of `tasks` over the topics of `schema`. One thread."""

    def __init__(
        self,
        tasks: Iterable[QualityTask],
        schema: Schema,
        *,
        privacy: Privacy | None = None,
        stream: StreamSettings | None = None,
        settings: QualitySettings | None = None,
    ) -> None:
        stream, tasks = stream or StreamSettings(), tuple(tasks)
        self.predictions_topic = stream.predictions_topic
        self.topics = tuple(dict.fromkeys([self.predictions_topic, *(source.topic for source in schema.sources)]))
        self.monitor = Monitor(tasks, settings)
        self._answers = PredictionReader(tasks)
        self._outcomes = OutcomeReader(tasks, schema, Decoder(schema, privacy, settings=stream))

    def take(self, batch: Batch) -> list[Record]:
        """Take the records of one topic; returns what was added, for shells that keep it."""
        found: list[Record] = []
        if batch.topic == self.predictions_topic:
            for value, stamp_us in zip(batch.values, batch.timestamp_us.tolist(), strict=True):
                found += self._answers.read(value, stamp_us)
        else:
            found += self._outcomes.read(batch)
        for record in found:
            self.monitor.add(record)
        if self._outcomes.newest_us != NO_TIMESTAMP_US:
            self.monitor.advance(self._outcomes.newest_us)
        return found

    def report(self) -> Report:
        """Return the monitor's report, with what the readers skipped."""
        report = self.monitor.report()
        skipped = Counter(report.skipped) + self._answers.skipped + self._outcomes.skipped
        return replace(report, skipped=dict(skipped))
