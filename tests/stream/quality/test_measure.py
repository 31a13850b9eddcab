from __future__ import annotations

import math

import numpy as np
import pytest

from stream.quality.config import AnswerKind, QualityTask
from stream.quality.figures import BinaryFigures, ChoiceFigures, ListFigures, NumberFigures
from stream.quality.list_join import Followed
from stream.quality.measure import Usual, figures_of, measure_lists, measure_rows, one_score
from stream.quality.records import Stream
from stream.quality.row_join import NEVER_US, Columns

STREAM = Stream("", "t", "v1")
LEVELS = (0.1, 0.5, 0.9)


def task_of(kind: AnswerKind, **more: object) -> QualityTask:
    return QualityTask("t", kind, "rows", True, 10, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "more", "scores", "label", "expected"),
    [
        (AnswerKind.BINARY, {}, [[0.9], [0.1]], [[1.0], [0.0]], BinaryFigures),
        (AnswerKind.MULTILABEL, {"classes": ("a", "b")}, [[0.9, 0.1]], [[1.0, 0.0]], BinaryFigures),
        (AnswerKind.MULTICLASS, {"classes": ("a", "b")}, [[0.9, 0.1]], [[0.0]], ChoiceFigures),
        (AnswerKind.REGRESSION, {"levels": LEVELS}, [[1.0, 2.0, 3.0]], [[2.0]], NumberFigures),
        (AnswerKind.FORECAST, {"levels": LEVELS, "steps": 2}, [[1.0, 2.0, 3.0] * 2], [[2.0, 2.0]], NumberFigures),
    ],
)
def test_each_kind_has_its_figures(
    kind: AnswerKind, more: dict[str, object], scores: list[list[float]], label: list[list[float]], expected: type
) -> None:
    """What is right by all means looks right: a ranking without fault, no error, every first choice."""
    found = figures_of(task_of(kind, **more), np.array(scores), np.array(label))
    assert isinstance(found, expected)
    if isinstance(found, BinaryFigures):
        assert found.roc_auc == 1.0
    elif isinstance(found, NumberFigures):
        assert (found.mean_absolute_error, found.coverage) == (0.0, 1.0)
    elif isinstance(found, ChoiceFigures):
        assert found.accuracy == 1.0


def test_what_is_unknown_counts_only_where_absence_speaks() -> None:
    """Settled rows without a label are negatives of one task and no examples of the other."""
    columns = Columns(
        event_time_us=np.array([90, 91], dtype=np.int64),
        scores=np.array([[0.9], [0.1]]),
        numbers=np.empty((2, 0)),
        label=np.array([[1.0], [np.nan]]),
        first_known_us=np.array([95, NEVER_US]),
    )
    silent = measure_rows(
        task_of(AnswerKind.BINARY), STREAM, columns, watermark_us=101, window_us=50, usual=None, answers_min=20
    )
    telling = measure_rows(
        task_of(AnswerKind.BINARY, absence_is_negative=True),
        STREAM,
        columns,
        watermark_us=101,
        window_us=50,
        usual=None,
        answers_min=20,
    )
    assert (silent.examples, telling.examples) == (1, 2)
    assert silent.unlabeled == telling.unlabeled == 1
    assert telling.figures.roc_auc == 1.0  # type: ignore[union-attr]
    assert math.isnan(silent.figures.roc_auc)  # type: ignore[union-attr]


def test_one_score_stands_for_an_answer() -> None:
    """The probability, the first choice's, or the median: what score drift is measured on."""
    assert one_score(task_of(AnswerKind.BINARY), np.array([[0.3]])).tolist() == [0.3]
    assert one_score(task_of(AnswerKind.MULTICLASS), np.array([[0.3, 0.7]])).tolist() == [0.7]
    assert one_score(task_of(AnswerKind.REGRESSION, levels=LEVELS), np.array([[1.0, 2.0, 3.0]])).tolist() == [2.0]
    assert one_score(task_of(AnswerKind.BINARY), np.empty((0, 1))).tolist() == []


def test_lists_count_when_their_delay_is_over() -> None:
    """A list is settled once its user had the whole delay, and is in the window that long."""
    lists = [Followed(90, 3, (1,), 1), Followed(91, 3, (), 0), Followed(92, 3, (2,), 1)]
    task = task_of(AnswerKind.RANKING)
    found = measure_lists(task, STREAM, lists, watermark_us=101, window_us=50)
    assert (found.answers, found.examples, found.unlabeled) == (3, 1, 1)
    assert found.figures == ListFigures(1.0, 1.0, 1.0, 0.5)


def test_what_is_usual_goes_through_plain_values() -> None:
    """Scores and inputs are there again."""
    columns = Columns(
        np.arange(5, dtype=np.int64), np.linspace(0, 1, 5)[:, None], np.ones((5, 1)), np.ones((5, 1)), np.zeros(5, int)
    )
    usual = Usual.of(task_of(AnswerKind.BINARY, inputs=("amount",)), columns, np.ones(5, dtype=bool))
    assert Usual.from_dict(usual.to_dict()) == usual
