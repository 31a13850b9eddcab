from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.examples import examples_of, labeled_rows, linked_rows, without_known_entities
from graph_transformer.task import Interval, Task

DAY_US = 86_400_000_000


def test_labels_are_those_known_by_then(world: Any, task: Task) -> None:
    """A report that becomes known at t is an example at t and none one microsecond before."""
    by = int(world.event_time_us[3000]) + DAY_US
    known = labeled_rows(world.view, task, known_by_us=by)
    assert int(known.visible_time_us.max()) == by
    assert len(labeled_rows(world.view, task, known_by_us=by - 1)) < len(known) < len(labeled_rows(world.view, task))


def test_labels_are_the_truth_and_in_the_order_of_time(world: Any, task: Task) -> None:
    """Every row has its own label and event time; the question is asked one microsecond before the event."""
    found = labeled_rows(world.view, task)
    keys = np.array(world.view.keys("transactions", found.row))
    assert np.array_equal(found.label, world.fraud[keys])
    assert np.array_equal(found.event_time_us, world.event_time_us[keys])
    assert np.array_equal(found.cutoff_time_us, found.event_time_us - 1)
    assert bool((np.diff(found.event_time_us) >= 0).all())


def test_an_interval_holds_its_start_and_not_its_end(world: Any, task: Task) -> None:
    """A row at the start is in, one at the end is not."""
    start, end = int(world.event_time_us[2000]), int(world.event_time_us[3000])
    times = examples_of(world.view, task, Interval(start, end), known_by_us=None).event_time_us
    assert int(times.min()) == start
    assert int(times.max()) < end


def test_labels_of_one_kind_are_refused(world: Any, task: Task) -> None:
    """An interval without any positive (here one without rows) can not be trained on or measured."""
    with pytest.raises(NotEnoughExamples, match="both kinds"):
        examples_of(world.view, task, Interval(0, 10), known_by_us=None)


def test_links_lead_to_the_parent(world: Any, task: Task) -> None:
    """The linked row of a payment is its customer's."""
    found = labeled_rows(world.view, task).select(np.arange(100, 200))
    rows = linked_rows(world.view, "transactions", "customer_id", found.row, found.cutoff_time_us)
    keys = np.array(world.view.keys("transactions", found.row))
    assert world.view.keys("customers", rows) == world.customer[keys].tolist()


def test_known_entities_leave_the_test(world: Any, task: Task) -> None:
    """A customer's payments leave from the day after a fraud of it was known; frauds before `since` do not count."""
    since = int(world.event_time_us[0]) + 18 * DAY_US
    examples = examples_of(world.view, task, Interval(since + DAY_US, since + 5 * DAY_US), known_by_us=None)
    left = without_known_entities(world.view, task, examples, since_us=since)
    keys = np.array(world.view.keys("transactions", examples.row))
    stays = []
    for key in keys.tolist():
        day_start = world.event_time_us[key] // DAY_US * DAY_US
        same = (world.customer == world.customer[key]) & world.fraud & (world.event_time_us >= since)
        stays.append(not (same & (world.event_time_us + DAY_US < day_start)).any())
    assert left.row.tolist() == examples.row[np.array(stays)].tolist()
    assert 0 < len(left) < len(examples)
    assert without_known_entities(world.view, replace(task, entity=None), examples, since_us=since) is examples
