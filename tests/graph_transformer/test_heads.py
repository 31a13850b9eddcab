from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.heads import Unit, fit_unit, loss_of, start_of
from graph_transformer.target import MEDIAN, QUANTILES, Kind, Target

BINARY = Target(Kind.BINARY, "orders", event_level=True, column="returned")
NUMBER = Target(Kind.REGRESSION, "orders", event_level=True, column="total")
AHEAD = Target(Kind.FORECAST, "customers", event_level=False, horizon_us=1, steps=2)
ONE_OF = Target(Kind.MULTICLASS, "orders", event_level=True, column="size", classes=("s", "m", "l"))
SOME_OF = Target(Kind.MULTILABEL, "orders", event_level=True, column="tags", classes=("a", "b"))


@pytest.mark.parametrize(("signed_log", "bend"), [(False, 1.0), (True, 1.0), (True, 350.0)])
def test_what_is_encoded_decodes_to_itself(signed_log: bool, bend: float) -> None:
    """Labels of any sign and size come back, and the unit itself survives JSON."""
    unit = Unit(signed_log, center=0.7, scale=2.5, bend=bend)
    label = np.array([-1200.0, -1.0, 0.0, 3.5, 9e5], dtype=np.float32)
    assert np.allclose(unit.decode(unit.encode(label).astype(np.float64)), label, rtol=1e-4, atol=1e-4)
    assert Unit.from_dict(unit.to_dict()) == unit


def test_a_skewed_label_is_learned_on_a_log_scale() -> None:
    """Spending with a long tail goes through the signed log, a bell curve does not; classes have no unit at all."""
    random = np.random.default_rng(0)
    tail, bell = random.lognormal(3, 2, 5000).astype(np.float32), random.normal(5, 2, 5000).astype(np.float32)
    assert fit_unit(NUMBER, tail, "auto").signed_log
    assert not fit_unit(NUMBER, bell, "auto").signed_log
    assert fit_unit(NUMBER, bell, "signed_log").signed_log
    assert not fit_unit(NUMBER, tail, "identity").signed_log
    assert fit_unit(BINARY, (bell > 7).astype(np.float32), "auto") == Unit()
    encoded = fit_unit(NUMBER, bell, "auto").encode(bell)
    assert abs(float(np.median(encoded))) < 0.01
    assert float(encoded.std()) == pytest.approx(1.0, abs=0.01)


def test_a_large_unit_of_money_is_learned_as_a_small_one() -> None:
    """Spending in cents is encoded as in units of a hundred, zeros among it; small counts keep the plain logarithm."""
    random = np.random.default_rng(1)
    spent = (random.lognormal(6, 1.5, 5000) * (random.random(5000) < 0.3)).astype(np.float32)
    large, larger = fit_unit(NUMBER, spent, "auto"), fit_unit(NUMBER, spent * 100, "auto")
    assert larger.bend == pytest.approx(100 * large.bend, rel=1e-4)
    assert np.allclose(large.encode(spent), larger.encode(spent * 100), atol=1e-4)
    counts = random.poisson(random.lognormal(0, 1, 5000)).astype(np.float32)
    assert fit_unit(NUMBER, counts, "signed_log").bend == 1.0
    assert (
        fit_unit(NUMBER, np.zeros(9, dtype=np.float32), "signed_log").encode(np.zeros(9, dtype=np.float32)).any() == 0
    )


def test_units_of_older_checkpoints_are_read() -> None:
    """Without a word about it, the logarithm is that of one more than the label."""
    written = {"signed_log": True, "center": 0.0, "scale": 2.0}
    unit = Unit.from_dict(written)
    assert unit.to_dict() == written  # and so the version of such a checkpoint stays
    assert unit.encode(np.array([np.e - 1.0], dtype=np.float32)) == pytest.approx(0.5)


@pytest.mark.parametrize("transform", ["identity", "signed_log"])
def test_what_was_never_below_zero_is_not_decoded_below_it(transform: str) -> None:
    """Outputs that say less than nothing say nothing; one label below zero in the training, and they say it."""
    label = np.array([0.0, 0.0, 2.0, 5.0, 9.0], dtype=np.float32)
    outputs = np.array([[-9.0, -2.0, 0.5]])
    unit = fit_unit(NUMBER, label, transform)
    free = replace(unit, least=None)
    assert free.decode(outputs)[0, 0] < 0.0
    assert np.array_equal(unit.decode(outputs), np.maximum(free.decode(outputs), 0.0))
    assert Unit.from_dict(unit.to_dict()) == unit
    below = fit_unit(NUMBER, np.append(label, np.float32(-0.01)), transform)
    assert below.least is None
    assert below.decode(outputs)[0, 0] < 0.0
    assert "least" not in below.to_dict()


def test_a_constant_label_has_a_unit() -> None:
    """A label that never changes is encoded as zero, not as a division by zero."""
    label = np.full(10, 4.0, dtype=np.float32)
    unit = fit_unit(NUMBER, label, "auto")
    assert np.array_equal(unit.encode(label), np.zeros(10, dtype=np.float32))
    assert unit.decode(np.zeros(1))[0] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("target", "label"),
    [
        (BINARY, torch.tensor([1.0, 0.0, 1.0])),
        (SOME_OF, torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])),
        (ONE_OF, torch.tensor([0.0, 2.0, 1.0])),
        (NUMBER, torch.tensor([0.5, -1.0, 2.0])),
        (AHEAD, torch.tensor([[0.5, 1.0], [-1.0, 0.0], [2.0, 3.0]])),
    ],
)
def test_right_outputs_lose_less_than_wrong_ones(target: Target, label: torch.Tensor) -> None:
    """For every kind of target the loss of outputs that say the label is far below that of outputs that deny it."""

    def outputs(sign: float) -> torch.Tensor:
        if target.kind is Kind.MULTICLASS:
            return sign * 8.0 * torch.nn.functional.one_hot(label.long(), 3).float()
        if target.is_number:
            return (sign * label).reshape(3, -1, 1).expand(3, target.steps, len(QUANTILES)).reshape(3, -1)
        return sign * 8.0 * (2.0 * label.reshape(3, -1) - 1.0)

    right, wrong = loss_of(target, outputs(1.0), label), loss_of(target, outputs(-1.0), label)
    assert right.ndim == 0
    assert float(right) < 0.01
    assert float(wrong) > 0.4


def test_the_losses_least_is_at_the_quantiles() -> None:
    """Fitted alone, the outputs of a number become the quantiles of its labels, in rising order."""
    label = torch.from_numpy(np.random.default_rng(1).exponential(1.0, 4000).astype(np.float32))
    raw = torch.zeros(1, NUMBER.outputs, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.02)
    for _ in range(600):
        optimizer.zero_grad()
        loss_of(NUMBER, raw.expand(len(label), -1), label).backward()
        optimizer.step()
    expected = np.quantile(label.numpy(), QUANTILES)
    assert np.allclose(raw.detach().numpy()[0], expected, atol=0.08)


def test_the_loss_is_computed_in_full_precision() -> None:
    """Outputs in bfloat16, as mixed precision gives them, have a float32 loss with a gradient."""
    raw = torch.zeros(3, 1, dtype=torch.bfloat16, requires_grad=True)
    loss = loss_of(BINARY, raw, torch.tensor([1.0, 0.0, 1.0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert raw.grad is not None


def test_outputs_start_at_what_is_known_before_any_step() -> None:
    """The first answers are the share of positives in batches, the shares of classes, the quantiles of numbers."""
    assert torch.sigmoid(start_of(BINARY, np.zeros(1, dtype=np.float32), 0.125)).item() == pytest.approx(0.125)
    several = np.array([[1, 0], [1, 1], [1, 0], [0, 0]], dtype=np.float32)
    assert torch.sigmoid(start_of(SOME_OF, several, 0.0)).tolist() == pytest.approx([0.75, 0.25])
    one = np.repeat([0.0, 1.0], [300, 100]).astype(np.float32)
    shares = torch.softmax(start_of(ONE_OF, one, 0.0), dim=0)
    assert shares.tolist() == pytest.approx([301 / 403, 101 / 403, 1 / 403])
    label = np.arange(101, dtype=np.float32)
    assert start_of(NUMBER, label, 0.0)[MEDIAN].item() == pytest.approx(50.0)
    ahead = start_of(AHEAD, np.stack([label, label + 1000], axis=1), 0.0)
    assert ahead.shape == (AHEAD.outputs,)
    assert ahead[MEDIAN].item() == pytest.approx(50.0)
    assert ahead[len(QUANTILES) + MEDIAN].item() == pytest.approx(1050.0)
