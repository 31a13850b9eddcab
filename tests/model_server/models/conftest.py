"""Models that differ in known ways, and a registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from graph_transformer.checkpoint import Checkpoint
from model_server.models.channel import Channel
from model_server.models.pushing import push
from model_server.models.registry import Registry


@pytest.fixture
def model_of(world: Any, tmp_path: Path) -> Callable[..., Path]:
    """Gives the folder of the world's model with its weights times a factor, and other parts replaced."""

    def make(factor: float = 1.0, **parts: Any) -> Path:
        checkpoint = Checkpoint.load(world.checkpoint)
        weights: Mapping[str, torch.Tensor] = {name: one * factor for name, one in checkpoint.weights.items()}
        folder = tmp_path / f"model-{factor}-{len(parts)}"
        replace(checkpoint, weights=weights, **parts).save(folder)
        return folder

    return make


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty registry in a folder."""
    return Registry(tmp_path / "registry")


@pytest.fixture
def pushed(world: Any, registry: Registry, model_of: Callable[..., Path]) -> Callable[..., str]:
    """Pushes a model with golden requests and gives its version; the first one becomes live."""

    def make(factor: float = 1.0, **parts: Any) -> str:
        version = push(registry, model_of(factor, **parts), world.graph.view(), count=8)[0].version
        if not registry.has_channel("fraud"):
            registry.change("fraud", "live", lambda _: Channel.first(version))
        return version

    return make
