"""How a model is fitted: plain values, part of a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graph_transformer.errors import TaskError
from graph_transformer.options import options_of

TRANSFORMS = ("auto", "identity", "signed_log")


@dataclass(frozen=True, slots=True)
class Training:
    """Options of fitting, by their names in a task or plan file.

    `steps` of AdamW on `batch` examples each; where a binary label's rarer kind has less than `rare_share`, batches
    hold that share of it (the answers' prior is corrected for it). `patience`: validations without a better one before
    fitting ends, 0 never. `staleness_share` of the examples are asked with a graph that is up to `staleness_days` old,
    so that the model knows how knowledge ages. `transform` of a numerical label. `bfloat16`: mixed precision.
    """

    steps: int = 600
    batch: int = 192
    rare_share: float = 0.125
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warm_up: float = 0.05
    clip_norm: float = 1.0
    ema: float = 0.995
    evaluate_every: int = 100
    patience: int = 0
    validation_examples: int = 10_000
    staleness_share: float = 0.0
    staleness_days: float = 0.0
    transform: str = "auto"
    bfloat16: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "evaluate_every", "validation_examples"):
            self._whole(name, 1, "a positive integer")
        self._whole("patience", 0, "an integer of 0 or more")
        for name in ("warm_up", "ema", "rare_share", "staleness_share"):
            if not 0.0 <= getattr(self, name) <= (0.5 if name == "rare_share" else 1.0):
                high = "0.5" if name == "rare_share" else "1"
                raise TaskError(f"training.{name}", f"a number from 0 to {high}", getattr(self, name))
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0.0:
                raise TaskError(f"training.{name}", "a number above 0", getattr(self, name))
        for name in ("weight_decay", "staleness_days"):
            if not getattr(self, name) >= 0.0:
                raise TaskError(f"training.{name}", "a number of 0 or more", getattr(self, name))
        if self.transform not in TRANSFORMS:
            raise TaskError("training.transform", f"one of {', '.join(TRANSFORMS)}", self.transform)

    def _whole(self, name: str, least: int, expected: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise TaskError(f"training.{name}", expected, value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Training:
        """Build from a `training` mapping; raises TaskError for a name that does not exist or a value out of range."""
        return options_of(cls, "training", values)
