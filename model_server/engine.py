"""The micro-batcher: what waits is scored together, and nothing waits for company.

    handler (event loop) -> bounded queue -> worker thread: sample -> collate -> forward -> future (event loop)

One worker takes everything that is waiting, up to the batch limit. When the server is idle a request is a batch of one
and is taken at once; while a batch runs the next one gathers, so batches grow with load and no timer adds delay.
Sampling is native and forward is torch: both release Python's lock, so the event loop keeps reading requests meanwhile.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from graph_transformer.predictor import Prediction
from model_server.answer import Answer, History, answers_of, history_of
from model_server.errors import DeadlinePassedError, DrainingError, OverloadedError, PredictionFailedError, ServerError
from model_server.generation import Serving
from model_server.metrics import Metrics
from model_server.seeds import sample
from model_server.settings import ServerSettings
from temporal_graph.view import GraphPosition, Key

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: an event or a key, its cut-off, and the moment (time.monotonic) after which nobody listens."""

    event: bytes
    cutoff_time_us: int
    deadline_s: float
    key: Key | None = None


@dataclass(frozen=True, slots=True)
class Stages:
    """Where a question's time went; sample, collate and forward are those of the batch it was scored in."""

    queue_us: int
    sample_us: int
    collate_us: int
    forward_us: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A question's answer and what it was computed from."""

    answer: Answer
    history: History
    position: GraphPosition
    model_version: str
    stages: Stages


@dataclass(slots=True)
class _Job:
    question: Question
    future: asyncio.Future[Scored]
    enqueued_s: float


Outcome = Scored | ServerError


class Engine:
    """Owns the worker thread and its queue. `submit` and `close` belong to the event loop that called `start`."""

    def __init__(self, serving: Callable[[], Serving], settings: ServerSettings, metrics: Metrics) -> None:
        self._serving = serving
        self._settings = settings
        self._metrics = metrics
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="nowgraph-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def start(self) -> None:
        """Starts the worker; answers come back on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()

    def submit(self, question: Question) -> asyncio.Future[Scored]:
        """Puts a question in the queue. Raises OverloadedError when it is full, DrainingError after `close`."""
        if self._closing or self._loop is None:
            raise DrainingError("the server is stopping")
        if self._queue.qsize() >= self._settings.queue_limit:
            self._metrics.shed.labels("queue").inc()
            raise OverloadedError(f"{self._settings.queue_limit} rows are waiting already")
        future: asyncio.Future[Scored] = self._loop.create_future()
        self._queue.put(_Job(question, future, time.monotonic()))
        return future

    async def close(self) -> None:
        """Takes no more questions, answers those that wait, and ends the worker."""
        if self._closing:
            return
        self._closing = True
        self._queue.put(None)
        if self._worker.is_alive():
            await asyncio.to_thread(self._worker.join)

    def _work(self) -> None:
        while True:
            jobs, last = self._take()
            if jobs:
                self._run(jobs)
            if last:
                return

    def _take(self) -> tuple[list[_Job], bool]:
        """Blocks for the first job, then takes what else is there; True when the queue was closed behind them."""
        first = self._queue.get()
        if first is None:
            return [], True
        jobs = [first]
        while len(jobs) < self._settings.batch_limit:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        self._metrics.queue_rows.set(self._queue.qsize())
        return jobs, False

    def _run(self, jobs: list[_Job]) -> None:
        started_s = time.monotonic()
        live: list[_Job] = []
        late: list[_Job] = []
        for job in jobs:
            if job.future.done():  # the caller went away: its handler was cancelled and took the future with it
                self._metrics.cancelled.inc()
            elif job.question.deadline_s <= started_s:
                self._metrics.expired.inc()
                late.append(job)
            else:
                live.append(job)
        outcomes: list[Outcome] = [DeadlinePassedError("the deadline passed while the request waited")] * len(late)
        if live:
            outcomes = outcomes + self._outcomes(live, started_s)
        if late or live:
            self._give_back(late + live, outcomes)

    def _outcomes(self, jobs: Sequence[_Job], started_s: float) -> list[Outcome]:
        """Scores the jobs together; when that fails, each alone, so that one bad row fails no other."""
        try:
            return list(self._score(jobs, started_s))
        except Exception as error:  # noqa: BLE001 - whatever failed, each caller gets its answer and the worker lives
            _report(error, rows=len(jobs))
            if len(jobs) == 1:
                return [PredictionFailedError("the prediction failed; the server's log has the place")]
        return [outcome for job in jobs for outcome in self._outcomes([job], started_s)]

    def _score(self, jobs: Sequence[_Job], started_s: float) -> list[Scored]:
        serving = self._serving()
        sample_start_s = time.perf_counter()
        neighborhood = sample(serving.sampler, serving.predictor.task.target, [job.question for job in jobs])
        sample_us = round((time.perf_counter() - sample_start_s) * 1e6)
        prediction = serving.predictor.predict(neighborhood)
        self._observe(jobs, started_s, sample_us, prediction)
        return [
            Scored(
                answer=answer,
                history=history,
                position=neighborhood.position,
                model_version=serving.predictor.version,
                stages=Stages(
                    queue_us=round((started_s - job.enqueued_s) * 1e6),
                    sample_us=sample_us,
                    collate_us=prediction.collate_us,
                    forward_us=prediction.forward_us,
                ),
            )
            for job, answer, history in zip(jobs, answers_of(prediction), history_of(neighborhood), strict=True)
        ]

    def _observe(self, jobs: Sequence[_Job], started_s: float, sample_us: int, prediction: Prediction) -> None:
        stages = self._metrics.stages
        for job in jobs:
            stages["queue"].observe(started_s - job.enqueued_s)
        stages["sample"].observe(sample_us / 1e6)
        stages["collate"].observe(prediction.collate_us / 1e6)
        stages["forward"].observe(prediction.forward_us / 1e6)
        self._metrics.batch_rows.observe(len(jobs))
        self._metrics.model_rows.inc(len(jobs))

    def _give_back(self, jobs: list[_Job], outcomes: list[Outcome]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_resolve, jobs, outcomes)
        except RuntimeError:  # the loop is gone, and with it everyone who waited
            log.warning("answers_without_loop", rows=len(jobs))


def _resolve(jobs: list[_Job], outcomes: list[Outcome]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        if job.future.done():
            continue
        if isinstance(outcome, ServerError):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)


def _report(error: Exception, *, rows: int) -> None:
    """Logs what failed and where, never the message: it may quote a row."""
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("prediction_failed", error=type(error).__name__, where=where[-6:], rows=rows)
