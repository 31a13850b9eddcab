from __future__ import annotations

import pytest

from graph_transformer.target import MEDIAN, QUANTILES, Kind, Target


@pytest.mark.parametrize(
    ("target", "outputs", "is_number"),
    [
        (Target(Kind.BINARY, "orders", event_level=True, column="returned"), 1, False),
        (Target(Kind.MULTICLASS, "orders", event_level=True, column="size", classes=("s", "m", "l")), 3, False),
        (Target(Kind.MULTILABEL, "orders", event_level=True, column="tags", classes=("a", "b")), 2, False),
        (Target(Kind.REGRESSION, "customers", event_level=False, horizon_us=1), len(QUANTILES), True),
        (Target(Kind.FORECAST, "customers", event_level=False, horizon_us=1, steps=4), 4 * len(QUANTILES), True),
    ],
)
def test_the_kind_decides_the_form_of_the_answer(target: Target, outputs: int, is_number: bool) -> None:
    """A logit, one per class, or quantiles per step; numbers are answered by quantiles, classes by probabilities."""
    assert target.outputs == outputs
    assert target.is_number == is_number


def test_quantiles_rise_around_the_median() -> None:
    """The levels are in order and symmetric, so that pairs of them are intervals around the middle one."""
    assert list(QUANTILES) == sorted(QUANTILES)
    assert QUANTILES[MEDIAN] == 0.5
    assert [1.0 - level for level in reversed(QUANTILES)] == pytest.approx(list(QUANTILES))
