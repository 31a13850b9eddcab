from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from graph_transformer.checkpoint import Checkpoint
from model_server.models.errors import ModelRefused, Reason
from model_server.models.golden import load, record, save, verify
from temporal_graph.graph import TemporalGraph


def spoiled(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with its weights a little larger."""
    return replace(checkpoint, weights={name: tensor * 1.1 for name, tensor in checkpoint.weights.items()})


@pytest.mark.parametrize("task", ["fraud", "spend", "channel", "hours"])
def test_what_was_recorded_is_answered_alike_without_the_graph(
    world_of: Callable[[str], Any], tmp_path: Path, task: str
) -> None:
    """A file verifies the model it was recorded with, and refuses the same one with other weights."""
    world = world_of(task)
    checkpoint = Checkpoint.load(world.checkpoint)
    golden = record(world.graph.view(), checkpoint, 16)
    save(golden, tmp_path / "golden.npz")
    again = load(tmp_path / "golden.npz")
    assert len(again) == 16
    assert verify(again, checkpoint) < 1e-5
    with pytest.raises(ModelRefused, match="answered otherwise") as caught:
        verify(again, spoiled(checkpoint))
    assert caught.value.reason is Reason.GOLDEN


def test_categories_are_recorded_as_texts(world: Any, tmp_path: Path) -> None:
    """Codes belong to a graph: the file brings the texts of its own, private ones as their hashes."""
    golden = record(world.graph.view(), Checkpoint.load(world.checkpoint))
    save(golden, tmp_path / "golden.npz")
    again = load(tmp_path / "golden.npz")
    assert set(again.texts["transactions", "channel"].values()) == {"web", "shop"}
    assert not any("4000" in text for text in again.texts["transactions", "card_number"].values())
    codes = again.neighborhood.columns["transactions"].coded
    assert again.strings("transactions", "channel", codes[:, 0].astype(np.int32))[0] in ("web", "shop")


def test_no_number_is_no_answer(world: Any) -> None:
    """Outputs that are no numbers are refused, which no comparison by size would."""
    checkpoint = Checkpoint.load(world.checkpoint)
    golden = record(world.graph.view(), checkpoint, 8)
    name, tensor = next(iter(checkpoint.weights.items()))
    broken = {**checkpoint.weights, name: torch.full_like(tensor, float("nan"))}
    with pytest.raises(ModelRefused) as caught:
        verify(golden, replace(checkpoint, weights=broken))
    assert caught.value.reason is Reason.GOLDEN


def test_a_file_that_is_none_is_corrupt(world: Any, tmp_path: Path) -> None:
    """A truncated file, and one of other bytes: refused by reason, never a traceback of numpy's."""
    save(record(world.graph.view(), Checkpoint.load(world.checkpoint), 4), tmp_path / "golden.npz")
    whole = (tmp_path / "golden.npz").read_bytes()
    for content in (whole[: len(whole) // 2], b"no archive", b""):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ModelRefused) as caught:
            load(tmp_path / "bad.npz")
        assert caught.value.reason is Reason.CORRUPT


def test_an_empty_graph_has_nothing_to_record(world: Any) -> None:
    """Who pushes with a graph that has no rows of the task is told so."""
    with (
        TemporalGraph.create(world.schema, arena_bytes=64 << 20) as graph,
        pytest.raises(ModelRefused, match="no rows"),
    ):
        record(graph.view(), Checkpoint.load(world.checkpoint))
