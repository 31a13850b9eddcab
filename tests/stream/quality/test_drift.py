from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stream.quality.drift import Reference


def test_the_same_distribution_hardly_moves_and_another_does() -> None:
    """Below 0.1 for a second sample of the same numbers, above 0.25 for shifted ones."""
    rng = np.random.default_rng(1)
    usual = Reference.of(rng.normal(size=2000))
    assert usual.psi(rng.normal(size=2000)) < 0.05
    assert usual.psi(rng.normal(1.0, 1.0, size=2000)) > 0.25


def test_the_index_is_that_of_its_definition() -> None:
    """Shares of ten bins and nulls, half an observation added to each, worked out by hand."""
    usual = Reference.of(np.array([0.0] * 50 + [1.0] * 50))
    assert usual.counts == (50, 0, 50, 0, 0)  # up to 0, up to a half, up to 1, above, null
    then_share = np.array([50.5, 0.5, 50.5, 0.5, 0.5]) / 102.5
    now_share = np.array([90.5, 0.5, 10.5, 0.5, 0.5]) / 102.5
    expected = float(((now_share - then_share) * np.log(now_share / then_share)).sum())
    assert usual.psi(np.array([0.0] * 90 + [1.0] * 10)) == pytest.approx(expected)


def test_nulls_are_a_value_of_their_own() -> None:
    """A column that becomes null has drifted, though its numbers are as before."""
    rng = np.random.default_rng(2)
    usual = Reference.of(rng.normal(size=1000))
    values = rng.normal(size=1000)
    values[:500] = math.nan
    assert usual.psi(values) > 0.25


def test_columns_of_few_or_no_values_have_a_reference() -> None:
    """A constant, nothing but nulls, and nothing at all: no error, and no drift against themselves."""
    for values in (np.full(100, 3.0), np.full(100, math.nan)):
        assert Reference.of(values).psi(values) == pytest.approx(0.0)
    assert Reference.of(np.full(100, 3.0)).psi(np.full(100, 4.0)) > 1.0
    assert math.isnan(Reference.of(np.empty(0)).psi(np.ones(3)))
    assert math.isnan(Reference.of(np.ones(3)).psi(np.empty(0)))


def test_a_reference_goes_through_json() -> None:
    """Written and read again it says the same; one with counts that do not fit is refused."""
    usual = Reference.of(np.arange(100.0))
    assert Reference.from_dict(json.loads(json.dumps(usual.to_dict()))) == usual
    with pytest.raises(ValueError, match="counts"):
        Reference.from_dict({"edges": [1.0], "counts": [1]})
