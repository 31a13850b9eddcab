"""Which step's weights are kept: the best validation's; of those as good, the latest's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

CHOICE_TOLERANCE = 0.005
"""Validations this close, relative to the best, are equal (their sampling error is several times larger): the later one
wins, as its rate is lower and its average longer."""


@dataclass(frozen=True, slots=True)
class Validator:
    """Measures a model on later examples: the metric's name, whether more of it is better, and how to compute it."""

    metric: str
    higher_is_better: bool
    measure: Callable[[nn.Module], float]


@dataclass
class Choice:
    """Which validation's weights are kept, and whether patience with later ones has run out."""

    validator: Validator
    patience: int
    validations: list[tuple[int, float]]
    best: float | None = None
    step: int = 0
    weights: dict[str, Tensor] | None = None

    def look(self, model: nn.Module, step: int) -> bool:
        """Validate the model after `step` steps; return whether to stop."""
        found = self.validator.measure(model)
        self.validations.append((step, found))
        sign = 1.0 if self.validator.higher_is_better else -1.0
        better = self.best is None or sign * (found - self.best) > 0
        if self.best is None or sign * (found - self.best) >= -CHOICE_TOLERANCE * abs(self.best):
            self.step, self.weights = step, {k: v.clone() for k, v in model.state_dict().items()}
        if better:
            self.best = found
        return bool(self.patience) and sum(at > self.step for at, _ in self.validations) >= self.patience

    @property
    def last(self) -> float | None:
        """The newest validation."""
        return self.validations[-1][1] if self.validations else None

    def state(self) -> dict[str, Any]:
        """Return what `restore` reads."""
        return {"validations": self.validations, "best": self.best, "step": self.step, "weights": self.weights}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from `state`'s values."""
        self.validations = [(int(step), float(found)) for step, found in values["validations"]]
        self.best, self.step, self.weights = values["best"], values["step"], values["weights"]
