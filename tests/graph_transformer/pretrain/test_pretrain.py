from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.examples import OutcomeLabels, TableLabels
from graph_transformer.finetune.loop import Progress, silent
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.stages import Stages
from graph_transformer.finetune.train import train
from graph_transformer.pretrain.pretrain import PretrainResult, pretrain
from graph_transformer.pretrain.seeds import task_of_rows
from graph_transformer.task import Splits, Task

DAY_US = 86_400_000_000


def learned(result: PretrainResult) -> dict[str, tuple[float, float]]:
    """Loss, and loss of knowing the shares, by the end of a question's name."""
    return {
        line["question"].replace(" ", "/"): (line["loss"], line["loss of shares"]) for line in result.pretrained.learned
    }


@pytest.fixture(scope="module")
def result(shop: Any, task: Task, tmp_path_factory: pytest.TempPathFactory) -> PretrainResult:
    """The shop's orders learned for some seconds."""
    longer = replace(task, training=replace(task.training, steps=80, evaluate_every=80))
    return pretrain(shop.view, shop.view.schema, longer, tmp_path_factory.mktemp("pre") / "out")


def test_rows_are_learned_from_their_neighborhoods(result: PretrainResult) -> None:
    """What a customer buys is what it bought: the hidden product costs far less than the shares of products do."""
    loss, shares = learned(result)["seed:/orders.product"]
    assert loss < 0.6 * shares
    assert {path.name for path in result.folder.iterdir()} == {"weights.safetensors", "pretrained.json"}


def test_nothing_of_the_validation_is_learned(shop: Any, task: Task, result: PretrainResult, tmp_path: Path) -> None:
    """The period ends where validation starts: statistics and weights are those of a graph that ended there."""
    assert result.pretrained.end_us == task.splits.validation.start_us
    short = replace(task, training=replace(task.training, steps=3))
    whole = pretrain(shop.view, shop.view.schema, short, tmp_path / "whole").pretrained
    later = replace(short.splits, validation=None, test=None, known_by_us=task.splits.validation.start_us)
    same = pretrain(shop.view, shop.view.schema, replace(short, splits=later), tmp_path / "same").pretrained
    assert same.statistics == whole.statistics
    assert all(torch.equal(value, same.weights[name]) for name, value in whole.weights.items())


def test_equal_seeds_learn_equal_weights_and_go_on_after_an_end(shop: Any, task: Task, tmp_path: Path) -> None:
    """Whatever the threads, and also where it was ended in between and resumed."""
    short = replace(task, training=replace(task.training, steps=6, evaluate_every=3))

    def run(name: str, **options: Any) -> dict[str, torch.Tensor]:
        return dict(pretrain(shop.view, shop.view.schema, short, tmp_path / name, **options).pretrained.weights)

    def interrupted(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    first, again = run("a"), run("b", runtime=Runtime(samplers=3))
    kept = Runtime(state=tmp_path / "state", resume=True, save_every_s=0.0)
    with pytest.raises(KeyboardInterrupt):
        run("c", runtime=kept, progress=interrupted)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["pretrain.pt"]
    resumed, other = run("c", runtime=kept), run("d", seed=1)
    assert not (tmp_path / "state").exists()
    assert all(torch.equal(value, again[name]) and torch.equal(value, resumed[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())


def test_a_task_begins_with_it(shop: Any, task: Task, labels: OutcomeLabels, result: PretrainResult) -> None:
    """Fine-tuning reads what pre-training read, starts from its weights, and is served by the same statistics."""
    short = replace(task, training=replace(task.training, steps=4, evaluate_every=4), splits=Splits(task.splits.train))
    begun = Stages(shop.view, short, labels, silent, pretrained=result.pretrained).run().stage
    fresh = Stages(shop.view, short, labels, silent).run().stage
    assert begun.statistics == result.pretrained.statistics != fresh.statistics
    assert begun.fitted.losses != fresh.fitted.losses


def test_numbers_of_a_seed_go_on_from_pre_training(
    shop: Any, task: Task, labels: OutcomeLabels, tmp_path: Path
) -> None:
    """What was pre-trained with tallies and comparisons is fine-tuned with them, in the same windows and scales."""
    short = replace(
        task,
        model=replace(task.model, tallies=True, comparisons=True),
        training=replace(task.training, steps=2, evaluate_every=2),
        splits=Splits(task.splits.train),
    )
    begun = pretrain(shop.view, shop.view.schema, short, tmp_path / "pre").pretrained
    assert begun.statistics.tallies
    assert begun.statistics.comparisons
    assert all(any(name.startswith(part) for name in begun.weights) for part in ("tallies.", "comparisons."))
    stage = Stages(shop.view, short, labels, silent, pretrained=begun).run().stage
    assert stage.statistics == begun.statistics


def test_the_command_of_training_takes_the_folder(
    shop: Any, task: Task, result: PretrainResult, tmp_path: Path
) -> None:
    """`train(pretrained=...)` leaves a checkpoint whose statistics are those of pre-training."""
    short = replace(task, training=replace(task.training, steps=4, evaluate_every=4))
    found = train(shop.view, shop.view.schema, short, tmp_path / "out", pretrained=result.folder)
    assert found.checkpoint.statistics == result.pretrained.statistics


def test_entities_are_learned_too(shop: Any, entity_task: Task, entity_labels: TableLabels, tmp_path: Path) -> None:
    """Customers as of the task's times: their country, their newest order, and when the next one comes."""
    short = replace(entity_task, training=replace(entity_task.training, steps=20))
    found = pretrain(shop.view, shop.view.schema, short, tmp_path / "out", labels=entity_labels)
    names = {line["question"].rpartition(" ")[2] for line in found.pretrained.learned}
    assert {"customers.country", "orders.total", "seed"} <= names
    assert found.pretrained.statistics.outcome is None


def test_without_a_task_rows_are_learned_all_the_same(shop: Any, tmp_path: Path) -> None:
    """A table and an end are enough; an end before the first rows is an error."""
    alone = task_of_rows(shop.view, None, int(shop.time_us[600]))
    short = replace(alone, training=replace(alone.training, steps=3))
    assert pretrain(shop.view, shop.view.schema, short, tmp_path / "out").pretrained.end_us == int(shop.time_us[600])
    early = task_of_rows(shop.view, None, int(shop.time_us[0]) - DAY_US)
    with pytest.raises(NotEnoughExamples):
        pretrain(shop.view, shop.view.schema, early, tmp_path / "none")
