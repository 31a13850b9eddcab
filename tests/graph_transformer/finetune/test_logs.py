from __future__ import annotations

from pathlib import Path

import pytest

from graph_transformer.finetune.logs import logs_in
from graph_transformer.finetune.loop import Progress


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def progress(step: int, validation: float | None = None) -> Progress:
    """A step's figures, each of them told apart."""
    return Progress("train", step, 4, 1.0 / step, validation, "AP", wait_share=0.05, rate=0.5, gradient=2.0)


def test_every_figure_has_its_curve(tmp_path: Path) -> None:
    """Loss, rate, gradient and waiting at every step; a validation where there was one."""
    with logs_in(tmp_path, "train", 0) as log:
        for step in range(1, 5):
            log(progress(step, 0.25 if step >= 2 else None), step == 2)
    found = curves(tmp_path / "train")
    assert set(found) == {"loss", "learning_rate", "gradient", "wait_share", "validation/AP"}
    assert found["loss"] == [(step, pytest.approx(1.0 / step)) for step in range(1, 5)]
    assert found["validation/AP"] == [(2, 0.25)]
    assert found["wait_share"][0] == (1, pytest.approx(0.05))


def test_a_resumed_training_takes_its_curves_up(tmp_path: Path) -> None:
    """Steps that are made again after a kill stand in the curve once."""
    with logs_in(tmp_path, "train", 0) as log:
        for step in range(1, 4):
            log(progress(step), False)
    with logs_in(tmp_path, "train", 2) as log:
        for step in range(3, 5):
            log(progress(step), False)
    assert [step for step, _ in curves(tmp_path / "train")["loss"]] == [1, 2, 3, 4]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No logs are asked for: no file appears."""
    monkeypatch.chdir(tmp_path)
    with logs_in(None, "train", 0) as log:
        log(progress(1, 0.5), True)
    assert list(tmp_path.iterdir()) == []
