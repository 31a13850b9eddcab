"""Keeps what one task is served by what it should be: the graph's newest generation, the channel's models.

    every 100 ms: generation superseded?  ─┐
    every 2 s: what does the channel say?  ─┴► load, verify, warm up beside the traffic ─► replaced between two batches

What is refused leaves everything as it was, is logged with its reason, counted, and not tried again before the channel
changes; only what could not be read just now is. A registry behind a URL may hang: nobody waits for it, neither a new
generation nor the end of the process.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

import structlog

from model_server.generation import Served
from model_server.models.errors import ModelRefused, Reason, RegistryError
from model_server.models.lanes import Lanes
from model_server.models.loader import Loader, Wanted
from model_server.store import ServedView

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT")

# After the registry could not be read it is left alone for so long.
RETRY_S = 10.0
# What is not read within this time is read on beside what else there is to do.
READ_S = 5.0
# After a generation could not be served, so long with the one before.
GENERATION_RETRY_S = 1.0


class Switch:
    """Watches for one task. `run` and `look` belong to the event loop."""

    def __init__(
        self,
        lanes: Lanes,
        loader: Loader,
        wanted: Wanted,
        *,
        attach: Callable[[], ServedView] | None,
        generation_poll_s: float,
        models_poll_s: float,
    ) -> None:
        """`wanted` is what the live serving of `lanes` was loaded for; its canary has not begun yet.

        `attach` maps the newest generation; None where there is only one, in this process.
        """
        self._lanes = lanes
        self._loader = loader
        self._attach = attach
        self._generation_poll_s = generation_poll_s
        self._models_poll_s = models_poll_s
        self._wanted = self._served = wanted
        # What is served, or was refused for good; None asks again.
        self._settled_live: tuple[str, tuple[str, ...]] | None = (wanted.live, wanted.shadows)
        self._settled_canary: str | None = None
        self._next_look_s = self._next_generation_s = 0.0
        self._unavailable = False
        self._unreadable = ""
        self._reading: asyncio.Future[Wanted] | None = None
        lanes.tell()

    async def run(self) -> None:
        """Looks until cancelled; whatever goes wrong, what is served goes on."""
        while True:
            try:
                await self.look()
            except Exception:  # a defect here must not end the watching
                log.exception("switch_failed", task=self._lanes.task.name)
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(self._generation_poll_s)

    async def look(self) -> None:
        """One look, and what follows from it."""
        superseded = (
            self._attach is not None
            and self._lanes.generations.current().watch.superseded
            and time.monotonic() >= self._next_generation_s
        )
        due = time.monotonic() >= self._next_look_s
        if not (superseded or due):
            return
        if due:
            self._next_look_s = time.monotonic() + self._models_poll_s
            self._wanted = await self._read()
        self._unavailable = False
        changed = await self._settle_live(superseded=superseded)
        changed |= await self._settle_canary(superseded=superseded)
        await self._decide()
        if self._unavailable:
            self._next_look_s = time.monotonic() + RETRY_S
        if changed:
            self._lanes.tell()

    async def _read(self) -> Wanted:
        """What the channel says; what it said before, where it can't be read or has not been after `READ_S`."""
        waits_s = READ_S if self._reading is None else 0.0
        if self._reading is None:
            self._reading = _beside(self._loader.models.wanted)
        await asyncio.wait([self._reading], timeout=waits_s)
        if not self._reading.done():
            return self._cannot_read(f"no answer within {READ_S:g} s, and none since")
        reading, self._reading = self._reading, None
        try:
            wanted = reading.result()
        except (ModelRefused, RegistryError) as error:
            return self._cannot_read(str(error))
        self._unreadable = ""
        return wanted

    def _cannot_read(self, reason: str) -> Wanted:
        if reason != self._unreadable:  # once for each reason, not every two seconds
            log.warning("channel_unreadable", task=self._lanes.task.name, reason=reason)
            self._lanes.models.refused(Reason.UNAVAILABLE)
        self._unreadable = reason
        return self._wanted

    async def _settle_live(self, *, superseded: bool) -> bool:
        """Serves the live model and its shadows as they are wanted; returns whether anything was replaced."""
        lanes, wanted = self._lanes, self._wanted
        asked = (wanted.live, wanted.shadows)
        if asked == self._settled_live and not superseded:
            return False
        serving = await self._loaded_live(wanted)
        served = self._served if serving is None else wanted
        if serving is None and superseded and (served.live, served.shadows) != asked:
            serving = await self._loaded_live(served)  # the graph goes on, with the model that answers now
        self._settled_live = None if self._unavailable else asked
        if serving is None:
            if superseded:
                self._next_generation_s = time.monotonic() + GENERATION_RETRY_S
            return False
        self._served = served
        was = lanes.version
        lanes.generations.replace(serving)
        if superseded:
            log.info("generation_replaced", task=lanes.task.name, generation=serving.watch.generation)
        if serving.version != was:
            lanes.models.swapped()
            log.info("model_swapped", task=lanes.task.name, model_version=serving.version, before=was)
        return True

    async def _settle_canary(self, *, superseded: bool) -> bool:
        """Lets the canary that is wanted have its share; returns whether another one has it now."""
        lanes, canary = self._lanes, self._wanted.canary
        if canary is None or canary.version == lanes.version:
            self._settled_canary = None
            ended = lanes.canary is not None
            lanes.end_canary()
            return ended
        if canary.version == self._settled_canary and not superseded:
            lanes.set_share(canary.share)
            return False
        begins = canary.version != self._settled_canary
        serving = await self._loaded("canary", canary.version, lambda view: self._loader.canary(canary.version, view))
        if serving is not None:
            await lanes.begin_canary(serving, canary.share)
            if begins:
                lanes.models.swapped()
                log.info("canary_began", task=lanes.task.name, model_version=canary.version, share=canary.share)
        else:
            # The one before is not wanted, or reads a graph that nobody writes any more: all keys are the live model's.
            lanes.end_canary()
        self._settled_canary = None if self._unavailable else canary.version
        return True

    async def _decide(self) -> None:
        """Promotes the canary, or ends it, where its channel says by how many answers."""
        lane, canary = self._lanes.canary, self._wanted.canary
        if lane is None or canary is None or not canary.promote_after or self._settled_canary != canary.version:
            return
        failed = lane.failed > canary.failures_limit
        if not failed and lane.asked < canary.promote_after:
            return
        try:
            done = await _beside(lambda: self._loader.models.decide(canary, promote=not failed))
        except (ModelRefused, RegistryError) as error:
            log.warning("canary_undecided", task=self._lanes.task.name, reason=str(error))
            self._next_look_s = time.monotonic() + RETRY_S
            return
        if done:
            log.info(
                "canary_ended" if failed else "canary_promoted",
                task=self._lanes.task.name,
                model_version=canary.version,
                asked=lane.asked,
                failed=lane.failed,
            )
            self._next_look_s = 0.0

    async def _loaded_live(self, wanted: Wanted) -> Served | None:
        return await self._loaded("live", wanted.live, lambda view: self._loader.live(wanted, view, self._refused))

    async def _loaded(self, role: str, version: str, load: Callable[[ServedView], Served]) -> Served | None:
        """What serves a version, on the newest generation; None where it is refused."""
        watch = self._lanes.generations.current().watch
        twin = watch.twin() if self._attach is None or not watch.superseded else None

        def build() -> Served:
            if twin is not None:
                return load(twin)
            assert self._attach is not None
            return load(self._attach())

        try:
            return await _beside(build)
        except ModelRefused as error:
            self._refused(role, version, error)
        except Exception as error:  # whatever is wrong with the new one, the old one still serves
            log.exception("generation_refused", task=self._lanes.task.name)
            self._refused(role, version, ModelRefused(Reason.UNAVAILABLE, type(error).__name__))
        return None

    def _refused(self, role: str, version: str, error: ModelRefused) -> None:
        lanes = self._lanes
        lanes.models.refused(error.reason)
        if error.reason is Reason.UNAVAILABLE:
            self._unavailable = True
        log.error(
            "model_refused",
            task=lanes.task.name,
            role=role,
            model_version=version,
            why=str(error.reason),
            reason=str(error),
            serving=lanes.version,
        )


def _beside(work: Callable[[], ResultT]) -> asyncio.Future[ResultT]:
    """What `work` gives, on a thread of its own for which the end of the process does not wait."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ResultT] = loop.create_future()
    context = copy_context()

    def give(settle: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(lambda: None if future.done() else settle())

    def run() -> None:
        try:
            found = context.run(work)
        except Exception as error:  # noqa: BLE001 - it is for who waits
            give(lambda error=error: future.set_exception(error))  # type: ignore[misc]
        else:
            give(lambda: future.set_result(found))

    threading.Thread(target=run, name="nowgraph-models", daemon=True).start()
    return future
