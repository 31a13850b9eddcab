from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from graph_transformer.pretrain.questions import NOT_ASKED, Answers, Question, losses_of, outputs_of, shares_of

QUESTIONS = (Question("color", 3), Question("when", 4))


def test_outputs_lie_side_by_side() -> None:
    """A model of three and four classes has seven outputs; answers of two parts stand beside each other."""
    assert outputs_of(QUESTIONS) == 7
    one, two = np.array([[0], [1]]), np.array([[2, 3], [NOT_ASKED, 0]])
    joined = Answers.joined([Answers(one, one), Answers(two, two + 1)])
    assert joined.low.tolist() == [[0, 2, 3], [1, NOT_ASKED, 0]]
    assert joined.high.tolist() == [[0, 3, 4], [1, 0, 1]]


def test_a_certain_answer_is_cross_entropy() -> None:
    """One class: the loss is that of a softmax over the question's own outputs; what was not asked costs nothing."""
    raw = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    low = torch.tensor([[0, 3], [2, NOT_ASKED], [NOT_ASKED, 1], [1, 0], [NOT_ASKED, NOT_ASKED]])
    sums, counts = losses_of(QUESTIONS, raw, low, low)
    assert counts.tolist() == [3, 3]
    color = functional.cross_entropy(raw[[0, 1, 3], :3], low[[0, 1, 3], 0], reduction="sum")
    when = functional.cross_entropy(raw[[0, 2, 3], 3:], low[[0, 2, 3], 1], reduction="sum")
    assert sums.tolist() == pytest.approx([float(color), float(when)], rel=1e-5)


def test_a_range_costs_what_all_its_classes_leave() -> None:
    """Of an event that had not come yet, all later bins are possible; a range of everything costs nothing."""
    raw = torch.log(torch.tensor([[1.0, 1.0, 1.0, 0.1, 0.2, 0.3, 0.4]]))
    low, high = torch.tensor([[NOT_ASKED, 2]]), torch.tensor([[NOT_ASKED, 3]])
    assert losses_of(QUESTIONS, raw, low, high)[0][1].item() == pytest.approx(-math.log(0.7), rel=1e-5)
    assert losses_of(QUESTIONS, raw, torch.tensor([[0, 0]]), torch.tensor([[2, 3]]))[0].tolist() == pytest.approx(
        [0, 0]
    )


def test_gradients_are_finite_where_nothing_was_asked() -> None:
    """A batch without a single answer leaves a gradient of zero, not of no number."""
    raw = torch.zeros(4, 7, requires_grad=True)
    low = torch.full((4, 2), NOT_ASKED)
    sums, counts = losses_of(QUESTIONS, raw, low, low)
    sums.sum().backward()
    assert counts.tolist() == [0, 0]
    assert raw.grad is not None
    assert not raw.grad.any()


def test_outputs_start_at_the_shares_of_the_answers() -> None:
    """Each class once for certain, one more of each; a range counts for its classes alike."""
    low = np.array([[0, 0], [0, 2], [1, NOT_ASKED]])
    high = np.array([[0, 0], [0, 3], [1, NOT_ASKED]])
    shares = np.exp(shares_of(QUESTIONS, Answers(low, high)))
    assert shares[:3].tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert shares[3:].tolist() == pytest.approx([2 / 6, 1 / 6, 1.5 / 6, 1.5 / 6])
