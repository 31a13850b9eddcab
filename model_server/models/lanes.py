"""One task's models that answer: the live one, and beside it a canary that has a share of the keys.

    request ─► share of its key < canary's share? ─► canary: an engine of its own ─┐ fails, is full, goes away
            └► live ◄──────────────────────────────────────────────────────────────┘

Each lane has its own queue and worker, so that a canary that is slow or wrong costs its own keys a moment, and the
others nothing. A key stays on its side as long as the share does, and when the share grows none goes back.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from hashlib import blake2b

import structlog

from graph_transformer.task import Task
from model_server.calls import Calls, Parts, calls_of
from model_server.generation import Generations, Served, Serving
from model_server.models.metrics import ModelMetrics
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2

log = structlog.get_logger(__name__)

_SHARES = float(2**64)


def share_of(salt: bytes, key: bytes) -> float:
    """Where a key stands between 0 and 1: the same in every process, another for every salt (at most 64 bytes)."""
    return int.from_bytes(blake2b(key, digest_size=8, key=salt[:64]).digest()) / _SHARES


@dataclass(slots=True, eq=False)
class CanaryLane:
    """A second model that answers: its calls, and the share of the keys that it has."""

    generations: Generations
    calls: Calls
    share: float
    asked: int = 0
    failed: int = 0


class Lanes:
    """The models of one task. Belongs to the event loop, once started."""

    def __init__(self, generations: Generations, parts: Parts) -> None:
        """Raises NotConfiguredError for a model that cannot answer its task."""
        self.models = parts.models if parts.models is not None else ModelMetrics(parts.metrics)
        self._parts = replace(parts, models=self.models)
        self.generations = generations
        self.metrics = parts.metrics
        self.live: Calls = calls_of(generations, self._parts)
        self.canary: CanaryLane | None = None
        self._salt = self.task.name.encode()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def task(self) -> Task:
        """What is answered."""
        return self.live.task

    @property
    def version(self) -> str:
        """The live model's."""
        return self.generations.current().version

    def start(self) -> None:
        """Starts the worker."""
        self.live.start()

    async def warm_up(self) -> None:
        """A first answer about nobody."""
        await self.live.warm_up()

    def for_row(self, request: service_pb2.ScoreRequest) -> Calls:
        """Whose answer a score is."""
        return self.live if self.canary is None else self._for_key(request.row.key, self.canary)

    def for_user(self, request: service_pb2.RankRequest) -> Calls:
        """Whose list it is: of nobody, the live model's."""
        if self.canary is None or not request.HasField("user"):
            return self.live
        return self._for_key(request.user, self.canary)

    def _for_key(self, key: row_event_pb2.Key, canary: CanaryLane) -> Calls:
        return canary.calls if share_of(self._salt, key.SerializeToString()) < canary.share else self.live

    async def begin_canary(self, serving: Served, share: float) -> None:
        """Gives a share of the keys to what is served beside the live model; one that is there is replaced at once.

        Raises what warming up raises; then nothing has changed.
        """
        if self.canary is not None:
            if serving.version != self.canary.generations.current().version:
                self.canary.asked = self.canary.failed = 0
            self.canary.generations.replace(serving)
            self.canary.share = share
        else:
            generations = Generations(serving)
            calls = calls_of(generations, self._canary_parts())
            calls.start()
            try:
                await calls.warm_up()
            except BaseException:
                await calls.close()
                raise
            self.canary = CanaryLane(generations, calls, share)
        self.models.canary_share.set(share)

    def canary_asked(self, requests: int, failed: int = 0) -> None:
        """Counts what the canary was asked, and how much of it the live model answered in its place."""
        if failed:
            self.models.canary_failed(failed)
        if self.canary is not None:
            self.canary.asked += requests
            self.canary.failed += failed

    def set_share(self, share: float) -> None:
        """Changes the canary's share."""
        if self.canary is not None:
            self.canary.share = share
            self.models.canary_share.set(share)

    def end_canary(self) -> None:
        """Takes the keys back; what the canary was asked already it answers, or the live model does."""
        canary, self.canary = self.canary, None
        if canary is not None:
            self.models.canary_share.set(0)
            closing = asyncio.create_task(_close(canary))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Answers what waits and ends the workers."""
        self.end_canary()
        await asyncio.gather(self.live.close(), *self._closing)

    def release(self) -> None:
        """Lets go of the graph."""
        self.generations.release()

    def tell(self) -> None:
        """Tells the metrics which models are served now."""
        serving = self.generations.current()
        models = [("live", serving.version)]
        if self.canary is not None:
            models.append(("canary", self.canary.generations.current().version))
        if isinstance(serving, Serving):
            models += [("shadow", shadow.version) for shadow in serving.shadows]
        self.models.serving(models, time.time())

    def _canary_parts(self) -> Parts:
        """As the live model's; its metrics have the task's name with `/canary` behind it."""
        tenant, task = self.metrics.task_labels
        policy = self._parts.policy
        return replace(
            self._parts,
            metrics=self.metrics.for_task(tenant, f"{task or self.task.name}/canary"),
            policy=None if policy is None else policy.beside_another(),
        )


async def _close(canary: CanaryLane) -> None:
    await canary.calls.close()
    canary.generations.release()
