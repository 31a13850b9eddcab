from __future__ import annotations

from collections.abc import Callable

import confluent_kafka
import pytest

from stream.embedded_broker import EmbeddedBroker
from stream.quality.config import QualitySettings, QualityTask
from stream.quality.feed import Feed
from stream.quality.monitor import Monitor
from stream.quality.reader import QualityReader
from stream.settings import StreamSettings
from temporal_graph.schema import parse_schema

pytestmark = pytest.mark.integration
SCHEMA = """
version: 1
name: payments
tables:
  transactions:
    primary_key: {transaction_id: integer}
    time_column: tx_datetime
    columns: {tx_fraud: {kind: boolean, outcome: true}}
sources: [{topic: EVENTS, table: transactions, format: json}]
"""


def test_the_topics_say_what_the_library_says_and_again_after_a_restart(
    embedded_broker: EmbeddedBroker,
    embedded_topic: Callable[[int], str],
    publish_story: Callable[..., object],
    fraud: QualityTask,
    small_settings: QualitySettings,
) -> None:
    """A start reads from the beginning: the same figures as before it, each record counted once."""
    story = publish_story(embedded_broker.bootstrap, embedded_topic)
    settings = StreamSettings(kafka_bootstrap=embedded_broker.bootstrap, predictions_topic=story.predictions)
    wide = small_settings.model_copy(update={"windows_us": (60 * 86_400_000_000,)})
    plain = Monitor([fraud], wide)
    for record in story.records:
        plain.add(record)
    expected = plain.report()

    for _ in range(2):
        feed = Feed([fraud], parse_schema(story.schema_text), stream=settings, settings=wide)
        with QualityReader(feed, settings) as reader:
            found = reader.catch_up()
            assert found.measured == expected.measured, (found.skipped, found.taken, found.watermark_us)
            assert len(found.measured) == 2
            assert reader.metrics.registry.get_sample_value("nowgraph_quality_lag_records") == 0
    labels = {"tenant": "", "task": "fraud", "model_version": "v2", "role": "shadow", "window": "1440h"}
    value = reader.metrics.registry.get_sample_value("nowgraph_quality_roc_auc", labels)
    assert value == expected.measured[1].figures.roc_auc  # type: ignore[union-attr]


def test_running_reports_until_it_is_stopped(
    embedded_broker: EmbeddedBroker,
    embedded_topic: Callable[[int], str],
    publish_story: Callable[..., object],
    fraud: QualityTask,
) -> None:
    """The first report comes when the topics are read, the next ones as time passes."""
    story = publish_story(embedded_broker.bootstrap, embedded_topic)
    settings = StreamSettings(kafka_bootstrap=embedded_broker.bootstrap, predictions_topic=story.predictions)
    month = QualitySettings(windows_us=(30 * 86_400_000_000,))
    feed = Feed([fraud], parse_schema(story.schema_text), stream=settings, settings=month)
    reports = []
    with QualityReader(feed, settings, report_every_s=0.05) as reader:
        reader.run(lambda: len(reports) >= 3, reports.append)
    assert len(reports) == 3
    assert reports[0].taken["answers"] > 400
    assert reports[0].taken == reports[2].taken


@pytest.mark.kafka
def test_a_log_that_ends_with_a_transaction_is_read_to_its_end(
    apache_kafka: str, kafka_topic: Callable[..., str], fraud: QualityTask
) -> None:
    """The mark of a committed transaction is an offset that no reader is given: the start does not wait for it."""
    predictions, events = kafka_topic(1), kafka_topic(1)
    producer = confluent_kafka.Producer({"bootstrap.servers": apache_kafka, "transactional.id": events})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(events, b'{"transaction_id": 1, "tx_datetime": 1700000000, "tx_fraud": true}')
    producer.commit_transaction(20)
    schema = parse_schema(SCHEMA.replace("EVENTS", events))
    settings = StreamSettings(kafka_bootstrap=apache_kafka, predictions_topic=predictions)
    with QualityReader(Feed([fraud], schema, stream=settings), settings) as reader:
        assert reader.catch_up().taken == {"outcomes": 1}
