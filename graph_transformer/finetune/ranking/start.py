"""Where identities of items begin: items that follow each other in histories begin near each other.

interactions ─► how often within a few places of one another ─► damped by how often at all ─► SVD ─► vectors

On a set of 12,000 products it was worth .004 of NDCG@10 and half of the steps.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.ranking.config import RankingConfig

INTERACTIONS_MOST = 2_000_000
"""Interactions read, the newest: at 20 places apart some 40 million pairs."""
DAMPING = 0.35
"""Exponent by which pairs of frequent items weigh less; .5, as of a cosine, was worse."""
DAMPING_ADD = 3.0
OVERSAMPLED = 16
ITERATIONS = 2
"""More, and vectors nearer to the true ones, took longer and were no better a start."""
STD = 0.2
"""Spread of the numbers: of one size with what cells say at first."""

Int64 = NDArray[np.int64]


def svd_start(known: Interactions, code: Int64, identities: int, dimension: int, config: RankingConfig) -> torch.Tensor:
    """Return float32[identities, dimension] of interactions by user and time, whose items have the codes int64 [m].

    Code 0 and items without any neighbor are zeros. Equal interactions give equal vectors.
    """
    user = known.user
    if len(known) > INTERACTIONS_MOST:
        newest = np.sort(np.argsort(known.from_us, kind="stable")[-INTERACTIONS_MOST:])
        user, code = user[newest], code[newest]
    code = np.where(user >= 0, code, 0)
    matrix = _near(user, code, identities, config)
    out = torch.zeros(identities, dimension)
    size = min(dimension, identities)
    if matrix.values().numel() == 0:
        return out
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(matrix, q=min(size + OVERSAMPLED, identities), niter=ITERATIONS)
    # Of a symmetric matrix left and right differ in sign where items stand apart; a dot product can not say that.
    values = torch.where((left * right).sum(dim=0) > 0.0, values, 0.0)
    found = (left * values.sqrt())[:, :size]
    found[torch.bincount(matrix.indices()[0], minlength=identities) == 0] = 0.0
    out[:, :size] = found * (STD / found[1:].std().clamp(min=1e-6))
    return out


def _near(user: Int64, item: Int64, identities: int, config: RankingConfig) -> torch.Tensor:
    """Return the symmetric sparse matrix of how near items stand, damped by how often they stand near any."""
    size = np.int64(identities)
    cells: dict[str, list[NDArray[np.float64] | Int64]] = {"place": [], "weight": []}
    for gap in range(1, config.window + 1):
        if gap >= len(user):
            break
        pair = (user[gap:] == user[:-gap]) & (item[gap:] != item[:-gap]) & (item[gap:] > 0) & (item[:-gap] > 0)
        place, count = np.unique(item[:-gap][pair] * size + item[gap:][pair], return_counts=True)
        cells["place"].append(place)
        cells["weight"].append(count * float(gap) ** -config.exponent)
    place = np.concatenate([*cells["place"], np.zeros(0, dtype=np.int64)]).astype(np.int64)
    weight = np.concatenate([*cells["weight"], np.zeros(0)])
    row, column = np.divmod(place, size)
    row, column = np.concatenate([row, column]), np.concatenate([column, row])
    weight = np.concatenate([weight, weight])
    damped = (np.bincount(row, weight, minlength=identities) + DAMPING_ADD) ** -DAMPING
    value = (weight * damped[row] * damped[column]).astype(np.float32)
    indices = torch.from_numpy(np.stack([row, column]))
    shape = (identities, identities)
    return torch.sparse_coo_tensor(indices, torch.from_numpy(value), shape, check_invariants=False).coalesce()
