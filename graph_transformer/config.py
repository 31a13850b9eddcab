"""The shape of a model and how it is kept from overfitting: plain values, part of a task and of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graph_transformer.errors import TaskError
from graph_transformer.importing import check_path
from graph_transformer.options import options_of

MEMBERS_MAX = 16
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "cpu": {},
    "gpu": {
        "width": 256,
        "layers": 3,
        "heads": 16,
        "sums": 8,
        "mutual": 2,
        "dropout": 0.1,
        "token_dropout": 0.2,
        "compile": True,
    },
}
CELLS = ("sum", "attention")
TOLD = ("tallies", "comparisons")
"""Options by which a model is told numbers of a seed beside what it attends to."""
ABSENT = dict.fromkeys(TOLD, False)
"""Options that say nothing with this value: checkpoints and runs from before there was a choice stay what they were."""
_RANGES = (
    ("layers", 1, 16),
    ("sums", 0, 64),
    ("centroids", 0, 65_536),
    ("mutual", 0, 16),
    ("members", 1, MEMBERS_MAX),
)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Options of the model, by their names in a task file.

    width: floats per row vector. layers: attention blocks. heads: attention heads (divides width). per_path: each
    link path of events has as many heads of its own. sums: gated sums beside them, 0 for none. counts: the seed reads
    how many rows of each path there are by age. tallies: and what happened on each path of events in growing windows,
    and how long ago. comparisons: and how its own numbers compare with those of its paths' rows of the same table.
    cells: how a row's cells become one vector, `sum` or `attention`. centroids: learned points of the whole graph that
    the seed attends to. mutual: blocks in which rows attend to each other first. dropout: on row vectors, block outputs
    and the head. token_dropout: in training each neighborhood loses a share of its rows drawn from 0 to this. members:
    models whose outputs are averaged. The defaults are those of a week of payments; longer histories bear width 64, two
    layers and less dropout.

    compile: blocks go through torch.compile, which takes a minute at the start. text_encoder: import path of a function
    from n texts to float32[n, d] that reads text columns, in the place of hashed n-grams. module: import path of a
    class that is built and called in the place of ours, `Class(layout, config, outputs)`, with a `Batch`.
    """

    width: int = 32
    layers: int = 1
    heads: int = 8
    per_path: bool = False
    sums: int = 4
    counts: bool = True
    tallies: bool = False
    comparisons: bool = False
    cells: str = "sum"
    centroids: int = 0
    mutual: int = 0
    dropout: float = 0.3
    token_dropout: float = 0.5
    members: int = 1
    compile: bool = False
    text_encoder: str | None = None
    module: str | None = None

    def __post_init__(self) -> None:
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise TaskError("model.width", f"a positive multiple of heads ({self.heads})", self.width)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise TaskError(f"model.{name}", f"an integer from {low} to {high}", value)
        if self.cells not in CELLS:
            raise TaskError("model.cells", f"one of {', '.join(CELLS)}", self.cells)
        for name in ("module", "text_encoder"):
            if getattr(self, name) is not None:
                check_path(f"model.{name}", getattr(self, name))
        for name in ("dropout", "token_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise TaskError(f"model.{name}", "a number from 0 to below 1", getattr(self, name))

    @classmethod
    def preset(cls, name: str) -> ModelConfig:
        """Return the model of a size: `cpu` scores in about 2 ms on one core, `gpu` is for one; raises TaskError."""
        if name not in PRESETS:
            raise TaskError("model", f"one of {', '.join(PRESETS)}", name)
        return cls(**PRESETS[name])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def to_saved(self) -> dict[str, Any]:
        """Return `to_dict` without what says nothing and older programs do not know (`ABSENT`)."""
        return {name: value for name, value in self.to_dict().items() if (name, value) not in ABSENT.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from a task's `model` mapping; raises TaskError for a name that does not exist."""
        return options_of(cls, "model", values)
