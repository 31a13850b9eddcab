"""Models that only watch: they score the neighborhoods that the live model was given, after its answers have left.

    engine's worker: sample ─► live model ─► answers ─► event loop ─► callers
                        └► Ticket with the Neighborhood ────┴► bounded queue ─► shadow thread: compared, measured
                                                                              └► predictions topic, with the live one

Nothing is sampled twice and nobody waits: a batch is queued once the event loop has handed out its answers, a shadow
that cannot keep up is skipped for whole batches, and counted. The queue keeps its order, skipped batches too, so that
records of one row stay in theirs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field

import structlog

from graph_transformer.predictor import Prediction, Predictor
from graph_transformer.target import Target
from model_server.answer import Answer, answers_of, write_answer
from model_server.models.comparison import compare
from model_server.models.metrics import ModelMetrics
from online_sampler.neighborhood import Neighborhood
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

log = structlog.get_logger(__name__)

# Batches that wait for the shadows: a second of work at most, and a few megabytes of neighborhoods.
BATCHES_LIMIT = 16
# Of the shadow's thread, among the threads of this process and others: whatever answers somebody goes before it.
NICE = 10


Done = Callable[[Sequence[service_pb2.ScoreResponse]], None]
"""Takes what each shadow said: its version and its answer, and nothing else of a response."""


@dataclass(slots=True, eq=False)
class Ticket:
    """A batch on its way through the shadows. Its methods belong to the event loop."""

    owner: Shadows
    neighborhood: Neighborhood | None
    live: Prediction | None
    shadows: Sequence[Predictor]
    answers: Mapping[str, Sequence[Answer]] | None = None
    _released: bool = False
    _waiting: list[tuple[int, Done, Context]] = field(default_factory=list)

    def when_done(self, place: int, done: Done) -> None:
        """Calls `done` with what the shadows said of the question at a place of the batch; of skipped ones nothing.

        The first call lets the batch go, behind what the event loop has to do now: hand out the answers.
        """
        if self.answers is not None:
            done(self._of(place))
            return
        self._waiting.append((place, done, copy_context()))
        if not self._released:
            self._released = True
            asyncio.get_running_loop().call_soon(self.owner.release, self)

    def finish(self, answers: Mapping[str, Sequence[Answer]]) -> None:
        """Tells everybody who waits."""
        self.answers = answers
        waiting, self._waiting = self._waiting, []
        for place, done, context in waiting:
            context.run(done, self._of(place))

    def _of(self, place: int) -> list[service_pb2.ScoreResponse]:
        assert self.answers is not None
        said = []
        for version, answers in self.answers.items():
            response = service_pb2.ScoreResponse(model_version=version)
            write_answer(response, self.owner.target, answers[place])
            said.append(response)
        return said


@dataclass(frozen=True, slots=True)
class Place:
    """One question's place in a batch that shadows score."""

    ticket: Ticket
    place: int

    def when_done(self, done: Done) -> None:
        """As `Ticket.when_done`."""
        self.ticket.when_done(self.place, done)


class Shadows:
    """The thread that shadows of one task run on. `offer` is for the engine's worker, the rest for the event loop.

    The thread begins with the first batch: a task without shadows has none.
    """

    def __init__(self, target: Target, metrics: ModelMetrics, *, share: float = 1.0) -> None:
        """`share` of the batches is scored, evenly spread."""
        self.target = target
        self._share = share
        self._due = 0.0
        self._metrics = metrics
        self._tickets: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def offer(self, shadows: Sequence[Predictor], neighborhood: Neighborhood, live: Prediction) -> Ticket | None:
        """What waits for a batch that the live model has answered; nothing runs before somebody waits.

        None for a batch that is not of the share.
        """
        self._due += self._share
        if self._due < 1.0:
            return None
        self._due -= 1.0
        return Ticket(self, neighborhood, live, shadows)

    def release(self, ticket: Ticket) -> None:
        """Queues a batch; one that finds the queue full is skipped when its turn comes."""
        if self._closing:
            ticket.finish({})
            return
        self._loop = asyncio.get_running_loop()
        with self._changed:
            if sum(one.neighborhood is not None for one in self._tickets) >= BATCHES_LIMIT:
                for shadow in ticket.shadows:
                    self._metrics.shadow(shadow.version).rows["skipped"].inc(_rows(ticket))
                ticket.neighborhood = ticket.live = None
            self._tickets.append(ticket)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="nowgraph-shadows", daemon=True)
                self._thread.start()
            self._changed.notify()

    async def close(self) -> None:
        """Skips what waits and ends the thread; every ticket is finished before this returns."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            await asyncio.sleep(0)  # what the thread has handed over runs before whoever waits for this

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._changed:
                while not self._tickets and not self._closing:
                    self._changed.wait()
                if not self._tickets:
                    return
                ticket = self._tickets.popleft()
                skip = self._closing
            answers = {} if skip else self._scored(ticket)
            ticket.neighborhood = ticket.live = None
            ticket.shadows = ()
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(ticket.finish, answers)
            except RuntimeError:  # the loop is gone, and with it everyone who waited
                log.warning("shadows_without_loop")
                return

    def _scored(self, ticket: Ticket) -> dict[str, Sequence[Answer]]:
        answers: dict[str, Sequence[Answer]] = {}
        neighborhood, live = ticket.neighborhood, ticket.live
        if neighborhood is None or live is None:
            return answers
        for shadow in ticket.shadows:
            metrics = self._metrics.shadow(shadow.version)
            start_s = time.perf_counter()
            try:
                prediction = shadow.predict(neighborhood)
                difference, disagrees = compare(self.target, live, prediction)
            except Exception as error:  # noqa: BLE001 - whatever a shadow does wrong, the live model goes on
                metrics.rows["failed"].inc(len(live.output))
                log.error("shadow_failed", model_version=shadow.version, error=type(error).__name__)  # noqa: TRY400
                continue
            metrics.seconds.observe(time.perf_counter() - start_s)
            metrics.rows["scored"].inc(len(difference))
            metrics.disagreements.inc(int(disagrees.sum()))
            for one in difference.tolist():
                metrics.difference.observe(one)
            answers[shadow.version] = answers_of(prediction)
        return answers


def _rows(ticket: Ticket) -> int:
    return 0 if ticket.live is None else len(ticket.live.output)
