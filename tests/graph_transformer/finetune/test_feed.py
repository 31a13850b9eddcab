from __future__ import annotations

import threading
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.finetune.examples import Examples, examples_of
from graph_transformer.finetune.feed import Feed, draws, sample
from graph_transformer.task import Task, Training
from online_sampler.sampler import Sampler


@pytest.fixture
def examples(world: Any, task: Task) -> Examples:
    """The training examples of the small world."""
    return examples_of(world.view, task, task.splits.train, known_by_us=None)


@pytest.fixture
def encoding(world: Any, task: Task, examples: Examples) -> Encoding:
    """Statistics of those examples, bound to the world's graph."""
    view = world.view
    sampled = sample(Sampler(view, task.sampling_plan), task, examples.select(np.arange(64)))
    statistics = fit_statistics([sampled], view.schema, view.strings, target=task.target)
    return Encoding(statistics, view.schema, view.strings)


def test_every_example_is_drawn_before_one_is_drawn_again() -> None:
    """Positives come round evenly, negatives are fresh until all were seen; the two kinds are never mixed up."""
    label = np.arange(50) < 6
    training = Training(positives=4, negatives=11)
    drawn = list(islice(draws(label, training, np.random.default_rng(0)), 12))
    counts = np.bincount(np.concatenate(drawn), minlength=50)
    assert set(counts[:6].tolist()) == {8}
    assert set(counts[6:].tolist()) == {3}
    assert all(label[step].sum() == 4 and len(step) == 15 for step in drawn)


def test_few_examples_make_a_smaller_batch() -> None:
    """With fewer positives than a batch asks for, each is in it once."""
    label = np.array([True, False, False])
    first = next(draws(label, Training(positives=24, negatives=168), np.random.default_rng(0)))
    assert sorted(first.tolist()) == [0, 1, 2]


def test_equal_seeds_feed_equal_batches(world: Any, task: Task, examples: Examples, encoding: Encoding) -> None:
    """Order and content of the batches depend on the seed alone, not on the thread's timing."""

    def fed(seed: int) -> list[Any]:
        with Feed(world.view, task, examples, encoding, seed=seed) as feed:
            return list(islice(feed, 3))

    first, again, other = fed(1), fed(1), fed(2)
    assert all(torch.equal(a.batch.clock, b.batch.clock) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].batch.clock, other[0].batch.clock)
    assert float(first[0].label.sum()) == task.training.positives


def test_the_thread_ends_with_the_feed(world: Any, task: Task, examples: Examples, encoding: Encoding) -> None:
    """Leaving the feed early, with batches waiting, leaves no thread behind."""
    with Feed(world.view, task, examples, encoding, seed=0) as feed:
        next(iter(feed))
    assert "finetune-feed" not in {thread.name for thread in threading.enumerate()}


def test_an_error_of_the_thread_reaches_the_loop(
    world: Any, task: Task, examples: Examples, encoding: Encoding
) -> None:
    """A row that the graph does not have is an error where the loop waits, not a hang."""
    broken = Examples(examples.row + 10**9, examples.event_time_us, examples.visible_time_us, examples.label)
    with Feed(world.view, task, broken, encoding, seed=0) as feed, pytest.raises(Exception, match="row"):
        next(iter(feed))
