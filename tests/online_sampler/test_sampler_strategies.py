"""Each strategy draws what it says: by exact expectation and with a fixed seed, so that a failure is a change.

The thresholds are p-values under 1e-4 of tests whose expectation is exact; with fixed seeds they either always hold or
never do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from online_sampler import Sampler, SamplingPlan
from temporal_graph.graph import TemporalGraph

Fill = Callable[..., Sampler]
USER_TO_PAYS = "users.user_id->pays.user_id"
CUTOFF_US = 10_000_000
P_MIN = 1e-4


@pytest.fixture
def fill(graph: TemporalGraph, encode: Callable[..., bytes]) -> Fill:
    """One user with `count` payments a microsecond apart (row = age order), `deleted` of them gone."""

    def fill(count: int, plan: dict[str, Any], *, deleted: Sequence[int] = (), seed: int = 0) -> Sampler:
        if graph.view().row_count("pays") == 0:
            graph.apply([encode("pays", (i,), i + 1, user_id=(0,)) for i in range(count)])
            graph.apply([encode("pays", (i,), count + 1, operation="delete") for i in deleted])
        written = {"num_neighbors": [{"hop1": {"default": 0, USER_TO_PAYS: plan.pop("k")}}], **plan}
        return Sampler(graph.view(), SamplingPlan.from_dict(written), seed=seed)

    return fill


def draws(sampler: Sampler, times: int) -> npt.NDArray[np.int64]:
    """int64 [times, k]: the payments drawn around the one user, in the order drawn."""
    found = sampler.sample_keys("users", [0] * times, np.full(times, CUTOFF_US, np.int64))
    drawn: npt.NDArray[np.int64] = found.row[found.hop == 1].reshape(times, -1)
    return drawn


def p_of_uniform(drawn: npt.NDArray[np.int64], among: Sequence[int]) -> float:
    """The p-value of the counts if every subset were equally likely (counts of a draw without replacement)."""
    times, k = drawn.shape
    n = len(among)
    counts = np.array([(drawn == row).sum() for row in among])
    expected = times * k / n
    statistic = float(((counts - expected) ** 2).sum() / (expected * (1 - k / n)) * (n - 1) / n)
    return float(stats.chi2.sf(statistic, n - 1))


def successive(weights: npt.NDArray[np.float64], k: int, times: int) -> npt.NDArray[np.int64]:
    """An independent draw without replacement: the k smallest of exponentials with these rates (Gumbel top-k)."""
    keys = np.random.default_rng(7).exponential(size=(times, len(weights))) / weights
    return np.argsort(keys, axis=1)[:, :k]


@pytest.mark.parametrize(("count", "k"), [(12, 11), (40, 8), (1_500, 24)])
def test_uniform_favours_no_row(fill: Fill, count: int, k: int) -> None:
    """Small lists, lists nearly taken whole and hubs of several blocks: every row equally often, never twice."""
    drawn = draws(fill(count, {"k": k, "strategy": "uniform"}), 20_000)
    assert all(len(set(row)) == k for row in drawn[:500].tolist())
    assert p_of_uniform(drawn, range(count)) > P_MIN


def test_uniform_favours_no_pair(fill: Fill) -> None:
    """Not only each row but each pair of rows is equally likely: position in the list does not couple draws."""
    drawn = np.sort(draws(fill(9, {"k": 2, "strategy": "uniform"}), 20_000), axis=1)
    pairs = drawn[:, 0] * 9 + drawn[:, 1]
    counts = np.bincount(pairs, minlength=81)[[a * 9 + b for a in range(9) for b in range(a + 1, 9)]]
    assert stats.chisquare(counts).pvalue > P_MIN


@pytest.mark.parametrize(
    ("count", "deleted", "k"), [(40, range(0, 40, 3), 8), (30, range(4, 30), 6), (30, range(26), 3)]
)
def test_uniform_draws_others_for_the_deleted(fill: Fill, count: int, deleted: range, k: int) -> None:
    """Deleted rows are never drawn, as many visible ones as there are up to k are, and those equally often."""
    drawn = draws(fill(count, {"k": k, "strategy": "uniform"}, deleted=deleted), 20_000)
    visible = sorted(set(range(count)) - set(deleted))
    assert drawn.shape[1] == min(k, len(visible))
    assert set(np.unique(drawn).tolist()) == set(visible)
    if k < len(visible):
        assert p_of_uniform(drawn, visible) > P_MIN


@pytest.mark.parametrize(("count", "k", "half_life"), [(200, 4, 8.0), (30, 12, 3.0), (20, 15, 50.0), (1_300, 6, 100.0)])
def test_recency_halves_every_half_life(fill: Fill, count: int, k: int, half_life: float) -> None:
    """The first row drawn falls by half every half-life of ranks; who is drawn at all matches an independent draw."""
    drawn = draws(fill(count, {"k": k, "strategy": "recency_weighted", "half_life": half_life}), 20_000)
    ranks = count - 1 - drawn
    weights = 2.0 ** (-np.arange(count) / half_life)
    expected = weights / weights.sum() * len(ranks)
    likely = expected >= 5
    observed = np.append(np.bincount(ranks[:, 0], minlength=count)[likely], (~likely[ranks[:, 0]]).sum())
    whole = np.append(expected[likely], expected[~likely].sum())
    keep = whole > 0
    assert stats.chisquare(observed[keep], whole[keep]).pvalue > P_MIN
    other = successive(weights, k, len(ranks))
    for rank in np.flatnonzero(likely)[:: max(1, likely.sum() // 20)]:
        table = [[(ranks == rank).sum(), (other == rank).sum()], [len(ranks), len(other)]]
        table[1] = [len(ranks) - table[0][0], len(other) - table[0][1]]
        if min(map(min, table)) > 5:
            assert stats.chi2_contingency(table).pvalue > P_MIN, rank


@pytest.mark.parametrize(("k", "half_life"), [(3, 6.0), (8, 2.0)])
def test_recency_draws_others_for_the_deleted(fill: Fill, k: int, half_life: float) -> None:
    """With every other row deleted, visible ones keep the weight of their place in the list."""
    drawn = draws(
        fill(40, {"k": k, "strategy": "recency_weighted", "half_life": half_life}, deleted=range(1, 40, 2)), 20_000
    )
    ranks = 39 - drawn
    assert (ranks % 2 == 1).all()
    assert all(len(set(row)) == k for row in drawn[:500].tolist())
    other = successive(2.0 ** (-np.arange(1, 40, 2) / half_life), k, len(ranks)) * 2 + 1
    for rank in range(1, 20, 2):
        table = [[(ranks == rank).sum(), (other == rank).sum()]]
        table.append([len(ranks) - table[0][0], len(other) - table[0][1]])
        if min(map(min, table)) > 5:
            assert stats.chi2_contingency(table).pvalue > P_MIN, rank


@pytest.mark.parametrize("strategy", ["uniform", "recency_weighted"])
def test_the_same_seed_draws_the_same(fill: Fill, strategy: str) -> None:
    """Two samplers of one seed agree call by call, other seeds and other requests differ, a request repeats itself."""
    plan = {"strategy": strategy, "half_life": 100}
    one, two = (fill(300, {"k": 8, **plan}, seed=5) for _ in range(2))
    first, second = draws(one, 10), draws(one, 10)
    assert first.tolist() == draws(two, 10).tolist()
    assert second.tolist() == draws(two, 10).tolist()
    assert first.tolist() != second.tolist()
    assert first.tolist() != draws(fill(300, {"k": 8, **plan}, seed=6), 10).tolist()
    assert first[0].tolist() != first[1].tolist()
    users, cutoffs = [0] * 3, np.full(3, CUTOFF_US, np.int64)
    again = [one.sample_keys("users", users, cutoffs, request=9).row.tolist() for _ in range(2)]
    assert again[0] == again[1]


def test_most_recent_is_the_newest_first(fill: Fill) -> None:
    """Without chance: the newest visible rows in order, in a hub as in a small list, deleted ones passed over."""
    sampler = fill(2_100, {"k": 1_100}, deleted=[2_099, 2_000])
    newest = [row for row in range(2_099, -1, -1) if row not in (2_099, 2_000)]
    assert draws(sampler, 2).tolist() == [newest[:1_100]] * 2


def test_fewer_rows_than_asked_are_all_taken(fill: Fill) -> None:
    """A list no longer than the number is taken whole by every strategy."""
    for strategy in ("most_recent", "uniform", "recency_weighted"):
        assert draws(fill(7, {"k": 7, "strategy": strategy}), 1).tolist() == [[6, 5, 4, 3, 2, 1, 0]]
