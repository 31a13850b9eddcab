from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graph_transformer.encoding.collate import collate
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.finetune.feed import sample
from graph_transformer.pretrain import cells
from graph_transformer.pretrain.cells import CellMask
from graph_transformer.pretrain.questions import NOT_ASKED
from graph_transformer.pretrain.seeds import seeds_of
from graph_transformer.task import Task
from online_sampler.neighborhood import Neighborhood
from online_sampler.sampler import Sampler


@pytest.fixture(scope="module")
def sampled(shop: Any, task: Task) -> Neighborhood:
    """The neighborhoods of sixty late orders."""
    seeds = seeds_of(shop.view, task.target, None, end_us=int(shop.time_us[-1]), seed=0)
    chosen = np.arange(len(seeds) - 60, len(seeds))
    return sample(Sampler(shop.view, task.sampling_plan), task.target, seeds.at(chosen))


@pytest.fixture(scope="module")
def encoding(shop: Any, task: Task, sampled: Neighborhood) -> Encoding:
    """Statistics of these."""
    view = shop.view
    return Encoding(fit_statistics([sampled], view.schema, view.strings, target=task.target), view.schema, view.strings)


@pytest.fixture
def hide(shop: Any, encoding: Encoding, sampled: Neighborhood, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Hides cells, all that may be with `everything`."""

    def run(*, everything: bool = False, seed: int = 0) -> Any:
        if everything:
            monkeypatch.setattr(cells, "ROW_SHARE", 1.1)
            monkeypatch.setattr(cells, "CELL_SHARE", 1.1)
        mask = CellMask(encoding, shop.view.strings)
        return mask, *mask.hide(sampled, np.random.default_rng(seed))

    return run


def test_every_cell_but_outcomes_is_a_question(hide: Callable[..., Any]) -> None:
    """Numbers, categories and flags of the seed, of its customer and of the customer's orders; never `returned`."""
    mask, _, _ = hide()
    names = {found.question.name.rpartition(" ")[2] for found in mask.questions}
    assert names == {"customers.country", "orders.product", "orders.total", "orders.gift"}
    assert sum(found.path == 0 for found in mask.questions) == 3
    assert {found.path for found in mask.questions} == {0, 1, 2}


def test_what_is_asked_is_hidden_and_nothing_else(
    hide: Callable[..., Any], sampled: Neighborhood, encoding: Encoding
) -> None:
    """Each asked cell is null in what the model reads; all other cells, rows, times and links are as they were."""
    mask, hidden, answers = hide()
    path = encoding.paths.of_nodes(sampled)
    seed_of = np.repeat(np.arange(60), np.diff(sampled.seed_offset))
    asked = 0
    for name, columns in sampled.columns.items():
        for field in ("numerical", "coded", "boolean"):
            before, after = getattr(columns, field), getattr(hidden.columns[name], field)
            changed = ~np.isclose(before, after, rtol=0.0, atol=0.0, equal_nan=True)
            for row, at in zip(*np.nonzero(changed), strict=True):
                node = columns.node[row]
                place = [
                    index for index, found in enumerate(mask.questions)
                    if (found.table, found.field, found.at, found.path) == (name, field, at, path[node])
                ]  # fmt: skip
                assert answers.low[seed_of[node], place[0]] != NOT_ASKED
                assert np.isnan(after[row, at]) or after[row, at] == (2 if field == "boolean" else 0)
                asked += 1
    assert asked == int((answers.low != NOT_ASKED).sum()) > 100
    assert np.array_equal(answers.low, answers.high)
    assert hidden.event_time_us is sampled.event_time_us
    assert len(hidden) == len(sampled)


def test_answers_are_what_the_cells_held(shop: Any, hide: Callable[..., Any], sampled: Neighborhood) -> None:
    """The seeds' products are told apart, their totals fall into the bins of their size."""
    mask, _, answers = hide(everything=True)
    at = {found.question.name.rpartition(" ")[2]: n for n, found in enumerate(mask.questions) if found.path == 0}
    key = np.array(shop.view.keys("orders", sampled.row[sampled.seed_offset[:-1]]))
    product, total = shop.product[key], shop.total[key]
    told = answers.low[:, at["orders.product"]]
    assert len({(a, b) for a, b in zip(product.tolist(), told.tolist(), strict=True)}) == len(set(product.tolist()))
    bins = answers.low[:, at["orders.total"]]
    assert bool((np.diff(bins[np.argsort(total)]) >= 0).all())
    assert answers.low[:, at["orders.gift"]].tolist() == (product > 2).astype(int).tolist()


def test_only_the_newest_row_of_a_path_is_asked(hide: Callable[..., Any], sampled: Neighborhood) -> None:
    """Of a customer's orders the last one before the seed is hidden, and the others tell what is usual."""
    _, hidden, _ = hide(everything=True)
    orders, after = sampled.columns["orders"], hidden.columns["orders"]
    seed_of = np.repeat(np.arange(60), np.diff(sampled.seed_offset))
    for seed in range(60):
        rows = np.flatnonzero((seed_of[orders.node] == seed) & (sampled.hop[orders.node] == 2))
        newest = rows[np.argmax(sampled.event_time_us[orders.node[rows]])]
        assert np.flatnonzero(np.isnan(after.numerical[rows, 0])).tolist() == np.flatnonzero(rows == newest).tolist()


def test_equal_dice_hide_equal_cells(hide: Callable[..., Any]) -> None:
    """What is hidden depends on the dice alone."""
    first, again, other = hide(seed=1)[2], hide(seed=1)[2], hide(seed=2)[2]
    assert np.array_equal(first.low, again.low)
    assert not np.array_equal(first.low, other.low)


def test_hidden_neighborhoods_are_read_like_any_other(hide: Callable[..., Any], encoding: Encoding) -> None:
    """The collate that serves reads them too: the arrays have the shapes they had, and no number is missing."""
    _, hidden, _ = hide()
    batch = collate(hidden, encoding)
    assert batch.size == 60
    assert all(bool(table.dense.isfinite().all()) for table in batch.tables)
