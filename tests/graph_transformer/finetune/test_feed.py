from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.encoding.collate import Encoding
from graph_transformer.finetune.examples import Examples
from graph_transformer.finetune.feed import DAY_US, Fed, draws, feed, rare_share, sample, stale_cutoffs
from graph_transformer.finetune.ranks import Ranks
from graph_transformer.heads import Unit
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task, Training
from online_sampler.plan import SamplingPlan
from online_sampler.sampler import Sampler

BINARY = Target(Kind.BINARY, "orders", event_level=True, column="returned")
NUMBER = Target(Kind.REGRESSION, "orders", event_level=True, column="total")


def drawn(target: Target, label: np.ndarray[Any, Any], training: Training, steps: int) -> list[Any]:
    """Positions of the first steps' examples."""
    return list(islice(draws(target, label.astype(np.float32), training, np.random.default_rng(0)), steps))


def tensors(batch: Any) -> Iterator[torch.Tensor]:
    """All tensors of a batch, those of its tables among them."""
    for field in dataclasses.fields(batch):
        value = getattr(batch, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, torch.Tensor):
                yield part
            elif dataclasses.is_dataclass(part):
                yield from tensors(part)


def equal(first: Fed, second: Fed) -> bool:
    """Whether two inputs are the same to the last bit."""
    pairs = zip([first.label, *tensors(first.batch)], [second.label, *tensors(second.batch)], strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def uniform(task: Task) -> Task:
    """The task with neighbors at random and graphs that end early, so that every step throws dice."""
    plan = {"num_neighbors": [{"hop1": {"default": 1}}, {"hop2": {"default": 4}}], "strategy": "uniform"}
    training = replace(task.training, staleness_share=0.5, staleness_days=3.0)
    return replace(task, sampling_plan=SamplingPlan.from_dict(plan), training=training)


def fed(world: Any, task: Task, examples: Examples, encoding: Encoding, *, steps: int = 3, **options: Any) -> list[Fed]:
    """The first inputs of a training."""
    with feed(world.view, task, examples, encoding, unit=Unit(), **options) as ahead:
        return list(islice(ahead, steps))


def test_every_example_is_drawn_before_one_is_drawn_again() -> None:
    """Positives come round evenly, negatives are fresh until all were seen; the two kinds are never mixed up."""
    label = np.arange(50) < 6
    found = drawn(BINARY, label, Training(batch=15, rare_share=4 / 15), 12)
    counts = np.bincount(np.concatenate(found), minlength=50)
    assert set(counts[:6].tolist()) == {8}
    assert set(counts[6:].tolist()) == {3}
    assert all(label[step].sum() == 4 and len(step) == 15 for step in found)


def test_kinds_that_are_not_rare_are_drawn_as_they_come() -> None:
    """Numbers, classes and labels with enough of both kinds have one order: each example once a round."""
    for target, label in ((NUMBER, np.arange(40)), (BINARY, np.arange(40) < 20)):
        found = drawn(target, label, Training(batch=10, rare_share=0.125), 8)
        assert set(np.bincount(np.concatenate(found), minlength=40).tolist()) == {2}
        assert rare_share(target, label.astype(np.float32), Training(rare_share=0.125)) == label.mean()


@pytest.mark.parametrize("positive", [True, False])
def test_the_rarer_kind_has_its_share_whichever_it_is(positive: bool) -> None:
    """One in a hundred becomes one in four of each batch, positives or negatives; also with one example of it."""
    label = (np.arange(200) < 2) == positive
    training = Training(batch=16, rare_share=0.25)
    for step in drawn(BINARY, label, training, 5):
        assert (label[step] == positive).sum() == 4
        assert len(step) == 16
    assert rare_share(BINARY, label.astype(np.float32), training) == (0.25 if positive else 0.75)


def test_few_examples_make_a_smaller_batch() -> None:
    """With fewer examples than a batch asks for, no more than there are; the share of positives stays."""
    label = np.array([True, False, False, False, False, False, False, False])
    step = drawn(BINARY, label, Training(batch=192, rare_share=0.25), 1)[0]
    assert len(step) == 8
    assert label[step].sum() == 2


@pytest.mark.parametrize("samplers", [1, 3])
def test_batches_depend_on_the_seed_and_not_on_threads(
    world: Any, uniform: Task, examples: Examples, encoding: Encoding, samplers: int
) -> None:
    """Order, neighbors at random and stale cut-offs are the same to the last bit, however many threads make them."""
    first = fed(world, uniform, examples, encoding, steps=6, seed=1)
    again = fed(world, uniform, examples, encoding, steps=6, seed=1, samplers=samplers)
    other = fed(world, uniform, examples, encoding, steps=6, seed=2, samplers=samplers)
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(equal(a, b) for a, b in zip(first, other, strict=True))
    share = rare_share(uniform.target, examples.label, uniform.training)
    assert float(first[0].label.sum()) == round(share * uniform.training.batch)


def test_a_feed_goes_on_anywhere(world: Any, uniform: Task, examples: Examples, encoding: Encoding) -> None:
    """Begun after step four, it gives what came after step four."""
    whole = fed(world, uniform, examples, encoding, steps=7, seed=1)
    rest = fed(world, uniform, examples, encoding, steps=3, seed=1, first=4)
    assert all(equal(a, b) for a, b in zip(whole[4:], rest, strict=True))


def test_ranks_share_every_batch(world: Any, task: Task, examples: Examples, encoding: Encoding) -> None:
    """Three processes together see each step's examples once, with weights that make their mean the batch's."""
    task = replace(task, training=replace(task.training, batch=65))
    alone = fed(world, task, examples, encoding, steps=2, seed=1)
    parts = [fed(world, task, examples, encoding, steps=2, seed=1, ranks=Ranks(rank, 3)) for rank in range(3)]
    for step in range(2):
        seeds = [part[step].batch.clock[part[step].batch.token[:, 0]] for part in parts]
        seen = Counter(tuple(row.tolist()) for rows in seeds for row in rows)
        batch = alone[step].batch
        assert seen == Counter(tuple(row.tolist()) for row in batch.clock[batch.token[:, 0]])
        assert sum(float(part[step].label.sum()) for part in parts) == float(alone[step].label.sum())
        assert sum(part[step].weight for part in parts) == pytest.approx(3.0)
    assert alone[0].weight == 1.0


def test_the_thread_ends_with_the_feed(world: Any, task: Task, examples: Examples, encoding: Encoding) -> None:
    """Leaving the feed early, with batches waiting, leaves no thread behind."""
    fed(world, task, examples, encoding, steps=1, seed=0, samplers=2)
    assert not any(thread.name.startswith("finetune-feed") for thread in threading.enumerate())


def test_an_error_of_the_thread_reaches_the_loop(
    world: Any, task: Task, examples: Examples, encoding: Encoding
) -> None:
    """A row that the graph does not have is an error where the loop waits, not a hang."""
    broken = replace(examples, row=examples.row + 10**9)
    with pytest.raises(Exception, match="row"):
        fed(world, task, broken, encoding, seed=0)


def test_labels_arrive_in_the_units_numbers(world: Any, task: Task, examples: Examples, encoding: Encoding) -> None:
    """What the loss compares with is the label as its unit encodes it."""
    with feed(world.view, task, examples, encoding, unit=Unit(False, 0.5, 0.25), seed=0) as ahead:
        assert set(next(iter(ahead)).label.tolist()) == {-2.0, 2.0}


def test_a_stale_cut_off_is_never_later_than_the_examples_own(examples: Examples) -> None:
    """Some examples read a graph that ended up to so many days before, the others all of theirs, none any later one."""
    training = Training(staleness_share=0.5, staleness_days=2.0)
    read_until = stale_cutoffs(examples, training, np.random.default_rng(0))
    assert read_until is not None
    age = examples.cutoff_time_us - read_until
    assert int(age.min()) == 0
    assert DAY_US < int(age.max()) <= 2 * DAY_US
    assert float((age > 0).mean()) == pytest.approx(0.5, abs=0.05)
    for off in (Training(staleness_share=0.5), Training(staleness_days=2.0), Training()):
        assert stale_cutoffs(examples, off, np.random.default_rng(0)) is None


def test_nothing_is_read_after_a_stale_cut_off(world: Any, task: Task, examples: Examples) -> None:
    """With a graph that ended a day before, no neighbor is younger than that; one told to read later reads no later."""
    sampler = Sampler(world.view, task.sampling_plan)
    some = examples.select(np.arange(50))
    ended = some.cutoff_time_us - DAY_US
    stale = sample(sampler, task.target, some, read_until_us=ended)
    assert stale.cutoff_time_us.tolist() == ended.tolist()
    seed = np.searchsorted(stale.seed_offset, np.arange(len(stale.row)), side="right") - 1
    timed = (stale.hop > 0) & (stale.event_time_us > 0)
    assert timed.any()
    assert bool((stale.known_time_us[timed] <= ended[seed][timed]).all())
    late = sample(sampler, task.target, some, read_until_us=some.cutoff_time_us + DAY_US)
    assert late.cutoff_time_us.tolist() == some.cutoff_time_us.tolist()
    assert len(sample(sampler, task.target, some).row) > len(stale.row)
