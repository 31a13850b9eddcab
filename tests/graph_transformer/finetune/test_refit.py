"""What a refit keeps back is whole rows of the validation's times, of numbers only, and never much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.refit import LEAST, MOST, SHARE, kept_back
from graph_transformer.splits import Interval
from graph_transformer.target import Kind, Target

SPEND = Target(Kind.REGRESSION, "customers", event_level=False, horizon_us=30)
VALIDATION = Interval(80, 100)


def weekly(customers: int, times: range = range(0, 100, 5)) -> Examples:
    """Every customer, asked at every time."""
    time, row = (grid.ravel() for grid in np.meshgrid(times, np.arange(customers), indexing="ij"))
    return Examples(row, time, time, time + 30, np.ones(len(row), dtype=np.float32))


def test_customers_of_the_validation_are_kept_back_whole() -> None:
    """Two of five customers, with all their questions at the validation's times and none at the training's."""
    examples = weekly(600)
    kept = kept_back(SPEND, examples, VALIDATION, seed=0)
    asked = examples.select(kept)
    assert asked.time_us.min() == VALIDATION.start_us
    assert asked.time_us.max() < VALIDATION.end_us
    assert len(np.unique(asked.row)) == SHARE * 600
    fitted = examples.select(~kept & (examples.time_us >= VALIDATION.start_us))
    assert not np.isin(fitted.row, asked.row).any()
    assert (kept_back(SPEND, examples, VALIDATION, seed=0) == kept).all()
    assert (kept_back(SPEND, examples, VALIDATION, seed=1) != kept).any()


@pytest.mark.parametrize("kind", [Kind.BINARY, Kind.MULTICLASS])
def test_kinds_are_fitted_on_everything(kind: Kind) -> None:
    """Nothing is kept back where the answers are kinds."""
    assert not kept_back(replace(SPEND, kind=kind), weekly(600), VALIDATION, seed=0).any()


def test_nothing_is_kept_back_that_would_be_too_few_or_too_much() -> None:
    """Just enough customers are kept back, one fewer are not, however often asked; nor much of a short history."""
    times = 4  # of the validation
    enough = round(LEAST / SHARE)
    assert kept_back(SPEND, weekly(enough), VALIDATION, seed=0).sum() == times * LEAST
    assert not kept_back(SPEND, weekly(enough - 3), VALIDATION, seed=0).any()
    short = weekly(2 * enough, range(70, 100, 5))
    assert times * SHARE > MOST * 6
    assert not kept_back(SPEND, short, VALIDATION, seed=0).any()
