"""Both shells over the same topics, and the library alone: three ways to the same figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.embedded_broker import EmbeddedBroker
from stream.errors import ConfigurationError
from stream.quality.config import QualitySettings, QualityTask
from stream.quality.faust_app import FaustQuality
from stream.quality.feed import Feed
from stream.quality.monitor import Monitor
from stream.quality.report import Report
from stream.settings import StreamSettings
from temporal_graph.schema import parse_schema

NAME = "quality-test"
pytestmark = pytest.mark.integration


async def until(report: Callable[[], Report], done: Callable[[Report], bool]) -> Report:
    deadline_s = time.monotonic() + 40
    while True:
        found = report()
        if done(found) or time.monotonic() > deadline_s:
            return found
        await asyncio.sleep(0.2)


async def test_faust_says_what_the_library_says_and_again_after_a_restart(
    embedded_broker: EmbeddedBroker,
    embedded_topic: Callable[[int], str],
    publish_story: Callable[..., object],
    fraud: QualityTask,
    small_settings: QualitySettings,
    tmp_path: Path,
) -> None:
    """The tables' changelogs give a new worker the state of the one before: nothing is lost, nothing counts twice."""
    pytest.importorskip("faust")
    story = publish_story(embedded_broker.bootstrap, embedded_topic)
    settings = StreamSettings(kafka_bootstrap=embedded_broker.bootstrap, predictions_topic=story.predictions)
    wide = small_settings.model_copy(update={"windows_us": (60 * 86_400_000_000,)})
    plain = Monitor([fraud], wide)
    for record in story.records:
        plain.add(record)
    expected = plain.report()
    for topic, partitions in story.topics.items():
        table = "answers" if topic == story.predictions else f"outcomes-{topic}"
        embedded_broker.create_topic(f"{NAME}-{table}-changelog", partitions)

    for life in range(2):
        feed = Feed([fraud], parse_schema(story.schema_text), stream=settings, settings=wide)
        quality = FaustQuality(
            feed,
            settings,
            folder=tmp_path / str(life),
            partitions=story.topics,
            name=NAME,
            declare=False,
            takeover_s=3.0,
        )
        await quality.app.start()
        try:
            found = await until(feed.report, lambda report: report.measured == expected.measured)
        finally:
            await quality.app.stop()
        assert found.measured == expected.measured
        assert len(found.measured) == 2
        assert found.watermark_us == expected.watermark_us


def test_without_faust_the_shell_says_what_to_install(
    fraud: QualityTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """faust-streaming is an extra: without it the error names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "faust", None)
    schema = parse_schema("{version: 1, name: n, tables: {transactions: {primary_key: {id: integer}, time_column: t}}}")
    with pytest.raises(ConfigurationError, match="quality"):
        FaustQuality(Feed([fraud], schema), StreamSettings(), folder=tmp_path, partitions={})
