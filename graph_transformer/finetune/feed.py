"""Batches for the loop, sampled and collated in a thread of their own while the model computes.

draw (positives + fresh negatives) ─► Sampler.sample_rows at each example's cut-off ─► collate ─► queue ─► loop
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.finetune.examples import Examples
from graph_transformer.task import Task, Training
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood
    from temporal_graph.view import GraphView

QUEUE_BATCHES = 4
"""Batches ready before the loop asks: enough to hide a slow draw, little memory."""
PUT_TIMEOUT_S = 0.2


@dataclass(frozen=True, slots=True)
class Fed:
    """One step's input: the batch and its labels float32[B]."""

    batch: Batch
    label: torch.Tensor


def draws(label: NDArray[np.bool_], training: Training, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield for every step which examples it sees: each kind in random order, begun anew when all were seen."""
    kinds = (np.flatnonzero(label), training.positives), (np.flatnonzero(~label), training.negatives)
    streams = [_rounds(positions, min(size, len(positions)), random) for positions, size in kinds]
    while True:
        yield np.concatenate([next(stream) for stream in streams])


def _rounds(positions: NDArray[np.int64], size: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, random.permutation(positions)])
        yield waiting[:size]
        waiting = waiting[size:]


def sample(sampler: Sampler, task: Task, examples: Examples) -> Neighborhood:
    """Return the neighborhoods of examples, each at its own cut-off."""
    return sampler.sample_rows(task.table, examples.row, examples.cutoff_time_us)


class Feed:
    """Iterates over `Fed` without end; a context, so that its thread ends with it. The order depends on `seed` only."""

    def __init__(self, view: GraphView, task: Task, examples: Examples, encoding: Encoding, *, seed: int) -> None:
        self._task, self._examples, self._encoding = task, examples, encoding
        self._sampler = Sampler(view, task.sampling_plan, seed=seed)
        self._draws = draws(examples.label, task.training, np.random.default_rng(seed))
        self._queue: queue.Queue[Fed | BaseException] = queue.Queue(QUEUE_BATCHES)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="finetune-feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Fed]:
        while True:
            item = self._queue.get()
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            for chosen in self._draws:
                examples = self._examples.select(chosen)
                batch = collate(sample(self._sampler, self._task, examples), self._encoding)
                if not self._put(Fed(batch, torch.from_numpy(examples.label.astype(np.float32)))):
                    return
        except BaseException as error:  # noqa: BLE001  # raised again where the loop waits
            self._put(error)

    def _put(self, item: Fed | BaseException) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=PUT_TIMEOUT_S)
            except queue.Full:
                continue
            return True
        return False
