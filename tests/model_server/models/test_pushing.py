from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from graph_transformer.errors import CheckpointCorrupt, CheckpointMismatch
from model_server.models.pushing import push
from model_server.models.registry import Registry
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema


def test_a_spoiled_checkpoint_is_not_pushed(world: Any, tmp_path: Path) -> None:
    """What could not be served is refused at the door, and nothing of it is in the registry."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(world.checkpoint, folder)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    registry = Registry(tmp_path / "registry")
    with pytest.raises(CheckpointCorrupt):
        push(registry, folder, world.graph.view())
    assert registry.tasks() == []


def test_a_graph_of_another_schema_records_nothing(world: Any, tmp_path: Path) -> None:
    """Golden requests come from a graph that the model can read."""
    other = parse_schema(world.schema_text.replace("tx_amount: numerical", "tx_amount: categorical"))
    registry = Registry(tmp_path / "registry")
    with TemporalGraph.create(other, arena_bytes=64 << 20) as graph, pytest.raises(CheckpointMismatch):
        push(registry, world.checkpoint, graph.view())
    assert registry.tasks() == []


def test_without_a_graph_there_are_no_golden_requests(world: Any, tmp_path: Path) -> None:
    """The manifest says so, and lists the checkpoint's own files."""
    manifest, _ = push(Registry(tmp_path / "registry"), world.checkpoint, None)
    assert manifest.golden == 0
    assert set(manifest.files) == {"checkpoint.json", "weights.safetensors"}
    assert len(manifest.version) == 16
