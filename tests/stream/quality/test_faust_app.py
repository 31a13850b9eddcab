"""Both shells over the same topics, and the library alone: three ways to the same figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

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


class Published(Protocol):
    """What `publish_story` gives."""

    schema_text: str
    predictions: str
    topics: dict[str, int]
    records: list[Any]


@pytest.fixture
def month(small_settings: QualitySettings) -> QualitySettings:
    """A window that holds the whole story."""
    return small_settings.model_copy(update={"windows_us": (60 * 86_400_000_000,)})


async def until(report: Callable[[], Report], done: Callable[[Report], bool]) -> Report:
    deadline_s = time.monotonic() + 40
    while True:
        found = report()
        if done(found) or time.monotonic() > deadline_s:
            return found
        await asyncio.sleep(0.2)


def reported(story: Published, fraud: QualityTask, settings: QualitySettings) -> Report:
    """What the library alone says of a story."""
    plain = Monitor([fraud], settings)
    for record in story.records:
        plain.add(record)
    return plain.report()


async def lives(
    story: Published, bootstrap: str, fraud: QualityTask, settings: QualitySettings, folder: Path, *, declare: bool
) -> list[Report]:
    """What two workers of one name say, the second after the first has stopped."""
    stream = StreamSettings(kafka_bootstrap=bootstrap, predictions_topic=story.predictions)
    expected, found = reported(story, fraud, settings), []
    for life in range(2):
        feed = Feed([fraud], parse_schema(story.schema_text), stream=stream, settings=settings)
        quality = FaustQuality(
            feed, stream, folder=folder / str(life), partitions=story.topics, name=NAME, declare=declare, takeover_s=6.0
        )
        await quality.app.start()
        try:
            found.append(await until(feed.report, lambda report: report.measured == expected.measured))
        finally:
            await quality.app.stop()
    return found


async def test_faust_says_what_the_library_says_and_again_after_a_restart(
    embedded_broker: EmbeddedBroker,
    embedded_topic: Callable[[int], str],
    publish_story: Callable[..., Published],
    fraud: QualityTask,
    month: QualitySettings,
    tmp_path: Path,
) -> None:
    """The tables' changelogs give a new worker the state of the one before: nothing is lost, nothing counts twice."""
    story = publish_story(embedded_broker.bootstrap, embedded_topic)
    for topic, partitions in story.topics.items():
        table = "answers" if topic == story.predictions else f"outcomes-{topic}"
        embedded_broker.create_topic(f"{NAME}-{table}-changelog", partitions)
    expected = reported(story, fraud, month)
    for found in await lives(story, embedded_broker.bootstrap, fraud, month, tmp_path, declare=False):
        assert found.measured == expected.measured
        assert len(found.measured) == 2
        assert found.watermark_us == expected.watermark_us


@pytest.mark.kafka
async def test_faust_makes_its_own_topics_on_apache_kafka(
    apache_kafka: str,
    kafka_topic: Callable[..., str],
    publish_story: Callable[..., Published],
    fraud: QualityTask,
    month: QualitySettings,
    tmp_path: Path,
) -> None:
    """On a broker with admin requests nothing has to be there beforehand; compacted changelogs restore the state."""
    story = publish_story(apache_kafka, kafka_topic)
    expected = reported(story, fraud, month)
    for found in await lives(story, apache_kafka, fraud, month, tmp_path, declare=True):
        assert found.measured == expected.measured


def test_without_faust_the_shell_says_what_to_install(
    fraud: QualityTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """faust-streaming is an extra: without it the error names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "faust", None)
    schema = parse_schema("{version: 1, name: n, tables: {transactions: {primary_key: {id: integer}, time_column: t}}}")
    with pytest.raises(ConfigurationError, match="quality"):
        FaustQuality(Feed([fraud], schema), StreamSettings(), folder=tmp_path, partitions={})
