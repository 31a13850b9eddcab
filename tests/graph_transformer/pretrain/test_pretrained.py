from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graph_transformer.config import ModelConfig
from graph_transformer.errors import CheckpointCorrupt, CheckpointMismatch
from graph_transformer.pretrain.pretrain import pretrain
from graph_transformer.pretrain.pretrained import MANIFEST_NAME, WEIGHTS_NAME, Pretrained, learned_until_us
from graph_transformer.splits import Splits
from graph_transformer.target import Kind, Target
from graph_transformer.task import Task
from online_sampler.plan import SamplingPlan
from temporal_graph.schema import parse_schema


@pytest.fixture(scope="module")
def saved(shop: Any, task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that three steps of pre-training leave."""
    short = replace(task, training=replace(task.training, steps=3))
    return pretrain(shop.view, shop.view.schema, short, tmp_path_factory.mktemp("pre") / "out").folder


def test_what_was_saved_is_loaded(saved: Path, tmp_path: Path) -> None:
    """Statistics, model, plan, figures and weights come back equal, from a copy as well."""
    found = Pretrained.load(saved)
    found.save(tmp_path / "copy")
    again = Pretrained.load(tmp_path / "copy")
    assert replace(again, weights={}) == replace(found, weights={})
    assert all(torch.equal(value, again.weights[name]) for name, value in found.weights.items())


def test_a_folder_without_it_is_refused(saved: Path, tmp_path: Path) -> None:
    """Nothing there, half of it there, another format, or a broken file: each says so."""
    found = Pretrained.load(saved)
    with pytest.raises(CheckpointCorrupt, match="holds no pre-trained model"):
        Pretrained.load(tmp_path)
    found.save(tmp_path)
    (tmp_path / WEIGHTS_NAME).unlink()
    with pytest.raises(CheckpointCorrupt):
        Pretrained.load(tmp_path)
    found.save(tmp_path)
    text = (tmp_path / MANIFEST_NAME).read_text()
    (tmp_path / MANIFEST_NAME).write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(CheckpointMismatch, match="format 99"):
        Pretrained.load(tmp_path)
    (tmp_path / MANIFEST_NAME).write_text(text[: len(text) // 2])
    with pytest.raises(CheckpointCorrupt):
        Pretrained.load(tmp_path)


def test_a_task_that_reads_the_same_may_begin_with_it(saved: Path, shop: Any, task: Task) -> None:
    """The task it was made by, with other training and splits of the same validation, fits."""
    found = Pretrained.load(saved)
    found.check(shop.view.schema, task)
    found.check(shop.view.schema, replace(task, model=replace(task.model, members=3, layers=2)))


def test_what_does_not_fit_is_refused_with_the_reason(saved: Path, shop: Any, task: Task) -> None:
    """Another width, plan, table or schema, or a validation that pre-training has seen: none of them begins."""
    found, schema = Pretrained.load(saved), shop.view.schema
    plan = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": 2}}]})
    for other, reason in (
        (replace(task, model=ModelConfig(width=32, heads=4)), "model.width 16"),
        (replace(task, model=replace(task.model, tallies=True)), "model.tallies False"),
        (replace(task, model=replace(task.model, comparisons=True)), "model.comparisons False"),
        (replace(task, sampling_plan=plan), "another plan"),
        (replace(task, target=Target(Kind.BINARY, "customers", event_level=False)), "asked rows of orders"),
        (replace(task, target=replace(task.target, column="gift")), "outcome gift"),
    ):
        with pytest.raises(CheckpointMismatch, match=reason):
            found.check(schema, other)
    earlier = replace(task.splits.validation, start_us=task.splits.validation.start_us - 1)
    with pytest.raises(CheckpointMismatch, match="pre-training saw rows until"):
        found.check(schema, replace(task, splits=replace(task.splits, validation=earlier)))
    with pytest.raises(CheckpointMismatch, match="lacks"):
        found.check(parse_schema("version: 1\nname: x\ntables: {a: {primary_key: {b: integer}}}"), task)


def test_rows_are_learned_until_validation_starts(task: Task) -> None:
    """Then until the time the model stands for, then all there are."""
    splits = task.splits
    assert learned_until_us(splits) == splits.validation.start_us
    assert learned_until_us(replace(splits, validation=None)) == splits.test.start_us
    assert learned_until_us(Splits(splits.train)) is None


def test_a_task_begins_with_the_rows_alone(saved: Path) -> None:
    """What encodes rows is taken, attention and outputs are not; of a model without such a part, everything."""
    found = Pretrained.load(saved)
    begun = found.beginning()
    assert begun
    assert all(name.startswith("rows.") for name in begun)
    assert len(begun) < len(found.weights)
    other = replace(found, weights={"layer.weight": torch.zeros(2)})
    assert list(other.beginning()) == ["layer.weight"]
