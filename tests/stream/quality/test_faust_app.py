"""Both shells over the same topics, and the library alone: three ways to the same figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from stream.batch import Batch
from stream.embedded_broker import EmbeddedBroker
from stream.errors import ConfigurationError
from stream.quality.config import QualitySettings, QualityTask
from stream.quality.faust_app import FaustQuality
from stream.quality.feed import Feed
from stream.quality.monitor import Monitor
from stream.quality.records import Record
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
    story: Published, bootstrap: str, fraud: QualityTask, settings: QualitySettings, folder: Path
) -> list[Report]:
    """What two workers of one name say, the second after the first has stopped."""
    stream = StreamSettings(kafka_bootstrap=bootstrap, predictions_topic=story.predictions)
    expected, found = reported(story, fraud, settings), []
    for life in range(2):
        feed = Feed([fraud], parse_schema(story.schema_text), stream=stream, settings=settings)
        quality = FaustQuality(
            feed, stream, folder=folder / str(life), partitions=story.topics, name=NAME, takeover_s=6.0
        )
        quality.prepare()
        await quality.app.start()
        try:
            found.append(await until(feed.report, lambda report: report.measured == expected.measured))
        finally:
            await asyncio.wait_for(quality.app.stop(), 40)
    return found


async def failing(story: Published, bootstrap: str, fraud: QualityTask, folder: Path) -> None:
    """A worker that fails at the first record of each topic, and says so."""
    stream = StreamSettings(kafka_bootstrap=bootstrap, predictions_topic=story.predictions)
    feed = Feed([fraud], parse_schema(story.schema_text), stream=stream)
    quality = FaustQuality(feed, stream, folder=folder, partitions=story.topics, name=NAME, takeover_s=6.0)

    def take(batch: Batch) -> list[Record]:
        raise ValueError("full")

    feed.take = take  # type: ignore[method-assign]
    quality.prepare()
    await quality.app.start()
    await until(feed.report, lambda _: quality.failure is not None)
    await asyncio.wait_for(quality.app.stop(), 40)
    assert str(quality.failure) == "full"


async def test_faust_says_what_the_library_says_and_again_after_a_restart(
    embedded_broker: EmbeddedBroker,
    embedded_topic: Callable[[int], str],
    publish_story: Callable[..., Published],
    fraud: QualityTask,
    month: QualitySettings,
    tmp_path: Path,
) -> None:
    """The changelogs give a new worker the state of the one before, and it reads again what that one failed at."""
    story = publish_story(embedded_broker.bootstrap, embedded_topic)
    for topic, partitions in story.topics.items():
        table = "answers" if topic == story.predictions else f"outcomes-{topic}"
        embedded_broker.create_topic(f"{NAME}-{table}-changelog", partitions)
    expected = reported(story, fraud, month)
    await failing(story, embedded_broker.bootstrap, fraud, tmp_path / "failing")
    for found in await lives(story, embedded_broker.bootstrap, fraud, month, tmp_path):
        assert found.measured == expected.measured
        assert len(found.measured) == 2
        assert found.watermark_us == expected.watermark_us


@pytest.mark.kafka
async def test_changelog_topics_are_made_on_apache_kafka(
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
    for found in await lives(story, apache_kafka, fraud, month, tmp_path):
        assert found.measured == expected.measured


def test_a_changelog_of_another_size_is_refused(
    embedded_broker: EmbeddedBroker, embedded_topic: Callable[[int], str], fraud: QualityTask, tmp_path: Path
) -> None:
    """A table and its topic have as many partitions; a name that another deployment used is said, not written to."""
    pytest.importorskip("faust")
    topic = embedded_topic(3)
    embedded_broker.create_topic("other-answers-changelog", 2)
    settings = StreamSettings(kafka_bootstrap=embedded_broker.bootstrap, predictions_topic=topic)
    schema = parse_schema("{version: 1, name: n, tables: {transactions: {primary_key: {id: integer}, time_column: t}}}")
    quality = FaustQuality(
        Feed([fraud], schema, stream=settings), settings, folder=tmp_path, partitions={topic: 3}, name="other"
    )
    with pytest.raises(ConfigurationError, match="expected 3 partitions, as its topic has, found 2"):
        quality.prepare()


def test_without_faust_the_shell_says_what_to_install(
    fraud: QualityTask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """faust-streaming is an extra: without it the error names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "faust", None)
    schema = parse_schema("{version: 1, name: n, tables: {transactions: {primary_key: {id: integer}, time_column: t}}}")
    with pytest.raises(ConfigurationError, match="quality"):
        FaustQuality(Feed([fraud], schema), StreamSettings(), folder=tmp_path, partitions={})
