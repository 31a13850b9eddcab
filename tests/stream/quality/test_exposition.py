from __future__ import annotations

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream.quality.config import QualitySettings, QualityTask
from stream.quality.exposition import QualityMetrics, window_name
from stream.quality.monitor import Monitor
from stream.quality.records import Answer, Outcome, Stream

START_US = 1_672_531_200_000_000
DAY_US = 86_400_000_000
LABELS = {"tenant": "acme", "task": "fraud", "model_version": "v1", "role": "live", "window": "24h"}


def test_a_report_is_exposed_with_its_labels(fraud: QualityTask, small_settings: QualitySettings) -> None:
    """Figures, counts, the delay's histogram and the state; a figure without meaning has no sample."""
    monitor = Monitor([fraud], small_settings)
    for number, score in enumerate((0.9, 0.8, 0.1, 0.2)):
        monitor.add(Answer(Stream("acme", "fraud", "v1"), (number,), START_US, START_US, (score,)))
    for number in (0, 1):
        monitor.add(Outcome("fraud", (number,), START_US + 30_000_000, (float(number == 0),)))
    monitor.advance(START_US + 2 * DAY_US)
    metrics = QualityMetrics()
    metrics.show(monitor.report(), lag_records=3)
    value = metrics.registry.get_sample_value
    assert value("nowgraph_quality_roc_auc", LABELS) == 1.0
    assert value("nowgraph_quality_examples", LABELS) == 4
    assert value("nowgraph_quality_unlabeled", LABELS) == 2
    assert value("nowgraph_quality_mean_absolute_error", LABELS) is None
    assert value("nowgraph_quality_score_drift", LABELS) is None
    assert value("nowgraph_quality_label_delay_seconds_bucket", {**LABELS, "le": "1.0"}) == 0
    assert value("nowgraph_quality_label_delay_seconds_bucket", {**LABELS, "le": "60.0"}) == 2
    assert value("nowgraph_quality_label_delay_seconds_bucket", {**LABELS, "le": "+Inf"}) == 2
    assert value("nowgraph_quality_label_delay_seconds_sum", LABELS) == 60
    assert value("nowgraph_quality_late_labels_ratio", LABELS) == 0
    assert value("nowgraph_quality_lag_records") == 3
    assert value("nowgraph_quality_watermark_timestamp_seconds") == (START_US + 2 * DAY_US) / 1e6
    assert value("nowgraph_quality_newest_outcome_timestamp_seconds", {"task": "fraud"}) == START_US / 1e6 + 30
    assert value("nowgraph_quality_records_total", {"kind": "answers"}) == 4


def test_before_the_first_report_there_are_names_and_no_samples() -> None:
    """A scrape while the topics are still read shows no figure that is not true."""
    metrics = QualityMetrics()
    families = list(text_string_to_metric_families(generate_latest(metrics.registry).decode()))
    assert "nowgraph_quality_roc_auc" in {family.name for family in families}
    assert [sample for family in families for sample in family.samples if not sample.name.endswith("_created")] == []


def test_windows_have_short_names() -> None:
    """Hours where it is hours."""
    assert window_name(7 * DAY_US) == "168h"
    assert window_name(90_000_000) == "90s"
