from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graph_transformer.encoding.collate import Encoding
from graph_transformer.errors import StateMismatch, TrainingDiverged
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.loop import Fitted, Limits, Progress, Validator, dice_kept, fit, take_weights
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.heads import Unit
from graph_transformer.model import build_model
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task

SCRIPT = Path(__file__).parent / "fit_process.py"


@pytest.fixture
def fitted(world: Any, quick: Task, examples: Examples, encoding: Encoding) -> Any:
    """Fits the quick task; options as of `fit`."""

    def run(task: Task = quick, **options: Any) -> Fitted:
        options = {"phase": "train", "limits": Limits(task.training.steps), "unit": Unit()} | options
        return fit(world.view, task, examples, encoding, **options)

    return run


def scored(*scores: float) -> Validator:
    """A validator that gives these, whatever the model."""
    values = iter(scores)
    return Validator("score", True, lambda _: next(values))


def weights(found: Fitted) -> dict[str, torch.Tensor]:
    """The kept weights."""
    return dict(found.model.state_dict())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether all weights are the same to the last bit."""
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_chosen_steps_weights_are_kept(fitted: Any) -> None:
    """A clearly better step is kept although later ones follow; the validations are told."""
    early, late = fitted(validator=scored(0.9, 0.5)), fitted(validator=scored(0.5, 0.9))
    assert (early.step, late.step) == (4, 8)
    assert late.validations == ((4, 0.5), (8, 0.9))
    assert not same(weights(early), weights(late))


def test_patience_ends_the_fitting(fitted: Any, quick: Task) -> None:
    """After so many validations without a better one no further step is made."""
    patient = replace(quick, training=replace(quick.training, patience=1, steps=100))
    found = fitted(patient, validator=scored(0.9, 0.5, 0.4))
    assert (found.step, len(found.losses)) == (4, 8)


def test_every_step_is_reported(fitted: Any) -> None:
    """Phase, step, loss, rate and waiting arrive in order; fewer steps than the schedule's may be asked for."""
    seen: list[Progress] = []
    found = fitted(phase="refit", limits=Limits(5), report=seen.append)
    assert [(p.phase, p.step, p.steps) for p in seen] == [("refit", step, 5) for step in range(1, 6)]
    assert all(p.loss > 0 and p.gradient > 0 and p.validation is None for p in seen)
    assert all(0.0 <= p.wait_share <= 1.0 for p in seen)
    assert [p.rate for p in seen] == sorted((p.rate for p in seen), reverse=True) or seen[0].rate == 0.0
    assert (found.step, found.validations) == (5, ())
    assert found.losses == tuple((p.step, p.loss) for p in seen)
    assert found.wait_share == seen[-1].wait_share


def test_a_validation_is_reported_by_its_name(fitted: Any) -> None:
    """From the first validation on, progress carries the newest one and the metric's name."""
    seen: list[Progress] = []
    fitted(validator=scored(0.25, 0.5), report=seen.append)
    assert [p.validation for p in seen] == [None] * 3 + [0.25] * 4 + [0.5]
    assert {p.metric for p in seen} == {"score"}


def test_the_loss_falls(fitted: Any, task: Task) -> None:
    """Sixty steps on the small world take the loss clearly below where it began."""
    losses = [loss for _, loss in fitted(task, limits=Limits(60)).losses]
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


def test_mixed_precision_learns_too(fitted: Any, task: Task) -> None:
    """In bfloat16 the loss falls as well; the weights are float32."""
    mixed = replace(task, training=replace(task.training, bfloat16=True))
    found = fitted(mixed, limits=Limits(60))
    losses = [loss for _, loss in found.losses]
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])
    assert all(value.dtype == torch.float32 for value in weights(found).values() if value.is_floating_point())


def test_numbers_are_fitted_as_well(world: Any, quick: Task, examples: Examples, encoding: Encoding) -> None:
    """A regression on the same rows has its seven quantiles, which start at those of its labels."""
    target = Target(Kind.REGRESSION, "transactions", event_level=True, column="amount")
    number = replace(quick, target=target)
    label = torch.linspace(0, 10, len(examples)).numpy()
    found = fit(
        world.view, number, replace(examples, label=label), encoding, phase="train", limits=Limits(8), unit=Unit()
    )
    assert found.losses[-1][1] > 0
    assert found.model.eval()


def test_equal_seeds_give_equal_weights_whatever_the_threads(fitted: Any) -> None:
    """One sampler or three, the weights are the same bit for bit; another seed gives others; dice are left alone."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = fitted(seed=1), fitted(seed=1, runtime=Runtime(samplers=3)), fitted(seed=2)
    assert same(weights(first), weights(again))
    assert first.losses == again.losses
    assert not same(weights(first), weights(other))
    assert torch.equal(torch.rand(1), expected)


def test_dice_are_kept() -> None:
    """Whatever is thrown inside, the caller's next number is the one it would have been."""
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with dice_kept("cpu"):
        torch.manual_seed(2)
        torch.rand(5)
    assert torch.equal(torch.rand(1), expected)


def alone(out: Path, state: Path, *, steps: int = 10, kill_at: int = 0) -> int:
    """Fit in a process of its own; return its exit code."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, str(SCRIPT), str(out), str(state), str(steps), str(kill_at)]
    return subprocess.run(arguments, env=environment, timeout=240, check=False).returncode


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Killed (-9) twice and resumed, weights, losses and validations are those of a training left alone, bit for bit.

    Neighbors and cut-offs at random and dropout are on; the state is written after every step.
    """
    assert alone(tmp_path / "whole.pt", tmp_path / "a") == 0
    for at in (3, 7):
        assert alone(tmp_path / "none.pt", tmp_path / "b", kill_at=at) == -signal.SIGKILL
    assert not (tmp_path / "none.pt").exists()
    assert alone(tmp_path / "resumed.pt", tmp_path / "b") == 0
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)
    resumed = torch.load(tmp_path / "resumed.pt", weights_only=True)
    assert same(whole["weights"], resumed["weights"])
    assert whole["losses"] == resumed["losses"]
    assert whole["validations"] == resumed["validations"]
    assert whole["step"] == resumed["step"]


def test_a_finished_phase_is_not_fitted_again(fitted: Any, tmp_path: Path) -> None:
    """Resumed after its end, the phase gives what it kept without a step; not resumed, it starts anew."""
    kept = Runtime(state=tmp_path, resume=True)
    seen: list[Progress] = []
    first = fitted(validator=scored(0.9, 0.5), runtime=kept)
    again = fitted(validator=scored(), runtime=kept, report=seen.append)
    assert seen == []
    assert (again.step, again.validations, again.losses) == (first.step, first.validations, first.losses)
    assert same(weights(first), weights(again))
    fitted(validator=scored(0.9, 0.5), runtime=replace(kept, resume=False), report=seen.append)
    assert len(seen) == 8


def test_only_the_same_training_is_resumed(fitted: Any, tmp_path: Path) -> None:
    """With another seed, or other labels, the state is refused."""
    kept = Runtime(state=tmp_path, resume=True)
    fitted(runtime=kept)
    with pytest.raises(StateMismatch):
        fitted(runtime=kept, seed=1)


def test_a_loss_that_is_no_number_is_an_error(world: Any, quick: Task, examples: Examples, encoding: Encoding) -> None:
    """A label that is no number ends the training at its step, with a sentence to act on."""
    target = Target(Kind.REGRESSION, "transactions", event_level=True, column="amount")
    label = np.full(len(examples), np.nan, dtype=np.float32)
    broken = replace(quick, target=target)
    with pytest.raises(TrainingDiverged, match="step 1"):
        fit(
            world.view,
            broken,
            replace(examples, label=label),
            encoding,
            phase="train",
            limits=Limits(8),
            unit=Unit(),
        )


def test_a_budget_ends_the_fitting(fitted: Any, task: Task) -> None:
    """With a second to spend, far fewer steps are made than asked for, and the rate comes down to zero by then."""
    endless = replace(task, training=replace(task.training, steps=1_000_000))
    seen: list[Progress] = []
    found = fitted(endless, limits=Limits(1_000_000, budget_s=1.0), report=seen.append)
    assert 0 < found.step < 10_000
    assert seen[-1].rate < 0.2 * max(p.rate for p in seen)


def test_logs_are_written_where_asked(fitted: Any, tmp_path: Path) -> None:
    """A run per phase for TensorBoard; none without a folder."""
    fitted(runtime=Runtime(logs=tmp_path / "logs"))
    assert list((tmp_path / "logs" / "train").glob("events.out.tfevents*"))


def test_given_weights_are_taken_where_they_fit(encoding: Encoding, task: Task) -> None:
    """Names and shapes that agree are taken, by every member of an ensemble; the rest stays new."""
    layout = encoding.layout()
    torch.manual_seed(0)
    source = build_model(layout, task.model, 40)
    target = build_model(layout, replace(task.model, members=2), 1)
    last = [name for name, value in source.state_dict().items() if value.shape[:1] == (40,)]
    taken = take_weights(target, source.state_dict())
    assert taken == 2 * (len(source.state_dict()) - len(last))
    for member in target.members:  # type: ignore[union-attr]
        assert isinstance(member, nn.Module)
        for name, value in member.state_dict().items():
            if name not in last:
                assert torch.equal(value, source.state_dict()[name])


def test_fitting_starts_from_given_weights(fitted: Any, encoding: Encoding, task: Task) -> None:
    """The losses differ from those of a new model, and equal those of another run with the same weights."""
    torch.manual_seed(9)
    given = build_model(encoding.layout(), task.model, 3).state_dict()
    new, first, again = fitted(), fitted(pretrained=given), fitted(pretrained=given)
    assert first.losses == again.losses
    # The last layer is new and starts at the prior, so the first losses are equal.
    assert first.losses[-1] != new.losses[-1]
