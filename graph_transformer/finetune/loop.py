"""The fitting loop: AdamW with warm-up and cosine, clipped gradients, a running average of the weights, early choice.

The average (EMA) is validated and kept; of several validations the best one's weights win, of equals the latest's.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from graph_transformer.encoding.collate import Encoding
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.feed import Feed
from graph_transformer.model import GraphTransformer
from graph_transformer.task import Task, Training

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

EMA_START = 10.0
"""The average follows faster at first: decay (1 + step) / (EMA_START + step), until the task's own."""


CHOICE_TOLERANCE = 0.005
"""Validations this close are equal (their sampling error is several times larger): the later one wins, as its rate is
lower and its average longer."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the fitting is: phase, steps done of steps, last loss, last validated average precision."""

    phase: str
    step: int
    steps: int
    loss: float
    average_precision: float | None


Report = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop: after `steps`, or when `budget_s` seconds are spent, whichever is first."""

    steps: int
    budget_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """The kept weights in evaluation mode, the step they are of, and the validations (step, average precision)."""

    model: GraphTransformer
    step: int
    validations: tuple[tuple[int, float], ...]


def learning_rate(training: Training, progress: float) -> float:
    """Return the rate at `progress` 0 to 1 of the whole schedule: linear warm-up, then a cosine down to zero."""
    if progress < training.warm_up:
        return training.learning_rate * (progress / training.warm_up)
    done = (progress - training.warm_up) / (1.0 - training.warm_up)
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))


class Average:
    """A running average of a model's weights, and the model that carries it."""

    def __init__(self, model: GraphTransformer, decay: float, build: Callable[[], GraphTransformer]) -> None:
        self.model = build().eval()
        self.model.load_state_dict(model.state_dict())
        self.model.requires_grad_(requires_grad=False)
        self._decay = decay
        self._pairs = list(zip(self.model.parameters(), model.parameters(), strict=True))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the model after `step` steps."""
        decay = min(self._decay, (1.0 + step) / (EMA_START + step))
        for mean, value in self._pairs:
            mean.lerp_(value, 1.0 - decay)


def fit(
    view: GraphView,
    task: Task,
    examples: Examples,
    encoding: Encoding,
    *,
    phase: str,
    limits: Limits,
    validate: Callable[[GraphTransformer], float] | None = None,
    seed: int = 0,
    device: str = "cpu",
    report: Report = silent,
) -> Fitted:
    """Fit a new model to examples; equal seeds on one machine and thread give equal weights unless a budget ends it.

    `validate` is called every `evaluate_every` steps and at the end with the averaged model; without it the last
    weights are kept. The schedule spans the task's steps even if `limits.steps` ends it earlier; a budget shrinks it.
    """
    training = task.training
    with torch.random.fork_rng(devices=[]), Feed(view, task, examples, encoding, seed=seed) as feed:
        torch.manual_seed(seed)
        layout = encoding.layout()
        model = GraphTransformer(layout, task.model).to(device).train()
        _start_at_prior(model, examples, training)
        average = Average(model, training.ema, lambda: GraphTransformer(layout, task.model).to(device))
        optimizer = torch.optim.AdamW(_groups(model, training.weight_decay), lr=training.learning_rate)
        best: tuple[float, int, dict[str, Tensor]] | None = None
        validations: list[tuple[int, float]] = []
        started, step, done = time.monotonic(), 0, 0.0
        for fed in feed:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, done)
            logit = model(fed.batch.to(device))
            loss = functional.binary_cross_entropy_with_logits(logit, fed.label.to(device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            step += 1
            average.update(step)
            spent = 0.0 if limits.budget_s is None else (time.monotonic() - started) / limits.budget_s
            done = max(step / training.steps, spent)
            ended = step >= limits.steps or spent >= 1.0
            if validate is not None and (ended or step % training.evaluate_every == 0):
                validations.append((step, validate(average.model)))
                if best is None or validations[-1][1] >= best[0] - CHOICE_TOLERANCE:
                    highest = validations[-1][1] if best is None else max(best[0], validations[-1][1])
                    best = highest, step, {k: v.clone() for k, v in average.model.state_dict().items()}
            report(Progress(phase, step, limits.steps, loss.item(), validations[-1][1] if validations else None))
            if ended:
                break
        if best is not None:
            average.model.load_state_dict(best[2])
            return Fitted(average.model, best[1], tuple(validations))
        return Fitted(average.model, step, ())


def _start_at_prior(model: GraphTransformer, examples: Examples, training: Training) -> None:
    """Let the first logit be the share of positives in a batch: no steps are spent on finding it."""
    share = trained_share(examples, training)
    last = model.head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.fill_(math.log(share / (1.0 - share)))


def trained_share(examples: Examples, training: Training) -> float:
    """Return the share of positives in every batch."""
    positives = min(training.positives, int(examples.label.sum()))
    return positives / (positives + min(training.negatives, int((~examples.label).sum())))


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Decay matrices; not biases, norms, embeddings of few entries or the heads' starts."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_free = parameter.ndim < 2 or name.endswith((".bias", ".slope")) or ".norm" in name
        (free if is_free else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
