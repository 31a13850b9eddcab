"""A report as Prometheus metrics. Labels are bounded: streams and windows by their limits, columns by the task."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.quality.report import DELAY_EDGES_S, Delays, Measured, Report

STREAM = ("tenant", "task", "model_version", "role", "window")
_FIGURES = {
    "roc_auc": "Probability that a positive stands above a negative.",
    "average_precision": "Average precision of the settled examples.",
    "log_loss": "Mean log loss in nats.",
    "brier": "Mean squared error of the probabilities.",
    "calibration_error": "Mean gap between predicted and observed share, over bins of equally many examples.",
    "calibration_noise": "The calibration error that true probabilities would show by chance.",
    "mean_prediction": "Mean of what was predicted.",
    "base_rate": "Share of positives: what the mean prediction should be.",
    "accuracy": "Share of first choices that were right.",
    "mean_absolute_error": "Mean distance of the median from what happened.",
    "pinball_loss": "Mean pinball loss over all quantiles.",
    "coverage": "Share of outcomes between the lowest and the highest quantile.",
    "mean_outcome": "Mean of what happened.",
    "hit_ratio": "Share of followed lists of which at least one item was taken.",
    "mean_reciprocal_rank": "Mean of one over the rank of the first item taken.",
    "ndcg": "Discounted gain of followed lists over that of the best order.",
    "followed_ratio": "Share of lists whose user did anything within the delay.",
}


def window_name(window_us: int) -> str:
    """Return a window as a label says it: in hours, such as 24h, else in seconds."""
    hours, rest = divmod(window_us, 3_600_000_000)
    return f"{hours}h" if not rest else f"{window_us / 1e6:g}s"


class QualityMetrics(Collector):
    """Shows the latest report; until the first there are names without samples. Safe to scrape from any thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._shown: tuple[Report, int] | None = None

    def show(self, report: Report, *, lag_records: int) -> None:
        """Show a report from now on, and how many records were still to be read when it was made."""
        self._shown = (report, lag_records)

    def collect(self) -> Iterator[Metric]:
        """Yield every family, for Prometheus."""
        measured = self._shown[0].measured if self._shown else ()
        yield from _figures(measured)
        yield from _drift(measured)
        yield _delays(measured)
        yield from self._state()

    def _state(self) -> Iterator[Metric]:
        report, lag_records = self._shown or (None, 0)
        lag = GaugeMetricFamily("nowgraph_quality_lag_records", "Records of the topics that are still to be read.")
        watermark = GaugeMetricFamily("nowgraph_quality_watermark_timestamp_seconds", "The newest time seen.")
        held = GaugeMetricFamily("nowgraph_quality_rows", "Rows, lists and interactions that are held.")
        ratio = GaugeMetricFamily("nowgraph_quality_sample_ratio", "Share of keys that is measured.")
        unmatched = GaugeMetricFamily(
            "nowgraph_quality_unmatched_outcomes", "Outcomes of what nobody asked about.", labels=["task"]
        )
        newest = GaugeMetricFamily(
            "nowgraph_quality_newest_outcome_timestamp_seconds", "When the newest outcome was known.", labels=["task"]
        )
        bound = GaugeMetricFamily(
            "nowgraph_quality_label_delay_bound_seconds", "From when on a label counts as known.", labels=["task"]
        )
        taken = CounterMetricFamily("nowgraph_quality_records", "Answers and outcomes taken in.", labels=["kind"])
        skipped = CounterMetricFamily("nowgraph_quality_skipped", "Records that are not measured.", labels=["reason"])
        if report is not None:
            lag.add_metric([], lag_records)
            watermark.add_metric([], report.watermark_us / 1e6)
            held.add_metric([], report.rows)
            ratio.add_metric([], report.sample_ratio)
            for state in report.tasks:
                unmatched.add_metric([state.task], state.unmatched_outcomes)
                bound.add_metric([state.task], state.label_delay_us / 1e6)
                if state.newest_outcome_us is not None:
                    newest.add_metric([state.task], state.newest_outcome_us / 1e6)
            for kind, count in sorted(report.taken.items()):
                taken.add_metric([kind], count)
            for reason, count in sorted(report.skipped.items()):
                skipped.add_metric([reason], count)
        yield from (lag, watermark, held, ratio, unmatched, newest, bound, taken, skipped)


def _labels(one: Measured) -> list[str]:
    stream = one.stream
    return [stream.tenant, stream.task, stream.model_version, stream.role, window_name(one.window_us)]


def _figures(measured: tuple[Measured, ...]) -> Iterator[Metric]:
    families = {
        name: GaugeMetricFamily(f"nowgraph_quality_{name}", text, labels=STREAM) for name, text in _FIGURES.items()
    }
    for one in measured:
        for name, value in asdict(one.figures).items():
            _add(families[name], _labels(one), value)
    yield from families.values()
    counts = {
        "answers": "Newest answers, settled or not.",
        "examples": "Settled answers that the figures are of.",
        "unlabeled": "Settled answers of which no label is known.",
    }
    for name, text in counts.items():
        family = GaugeMetricFamily(f"nowgraph_quality_{name}", text, labels=STREAM)
        for one in measured:
            family.add_metric(_labels(one), getattr(one, name))
        yield family


def _drift(measured: tuple[Measured, ...]) -> Iterator[Metric]:
    score = GaugeMetricFamily(
        "nowgraph_quality_score_drift", "Stability index of the scores against the model's first.", labels=STREAM
    )
    inputs = GaugeMetricFamily(
        "nowgraph_quality_input_drift", "Stability index of a column against the first.", labels=[*STREAM, "column"]
    )
    late = GaugeMetricFamily(
        "nowgraph_quality_late_labels_ratio", "Share of labels that were first known after the delay.", labels=STREAM
    )
    for one in measured:
        _add(score, _labels(one), one.score_drift)
        for column, value in one.input_drift.items():
            _add(inputs, [*_labels(one), column], value)
        if one.delays is not None:
            _add(late, _labels(one), one.delays.late_ratio)
    yield from (score, inputs, late)


def _delays(measured: tuple[Measured, ...]) -> Metric:
    """The delays of the window's labels: a state, not a count that grows, so read without rate()."""
    family = HistogramMetricFamily(
        "nowgraph_quality_label_delay_seconds", "From a row to its first label, of the window.", labels=STREAM
    )
    for one in measured:
        if one.delays is not None:
            family.add_metric(_labels(one), buckets=_cumulated(one.delays), sum_value=one.delays.sum_s)
    return family


def _cumulated(delays: Delays) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for edge, count in zip([*map(str, DELAY_EDGES_S), "+Inf"], delays.counts, strict=True):
        total += count
        buckets.append((edge, float(total)))
    return buckets


def _add(family: GaugeMetricFamily, labels: list[str], value: float) -> None:
    if math.isfinite(value):
        family.add_metric(labels, value)
