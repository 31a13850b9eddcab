from __future__ import annotations

from typing import Any

import pytest

from graph_transformer.config import ModelConfig
from graph_transformer.errors import TaskError


def test_config_travels_as_plain_values() -> None:
    """A config read back from a checkpoint is the same."""
    config = ModelConfig(width=64, layers=2, dropout=0.1)
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"width": 30}, "model.width"),
        ({"layers": 0}, "model.layers"),
        ({"sums": -1}, "model.sums"),
        ({"members": 0}, "model.members"),
        ({"members": True}, "model.members"),
        ({"cells": "mean"}, "model.cells"),
        ({"module": "Mine"}, "model.module"),
        ({"text_encoder": "my-package:encode"}, "model.text_encoder"),
        ({"dropout": 1.0}, "model.dropout"),
        ({"token_dropout": -0.1}, "model.token_dropout"),
        ({"depth": 3}, "model.depth"),
    ],
)
def test_config_refuses_with_the_key(values: dict[str, Any], path: str) -> None:
    """What can not be built is refused when it is read, naming the key of the task file."""
    with pytest.raises(TaskError) as refused:
        ModelConfig.from_dict(values)
    assert refused.value.path == path


def test_sizes_are_two() -> None:
    """The size for a core is small; the one for a GPU is larger in every way; there is no third."""
    cpu, gpu = ModelConfig.preset("cpu"), ModelConfig.preset("gpu")
    assert cpu == ModelConfig()
    assert gpu.width > cpu.width
    assert gpu.layers > cpu.layers
    assert gpu.mutual > cpu.mutual
    with pytest.raises(TaskError):
        ModelConfig.preset("tpu")
