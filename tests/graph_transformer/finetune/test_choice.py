from __future__ import annotations

import pytest
import torch
from torch import nn

from graph_transformer.finetune.choice import CHOICE_TOLERANCE, Choice, Validator


def looked(scores: list[float], *, patience: int = 0, higher: bool = True) -> tuple[Choice, list[bool]]:
    """A choice after validations with these scores, one a step; the model's only weight is the step."""
    values = iter(scores)
    choice = Choice(Validator("score", higher, lambda _: next(values)), patience, [])
    model, stops = nn.Linear(1, 1, bias=False), []
    for step in range(1, len(scores) + 1):
        nn.init.constant_(model.weight, float(step))
        stops.append(choice.look(model, step))
    return choice, stops


def weight(choice: Choice) -> float:
    """The step whose weights are kept, as they say it themselves."""
    assert choice.weights is not None
    return choice.weights["weight"].item()


@pytest.mark.parametrize(
    ("scores", "higher", "kept"),
    [
        ([0.9, 0.5, 0.6], True, 1),
        ([0.5, 0.5 - CHOICE_TOLERANCE / 4], True, 2),
        ([0.5, 0.5 - CHOICE_TOLERANCE], True, 1),
        ([0.5, 0.9], True, 2),
        ([3.0, 2.0, 2.5], False, 2),
        ([3.0, 3.0 + CHOICE_TOLERANCE], False, 2),
        ([-0.5, -0.2, -0.9], True, 2),
    ],
)
def test_the_best_validation_wins_and_of_equals_the_latest(scores: list[float], higher: bool, kept: int) -> None:
    """Its weights are kept as they were then, whichever way the metric is better."""
    choice, _ = looked(scores, higher=higher)
    assert (choice.step, weight(choice)) == (kept, float(kept))
    assert choice.validations == list(enumerate(scores, start=1))
    assert choice.last == scores[-1]


def test_a_slow_decline_does_not_creep_away_from_the_best() -> None:
    """Equality is to the best of all, not to the last one kept."""
    step = CHOICE_TOLERANCE * 0.4
    choice, _ = looked([1.0, 1.0 - step, 1.0 - 2 * step, 1.0 - 3 * step])
    assert choice.step == 3


def test_patience_ends_the_fitting() -> None:
    """Two validations without a better one stop it; without patience none do."""
    scores = [0.5, 0.9, 0.5, 0.5, 0.5]
    assert looked(scores, patience=2)[1] == [False, False, False, True, True]
    assert not any(looked(scores)[1])


def test_a_choice_goes_on_from_its_state() -> None:
    """Restored, it still knows the best, its weights, and how long it has been patient."""
    choice, _ = looked([0.9, 0.5], patience=2)
    again = Choice(Validator("score", True, lambda _: 0.4), 2, [])
    again.restore(choice.state())
    assert again.look(nn.Linear(1, 1, bias=False), 3)
    assert (again.step, weight(again)) == (1, 1.0)
    assert torch.equal(again.weights["weight"], choice.weights["weight"])
