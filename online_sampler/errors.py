"""What the sampler refuses, with the place in the plan, what was expected there and what was found."""

from __future__ import annotations


class SamplerError(Exception):
    """The root of everything `online_sampler` raises on purpose."""


class PlanError(SamplerError, ValueError):
    """A sampling plan that cannot be followed.

    Attributes:
        path: where in the plan, e.g. `num_neighbors.hop2.customers.customer_id->transactions.customer_id`.
        expected: what would have been accepted there.
        found: what stands there instead.
    """

    def __init__(self, path: str, expected: str, found: object) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        super().__init__(f"{path}: expected {expected}, found {found!r}")


class SeedError(SamplerError, ValueError):
    """A seed that cannot be sampled around: no row of the table, no event of the schema, arrays of unequal length."""
