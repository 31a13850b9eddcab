from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from graph_transformer.errors import TrainingDiverged
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.steps import Average, Steps, learning_rate
from graph_transformer.training import Training


class Line(nn.Module):
    """One weight matrix, a part that is left out at random, and a count that the model keeps itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(4, 1)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of float32[B, 4]."""
        if self.training:
            self.seen += len(x)
        return self.weight(self.dropout(x))


def steps_of(training: Training, *, seed: int = 0, compiled: bool = False, loss: Any = None) -> Steps[Tensor]:
    """Steps that fit the sum of four numbers."""
    torch.manual_seed(0)
    loss = loss or (lambda model, x: (model(x).float() - x.sum(dim=1, keepdim=True)).square().mean())
    return Steps(Line(), loss, training, seed=seed, runtime=Runtime(compile=compiled))


def taken(steps: Steps[Tensor], count: int) -> list[float]:
    """The losses of so many steps, on inputs that depend on the step's number only."""
    losses = []
    for _ in range(count):
        x = torch.randn(32, 4, generator=torch.Generator().manual_seed(steps.step))
        losses.append(steps.take(x, 0.05).loss)
    return losses


def test_the_rate_warms_up_and_comes_down_to_zero() -> None:
    """Zero at the start, the full rate after the warm-up, half of it half way, zero at the end."""
    training = Training(learning_rate=1.0, warm_up=0.1)
    assert learning_rate(training, 0.0) == 0.0
    assert learning_rate(training, 0.05) == pytest.approx(0.5)
    assert learning_rate(training, 0.1) == pytest.approx(1.0)
    assert learning_rate(training, 0.55) == pytest.approx(0.5)
    assert learning_rate(training, 1.0) == pytest.approx(0.0)
    assert learning_rate(Training(learning_rate=1.0, warm_up=0.0), 0.0) == 1.0


def test_the_average_follows_fast_then_slowly() -> None:
    """Early the average is nearly the model, later it moves by one part in two hundred a step; counts are copied."""
    model = Line()
    average = Average(model, 0.995)
    weight, mean = model.weight.bias, average.model.weight.bias
    with torch.no_grad():
        weight.fill_(1.0)
        mean.fill_(0.0)
        model.seen.fill_(7.0)
    average.update(1)
    assert mean.item() == pytest.approx(1.0 - 2.0 / 11.0)
    assert average.model.seen.item() == 7.0
    with torch.no_grad():
        mean.fill_(0.0)
    average.update(100_000)
    assert mean.item() == pytest.approx(0.005, rel=1e-3)
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())


@pytest.mark.parametrize("bfloat16", [False, True])
def test_steps_learn(bfloat16: bool) -> None:
    """The loss falls, also in mixed precision, where the weights stay float32."""
    steps = steps_of(Training(bfloat16=bfloat16, weight_decay=0.0))
    losses = taken(steps, 150)
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    assert steps.step == 150
    assert all(parameter.dtype == torch.float32 for parameter in steps.model.parameters())


def test_equal_seeds_take_equal_steps_wherever_they_go_on() -> None:
    """Restored in the middle, in a process whose dice stand elsewhere, the end is the same to the last bit."""
    training = Training(weight_decay=0.1)
    whole, first, other = steps_of(training), steps_of(training), steps_of(training, seed=1)
    losses = taken(whole, 10)
    assert taken(first, 6) == losses[:6]
    rest = steps_of(training)
    rest.restore(first.state())
    torch.rand(17)
    assert taken(rest, 4) == losses[6:]
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name])
        assert torch.equal(whole.average.model.state_dict()[name], rest.average.model.state_dict()[name])
    assert taken(other, 10) != losses


def test_gradients_are_clipped_and_their_length_told() -> None:
    """A loss a thousand times as steep moves the weights no further than its clipped gradient can."""
    steep = steps_of(
        Training(clip_norm=0.5, weight_decay=0.0),
        loss=lambda model, x: 1e6 * model(x).mean(),
    )
    found = steep.take(torch.ones(8, 4), 0.01)
    assert found.gradient > 1e5
    total = torch.stack([p.grad.norm() for p in steep.model.parameters()]).norm()
    assert total.item() == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_training_before_it_harms(bad: float) -> None:
    """The error names the step and what to try; the weights are those before the step."""
    steps = steps_of(Training(learning_rate=0.02))
    taken(steps, 2)
    before = {name: value.clone() for name, value in steps.model.state_dict().items() if name != "seen"}
    with pytest.raises(TrainingDiverged, match=r"step 3: .*learning_rate than 0\.02"):
        steps.take(torch.full((8, 4), bad), 0.02)
    assert all(torch.equal(steps.model.state_dict()[name], value) for name, value in before.items())
    assert steps.step == 2


def test_a_gradient_that_is_no_number_ends_training_too() -> None:
    """A finite loss whose gradient is not finite would poison the weights just the same."""
    steps = steps_of(Training(), loss=lambda model, x: (model(x) * 0.0).abs().sqrt().sum())
    with pytest.raises(TrainingDiverged, match="gradient nan"):
        steps.take(torch.ones(8, 4), 0.01)


@pytest.mark.slow
def test_compiled_steps_are_the_same_steps() -> None:
    """Through torch.compile the losses agree to rounding, the average included."""
    plain, compiled = steps_of(Training()), steps_of(Training(), compiled=True)
    plain.model.dropout.p = compiled.model.dropout.p = 0.0
    assert taken(compiled, 5) == pytest.approx(taken(plain, 5), rel=1e-4)
