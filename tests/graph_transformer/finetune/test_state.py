from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.errors import StateMismatch
from graph_transformer.finetune import state
from graph_transformer.finetune.state import StateFile, forget, key_of


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    """Tensors and numbers come back exactly; before the first save there is nothing."""
    file = StateFile(tmp_path / "states", "train", "k")
    assert file.load() is None
    for step in (1, 2):
        file.save({"step": step, "weights": {"w": torch.full((2,), step / 3)}, "losses": [(step, 0.5)], "best": None})
    found = file.load()
    assert found is not None
    assert (found["step"], found["best"]) == (2, None)
    assert torch.equal(found["weights"]["w"], torch.full((2,), 2 / 3))
    assert StateFile(tmp_path / "states", "refit", "k").load() is None


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    """Its key differs: going on from it would mix two trainings."""
    StateFile(tmp_path, "train", "one").save({"step": 1})
    with pytest.raises(StateMismatch, match="another training"):
        StateFile(tmp_path, "train", "two").load()


def test_a_kill_while_writing_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file beside the whole one changes nothing."""
    file = StateFile(tmp_path, "train", "k")
    file.save({"step": 1})

    def killed(values: Any, target: Any) -> None:
        target.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(state.torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        file.save({"step": 2})
    found = file.load()
    assert found is not None
    assert found["step"] == 1


def test_the_key_is_of_all_that_decides() -> None:
    """Another value, another array, another dtype or name gives another key; order does not."""
    rows = np.arange(5)
    key = key_of({"a": 1, "b": {"c": 2}}, {"row": rows, "label": rows + 1})
    assert key == key_of({"b": {"c": 2}, "a": 1}, {"label": rows + 1, "row": rows})
    others = [
        key_of({"a": 1, "b": {"c": 3}}, {"row": rows, "label": rows + 1}),
        key_of({"a": 1, "b": {"c": 2}}, {"row": rows, "label": rows + 2}),
        key_of({"a": 1, "b": {"c": 2}}, {"row": rows.astype(np.int32), "label": rows + 1}),
        key_of({"a": 1, "b": {"c": 2}}, {"rows": rows, "label": rows + 1}),
    ]
    assert len({key, *others}) == 5


def test_states_are_forgotten(tmp_path: Path) -> None:
    """When a training is done its states go; where there are none, nothing happens."""
    StateFile(tmp_path / "states", "train", "k").save({})
    forget(tmp_path / "states")
    forget(tmp_path / "states")
    assert not (tmp_path / "states").exists()
