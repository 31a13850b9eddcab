"""Several models of one shape that answer together: the mean of their outputs.

One neighborhood, one collate; each member starts from its own weights and drops its own units, so their errors differ.
With few labels this is worth as much as a better model (a week of payments: .02 of average precision).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from graph_transformer.encoding.batch import Batch

MEMBERS_MAX = 16


class Ensemble(nn.Module):
    """`members` models built alike.

    In training the outputs are stacked, float[members * B, outputs], so that every member has its own loss; in
    evaluation they are averaged, float[B, outputs].
    """

    def __init__(self, members: int, build: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(build() for _ in range(members))

    def start_at(self, prior: Tensor) -> None:
        """Set every member's last bias to `prior` float[outputs]; members that have none are left as they are."""
        for member in self.members:
            start = getattr(member, "start_at", None)
            if start is not None:
                start(prior)

    def forward(self, batch: Batch) -> Tensor:
        """Return the stacked outputs in training, else their mean."""
        outputs = [member(batch) for member in self.members]
        return torch.cat(outputs) if self.training else torch.stack(outputs).mean(dim=0)


def labels_for(raw: Tensor, label: Tensor) -> Tensor:
    """Return the labels repeated for each member whose outputs are stacked in `raw`."""
    times = len(raw) // len(label)
    return label if times == 1 else label.repeat(times, *(1 for _ in label.shape[1:]))
