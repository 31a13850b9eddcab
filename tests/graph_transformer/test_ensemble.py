"""Several models that answer together."""

from __future__ import annotations

import torch
from torch import nn

from graph_transformer.ensemble import Ensemble, labels_for


class Constant(nn.Module):
    """Answers its own number for each of two questions."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor([value]))

    def start_at(self, prior: torch.Tensor) -> None:
        """Take the prior as the number."""
        with torch.no_grad():
            self.value.copy_(prior)

    def forward(self, _: object) -> torch.Tensor:
        """Return the number twice, as one output."""
        return self.value.expand(2, 1)


def _ensemble() -> Ensemble:
    values = iter((1.0, 3.0, 8.0))
    return Ensemble(3, lambda: Constant(next(values)))


def test_answers_are_the_mean_of_the_members() -> None:
    """In evaluation each question has one answer, the members' mean."""
    assert _ensemble().eval()(None).tolist() == [[4.0], [4.0]]


def test_every_member_is_trained_on_its_own_error() -> None:
    """In training outputs are stacked member by member, labels are repeated alike, and all members get a gradient."""
    ensemble = _ensemble().train()
    raw, label = ensemble(None), torch.tensor([1.0, 2.0])
    assert raw[:, 0].tolist() == [1.0, 1.0, 3.0, 3.0, 8.0, 8.0]
    assert labels_for(raw, label).tolist() == [1.0, 2.0] * 3
    ((raw[:, 0] - labels_for(raw, label)) ** 2).sum().backward()
    assert [member.value.grad.item() for member in ensemble.members] == [-2.0, 6.0, 26.0]


def test_labels_of_one_model_stay_as_they_are() -> None:
    """Without members nothing is repeated, for labels of several columns either."""
    label = torch.zeros(2, 3)
    assert labels_for(torch.zeros(2, 5), label) is label
    assert labels_for(torch.zeros(4, 5), label).shape == (4, 3)


def test_the_prior_reaches_every_member() -> None:
    """What outputs start at is set in all members."""
    ensemble = _ensemble()
    ensemble.start_at(torch.tensor([0.5]))
    assert ensemble.eval()(None).tolist() == [[0.5], [0.5]]
