"""What a server holds: a checkpoint bound to a live graph, from a neighborhood to calibrated answers.

sampler.sample_events(...) ─► Neighborhood ─► predict ─► Prediction
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.calibration import probability_of
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.device import CPU, find_device
from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import collate
from graph_transformer.errors import DeviceUnavailable
from graph_transformer.kernels import use_kernels_for_any_shape
from graph_transformer.target import MEDIAN, QUANTILES, Kind, Target
from temporal_graph.schema import Schema

if TYPE_CHECKING:
    from graph_transformer.task import Task
    from online_sampler.neighborhood import Neighborhood
    from online_sampler.plan import SamplingPlan


class GraphDictionaries(Protocol):
    """The part of a `GraphView` a predictor reads: the schema, and texts of dictionary codes."""

    @property
    def schema(self) -> Schema:
        """The graph's schema."""

    def strings(self, table: str, column: str, codes: NDArray[np.int32]) -> Sequence[str | None]:
        """Texts of dictionary codes int32[n]; None for a code that has none."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Calibrated answers for B seeds.

    output float64[B, outputs]: logits of classes, or quantiles at QUANTILES in the label's unit, per step. probability:
    float64[B] of a binary target, float64[B, classes] of a multiclass or multilabel one, None of a number. value:
    float64[B] (float64[B, steps] of a forecast), the median of a number, None of classes. `collate_us` and `forward_us`
    say how long the two halves of the work took, for all seeds together.
    """

    output: NDArray[np.float64]
    probability: NDArray[np.float64] | None
    value: NDArray[np.float64] | None
    collate_us: int = 0
    forward_us: int = 0

    @property
    def logit(self) -> NDArray[np.float64]:
        """float64[B]: the first output, which is the logit of a binary target."""
        logit: NDArray[np.float64] = self.output[:, 0]
        return logit


def answer(target: Target, output: NDArray[np.float64], collate_us: int = 0, forward_us: int = 0) -> Prediction:
    """Return what calibrated outputs float64[B, outputs] say."""
    if not target.is_number:
        return Prediction(output, probability_of(target, output), None, collate_us, forward_us)
    value = output.reshape(len(output), target.steps, len(QUANTILES))[:, :, MEDIAN]
    if target.kind is not Kind.FORECAST:
        value = value[:, 0]
    return Prediction(output, None, value, collate_us, forward_us)


class Predictor:
    """Predicts from neighborhoods sampled by `sampling_plan` on the graph it was loaded for.

    Callers may predict from several threads. Equal inputs give logits within 1e-5 in any batch; with `fixed_shape` each
    seed is computed alone on one thread of the processor, and equal inputs give equal bits. A GPU has the weights and
    the forward pass; batches are made and answers calibrated on the processor.
    """

    def __init__(
        self, checkpoint: Checkpoint, view: GraphDictionaries, *, fixed_shape: bool = False, device: str = CPU
    ) -> None:
        """Sets which kernels PyTorch uses, in the whole process (`kernels`).

        Raises:
            CheckpointMismatch: the graph's schema is not the one the model was trained on.
            DeviceUnavailable: the device is not there, or `fixed_shape` is asked of a GPU.
        """
        use_kernels_for_any_shape()
        self._device = find_device(device)
        if fixed_shape and self._device.type != CPU:
            raise DeviceUnavailable(device, "equal bits (fixed shape) are promised on cpu alone")
        model, self._encoding = checkpoint.build(view.schema, view.strings)
        self._model = model.to(self._device)
        self._view = view
        self._calibration, self._unit = checkpoint.calibration, checkpoint.unit
        self._fixed_shape = fixed_shape
        self._one_thread = threading.Lock()
        self.task: Task = checkpoint.task
        self.sampling_plan: SamplingPlan = checkpoint.sampling_plan
        self.version: str = checkpoint.version
        self.metrics = checkpoint.metrics

    @classmethod
    def load(
        cls,
        folder: Path,
        view: GraphDictionaries,
        *,
        threads: int | None = None,
        fixed_shape: bool = False,
        device: str = CPU,
    ) -> Predictor:
        """Load a checkpoint for a graph.

        `threads` sets how many threads PyTorch uses for one operation, in the whole process: 1 is best where requests
        are small and cores are shared; None leaves it.

        Raises:
            CheckpointCorrupt: a file is missing, truncated or altered, or a weight is not finite.
            CheckpointMismatch: the graph's schema is not the one the model was trained on.
            DeviceUnavailable: as the constructor.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        return cls(Checkpoint.load(folder, view.schema), view, fixed_shape=fixed_shape, device=device)

    @property
    def plan(self) -> SamplingPlan:
        """The sampling plan, by its short name."""
        return self.sampling_plan

    def read(self, view: GraphDictionaries) -> None:
        """From now on read the codes of neighborhoods by another view of the graph's schema.

        Weights stay; what was learned of the other view's codes goes. Not while another thread predicts.
        """
        if view is not self._view:
            self._encoding, self._view = self._encoding.over(view.strings), view

    def predict(self, neighborhood: Neighborhood) -> Prediction:
        """Return the calibrated answers for the B seeds of a neighborhood; none for none.

        Seeds must be rows of the task's table, known or not, with or without neighbors and cells; of an entity-level
        task as of their cut-offs (`Sampler.sample_keys`).
        """
        seeds = len(neighborhood.cutoff_time_us)
        if not seeds:
            return answer(self.task.target, np.empty((0, self.task.target.outputs)))
        start_s = time.perf_counter()
        with torch.inference_mode():
            batch = collate(neighborhood, self._encoding)
            collated_s = time.perf_counter()
            if self._fixed_shape:
                raw = self._alone(batch, neighborhood.seed_offset)
            else:
                raw = self._model(batch.to(self._device)).float().cpu().numpy().astype(np.float64)
        output = self._calibration.apply(self._unit.decode(raw))
        forward_us = round((time.perf_counter() - collated_s) * 1e6)
        return answer(self.task.target, output, round((collated_s - start_s) * 1e6), forward_us)

    def _alone(self, batch: Batch, seed_offset: NDArray[np.int64]) -> NDArray[np.float64]:
        """Compute each seed by itself, on one thread, from memory PyTorch has aligned: then the bits do not vary."""
        raw = np.empty((len(seed_offset) - 1, self.task.target.outputs))
        with self._one_thread:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                for seed in range(len(raw)):
                    raw[seed] = self._model(batch.alone(seed_offset, seed))[0].numpy()
            finally:
                torch.set_num_threads(threads)
        return raw
