"""What a question asks for, and what its answer looks like."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Levels of a regression's outputs, per step; the middle one is the value."""
MEDIAN = QUANTILES.index(0.5)


class Kind(StrEnum):
    """What is predicted: yes or no, one of classes, several of them, a number, numbers ahead, an order of items."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    FORECAST = "forecast"
    RANKING = "ranking"


@dataclass(frozen=True, slots=True)
class Ranked:
    """What a ranking orders: rows of `items`, which rows of the table `interactions` tie to the entities asked.

    `user_link` and `item_link` are links of `interactions`, to the target's table and to `items`; `top` is how many
    items an answer has.
    """

    interactions: str
    user_link: str
    item_link: str
    items: str
    top: int


@dataclass(frozen=True, slots=True)
class Target:
    """The part of a task that decides the form of labels and answers.

    Event level: a row of `table` just before it happens, its `column` hidden. Entity level: an entity of `table` as of
    a time; the label forms until `horizon_us` after it. `classes` are the texts of a multiclass or multilabel target in
    order of the outputs; `steps` the consecutive windows of a forecast; `task_table` the table of past labels;
    `ranked` what a ranking orders.
    """

    kind: Kind
    table: str
    event_level: bool
    column: str | None = None
    classes: tuple[str, ...] = ()
    horizon_us: int = 0
    steps: int = 1
    task_table: str | None = None
    ranked: Ranked | None = None

    @property
    def outputs(self) -> int:
        """How many numbers the model gives per question."""
        if self.kind in (Kind.MULTICLASS, Kind.MULTILABEL):
            return len(self.classes)
        if self.kind in (Kind.REGRESSION, Kind.FORECAST):
            return self.steps * len(QUANTILES)
        return 1

    @property
    def is_number(self) -> bool:
        """Whether the label is a number (or several): answers are quantiles, not probabilities."""
        return self.kind in (Kind.REGRESSION, Kind.FORECAST)
