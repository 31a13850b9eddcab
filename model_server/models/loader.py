"""From a version to what serves it: fetched, checked, verified on its golden requests, bound to a graph, warmed up.

    version ─► registry: files, SHA-256 ─► Checkpoint: weights finite, schema ─► golden requests ─► model over a view
            ─► first answers about nobody ─► Served

All of it happens beside the traffic, on a thread of its own, on a view that nobody reads yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.device import CPU
from graph_transformer.errors import CheckpointCorrupt, CheckpointError
from graph_transformer.predictor import Predictor
from graph_transformer.ranking.lists import ListRanker, RankQuestion
from graph_transformer.target import Target
from model_server.errors import GraphUnavailableError
from model_server.generation import Served, Serving, serving_over
from model_server.loading import bind_model
from model_server.models import golden
from model_server.models.channel import Canary, Channel
from model_server.models.errors import ModelRefused, Reason, RegistryError
from model_server.models.registry import GOLDEN_NAME, Registry
from model_server.scorer import Question
from model_server.seeds import key_of, unknown_key
from model_server.settings import ServerSettings
from model_server.store import ServedView, StoreView
from online_sampler.errors import PlanError
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.schema import Schema

log = structlog.get_logger(__name__)

# Rows of the batches that a model answers before it is asked: one alone, and one that is padded.
WARM_UP_ROWS = (1, 8)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which models a task is to be served by; `source` names the place that says so, and `revision` its state."""

    live: str
    canary: Canary | None = None
    shadows: tuple[str, ...] = ()
    revision: int = 0


class Models(Protocol):
    """Where the models of one task come from. Used by one thread at a time."""

    def wanted(self) -> Wanted:
        """What is to be served now. Raises ModelRefused or RegistryError where that cannot be told."""

    def checkpoint(self, version: str, schema: Schema) -> Checkpoint:
        """A version, checked and verified. Raises ModelRefused."""

    def decide(self, canary: Canary, *, promote: bool) -> bool:
        """Makes the canary live, or ends it; False where it is not the canary any more. Raises RegistryError."""


class FolderModels:
    """The one model of a checkpoint's folder: it is read when the server starts and when the graph is a new one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def wanted(self) -> Wanted:
        """As `Models.wanted`: whatever lies in the folder."""
        return Wanted(str(self._folder))

    def checkpoint(self, version: str, schema: Schema) -> Checkpoint:  # noqa: ARG002 - there is only one
        """As `Models.checkpoint`."""
        return _loaded(self._folder, schema)

    def decide(self, canary: Canary, *, promote: bool) -> bool:  # noqa: ARG002 - there is no canary
        """As `Models.decide`."""
        return False


class RegistryModels:
    """The models of a registry's channel; `canary` and `shadows` stand in place of what the channel says of them."""

    def __init__(
        self,
        registry: Registry,
        task: str,
        channel: str,
        *,
        canary: Canary | None = None,
        shadows: tuple[str, ...] | None = None,
        device: str = CPU,
    ) -> None:
        self.registry = registry
        self.task = task
        self.channel = channel
        self._canary, self._device = canary, device
        self._shadows = shadows

    def wanted(self) -> Wanted:
        """As `Models.wanted`."""
        found = self.registry.channel(self.task, self.channel)
        canary = self._canary or found.canary
        shadows = found.shadows if self._shadows is None else self._shadows
        if canary is not None and canary.version == found.version:
            canary = None  # it was promoted
        return Wanted(found.version, canary, tuple(one for one in shadows if one != found.version), found.revision)

    def checkpoint(self, version: str, schema: Schema) -> Checkpoint:
        """As `Models.checkpoint`."""
        found = verified(self.registry, self.task, version, schema, device=self._device)
        log.info("model_verified", task=self.task, model_version=version, golden=found.golden, off=found.off)
        return found.checkpoint

    def decide(self, canary: Canary, *, promote: bool) -> bool:
        """As `Models.decide`. Of several servers that count for themselves the first one decides."""
        done = False

        def step(before: Channel | None) -> Channel:
            nonlocal done
            assert before is not None  # or there would be no canary
            done = before.canary == canary
            if not done:
                return before
            return before.promote() if promote else before.with_canary(None)

        self.registry.change(self.task, self.channel, step)
        return done


@dataclass(frozen=True, slots=True)
class Verified:
    """A version that is whole: it answers all of its `golden` requests as when it was pushed, `off` by at most this."""

    checkpoint: Checkpoint
    golden: int
    off: float


def verified(
    registry: Registry, task: str, version: str, schema: Schema | None = None, *, device: str = CPU
) -> Verified:
    """Fetches a version and checks all of it on a device, against a schema if one is given. Raises ModelRefused."""
    try:
        folder, manifest = registry.fetch(task, version)
    except RegistryError as error:
        raise ModelRefused(Reason.UNAVAILABLE, str(error)) from None
    checkpoint = _loaded(folder, schema)
    if checkpoint.version != version:
        raise ModelRefused(Reason.CORRUPT, f"{folder} holds version {checkpoint.version}, not {version}")
    if checkpoint.task.name != task:
        raise ModelRefused(Reason.MISMATCH, f"{folder} is of task {checkpoint.task.name!r}, not {task!r}")
    off = golden.verify(golden.load(folder / GOLDEN_NAME), checkpoint, device=device) if manifest.golden else 0.0
    return Verified(checkpoint, manifest.golden, off)


def _loaded(folder: Path, schema: Schema | None) -> Checkpoint:
    try:
        return Checkpoint.load(folder, schema)
    except CheckpointCorrupt as error:
        raise ModelRefused(Reason.CORRUPT, str(error)) from None
    except CheckpointError as error:
        raise ModelRefused(Reason.MISMATCH, str(error)) from None


Refuse = Callable[[str, str, ModelRefused], None]
"""Takes the role and the version of a model that is not served, and why."""


class Loader:
    """Builds what serves one task. Its methods block; each view it is given belongs to what it returns."""

    def __init__(self, models: Models, settings: ServerSettings, *, target: Target | None = None) -> None:
        """`target` is what every model must predict; None lets the first one say so."""
        self.models = models
        self._settings = settings
        self._target = target

    def live(self, wanted: Wanted, view: ServedView, refuse: Refuse) -> Served:
        """Serves the live version with its shadows; a shadow that cannot be is told to `refuse` and left out.

        Raises ModelRefused for the live version.
        """
        model = self._model(wanted.live, view)
        serving = warmed_up(_over(view, model))
        beside = view.twin() if wanted.shadows else view
        shadows: list[Predictor] = []
        for version in wanted.shadows:
            try:
                shadows.append(self._shadow(version, beside, serving))
            except ModelRefused as error:
                refuse("shadow", version, error)
        return replace(serving, shadows=tuple(shadows)) if isinstance(serving, Serving) else serving

    def canary(self, version: str, view: ServedView) -> Served:
        """Serves another version, without shadows. Raises ModelRefused."""
        return warmed_up(_over(view, self._model(version, view)))

    def _model(self, version: str, view: ServedView) -> Predictor | ListRanker:
        checkpoint = self.models.checkpoint(version, view.schema)
        if self._target is None:
            self._target = checkpoint.task.target
        elif checkpoint.task.target != self._target:
            raise ModelRefused(Reason.MISMATCH, f"{version} predicts something else than what is served")
        try:
            return bind_model(checkpoint, view, self._settings)
        except CheckpointCorrupt as error:
            raise ModelRefused(Reason.CORRUPT, str(error)) from None
        except CheckpointError as error:
            raise ModelRefused(Reason.MISMATCH, str(error)) from None

    def _shadow(self, version: str, view: ServedView, serving: Served) -> Predictor:
        if not isinstance(serving, Serving):
            raise ModelRefused(Reason.MISMATCH, "a ranking has no shadows: each ranker finds candidates of its own")
        if isinstance(serving.view, StoreView):
            raise ModelRefused(
                Reason.MISMATCH, "a graph in Redis has no shadows: by the time they answer its codes are others'"
            )
        shadow = self._model(version, view)
        assert isinstance(shadow, Predictor)  # of the same target
        if shadow.sampling_plan != serving.predictor.sampling_plan:
            raise ModelRefused(
                Reason.MISMATCH,
                f"{version} has another sampling plan than {serving.version}: it cannot read the same neighborhoods",
            )
        _answer_nobody(serving, shadow)
        return shadow


def _over(view: ServedView, model: Predictor | ListRanker) -> Served:
    try:
        return serving_over(view, model)
    except PlanError as error:
        raise ModelRefused(Reason.MISMATCH, f"sampling_plan.{error}") from None


def warmed_up(serving: Served) -> Served:
    """Lets it answer about nobody, so that no caller waits for the first forward pass.

    Raises ModelRefused where that fails or gives no numbers.
    """
    if isinstance(serving, Serving):
        _answer_nobody(serving, serving.predictor)
        return serving
    try:
        now_us = time.time_ns() // 1_000
        serving.ranker.rank([RankQuestion(user=None, session=(), cutoff_time_us=now_us, limit=10)])
    except Exception as error:
        raise ModelRefused(Reason.WARM_UP, f"the first list failed: {error!r}") from error
    return serving


def _answer_nobody(serving: Serving, model: Predictor) -> None:
    for rows in WARM_UP_ROWS:
        try:
            found = serving.sample([_nobody(serving, number) for number in range(rows)])
            output = model.predict(found).output
        except GraphUnavailableError as error:  # the model is not to blame
            raise ModelRefused(Reason.UNAVAILABLE, str(error)) from error
        except Exception as error:  # whatever failed would fail on a caller's request
            raise ModelRefused(Reason.WARM_UP, f"the first answer failed: {error!r}") from error
        if not np.isfinite(output).all():
            raise ModelRefused(Reason.WARM_UP, f"{model.version} answers with what is no number")


def _nobody(serving: Serving, number: int) -> Question:
    table = serving.view.schema.table(serving.predictor.task.target.table)
    now_us = time.time_ns() // 1_000
    row = row_event_pb2.RowEvent(
        table=table.name,
        key=unknown_key(table, number),
        event_time_us=now_us,
        operation=row_event_pb2.OPERATION_INSERT,
    )
    return Question(row.SerializeToString(), now_us - 1, 0.0, key_of(row.key))
