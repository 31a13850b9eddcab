from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from graph_transformer.finetune.ranks import Ranks, joined

SCRIPT = Path(__file__).parent / "fit_process.py"


def test_alone_nothing_is_divided() -> None:
    """One process has the whole batch, its own model and its own opinion, and joins nobody."""
    alone = Ranks()
    chosen, model = np.arange(7), nn.Linear(1, 1)
    assert alone.part(chosen).tolist() == chosen.tolist()
    assert alone.weight(7) == 1.0
    assert alone.wrap(model) is model
    assert alone.agree(3.5) == 3.5
    alone.spread(model)
    with joined({}, "cpu") as (ranks, device):
        assert (ranks, device) == (alone, "cpu")


def test_parts_make_the_whole() -> None:
    """Each example is one rank's; the weights make the mean of the ranks' means that of the batch."""
    chosen = np.arange(10) + 100
    value = np.random.default_rng(0).normal(size=10)
    parts = [Ranks(rank, 4).part(chosen) for rank in range(4)]
    assert sorted(np.concatenate(parts).tolist()) == chosen.tolist()
    means = [value[part - 100].mean() * Ranks(rank, 4).weight(10) for rank, part in enumerate(parts)]
    assert np.mean(means) == pytest.approx(value.mean())


def test_a_batch_that_is_too_small_to_divide_is_an_error() -> None:
    """A rank without an example would have no gradient to give."""
    with pytest.raises(ValueError, match="3 examples"):
        Ranks(0, 4).part(np.arange(3))


def together(out: Path, state: Path, steps: int, size: int, port: int) -> list[dict[str, Any]]:
    """What the ranks of one training, started as torchrun does, keep."""
    processes = []
    for rank in range(size):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in place.items()}
        arguments = [sys.executable, str(SCRIPT), str(out / "rankRANK.pt"), str(state), str(steps), "0"]
        processes.append(subprocess.Popen(arguments, env=environment))
    assert [process.wait(timeout=240) for process in processes] == [0] * size
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.slow
def test_two_processes_learn_one_model(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    """Both end with equal weights, and the loss falls well below where it began."""
    first, second = together(tmp_path, tmp_path / "state", 60, 2, *free_ports(1))
    assert first["weights"].keys() == second["weights"].keys()
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
    losses = np.mean([[loss for _, loss in found["losses"]] for found in (first, second)], axis=0)
    assert losses[-10:].mean() < 0.85 * losses[:10].mean()


@pytest.mark.slow
def test_what_the_first_process_chose_all_keep(tmp_path: Path, free_ports: Callable[[int], list[int]]) -> None:
    """Only rank 0 validates; every rank ends with its choice, its step and its list of validations."""
    first, second = together(tmp_path, tmp_path / "state", 8, 2, *free_ports(1))
    assert first["step"] == second["step"]
    assert first["validations"] == second["validations"]
    assert [step for step, _ in first["validations"]] == [4, 8]
    assert all(torch.equal(value, second["weights"][name]) for name, value in first["weights"].items())
