"""Several processes that fit one model together, as `torchrun` starts them: each has its part of every batch.

every rank: its part of the batch ─► gradients ─► mean over ranks ─► the same step everywhere
rank 0 alone: validation, state, logs, checkpoint
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")

WAIT_MAX = timedelta(hours=2)
"""How long ranks wait for the first one, which validates alone, before they give up."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `size` that fit one model; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that validates, saves and reports."""
        return self.rank == 0

    def part(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return this rank's part of a batch; every kind in a batch is spread evenly.

        Raises:
            ValueError: the batch has fewer examples than there are ranks.
        """
        if len(chosen) < self.size:
            raise ValueError(f"a batch of {len(chosen)} examples cannot be divided among {self.size} processes")
        return chosen[self.rank :: self.size]

    def weight(self, chosen: int) -> float:
        """Return what this rank's mean loss counts, so that the mean over ranks is the mean over `chosen` examples."""
        mine = len(range(self.rank, chosen, self.size))
        return mine * self.size / chosen

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose backward pass leaves the mean gradients of all ranks; they start with rank 0's."""
        if self.size == 1:
            return model
        # A batch need not hold rows of every table: what encodes the others gets no gradient.
        return DistributedDataParallel(model, find_unused_parameters=True)

    def agree(self, value: T) -> T:
        """Return rank 0's value on every rank."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def spread(self, model: nn.Module) -> None:
        """Give every rank the weights of rank 0's model."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                distributed.broadcast(tensor, src=0)


@contextmanager
def joined(environment: Mapping[str, str], device: str) -> Iterator[tuple[Ranks, str]]:
    """Join the processes that `torchrun` started, by its variables; give the rank and the device to fit on.

    Without its variables this process is alone.
    """
    size, rank = int(environment.get("WORLD_SIZE", "1")), int(environment.get("RANK", "0"))
    if size == 1:
        yield Ranks(), device
        return
    if device == "cuda":
        device = f"cuda:{int(environment.get('LOCAL_RANK', '0'))}"
        torch.cuda.set_device(device)
    backend = "nccl" if device.startswith("cuda") else "gloo"
    distributed.init_process_group(backend, rank=rank, world_size=size, timeout=WAIT_MAX)
    try:
        yield Ranks(rank, size), device
    finally:
        distributed.destroy_process_group()
