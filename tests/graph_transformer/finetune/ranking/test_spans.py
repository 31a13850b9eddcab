"""Spans: what fits what, and how old the graph is that each is asked of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query import BoundQuery
from graph_transformer.finetune.ranking import spans as module
from graph_transformer.finetune.ranking.questions import questions_before
from graph_transformer.finetune.ranking.spans import Spans, proposed_span_us
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.splits import Interval, Splits

from .conftest import Shop

Bind = Callable[[str], BoundQuery]
S = 1_000_000
NEXT = "PREDICT LIST_DISTINCT(orders.item_id, 0, 1, seconds) RANK TOP 3 FOR EACH users.user_id"
TRAIN, VALIDATION, TEST = Interval(0, 100 * S), Interval(100 * S, 120 * S), Interval(120 * S, 140 * S)


def test_towers_end_where_the_fusion_begins() -> None:
    """The fusion's span is the last of training; its towers know nothing of it, the final ones all before the test."""
    spans = Spans.of(Splits(TRAIN, VALIDATION, Interval(0, 120 * S), TEST), 10 * S)

    assert spans.fusion.interval == Interval(90 * S, 100 * S)
    assert spans.fusion.known_by_us == 90 * S
    assert spans.validation is not None
    assert spans.validation.known_by_us == 100 * S
    assert (spans.final_by_us, spans.lag_us, spans.refits) == (120 * S, 0, True)


def test_without_refit_the_validated_towers_are_the_final_ones() -> None:
    """Nothing later is learned from where the task does not say so."""
    spans = Spans.of(Splits(TRAIN, VALIDATION, test=TEST), 10 * S)

    assert (spans.final_by_us, spans.refits) == (100 * S, False)
    assert Spans.of(Splits(TRAIN), 10 * S).refits


def test_a_frozen_test_makes_every_span_as_late() -> None:
    """Each span's graph ends as long before it as the test's, and so do its towers; the last end with the graph."""
    spans = Spans.of(Splits(TRAIN, VALIDATION, test=TEST, frozen_us=105 * S), 10 * S)

    assert spans.lag_us == 15 * S
    assert spans.fusion.known_by_us == 75 * S
    assert spans.validation is not None
    assert spans.validation.known_by_us == 85 * S
    assert (spans.final_by_us, spans.refits) == (105 * S, True)


def test_too_long_a_span_leaves_nothing_to_train_on() -> None:
    """The error names the option."""
    with pytest.raises(TaskError, match="fusion_span"):
        Spans.of(Splits(TRAIN, VALIDATION), 100 * S)


@pytest.mark.parametrize(("most", "frozen_s", "wanted_s"), [(1_000, None, 45), (1_000, 110, 40), (3, None, 28)])
def test_a_span_is_proposed_that_holds_enough_lists(
    monkeypatch: pytest.MonkeyPatch, most: int, frozen_s: int | None, wanted_s: int
) -> None:
    """Half the time from the first question on, or what holds the lists a fusion can use; a graph's lag takes of it."""
    monkeypatch.setattr(module, "LISTS_MAX", most)
    splits = Splits(TRAIN, VALIDATION, test=TEST, frozen_us=None if frozen_s is None else frozen_s * S)

    asked = np.array([99, 10, 72, 80, 50, 30, 115, 130]) * S
    assert proposed_span_us(splits, asked) == wanted_s * S
    assert Spans.of(splits, wanted_s * S).fusion.interval.end_us == 100 * S


def test_no_span_is_proposed_without_questions() -> None:
    """Questions after training, or at the very end of it, leave nothing to say."""
    for asked in ([], [110 * S], [100 * S - 1]):
        assert proposed_span_us(Splits(TRAIN, VALIDATION), np.array(asked, dtype=np.int64)) is None


def test_a_proposed_span_can_be_read() -> None:
    """Days where they are ten or more, then hours, then less."""
    train = Splits(Interval(0, 1_000 * 86_400 * S))
    for first_s, wanted_s in ((86_400 * 899 + 5, 50 * 86_400), (86_400 * 990, 120 * 3_600), (86_400_000 - 61, 30)):
        assert proposed_span_us(train, np.array([first_s * S])) == wanted_s * S


def test_what_is_learned_was_known_in_time(opened: Shop, bound: Bind) -> None:
    """Towers learn from questions of training whose items were known by their time, and of refit where there is one."""
    orders = [(7, 0, second * S) for second in (10, 50, 89, 95, 99, 110, 125)]
    view, query = opened(orders), bound(NEXT)
    ranked = query.target("next").ranked
    assert ranked is not None
    questions = questions_before(view, query, Anchors(before="orders", last_us=200 * S))
    spans = Spans.of(Splits(TRAIN, VALIDATION, Interval(0, 120 * S), TEST), 10 * S)

    def seconds(known_by_us: int) -> list[int]:
        return [round(each / S) for each in spans.learned(questions, known_by_us).time_us]

    assert seconds(90 * S) == [10, 50, 89]
    assert seconds(90 * S - 2) == [10, 50]
    assert seconds(120 * S) == [10, 50, 89, 95, 99, 110]
    lagging = Spans.of(Splits(TRAIN, VALIDATION, test=TEST, frozen_us=105 * S), 10 * S)
    asked = lagging.asked(questions, VALIDATION, view, ranked)
    assert asked.cutoff_time_us.tolist() == [85 * S]
    assert asked.sessions is not None
    assert [round(each / S) for each in asked.sessions.event_time_us] == [89, 95, 99]
