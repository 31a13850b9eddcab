from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.calibration.probability import sigmoid
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.config import ModelConfig
from graph_transformer.errors import NotEnoughExamples, TaskError
from graph_transformer.finetune.loop import Progress
from graph_transformer.finetune.ranks import Ranks
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.train import OWN_COLUMNS, TrainResult, evaluate, own_columns, train
from graph_transformer.predictor import Predictor
from graph_transformer.task import Interval, Splits, Task
from online_sampler.sampler import Sampler
from temporal_graph.schema import Schema


@pytest.fixture(scope="module")
def trained(world: Any, payments_schema: Schema, task: Task, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The task trained on the small world, and its baseline."""
    folder = tmp_path_factory.mktemp("train") / "model"
    return train(world.graph, payments_schema, task, folder, baseline=True)


def test_the_graph_beats_the_rows_own_columns(trained: TrainResult) -> None:
    """On later time, the same head with the neighborhood is far above the same head without."""
    share = trained.metrics["test"].positives / trained.metrics["test"].count
    assert trained.metrics[OWN_COLUMNS].average_precision < 2 * share
    assert trained.metrics["test"].average_precision > trained.metrics[OWN_COLUMNS].average_precision + 0.15
    assert trained.metrics["test"].roc_auc > trained.metrics[OWN_COLUMNS].roc_auc + 0.1


def test_what_training_leaves_is_what_serves(trained: TrainResult, world: Any, payments_schema: Schema) -> None:
    """The saved checkpoint, loaded as a server does, gives the test's answers and metrics again."""
    loaded = Checkpoint.load(trained.folder, payments_schema)
    assert loaded.version == trained.version == json.loads((trained.folder / "checkpoint.json").read_text())["version"]
    again = evaluate(world.view, loaded)
    assert again.metrics == trained.metrics["test"]
    predictor = Predictor.load(trained.folder, world.view)
    chosen = again.examples.select(np.arange(20))
    sampled = Sampler(world.view, predictor.sampling_plan).sample_rows(
        "transactions", chosen.row, chosen.cutoff_time_us
    )
    assert np.abs(predictor.predict(sampled).logit - again.output[:20, 0]).max() < 1e-5


def test_probabilities_are_near_what_happens(trained: TrainResult, world: Any, task: Task) -> None:
    """After the prior and Platt's correction the mean probability is the observed share, and says more than it."""
    assert task.splits.validation is not None
    found = evaluate(world.view, trained.checkpoint, task.splits.validation)
    known = found.examples.visible_time_us <= task.splits.test.start_us
    assert known.all()
    share = found.examples.label.mean()
    assert abs(sigmoid(found.output[:, 0]).mean() - share) < 0.02
    assert found.metrics.brier < 0.8 * share * (1 - share)
    assert trained.metrics["test"].brier < trained.metrics[OWN_COLUMNS].brier


def test_pictures_are_drawn(trained: TrainResult) -> None:
    """PNG files of the answers and of the learning lie beside the checkpoint."""
    names = {path.name for path in trained.pictures}
    assert {"precision_recall.png", "reliability.png", "learning.png"} <= names
    assert all(path.parent == trained.folder for path in trained.pictures)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in trained.pictures)


def test_equal_seeds_give_equal_models(world: Any, payments_schema: Schema, quick: Task, tmp_path: Path) -> None:
    """Training twice with one seed gives one version, with another seed another; a caller's own dice are left alone."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    short = replace(quick, splits=Splits(quick.splits.train))
    versions = [
        train(world.view, payments_schema, short, tmp_path / name, seed=seed).version
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert versions[0] == versions[1] != versions[2]
    assert torch.equal(torch.rand(1), expected)


def test_a_model_with_numbers_of_the_seed_is_trained_saved_and_served(
    world: Any, payments_schema: Schema, quick: Task, tmp_path: Path
) -> None:
    """Two members: equal seeds give one version, and the saved one answers as the fitted one did."""
    model = replace(quick.model, tallies=True, comparisons=True, members=2)
    short = replace(quick, model=model, splits=Splits(quick.splits.train, test=quick.splits.test))
    first, again = (train(world.view, payments_schema, short, tmp_path / name) for name in ("a", "b"))
    assert first.version == again.version
    loaded = Checkpoint.load(first.folder, payments_schema)
    assert loaded.statistics.tallies
    assert loaded.statistics.comparisons
    for part in ("tallies", "comparisons"):
        learned = [weight for name, weight in loaded.weights.items() if part in name]
        assert learned
        assert all(float(weight.abs().max()) > 0 for weight in learned)
    assert evaluate(world.view, loaded).metrics == first.metrics["test"]


def test_a_budget_ends_training(world: Any, payments_schema: Schema, task: Task, tmp_path: Path) -> None:
    """With a second to spend, far fewer steps are made than the task has, and a model is there."""
    endless = replace(
        task,
        splits=Splits(task.splits.train),
        training=replace(task.training, steps=1_000_000),
    )
    result = train(world.view, payments_schema, endless, tmp_path / "model", budget_s=1.0)
    assert 0 < result.steps < 10_000
    assert result.metrics == {}
    assert result.pictures == ()


def test_refit_uses_the_later_rows_and_as_many_steps(
    world: Any, payments_schema: Schema, quick: Task, tmp_path: Path
) -> None:
    """With a refit the phases are choose, then refit for the chosen number of steps; the model is another one."""
    splits = quick.splits
    refit = replace(splits, refit=Interval(splits.train.start_us + 4 * 86_400_000_000, splits.validation.end_us))
    seen: list[tuple[str, int]] = []
    result = train(
        world.view,
        payments_schema,
        replace(quick, splits=refit),
        tmp_path / "model",
        progress=lambda p: seen.append((p.phase, p.step)),
    )
    steps = [step for phase, step in seen if phase == "refit"]
    assert [step for phase, step in seen if phase == "train"] == list(range(1, 9))
    assert steps == list(range(1, result.steps + 1))
    assert result.steps in {step for step, _ in result.validations}
    assert result.version != train(world.view, payments_schema, quick, tmp_path / "other").version


def test_a_killed_training_goes_on_after_its_finished_phases(
    world: Any, payments_schema: Schema, quick: Task, tmp_path: Path
) -> None:
    """Ended while it refits, a training resumes there: the choice is not fitted again, and the model is the same."""
    splits = replace(quick.splits, refit=quick.splits.train)
    task = replace(quick, splits=splits)
    runtime = Runtime(state=tmp_path / "state", resume=True)

    def interrupted(progress: Progress) -> None:
        if progress.phase == "refit" and progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(world.view, payments_schema, task, tmp_path / "a", progress=interrupted, runtime=runtime)
    assert {path.name for path in (tmp_path / "state").iterdir()} == {"train.pt"}
    phases: set[str] = set()
    resumed = train(
        world.view,
        payments_schema,
        task,
        tmp_path / "a",
        progress=lambda progress: phases.add(progress.phase),
        runtime=runtime,
    )
    assert phases == {"refit"}
    assert resumed.version == train(world.view, payments_schema, task, tmp_path / "b").version
    assert not (tmp_path / "state").exists()


def test_only_the_first_process_writes(world: Any, payments_schema: Schema, quick: Task, tmp_path: Path) -> None:
    """Another rank of the same training knows the same version and leaves no file."""

    class Silent(Ranks):
        """A rank that is not the first, of a training whose other processes are only said to exist."""

        is_first = False

    short = replace(quick, splits=Splits(quick.splits.train))
    found = train(world.view, payments_schema, short, tmp_path / "other", runtime=Runtime(ranks=Silent()))
    assert found.version == train(world.view, payments_schema, short, tmp_path / "first").version
    assert not (tmp_path / "other").exists()
    assert found.pictures == ()


def test_the_share_of_waiting_is_told(trained: TrainResult) -> None:
    """A training says which part of its time it waited for samples."""
    assert 0.0 <= trained.wait_share < 1.0


def test_own_columns_sample_no_neighbors(world: Any, task: Task) -> None:
    """The baseline's plan gives every seed alone."""
    sampled = Sampler(world.view, own_columns(task).sampling_plan).sample_rows(
        "transactions", np.arange(5, dtype=np.int64) + 4000, world.event_time_us[4000:4005] - 1
    )
    assert len(sampled.row) == 5


def test_a_module_of_ones_own_is_trained_like_ours(
    world: Any, payments_schema: Schema, quick: Task, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is chosen, calibrated, measured and saved; the checkpoint builds the same class and gives the same answers."""
    monkeypatch.syspath_prepend(str(repository / "examples" / "payments"))
    own = replace(quick, model=ModelConfig(width=16, module="custom_module:MeanOfRows"))
    result = train(world.view, payments_schema, own, tmp_path / "model")
    loaded = Checkpoint.load(result.folder, payments_schema)
    assert loaded.model.module == "custom_module:MeanOfRows"
    assert loaded.calibration.method != "none"
    assert evaluate(world.view, loaded).metrics == result.metrics["test"]


def test_what_can_not_be_trained_is_refused(world: Any, payments_schema: Schema, quick: Task, tmp_path: Path) -> None:
    """A wrong outcome and a time without labels are errors before anything is written."""
    with pytest.raises(TaskError, match="outcome"):
        train(
            world.view,
            payments_schema,
            replace(quick, target=replace(quick.target, column="amount")),
            tmp_path / "model",
        )
    empty = replace(quick, splits=Splits(Interval(0, 10)))
    with pytest.raises(NotEnoughExamples):
        train(world.view, payments_schema, empty, tmp_path / "model")
    assert not (tmp_path / "model").exists()
