"""The sampler's errors: one root, and a plan's error that says where, what was expected and what was found."""

from __future__ import annotations

import pytest

from online_sampler.errors import PlanError, SamplerError, SeedError


def test_a_plan_error_names_the_place_the_expectation_and_what_was_found() -> None:
    """A person can mend the plan from the message alone, a program from the attributes."""
    error = PlanError("num_neighbors.hop1.default", "an integer", "many")
    assert str(error) == "num_neighbors.hop1.default: expected an integer, found 'many'"
    assert (error.path, error.expected, error.found) == ("num_neighbors.hop1.default", "an integer", "many")


@pytest.mark.parametrize("kind", [PlanError, SeedError])
def test_every_refusal_is_caught_by_the_root_and_is_a_value_error(kind: type[Exception]) -> None:
    """One except clause is enough, and code that knows nothing of the sampler still sees a bad value."""
    assert issubclass(kind, SamplerError)
    assert issubclass(kind, ValueError)
