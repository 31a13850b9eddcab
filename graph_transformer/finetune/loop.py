"""The fitting loop: steps with warm-up and cosine, validations, states to go on from after a kill, early choice.

    Ahead ─► Steps ─► Choice of the validated average ─► Fitted
                └──► Progress: the screen, TensorBoard; StateFile

The average (EMA) is validated and kept; of several validations the best one's weights win, of equals the latest's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graph_transformer.encoding.collate import Encoding
from graph_transformer.ensemble import labels_for
from graph_transformer.finetune.ahead import Ahead
from graph_transformer.finetune.choice import CHOICE_TOLERANCE, Choice, Validator
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.feed import Fed, feed, rare_share
from graph_transformer.finetune.logs import logs_in
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.state import StateFile, key_of
from graph_transformer.finetune.steps import Average, Steps, Taken, learning_rate
from graph_transformer.heads import Unit, loss_of, start_of
from graph_transformer.model import build_model
from graph_transformer.task import Task
from graph_transformer.training import Training

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

__all__ = [
    "CHOICE_TOLERANCE", "Average", "Choice", "Fitted", "Limits", "Loop", "Progress", "Report", "Validator", "fit",
    "learning_rate", "silent", "take_weights",
]  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """Where the fitting is: phase, steps done of steps, last loss, last validation of the metric named.

    wait_share: the part of the steps' time that the model waited for its input. rate: the learning rate of the step.
    gradient: the gradient's length before it was clipped.
    """

    phase: str
    step: int
    steps: int
    loss: float
    validation: float | None
    metric: str = ""
    wait_share: float = 0.0
    rate: float = 0.0
    gradient: float = 0.0


Report = Callable[[Progress], None]


@runtime_checkable
class KnowsPrior(Protocol):
    """A model whose outputs can be told where to start."""

    def start_at(self, prior: Tensor) -> None:
        """Make `prior` float32[outputs] the first answers."""


def silent(_: Progress) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop: after `steps`, or when `budget_s` seconds are spent, whichever is first."""

    steps: int
    budget_s: float | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """The kept weights in evaluation mode, the step they are of, the validations (step, metric), losses (step, loss).

    `wait_share` is the part of the steps' time that the model waited for its input.
    """

    model: nn.Module
    step: int
    validations: tuple[tuple[int, float], ...]
    losses: tuple[tuple[int, float], ...] = ()
    wait_share: float = 0.0


@dataclass
class Loop(Generic[T]):
    """Takes steps until the limits, the schedule or patience ends; `run` is called once.

    `source` gives the inputs of the steps from one on, as a context. `key` names all that decides the result.
    """

    steps: Steps[T]
    source: Callable[[int], AbstractContextManager[Ahead[Any, T]]]
    training: Training
    limits: Limits
    phase: str
    key: str
    runtime: Runtime
    choice: Choice | None = None
    report: Report = silent
    losses: list[tuple[int, float]] = field(default_factory=list)
    spent_s: float = 0.0
    waited_s: float = 0.0
    stepped_s: float = 0.0
    ended: bool = False

    def run(self) -> Fitted:
        """Fit, or go on fitting, and return what is kept.

        Raises:
            StateMismatch: the state to go on from is of another training.
            TrainingDiverged: the loss is no number any more.
        """
        file = None if self.runtime.state is None else StateFile(self.runtime.state, self.phase, self.key)
        if file is not None and self.runtime.resume and (saved := file.load()) is not None:
            self._restore(saved)
        with dice_kept(self.runtime.device):
            if not self.ended:
                self._fit(file)
        return self._kept()

    def _fit(self, file: StateFile | None) -> None:
        first = self.runtime.ranks.is_first
        saved_at = time.monotonic()
        folder = self.runtime.logs if first else None
        with logs_in(folder, self.phase, self.steps.step) as log, self.source(self.steps.step) as ahead:
            items = iter(ahead)
            while not self.ended:
                began, rate = time.monotonic(), learning_rate(self.training, self._done())
                item = next(items)
                taken = self.steps.take(item, rate)
                self.losses.append((self.steps.step, taken.loss))
                self.stepped_s += time.monotonic() - began
                looked = self._look()
                self.waited_s, self.spent_s = ahead.waited_s, self.spent_s + time.monotonic() - began
                if looked or self.limits.budget_s is not None:
                    self.ended = self.runtime.ranks.agree(self.ended)
                progress = self._progress(taken, rate)
                if first:
                    log(progress, looked)
                    self.report(progress)
                due = looked or self.ended or time.monotonic() - saved_at >= self.runtime.save_every_s
                if first and file is not None and due:
                    file.save(self._state())
                    saved_at = time.monotonic()

    def _look(self) -> bool:
        """Decide whether the fitting has ended, and validate where it is time to; return whether it was."""
        step, limits = self.steps.step, self.limits
        self.ended = step >= limits.steps or self._spent() >= 1.0
        if self.choice is None or not (self.ended or step % self.training.evaluate_every == 0):
            return False
        if self.runtime.ranks.is_first:
            self.ended = self.choice.look(self.steps.average.model, step) or self.ended
        return True

    def _spent(self) -> float:
        """Return the share of the budget that is spent; what this step took so far does not count yet."""
        return 0.0 if self.limits.budget_s is None else self.spent_s / self.limits.budget_s

    def _done(self) -> float:
        done = max(self.steps.step / self.training.steps, self._spent())
        return done if self.limits.budget_s is None else self.runtime.ranks.agree(done)

    def _kept(self) -> Fitted:
        ranks, model, step = self.runtime.ranks, self.steps.average.model, self.steps.step
        choice = self.choice
        if choice is not None and choice.weights is not None:
            model.load_state_dict(choice.weights)
            step = choice.step
        ranks.spread(model)
        validations = tuple(choice.validations) if choice is not None else ()
        step, validations = ranks.agree((step, validations))
        return Fitted(model, step, validations, tuple(self.losses), self._wait_share())

    def _wait_share(self) -> float:
        return self.waited_s / self.stepped_s if self.stepped_s else 0.0

    def _progress(self, taken: Taken, rate: float) -> Progress:
        return Progress(
            phase=self.phase,
            step=self.steps.step,
            steps=self.limits.steps,
            loss=taken.loss,
            validation=None if self.choice is None else self.choice.last,
            metric="" if self.choice is None else self.choice.validator.metric,
            wait_share=self._wait_share(),
            rate=rate,
            gradient=taken.gradient,
        )

    def _state(self) -> dict[str, Any]:
        return {
            "steps": self.steps.state(),
            "choice": None if self.choice is None else self.choice.state(),
            "losses": self.losses,
            "spent_s": self.spent_s,
            "ended": self.ended,
        }

    def _restore(self, values: Mapping[str, Any]) -> None:
        self.steps.restore(values["steps"])
        if self.choice is not None:
            self.choice.restore(values["choice"])
        self.losses = [(int(step), float(loss)) for step, loss in values["losses"]]
        self.spent_s, self.ended = values["spent_s"], values["ended"]


def fit(
    view: GraphView,
    task: Task,
    examples: Examples,
    encoding: Encoding,
    *,
    phase: str,
    limits: Limits,
    unit: Unit,
    validator: Validator | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    report: Report = silent,
    pretrained: Mapping[str, Tensor] | None = None,
) -> Fitted:
    """Fit a new model to examples; equal seeds on one machine and thread give equal weights unless a budget ends them.

    The validator is asked every `evaluate_every` steps and at the end about the averaged model; without one the last
    weights are kept. The schedule spans the task's steps even if `limits.steps` ends it earlier; a budget shrinks it.
    `pretrained` weights replace the new model's where name and shape agree.

    Raises:
        StateMismatch: the state to go on from is of another training.
        TrainingDiverged: the loss is no number any more.
    """
    runtime = Runtime() if runtime is None else runtime
    training, target, device = task.training, task.target, runtime.device

    def loss(model: nn.Module, fed: Fed) -> Tensor:
        raw = model(fed.batch.to(device))
        return loss_of(target, raw, labels_for(raw, fed.label.to(device))) * fed.weight

    with dice_kept(device):
        torch.manual_seed(seed)
        model = build_model(encoding.layout(), task.model, target.outputs)
        if isinstance(model, KnowsPrior):
            share = rare_share(target, examples.label, training)
            model.start_at(start_of(target, unit.encode(examples.label), share))
    if pretrained is not None:
        take_weights(model, pretrained)
    values = {
        "task": task.to_dict(), "phase": phase, "steps": limits.steps, "seed": seed, "unit": unit.to_dict(),
        "ranks": runtime.ranks.size, "statistics": encoding.statistics.to_dict(),
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {name: tensor.cpu().numpy() for name, tensor in (pretrained or {}).items()}
    arrays |= {"row": examples.row, "cutoff": examples.cutoff_time_us, "label": examples.label}
    return Loop(
        steps=Steps(model, loss, training, seed=seed, runtime=runtime),
        source=lambda first: feed(
            view, task, examples, encoding, unit=unit, seed=seed, samplers=runtime.samplers, ranks=runtime.ranks,
            first=first,
        ),
        training=training,
        limits=limits,
        phase=phase,
        key=key_of(values, arrays),
        runtime=runtime,
        choice=None if validator is None else Choice(validator, training.patience, []),
        report=report,
    ).run()  # fmt: skip


def take_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> int:
    """Put weights where name and shape agree, in every member of an ensemble alike; return how many tensors were."""
    found = {}
    for name, value in model.state_dict().items():
        place = name.split(".", 2)[2] if name.startswith("members.") else name
        given = weights.get(name, weights.get(place))
        if given is not None and given.shape == value.shape:
            found[name] = given
    model.load_state_dict(found, strict=False)
    return len(found)


@contextmanager
def dice_kept(device: str) -> Iterator[None]:
    """Leave the caller's random numbers as they were."""
    with torch.random.fork_rng(devices=[torch.device(device)] if device.startswith("cuda") else []):
        yield
