from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from graph_transformer.attention import (
    MASKED,
    NOT_MEMBER,
    OWN_MOST,
    Centroids,
    RowAttention,
    RowBias,
    SeedAttention,
    group_members,
    head_starts,
    own_paths,
    subjects,
)
from graph_transformer.config import ModelConfig
from graph_transformer.encoding.layout import STATES, Layout, PathLayout


def layout_of(*paths: PathLayout) -> Layout:
    """A layout of a seed, these paths, and OTHER."""
    return Layout((PathLayout(0, 0), *paths, PathLayout(3, 1)), (), (), (), clock_width=1, seed_width=1, counts_width=1)


FRAUDS = PathLayout(2, 0, 0.3, timed=True, states=3)
MORE_FRAUDS = PathLayout(2, 0, 0.5, timed=True, states=3)
SPENDING = PathLayout(1, 0, 0.1, timed=True, states=2)
VISITS = PathLayout(1, 0, 0.1, timed=True)
PARENT = PathLayout(1, 0, 0.1)


def test_heads_are_about_outcomes_then_events_then_recency() -> None:
    """The most frequent path with outcomes comes first, then what is known of them, then other events."""
    found = subjects(layout_of(FRAUDS, MORE_FRAUDS, VISITS, PARENT), 8)
    every = (0, 1, 2)
    assert found[:5] == [
        (((2, every),), 0.0),
        (((1, every),), 0.0),
        (((2, (2,)),), 0.0),
        (((1, (2,)),), 0.0),
        (((3, every),), 0.0),
    ]
    assert found[5:7] == [(((2, every),), 1.0), (((1, every),), 1.0)]


def test_a_number_known_is_what_a_truth_known_is() -> None:
    """An outcome that is no boolean has two states, and its second head is about the rows where it is known."""
    found = subjects(layout_of(SPENDING), 2)
    assert found == [(((1, (0, 1, 2)),), 0.0), (((1, (1,)),), 0.0)]


def test_too_few_heads_share_subjects() -> None:
    """No path is left without a head; a model of one head has the one that looks at everything."""
    layout = layout_of(FRAUDS, VISITS, VISITS, VISITS, VISITS)
    found = subjects(layout, 3)
    assert sorted(path for members, _ in found for path, _ in members) == [1, 1, 2, 3, 4, 5]
    assert head_starts(layout, 1)[0].shape == (7 * STATES, 1)
    assert not head_starts(layout, 1)[0].any()


def test_a_schema_without_events_still_has_heads() -> None:
    """Heads without a subject look at everything."""
    bias, slope = head_starts(layout_of(PARENT), 4)
    assert not bias.any()
    assert not slope.any()


def test_a_head_starts_with_its_subject() -> None:
    """Members start at zero, everything else so low that the head hardly sees it and can still learn to."""
    bias, _ = head_starts(layout_of(FRAUDS, VISITS), 4)
    starts = bias.view(4, STATES, 4)
    assert starts[1, :, 2].tolist() == [NOT_MEMBER, NOT_MEMBER, 0.0]
    assert starts[2, :, 3].tolist() == [0.0, 0.0, 0.0]
    assert starts[1, :, 3].tolist() == [NOT_MEMBER] * STATES


def test_heads_of_a_path_see_no_other() -> None:
    """The first group sees everything; each path of events has one of its own, and a parent's row is in none."""
    layout = layout_of(FRAUDS, PARENT, VISITS)
    assert own_paths(layout) == (1, 3)
    outside = group_members(layout, 2).view(5, STATES, 3, 2)
    assert not outside[:, :, 0].any()
    for group, path in ((1, 1), (2, 3)):
        seen = (outside[:, :, group] == 0.0).all(dim=2).all(dim=1)
        assert seen.tolist() == [number == path for number in range(5)]
        assert (outside[[number for number in range(5) if number != path], :, group] == MASKED).all()


def test_many_paths_do_not_make_a_model_of_any_size() -> None:
    """The paths with heads of their own are the most frequent dozen."""
    rare, many = PathLayout(2, 0, 0.001, timed=True), [PathLayout(2, 0, 0.01, timed=True)] * OWN_MOST
    layout = layout_of(rare, *many)
    assert len(own_paths(layout)) == OWN_MOST
    assert 1 not in own_paths(layout)
    block = SeedAttention(layout, ModelConfig(width=16, heads=4, per_path=True))
    assert block.heads == 4 * (1 + OWN_MOST)


def block_of(**options: Any) -> SeedAttention:
    """A block with the same random weights each time."""
    torch.manual_seed(0)
    config = ModelConfig(width=16, heads=4, dropout=0.0, **options)
    return SeedAttention(layout_of(FRAUDS, VISITS), config).eval()


def asked(block: SeedAttention, rows: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The seed after one look at rows float32[K, 16]."""
    torch.manual_seed(1)
    seed = torch.randn(1, 16)
    none = torch.zeros(1, block.heads + block.sums, len(rows))
    return block(seed, rows.unsqueeze(0), none if bias is None else bias)


@torch.inference_mode()
def test_a_hidden_row_is_not_there() -> None:
    """A masked row changes neither the mean nor the sum, whatever it holds."""
    block = block_of()
    rows = torch.randn(5, 16)
    bias = torch.zeros(1, block.heads + block.sums, 5)
    bias[:, :, 4] = MASKED
    assert torch.allclose(asked(block, rows, bias), asked(block, rows[:4]), atol=1e-6)
    rows[4] = 100.0
    assert torch.allclose(asked(block, rows, bias), asked(block, rows[:4]), atol=1e-6)


@torch.inference_mode()
def test_the_sum_counts_and_the_mean_does_not() -> None:
    """Twice the same rows is the same to a mean (but for the null) and more to a sum."""
    rows = torch.randn(4, 16)
    with_sum, without = block_of(sums=4), block_of(sums=0)
    for block in (with_sum, without):
        block.null_key.fill_(0.0)
        block.query.weight.zero_()
        block.query.bias.zero_()
        block.null_value.zero_()
    lots = rows.repeat(500, 1)
    lotsmore = rows.repeat(1000, 1)
    assert torch.allclose(asked(without, lots), asked(without, lotsmore), atol=1e-3)
    assert not torch.allclose(asked(with_sum, lots), asked(with_sum, lotsmore), atol=1e-2)


@torch.inference_mode()
def test_a_head_without_rows_reads_its_null() -> None:
    """With every row hidden the answer is that of the null value, and moves with it."""
    block = block_of(sums=0)
    rows = torch.randn(3, 16)
    bias = torch.full((1, block.heads, 3), MASKED)
    before = asked(block, rows, bias)
    assert torch.equal(before, asked(block, torch.randn(3, 16), bias))
    block.null_value.fill_(1.0)
    assert not torch.allclose(before, asked(block, rows, bias), atol=1e-3)


@torch.inference_mode()
def test_bias_falls_with_age_and_rank() -> None:
    """Slopes take from what a head thinks of old rows and of those behind others; of two paths the better counts."""
    bias = RowBias(torch.tensor([[0.0], [0.0], [0.0], [2.0], [2.0], [2.0]]), torch.tensor([1.0]))
    bias.slope[1] = 0.5
    batch = _BatchOf(path=[0, 0, 0], also=[0, 0, 1], age=[0.0, 10.0, 0.0], rank=[0.0, 2.0, 0.0])
    assert bias(batch).squeeze(1).tolist() == [0.0, -2.0, 2.0]  # type: ignore[arg-type]


class _BatchOf:
    """The columns of a batch that a bias reads."""

    def __init__(self, path: list[int], also: list[int], age: list[float], rank: list[float]) -> None:
        self.path, self.also, self.state = torch.tensor(path), torch.tensor(also), torch.zeros(3, dtype=torch.int64)
        self.age_days, self.rank = torch.tensor(age), torch.tensor(rank)


@torch.inference_mode()
def test_rows_attend_to_rows_that_are_there() -> None:
    """A hidden row changes no other row; a shown one does."""
    torch.manual_seed(0)
    block = RowAttention(ModelConfig(width=16, heads=4)).eval()
    rows, hidden = torch.randn(1, 5, 16), torch.zeros(1, 1, 5, dtype=torch.bool)
    hidden[..., 4] = True
    before = block(rows, hidden)[:, :4]
    rows[:, 4] += 1.0
    assert torch.equal(before, block(rows, hidden)[:, :4])
    assert not torch.equal(before, block(rows, None)[:, :4])


@pytest.mark.parametrize("count", [1, 8])
def test_centroids_start_from_nothing_and_learn(count: int) -> None:
    """A new model answers as one without centroids; the gradient reaches them."""
    torch.manual_seed(0)
    centroids = Centroids(replace(ModelConfig(width=16, heads=4), centroids=count)).eval()
    seed = torch.randn(3, 16)
    assert torch.equal(centroids(seed), seed)
    centroids(seed).sum().backward()
    assert centroids.value.grad is not None
    assert bool(centroids.value.grad.any())
