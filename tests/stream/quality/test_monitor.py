from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from stream.errors import ConfigurationError
from stream.quality.config import AnswerKind, QualitySettings, QualityTask
from stream.quality.figures import BinaryFigures, ListFigures, NumberFigures
from stream.quality.monitor import Monitor
from stream.quality.records import Answer, Interaction, Outcome, Record, ShownList, Stream
from stream.quality.report import Measured, Report

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
DELAY_US = 2 * DAY_US
START_US = 1_672_531_200_000_000


def measured(report: Report, role: str, window_us: int) -> Measured:
    return next(one for one in report.measured if one.stream.role == role and one.window_us == window_us)


def told(tasks: Sequence[QualityTask], settings: QualitySettings, records: Sequence[Record]) -> Report:
    monitor = Monitor(tasks, settings)
    for record in records:
        monitor.add(record)
    return monitor.report()


def offline(records: Sequence[Answer | Outcome], role: str, window_us: int) -> dict[str, float]:
    """The same figures from a table of all records, by scikit-learn."""
    answers: dict[tuple[object, ...], Answer] = {}
    outcomes: dict[tuple[object, ...], Outcome] = {}
    now_us = max(r.event_time_us if isinstance(r, Answer) else r.known_time_us for r in records)
    for record in records:
        if isinstance(record, Answer):
            if record.stream.role == role:
                held = answers.get(record.key)
                if held is None or held.answered_time_us < record.answered_time_us:
                    answers[record.key] = record
        elif (known := outcomes.get(record.key)) is None or known.known_time_us < record.known_time_us:
            outcomes[record.key] = record
    settled = [one for one in answers.values() if now_us - window_us < one.event_time_us + DELAY_US <= now_us]
    score = np.array([one.scores[0] for one in settled])
    label = np.array(
        [outcome.label[0] if (outcome := outcomes.get(one.key)) and outcome.label else 0.0 for one in settled]
    )
    return {
        "examples": len(settled),
        "roc_auc": float(roc_auc_score(label, score)),
        "average_precision": float(average_precision_score(label, score)),
        "log_loss": float(log_loss(label, np.clip(score, 1e-15, 1 - 1e-15), labels=[0.0, 1.0])),
        "brier": float(brier_score_loss(label, score)),
        "mean_prediction": float(score.mean()),
        "base_rate": float(label.mean()),
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16), duplicates=st.integers(0, 200))
def test_figures_are_those_of_the_offline_table_in_any_order(
    story_type: type, fraud: QualityTask, small_settings: QualitySettings, seed: int, duplicates: int
) -> None:
    """Late, revised, withdrawn, doubled, missing labels, in any order: the figures are scikit-learn's on the table."""
    story = story_type()
    story.tell(seed, payments=200)
    rng = random.Random(seed)
    records = story.records + rng.choices(story.records, k=duplicates)
    rng.shuffle(records)
    wide = small_settings.model_copy(update={"windows_us": (8 * DAY_US, 60 * DAY_US)})  # nothing is let go of
    report = told([fraud], wide, records)
    for role in ("live", "shadow"):
        for window_us in wide.windows_us:
            found = measured(report, role, window_us)
            assert isinstance(found.figures, BinaryFigures)
            for name, value in offline(story.records, role, window_us).items():
                if name == "examples":
                    assert found.examples == value
                else:
                    assert getattr(found.figures, name) == pytest.approx(value, abs=1e-9), name


def psi(then: np.ndarray, now: np.ndarray) -> float:
    """The stability index by its definition, over deciles of what was."""
    edges = np.unique(np.nanquantile(then, np.arange(1, 10) / 10))
    shares = []
    for values in (then, now):
        known = values[~np.isnan(values)]
        counts = [np.sum((known > low) & (known <= high)) for low, high in pairwise([-np.inf, *edges, np.inf])]
        smoothed = np.array([*counts, np.isnan(values).sum()]) + 0.5
        shares.append(smoothed / smoothed.sum())
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**16))
def test_drift_is_that_of_the_offline_table_in_any_order(
    story_type: type, fraud: QualityTask, small_settings: QualitySettings, seed: int
) -> None:
    """Scores and inputs of the newest days against those of the first day, nulls included, whatever came first."""
    story = story_type()
    story.tell(seed)
    records = list(story.records)
    random.Random(seed).shuffle(records)
    wide = small_settings.model_copy(update={"windows_us": (8 * DAY_US, 60 * DAY_US)})
    found = measured(told([fraud], wide, records), "live", 8 * DAY_US)
    last: dict[object, Answer] = {}
    for one in sorted((r for r in records if isinstance(r, Answer)), key=lambda r: r.answered_time_us):
        if one.stream.role == "live":
            last[one.key] = one
    now_us = max(r.event_time_us if isinstance(r, Answer) else r.known_time_us for r in records)
    first_us = min(one.event_time_us for one in last.values())
    then = [one for one in last.values() if one.event_time_us < first_us + small_settings.reference_us]
    now = [one for one in last.values() if one.event_time_us > now_us - 8 * DAY_US]
    if len(then) < small_settings.drift_answers_min or len(now) < small_settings.drift_answers_min:
        assert np.isnan(found.score_drift)
        return
    scores = [np.array([one.scores[0] for one in part]) for part in (then, now)]
    amounts = [np.array([one.numbers[0] for one in part]) for part in (then, now)]
    assert found.score_drift == pytest.approx(psi(*scores), abs=1e-9)
    assert found.input_drift["tx_amount"] == pytest.approx(psi(*amounts), abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_numbers_of_entities_are_those_of_the_offline_table_in_any_order(seed: int) -> None:
    """Quantiles of entities as of many times, labels by anchor, some late, some revised, some never."""
    task = QualityTask("spend", AnswerKind.REGRESSION, "customers", False, DAY_US, levels=(0.1, 0.5, 0.9))
    rng, stream = np.random.default_rng(seed), Stream("", "spend", "v1")
    records: list[Record] = []
    errors, losses = [], []
    for customer in range(10):
        for day in range(6):
            at_us = START_US + day * DAY_US + customer
            quantiles = np.sort(rng.normal(10, 3, 3))
            records.append(Answer(stream, (customer,), at_us, at_us, tuple(quantiles)))
            if rng.random() < 0.3:
                continue
            known_us, truth = at_us + DAY_US + int(rng.integers(0, DAY_US)), float(rng.normal(10, 3))
            records.append(Outcome("spend", (customer,), known_us, (truth - 1,), at_us))
            records.append(Outcome("spend", (customer,), known_us + 1, (truth,), at_us))
            errors.append(abs(truth - quantiles[1]))
            losses += [
                level * (truth - q) if truth > q else (1 - level) * (q - truth)
                for level, q in zip(task.levels, quantiles, strict=True)
            ]
    records.append(Outcome("spend", (99,), START_US + 10 * DAY_US, (0.0,), START_US))
    random.Random(seed).shuffle(records)
    (found,) = told([task], QualitySettings(windows_us=(30 * DAY_US,)), records).measured
    assert isinstance(found.figures, NumberFigures)
    assert (found.examples, found.unlabeled) == (len(errors), 60 - len(errors))
    assert found.figures.mean_absolute_error == pytest.approx(np.mean(errors))
    assert found.figures.pinball_loss == pytest.approx(np.mean(losses))


def test_what_is_let_go_of_changes_no_figure(story, fraud: QualityTask, small_settings: QualitySettings) -> None:
    """In the order of time, with reports in between, memory is bounded by window and delay, and figures are equal."""
    records = sorted(story.records, key=lambda r: r.answered_time_us if isinstance(r, Answer) else r.known_time_us)
    monitor = Monitor([fraud], small_settings)
    most = 0
    for number, record in enumerate(records):
        monitor.add(record)
        if number % 50 == 0:
            most = max(most, monitor.report().rows)
    report = monitor.report()
    assert most < 350
    assert report.rows < 250
    for role in ("live", "shadow"):
        found = measured(report, role, 3 * DAY_US)
        expected = offline(story.records, role, 3 * DAY_US)
        assert isinstance(found.figures, BinaryFigures)
        assert found.figures.roc_auc == pytest.approx(expected["roc_auc"], abs=1e-9)
        assert found.examples == expected["examples"]


def test_an_early_label_waits_for_its_delay(fraud: QualityTask, small_settings: QualitySettings) -> None:
    """A report an hour after the payment counts when the delay is over, not before; one microsecond decides."""
    stream = Stream("", "fraud", "v1")
    monitor = Monitor([fraud], small_settings)
    monitor.add(Answer(stream, (1,), START_US, START_US, (0.9,)))
    monitor.add(Outcome("fraud", (1,), START_US + HOUR_US, (1.0,)))
    monitor.advance(START_US + DELAY_US - 1)
    assert measured(monitor.report(), "live", DAY_US).examples == 0
    monitor.advance(START_US + DELAY_US)
    found = measured(monitor.report(), "live", DAY_US)
    assert found.examples == 1
    assert found.figures.base_rate == 1.0  # type: ignore[union-attr]
    monitor.advance(START_US + DELAY_US + DAY_US)
    assert measured(monitor.report(), "live", DAY_US).examples == 0


def test_a_label_after_the_delay_is_late_and_counts_all_the_same(
    fraud: QualityTask, small_settings: QualitySettings
) -> None:
    """What was taken for a negative becomes a positive, and the share of late labels says so."""
    stream = Stream("", "fraud", "v1")
    monitor = Monitor([fraud], small_settings)
    for number in (1, 2):
        monitor.add(Answer(stream, (number,), START_US, START_US, (0.5,)))
    monitor.add(Outcome("fraud", (1,), START_US + HOUR_US, (0.0,)))
    monitor.advance(START_US + DELAY_US)
    before = measured(monitor.report(), "live", DAY_US)
    monitor.add(Outcome("fraud", (2,), START_US + DELAY_US + HOUR_US, (1.0,)))
    after = measured(monitor.report(), "live", DAY_US)
    assert (before.figures.base_rate, after.figures.base_rate) == (0.0, 0.5)  # type: ignore[union-attr]
    assert (before.unlabeled, after.unlabeled) == (1, 0)
    assert before.delays is not None
    assert after.delays is not None
    assert (before.delays.late_ratio, after.delays.late_ratio) == (0.0, 0.5)
    assert sum(after.delays.counts) == 2
    assert after.delays.sum_s == pytest.approx((DELAY_US + 2 * HOUR_US) / 1e6)


def test_outcomes_nobody_asked_about_are_counted_and_let_go_of(
    fraud: QualityTask, small_settings: QualitySettings
) -> None:
    """An outcome waits for its answer, and no longer than an answer could count."""
    monitor = Monitor([fraud], small_settings)
    monitor.add(Outcome("fraud", (1,), START_US, (1.0,)))
    assert monitor.report().tasks[0].unmatched_outcomes == 1
    monitor.advance(START_US + DELAY_US + 3 * DAY_US)
    monitor.report()
    assert monitor.report().tasks[0].unmatched_outcomes == 0
    monitor.add(Answer(Stream("", "fraud", "v1"), (1,), START_US, START_US, (0.5,)))
    assert monitor.report().rows == 0
    assert monitor.report().skipped == {"old": 1}


def test_beyond_the_limit_a_fair_sample_of_keys_remains(fraud: QualityTask, small_settings: QualitySettings) -> None:
    """Never more rows than the limit; answers and outcomes of the same keys are kept, so that they still meet."""
    tight = small_settings.model_copy(update={"rows_max": 1000})
    monitor = Monitor([fraud], tight)
    stream = Stream("", "fraud", "v1")
    for number in range(6000):
        monitor.add(Answer(stream, (number,), START_US + number, START_US, (number % 100 / 100,)))
        monitor.add(Outcome("fraud", (number,), START_US + number, (float(number % 100 >= 80),)))
    monitor.advance(START_US + DELAY_US + DAY_US // 2)
    report = monitor.report()
    found = measured(report, "live", DAY_US)
    assert 300 < report.rows <= 1000
    assert report.sample_ratio == 2.0**-3
    assert found.examples == report.rows
    assert found.unlabeled == 0
    assert found.figures.roc_auc == 1.0  # type: ignore[union-attr]
    assert found.figures.base_rate == pytest.approx(0.2, abs=0.06)  # type: ignore[union-attr]


def test_the_oldest_stream_makes_way(fraud: QualityTask, small_settings: QualitySettings) -> None:
    """More models than the limit: the one that answered least recently leaves, with its answers."""
    monitor = Monitor([fraud], small_settings)
    for version in range(6):
        monitor.add(Answer(Stream("", "fraud", f"v{version}"), (version,), START_US + version, START_US, (0.5,)))
    report = monitor.report()
    assert {one.stream.model_version for one in report.measured} == {"v2", "v3", "v4", "v5"}
    assert report.skipped == {"stream": 2}


def test_drift_is_against_the_first_stretch(fraud: QualityTask, small_settings: QualitySettings) -> None:
    """Scores and inputs as they began have no drift; moved ones have much; before the stretch is over there is none."""
    monitor = Monitor([fraud], small_settings)
    stream = Stream("", "fraud", "v1")
    rng = np.random.default_rng(5)

    def day(number: int, shift: float) -> Measured:
        for n in range(300):
            time_us = START_US + number * DAY_US + n * (DAY_US // 300)
            score = float(np.clip(rng.normal(0.3 + shift, 0.1), 0.01, 0.99))
            monitor.add(
                Answer(stream, (number, n), time_us, time_us, (score,), (float(rng.normal(50, 5) + 100 * shift),))
            )
        return measured(monitor.report(), "live", DAY_US)

    assert np.isnan(day(0, 0.0).score_drift)
    same = day(1, 0.0)
    moved = day(8, 0.3)  # the first day is let go of by now: what was usual then is kept
    assert same.score_drift < 0.1
    assert same.input_drift["tx_amount"] < 0.1
    assert moved.score_drift > 1.0
    assert moved.input_drift["tx_amount"] > 1.0


def test_what_is_usual_outlives_the_process(fraud: QualityTask, small_settings: QualitySettings) -> None:
    """A second process that is given the first one's references measures drift against them, from its first answer."""
    stream = Stream("", "fraud", "v1")
    first = Monitor([fraud], small_settings)
    for n in range(200):
        first.add(Answer(stream, (n,), START_US + n, START_US, (n / 200,), (1.0,)))
    first.report()
    first.advance(START_US + 10 * DAY_US)
    first.report()
    second = Monitor([fraud], small_settings)
    second.use_references(first.references())
    for n in range(200):
        second.add(Answer(stream, (n,), START_US + 11 * DAY_US, START_US, (0.9 + n / 2000,), (1.0,)))
    assert measured(second.report(), "live", DAY_US).score_drift > 1.0
    with pytest.raises(ConfigurationError, match="references"):
        second.use_references("[1]")


def test_lists_are_followed_within_the_delay(next_click: QualityTask, small_settings: QualitySettings) -> None:
    """Taken after the list and within its delay counts; at the list's own time, or later, does not."""
    stream = Stream("", "next_click", "v1")
    end_us = START_US + DAY_US
    records: list[Record] = [
        ShownList(stream, ("u1",), START_US, START_US, "a", (10, 11, 12)),
        Interaction("next_click", ("u1",), b"1", START_US, START_US, 10),  # at the list's time: what led to it
        Interaction("next_click", ("u1",), b"2", START_US + 1, START_US + 1, 11),
        Interaction("next_click", ("u1",), b"3", end_us + 1, end_us + 1, 12),  # too late
        ShownList(stream, ("u2",), START_US, START_US, "b", (10, 11, 12)),
        Interaction("next_click", ("u2",), b"4", end_us, end_us, 99),  # not shown
        ShownList(stream, ("u3",), START_US, START_US, "c", (10, 11, 12)),  # did nothing
        Interaction("next_click", ("u3",), b"5", START_US + 5, START_US + 5, 10),
        Interaction("next_click", ("u3",), b"5", START_US + 5, START_US + 6, None),  # withdrawn
    ]
    for seed in range(5):
        shuffled = [*records, *records]
        random.Random(seed).shuffle(shuffled)
        found = measured(told([next_click], small_settings, shuffled), "live", DAY_US)
        assert found.examples == 2
        assert found.unlabeled == 1
        assert found.figures == ListFigures(
            hit_ratio=0.5,
            mean_reciprocal_rank=0.25,
            ndcg=pytest.approx((1 / np.log2(3)) / 2),
            followed_ratio=pytest.approx(2 / 3),
        )


def test_records_of_other_tasks_are_skipped(fraud: QualityTask) -> None:
    """A monitor measures its tasks and counts the rest."""
    monitor = Monitor([fraud])
    monitor.add(Answer(Stream("", "other", "v1"), (1,), START_US, START_US, (0.5,)))
    assert monitor.report().skipped == {"task": 1}
