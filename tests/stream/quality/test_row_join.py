from __future__ import annotations

import itertools

import numpy as np

from stream.quality.config import AnswerKind, QualityTask
from stream.quality.records import Answer, Outcome, Stream
from stream.quality.row_join import NEVER_US, RowJoin

STREAM = Stream("", "fraud", "v1")
ENTITY = QualityTask("spend", AnswerKind.REGRESSION, "customers", False, 10, levels=(0.5,))


def test_every_order_gives_the_same_columns(fraud: QualityTask) -> None:
    """Two answers and three outcomes of one row in all 120 orders: the last given, the last known, the first time."""
    records = [
        Answer(STREAM, (1,), 100, 101, (0.2,), (5.0,)),
        Answer(STREAM, (1,), 100, 102, (0.3,), (6.0,)),
        Outcome("fraud", (1,), 200, (1.0,)),
        Outcome("fraud", (1,), 300, None),
        Outcome("fraud", (1,), 300, (0.0,), offset=1),
    ]
    for order in itertools.permutations(records):
        join = RowJoin(fraud)
        for record in order:
            if isinstance(record, Answer):
                join.answer(record)
            else:
                join.outcome(record)
        columns = join.columns()[STREAM]
        assert columns.scores.tolist() == [[0.3]]
        assert columns.numbers.tolist() == [[6.0]]
        assert columns.label.tolist() == [[0.0]]
        assert columns.first_known_us.tolist() == [200]


def test_a_withdrawn_label_is_none(fraud: QualityTask) -> None:
    """What was said and taken back is not known, and does not count as early either way."""
    join = RowJoin(fraud)
    join.answer(Answer(STREAM, (1,), 100, 101, (0.2,)))
    join.outcome(Outcome("fraud", (1,), 200, None))
    columns = join.columns()[STREAM]
    assert np.isnan(columns.label).all()
    assert columns.first_known_us.tolist() == [NEVER_US]


def test_an_entity_is_another_question_at_each_time() -> None:
    """Answers of one entity as of two times meet the outcomes of those anchors, and no others."""
    join = RowJoin(ENTITY)
    stream = Stream("", "spend", "v1")
    for time_us in (100, 200, 300):
        join.answer(Answer(stream, (7,), time_us, time_us, (float(time_us),)))
    join.outcome(Outcome("spend", (7,), 250, (1.5,), anchor_time_us=100))
    join.outcome(Outcome("spend", (7,), 250, (2.5,), anchor_time_us=200))
    label = join.columns()[stream].label[:, 0]
    assert label[:2].tolist() == [1.5, 2.5]
    assert np.isnan(label[2])


def test_forgetting_keeps_what_can_still_meet(fraud: QualityTask) -> None:
    """At the very time it is gone, a microsecond later it stays: answers by event time, outcomes by known time."""
    join = RowJoin(fraud)
    for number, time_us in enumerate((100, 101)):
        join.answer(Answer(STREAM, (number,), time_us, time_us, (0.5,)))
        join.outcome(Outcome("fraud", (10 + number,), time_us, (1.0,)))
    join.forget(100)
    assert len(join) == 2
    assert join.columns()[STREAM].event_time_us.tolist() == [101]
    assert join.unmatched_outcomes() == 1
