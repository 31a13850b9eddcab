"""The options of a ranking: plain values, part of a task and of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graph_transformer.errors import TaskError
from graph_transformer.options import options_of
from temporal_graph.duration import DURATION_EXPECTED, format_duration, parse_duration_us

START = ("svd", "random")
_WHOLE = (
    ("dimension", 1, 1024),
    ("tower_history", 1, 1000),
    ("history", 1, 1000),
    ("negatives", 1, 1_000_000),
    ("co_visit", 0, 10_000),
    ("far", 0, 10_000),
    ("far_from", 1, 1000),
    ("popular", 0, 10_000),
    ("new", 0, 10_000),
    ("nearest", 0, 10_000),
    ("visits", 1, 65_536),
    ("window", 1, 1000),
    ("fusion_steps", 1, 1_000_000),
    ("fusion_width", 1, 1024),
)
_SHARES = ("identity_dropout", "exponent", "decay", "fusion_dropout")
_DURATIONS = ("half_life", "new_within", "fusion_span")


@dataclass(frozen=True, slots=True)
class RankingConfig:
    """Options of a ranking, by their names in a task file's `ranking` section.

    Of both towers: dimension: numbers of a member's vector. tower_history: interactions of a user that are read, the
    newest. negatives: items drawn alike for each training step, beside the positives of the others in it; as many as
    there are items, or more, means all of them. identity_dropout: share of items that are read without their identity
    in training, so that new ones live from their cells. start: where identities begin, `svd` (of which items follow
    each other in the training histories) or `random`.

    Of candidates: history: interactions of a user that are walked from, the newest. Most per source: co_visit, far
    (four links away: walked to from the `far_from` best that are two links away), popular, new, nearest. visits,
    window, exponent: of the walk over co-visitation (interactions followed per item, places apart, how their weight
    falls with the places). decay: how the weight of a history falls with each older interaction. half_life: of
    popularity. new_within: how long an item is new. exclude_seen: whether answers leave out what the user had, where a
    request does not say.

    Of the fusion: fusion_span: the part of the time before validation whose questions it is fitted on, which the towers
    do not see. fusion_steps, fusion_width, fusion_dropout: of its small network.
    """

    dimension: int = 64
    tower_history: int = 64
    history: int = 20
    negatives: int = 2000
    identity_dropout: float = 0.1
    start: str = "svd"
    co_visit: int = 300
    far: int = 150
    far_from: int = 30
    popular: int = 50
    new: int = 50
    nearest: int = 200
    visits: int = 256
    window: int = 20
    exponent: float = 0.35
    decay: float = 0.7
    half_life: str = "30d"
    new_within: str = "30d"
    exclude_seen: bool = False
    fusion_span: str = "30d"
    fusion_steps: int = 1500
    fusion_width: int = 64
    fusion_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, low, high in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise TaskError(f"ranking.{name}", f"an integer from {low} to {high}", value)
        for name in _SHARES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
                raise TaskError(f"ranking.{name}", "a number from 0 to 1", value)
        for name in ("identity_dropout", "fusion_dropout"):
            if getattr(self, name) == 1.0:
                raise TaskError(f"ranking.{name}", "a number from 0 to below 1", 1.0)
        for name in _DURATIONS:
            if self._microseconds(name) == 0:
                raise TaskError(f"ranking.{name}", DURATION_EXPECTED, getattr(self, name))
        if self.start not in START:
            raise TaskError("ranking.start", f"one of {', '.join(START)}", self.start)
        if not isinstance(self.exclude_seen, bool):
            raise TaskError("ranking.exclude_seen", "yes or no", self.exclude_seen)
        if not self.co_visit + self.popular + self.new + self.nearest:
            raise TaskError("ranking.co_visit", "a source of candidates with a number above 0", self.co_visit)

    @property
    def half_life_us(self) -> int:
        """The half-life of popularity in microseconds."""
        return self._microseconds("half_life")

    @property
    def new_within_us(self) -> int:
        """How long an item is new, in microseconds."""
        return self._microseconds("new_within")

    @property
    def fusion_span_us(self) -> int:
        """The time whose questions the fusion is fitted on, in microseconds."""
        return self._microseconds("fusion_span")

    def _microseconds(self, name: str) -> int:
        try:
            return parse_duration_us(str(getattr(self, name)))
        except ValueError:
            raise TaskError(f"ranking.{name}", DURATION_EXPECTED, getattr(self, name)) from None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        durations = {name: format_duration(self._microseconds(name)) for name in _DURATIONS}
        return asdict(self) | durations

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RankingConfig:
        """Build from a task's `ranking` mapping; raises TaskError for a name that does not exist or a bad value."""
        return options_of(cls, "ranking", values)
