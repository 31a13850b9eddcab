from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.errors import NotEnoughExamples, TaskError
from graph_transformer.finetune.examples import TableLabels
from graph_transformer.pretrain.seeds import HELD_MAX, HELD_SHARE, seeds_of, task_of_rows
from graph_transformer.task import Task


def test_event_seeds_are_rows_visible_before_the_end(shop: Any, task: Task) -> None:
    """A row one microsecond before the end is a seed, one at the end is none; each is asked before it happens."""
    end_us = int(shop.time_us[700])
    seeds = seeds_of(shop.view, task.target, None, end_us=end_us, seed=0)
    assert seeds.time_us.tolist() == shop.time_us[shop.time_us < end_us].tolist()
    assert int(seeds_of(shop.view, task.target, None, end_us=end_us + 1, seed=0).time_us.max()) == end_us
    assert bool((seeds.cutoff_time_us == seeds.time_us - 1).all())


def test_entity_seeds_are_asked_when_the_task_asks_them(
    shop: Any, entity_task: Task, entity_labels: TableLabels
) -> None:
    """Entities and times of the labels, before the end; what the labels say is not there."""
    end_us = int(entity_labels.examples.time_us[600])
    seeds = seeds_of(shop.view, entity_task.target, entity_labels, end_us=end_us, seed=0)
    assert int(seeds.cutoff_time_us.max()) < end_us
    assert len(seeds) == int((entity_labels.examples.cutoff_time_us < end_us).sum())
    assert not seeds.at(np.arange(len(seeds))).label.any()
    with pytest.raises(ValueError, match="labels"):
        seeds_of(shop.view, entity_task.target, None, end_us=end_us, seed=0)


def test_many_rows_are_thinned_alike(shop: Any, task: Task) -> None:
    """No more than the limit, from all times, in the order of time, the same for the same seed."""
    end_us = int(shop.time_us[-1]) + 1
    some = seeds_of(shop.view, task.target, None, end_us=end_us, seed=1, most=300)
    again = seeds_of(shop.view, task.target, None, end_us=end_us, seed=1, most=300)
    assert len(some) == 300
    assert some.row.tolist() == again.row.tolist()
    assert bool((np.diff(some.time_us) >= 0).all())
    assert int(some.time_us[0]) < int(shop.time_us[60])
    assert int(some.time_us[-1]) > int(shop.time_us[-60])


def test_the_latest_are_held_back(shop: Any, task: Task) -> None:
    """One in twenty of the seeds, the latest, tell how much was learned."""
    seeds = seeds_of(shop.view, task.target, None, end_us=int(shop.time_us[-1]), seed=0)
    assert len(seeds) - seeds.learned == min(HELD_MAX, int(len(seeds) * HELD_SHARE)) > 0


def test_hardly_any_rows_are_an_error(shop: Any, task: Task) -> None:
    """Before the shop's first orders there is nothing to learn from."""
    with pytest.raises(NotEnoughExamples, match="0 rows"):
        seeds_of(shop.view, task.target, None, end_us=int(shop.time_us[0]), seed=0)


def test_without_a_task_the_longest_table_asks(shop: Any, task: Task) -> None:
    """Its rows are asked with their outcome hidden, as a task on it would; other tables are named or refused."""
    end_us = int(shop.time_us[-1])
    found = task_of_rows(shop.view, None, end_us)
    assert (found.target.table, found.target.column) == ("orders", "returned")
    assert found.splits.trained_by_us == end_us
    assert replace(found, name="x").target == task_of_rows(shop.view, "orders", end_us).target
    for name in ("customers", "nobody"):
        with pytest.raises(TaskError, match="time column"):
            task_of_rows(shop.view, name, end_us)
