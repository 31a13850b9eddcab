"""What rows can be asked about themselves: cells that were masked, and when an entity's next event comes.

Every question is a choice of one of a few classes; an answer is a range of them, so that "not before June" is one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOT_ASKED = -1

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Question:
    """A choice among `classes`; `name` is for people."""

    name: str
    classes: int


@dataclass(frozen=True, slots=True)
class Answers:
    """Of B seeds and Q questions: the lowest and the highest class that may be true, int64[B, Q]; NOT_ASKED in both."""

    low: Ints
    high: Ints

    @classmethod
    def joined(cls, parts: Sequence[Answers]) -> Answers:
        """Return the answers to the questions of all parts, side by side."""
        return cls(np.concatenate([p.low for p in parts], axis=1), np.concatenate([p.high for p in parts], axis=1))


def outputs_of(questions: Sequence[Question]) -> int:
    """Return how many outputs a model of these questions has."""
    return sum(question.classes for question in questions)


def losses_of(questions: Sequence[Question], raw: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return (sum of the losses float32[Q], how often each question was asked int64[Q]) of raw float[B, outputs].

    The loss of a range is minus the log of the probability of all its classes: cross entropy where it is one class,
    the likelihood of a censored event where it ends with the last one.
    """
    raw = raw.float()
    sums, counts, start = [], [], 0
    for at, question in enumerate(questions):
        asked = torch.nonzero(low[:, at] != NOT_ASKED).squeeze(1)
        scores = raw[asked, start : start + question.classes]
        classes = torch.arange(question.classes, device=raw.device)
        inside = (classes >= low[asked, at].unsqueeze(1)) & (classes <= high[asked, at].unsqueeze(1))
        possible = scores.masked_fill(~inside, -torch.inf)
        sums.append((torch.logsumexp(scores, dim=1) - torch.logsumexp(possible, dim=1)).sum())
        counts.append(len(asked))
        start += question.classes
    return torch.stack(sums), torch.tensor(counts, device=raw.device)


def shares_of(questions: Sequence[Question], answers: Answers) -> NDArray[np.float32]:
    """Return float32[outputs]: the log of how often each class was the answer, as outputs to start at."""
    starts = []
    for at, question in enumerate(questions):
        low, high = answers.low[:, at], answers.high[:, at]
        certain = low[(low == high) & (low != NOT_ASKED)]
        # A range counts for its classes alike; one more of each, so that no class is impossible.
        counts = np.bincount(certain, minlength=question.classes) + 1.0
        for first, last in zip(low[low != high], high[low != high], strict=True):
            counts[first : last + 1] += 1.0 / (last + 1 - first)
        starts.append(np.log(counts / counts.sum()))
    return np.concatenate(starts).astype(np.float32)
