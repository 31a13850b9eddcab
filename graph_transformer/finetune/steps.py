"""One step of fitting: AdamW, clipped gradients, mixed precision, and a running average of the weights (EMA)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from graph_transformer.errors import TrainingDiverged
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.training import Training

T = TypeVar("T")

EMA_START = 10.0
"""The average follows faster at first: decay (1 + step) / (EMA_START + step), until the task's own."""


class Taken(NamedTuple):
    """What a step found: the loss before it, and the length of the gradient before it was clipped."""

    loss: float
    gradient: float


class Average:
    """A running average of a model's weights, and the model that carries it."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self.model.requires_grad_(requires_grad=False)
        self._decay = decay
        self._pairs = list(zip(self.model.parameters(), model.parameters(), strict=True))
        self._buffers = list(zip(self.model.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after `step` steps; what the model counts itself is copied."""
        decay = min(self._decay, (1.0 + step) / (EMA_START + step))
        for mean, value in self._pairs:
            mean.lerp_(value, 1.0 - decay)
        for kept, counted in self._buffers:
            kept.copy_(counted)


class Steps(Generic[T]):
    """A model with its optimizer and its average, fitted a step at a time; `loss` computes that of a step's input."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, T], Tensor],
        training: Training,
        *,
        seed: int,
        runtime: Runtime,
    ) -> None:
        self.model = model.to(runtime.device).train()
        self.average = Average(self.model, training.ema)
        self.step = 0
        self._loss, self._training, self._runtime, self._seed = loss, training, runtime, seed
        self._optimizer = torch.optim.AdamW(_groups(self.model, training.weight_decay), lr=training.learning_rate)
        forward = torch.compile(self.model, dynamic=True) if runtime.compile else self.model
        self._forward = runtime.ranks.wrap(forward)  # type: ignore[arg-type]  # compiled modules are called as modules
        self._device_type = torch.device(runtime.device).type

    def take(self, item: T, rate: float) -> Taken:
        """Make one step at a learning rate.

        Raises:
            TrainingDiverged: the loss or its gradient is not finite; the weights are those before the step.
        """
        # Each step has dice of its own, so that a resumed training throws what an uninterrupted one does.
        torch.manual_seed(_dice(self._seed, self._runtime.ranks.rank, self.step))
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self._device_type, torch.bfloat16, enabled=self._training.bfloat16):
            loss = self._loss(self._forward, item)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._training.clip_norm)
        taken = Taken(loss.item(), norm.item())
        if not (math.isfinite(taken.loss) and math.isfinite(taken.gradient)):
            raise TrainingDiverged(
                f"step {self.step + 1}: the loss is {taken.loss}, the gradient {taken.gradient} long; try a lower "
                f"learning_rate than {self._training.learning_rate:g}, or look for extreme values in the columns"
            )
        self._optimizer.step()
        self.step += 1
        self.average.update(self.step)
        return taken

    def state(self) -> dict[str, Any]:
        """Return what `restore` reads: the weights, the average, the optimizer and the step."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on from `state`'s values."""
        self.step = int(values["step"])
        self.model.load_state_dict(values["model"])
        self.average.model.load_state_dict(values["average"])
        self._optimizer.load_state_dict(values["optimizer"])


def learning_rate(training: Training, progress: float) -> float:
    """Return the rate at `progress` 0 to 1 of the whole schedule: linear warm-up, then a cosine down to zero."""
    if progress < training.warm_up:
        return training.learning_rate * (progress / training.warm_up)
    done = (progress - training.warm_up) / (1.0 - training.warm_up)
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


def _dice(seed: int, rank: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices; not biases, norms, embeddings of few entries or the heads' starts."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_free = parameter.ndim < 2 or name.endswith((".bias", ".slope")) or ".norm" in name
        (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
