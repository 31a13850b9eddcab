from __future__ import annotations

import pytest

from temporal_graph.errors import TemporalGraphError
from temporal_graph.redis import errors


@pytest.mark.parametrize("name", ["StoreUnavailableError", "StoreLostError", "StoreNotReadyError", "StaleWriterError"])
def test_the_errors_are_one_small_tree(name: str) -> None:
    """Who catches a store's trouble, or the package's, catches them all."""
    error = getattr(errors, name)
    assert issubclass(error, errors.StoreError)
    assert issubclass(error, TemporalGraphError)
