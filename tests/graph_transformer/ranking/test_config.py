"""Options of a ranking: every number has a range, every name is known, durations are read and written exactly."""

from __future__ import annotations

from typing import Any

import pytest

from graph_transformer.errors import TaskError
from graph_transformer.ranking.config import RankingConfig


def test_values_survive_the_form_of_a_task_file() -> None:
    """What is written is read back, and durations take their shortest text."""
    config = RankingConfig(dimension=32, half_life="48h", exclude_seen=True, start="random")
    values = config.to_dict()
    assert values["half_life"] == "2d"
    assert RankingConfig.from_dict(values) == RankingConfig(
        dimension=32, half_life="2d", exclude_seen=True, start="random"
    )


def test_durations_are_given_in_microseconds() -> None:
    """A day has 86,400 seconds."""
    config = RankingConfig(half_life="1d", new_within="2h", fusion_span="3s")
    assert config.half_life_us == 86_400_000_000
    assert config.new_within_us == 7_200_000_000
    assert config.fusion_span_us == 3_000_000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dimension", 0),
        ("dimension", 2.5),
        ("history", 1001),
        ("tower_history", 0),
        ("negatives", True),
        ("nearest", -1),
        ("identity_dropout", 1.0),
        ("fusion_dropout", 1.0),
        ("exponent", 1.1),
        ("decay", "much"),
        ("half_life", "a month"),
        ("half_life", "0s"),
        ("new_within", 7),
        ("start", "ones"),
        ("exclude_seen", 1),
        ("fan", 3),
    ],
)
def test_what_can_not_be_followed_is_refused_with_its_key(name: str, value: Any) -> None:
    """The error names the key as the task file has it."""
    with pytest.raises(TaskError) as caught:
        RankingConfig.from_dict({name: value})
    assert caught.value.path == f"ranking.{name}"


def test_a_ranking_needs_a_source_of_candidates() -> None:
    """With no source there would be nothing to rank; any one is enough."""
    none = {"co_visit": 0, "popular": 0, "new": 0, "nearest": 0}
    with pytest.raises(TaskError):
        RankingConfig.from_dict(none)
    assert RankingConfig.from_dict(none | {"new": 1}).new == 1
