"""Floors that go from item to item: neighbors by cosine, co-visitation, and EASE.

interactions visible at one time ─► weight[item, item]
a question's history, weighted   ─► sum of its items' rows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray

from graph_transformer.finetune.ranking.floors_counts import Columns, Scores
from graph_transformer.finetune.ranking.histories import Histories, Interactions
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.ranking.asked import distinct

Int64 = NDArray[np.int64]
Floats = NDArray[np.float64]

COSINE_SHRINK = 10.0
"""Added to the denominator, so that two items that one user had are no twins."""
WINDOW = 20
"""Places apart that two interactions of a user count as a co-visit."""
BACKWARD = 0.3
"""What a co-visit against the order of time is worth beside one along it."""
HISTORY_DECAY = 0.7
"""How the weight of a history falls with each place, in co-visitation."""
HISTORY_MAX = 20
"""The newest interactions of a history that co-visitation reads."""
EASE_PENALTY = 250.0
"""The L2 penalty of EASE, of the order of the paper's choices."""
MIRRORED = 512
"""Rows copied at a time."""
EASE_ITEMS_MAX = 12_500
"""EASE inverts a matrix of all items: of more, the most frequent. 12,500 take half a minute of one core."""


@dataclass(frozen=True)
class ItemFloor:
    """Scores are sums of the rows of `weights` (sparse or float32 [columns, columns]) over a weighted history.

    With `chosen` (int64, ascending) the weights are of these columns alone.
    """

    columns: Columns
    weights: scipy.sparse.csr_array | NDArray[np.float32]
    of_history: Callable[[Histories], Floats]
    chosen: Int64 | None = None

    def scores(self, questions: RankingQuestions, histories: Histories) -> Scores:
        """Return float32 [n, columns]."""
        weight = self.of_history(histories).astype(np.float32)
        at = (histories.question, self.columns.of(histories.item))
        rows = scipy.sparse.csr_array((weight, at), shape=(len(questions), len(self.columns)))
        found = (rows if self.chosen is None else rows[:, self.chosen]) @ self.weights
        scores = np.asarray(found if isinstance(found, np.ndarray) else found.toarray(), dtype=np.float32)
        if self.chosen is None:
            return scores
        whole = np.zeros((len(questions), len(self.columns)), dtype=np.float32)
        whole[:, self.chosen] = scores
        return whole


def item_neighbors(columns: Columns, visible: Interactions) -> ItemFloor:
    """Return item-kNN: cosine of the sets of users, an item its own neighbor; each item of the history once."""
    had = _had(columns, visible)
    together = scipy.sparse.csr_array(had.T @ had)
    degree = had.sum(axis=0)
    # In place, a row at a time: tens of millions of pairs are there where users had many items.
    for row, (low, high) in enumerate(pairwise(together.indptr.tolist())):
        norm = np.sqrt(degree[row] * degree[together.indices[low:high]]) + COSINE_SHRINK
        together.data[low:high] /= norm
    return ItemFloor(columns, together.astype(np.float32, copy=False), _once)


def co_visitation(columns: Columns, visible: Interactions) -> ItemFloor:
    """Return co-visitation: pairs within `WINDOW` places of a user's interactions, weighted by 1 / places apart.

    Rows are divided by their sums: from each item of the history a step of a random walk. Pairs at one time count in
    both directions alike.
    """
    known = visible.select(visible.user >= 0)
    user, item, time_us = known.user, columns.of(known.item), known.event_time_us
    shape = (len(columns), len(columns))
    total = scipy.sparse.csr_array(shape)
    for gap in range(1, min(WINDOW + 1, len(user))):
        pair = user[gap:] == user[:-gap]
        earlier, later = item[:-gap][pair], item[gap:][pair]
        same = time_us[gap:][pair] == time_us[:-gap][pair]
        forth, back = np.full(len(earlier), 1.0 / gap), np.where(same, 1.0, BACKWARD) / gap
        total = total + scipy.sparse.csr_array(
            (np.append(forth, back), (np.append(earlier, later), np.append(later, earlier))), shape=shape
        )
    sums = np.asarray(total.sum(axis=1)).ravel()
    scaled = scipy.sparse.diags_array(1.0 / np.maximum(sums, 1e-12)) @ total
    return ItemFloor(columns, scipy.sparse.csr_array(scaled).astype(np.float32), _decaying)


def ease(columns: Columns, visible: Interactions) -> ItemFloor:
    """Return EASE: the item-to-item regression with no item its own cause, in closed form.

    Steck, Embarrassingly Shallow Autoencoders for Sparse Data, 2019.
    """
    had = _had(columns, visible)
    degree = had.sum(axis=0)
    chosen = np.sort(np.argsort(-degree, kind="stable")[:EASE_ITEMS_MAX])
    chosen = chosen[degree[chosen] > 0]
    part = scipy.sparse.csr_array(had[:, chosen])
    gram = (part.T @ part).astype(np.float32, copy=False).toarray(order="F")
    gram[np.diag_indices(len(chosen))] += EASE_PENALTY
    factor, _ = scipy.linalg.lapack.spotrf(gram, lower=True, overwrite_a=True)
    inverse, _ = scipy.linalg.lapack.spotri(factor, lower=True, overwrite_c=True)
    _mirror(inverse)
    scale = -np.diag(inverse).copy()
    # The transpose is the same matrix, and lies in memory row by row.
    weights = inverse.T
    weights /= scale
    np.fill_diagonal(weights, 0.0)
    return ItemFloor(columns, weights, _once, chosen)


def _mirror(matrix: NDArray[np.float32]) -> None:
    """Copy what lies below the diagonal above it, in place: a copy of the whole is half a gigabyte."""
    for low in range(0, len(matrix), MIRRORED):
        high = min(low + MIRRORED, len(matrix))
        block = matrix[low:high, low:high]
        block[...] = np.tril(block) + np.tril(block, -1).T
        matrix[low:high, high:] = matrix[high:, low:high].T


def _had(columns: Columns, visible: Interactions) -> scipy.sparse.csr_array:
    """Return who had what, float32 [users, columns] of 0 and 1."""
    known = visible.user >= 0
    user, at = visible.user[known], columns.of(visible.item[known])
    pair = distinct(user * np.int64(max(len(columns), 1)) + at)
    user, at = np.divmod(pair, np.int64(max(len(columns), 1)))
    shape = (int(user.max(initial=-1)) + 1, len(columns))
    return scipy.sparse.csr_array((np.ones(len(pair), dtype=np.float32), (user, at)), shape=shape)


def _once(histories: Histories) -> Floats:
    """Weights by which each item of a history counts once, however often it is there."""
    owner = histories.question
    pair = owner * np.int64(int(histories.item.max(initial=0)) + 1) + histories.item
    _, place, count = np.unique(pair, return_inverse=True, return_counts=True)
    weight: Floats = 1.0 / count[place]
    return weight


def _decaying(histories: Histories) -> Floats:
    """Weights that fall from the newest interaction on."""
    place = histories.place
    return np.where(place < HISTORY_MAX, HISTORY_DECAY ** np.minimum(place, HISTORY_MAX), 0.0)
