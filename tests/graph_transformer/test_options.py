from __future__ import annotations

from typing import Any

import pytest

from graph_transformer.config import ModelConfig
from graph_transformer.errors import TaskError
from graph_transformer.options import options_of
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.training import Training


@pytest.mark.parametrize(
    ("kind", "part", "good"),
    [
        (ModelConfig, "model", {"layers": 2}),
        (Training, "training", {"steps": 7}),
        (RankingConfig, "ranking", {"far": 3}),
    ],
)
def test_a_part_is_read_by_its_names(kind: Any, part: str, good: dict[str, int]) -> None:
    """What is there is taken, what is not has its default, and what nobody knows is named with what there is."""
    assert options_of(kind, part, good) == kind(**good) == kind.from_dict(good)
    assert options_of(kind, part, {}) == kind()
    with pytest.raises(TaskError, match=rf"{part}\.widht: expected one of .*{next(iter(good))}"):
        options_of(kind, part, {"widht": 1})


@pytest.mark.parametrize(("kind", "wrong"), [(ModelConfig, {"dropout": "high"}), (Training, {"learning_rate": "fast"})])
def test_a_text_in_place_of_a_number_is_an_error_of_the_file(kind: Any, wrong: dict[str, str]) -> None:
    """And no defect with a traceback."""
    with pytest.raises(TaskError, match="numbers where numbers are expected"):
        kind.from_dict(wrong)
