"""The micro-batcher: what waits is answered together, and nothing waits for company.

    handler (event loop) -> bounded queue -> worker thread: sample, collate, forward, or rank -> future (event loop)

One worker takes everything that is waiting, up to the batch limit. When the server is idle a request is a batch of one
and is taken at once; while a batch runs the next one gathers, so batches grow with load and no timer adds delay.
What answers is native code and torch, which release Python's lock, so the event loop keeps reading requests meanwhile.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

from model_server.errors import DeadlinePassedError, DrainingError, OverloadedError, PredictionFailedError, ServerError
from model_server.metrics import Metrics
from model_server.settings import ServerSettings

log = structlog.get_logger(__name__)


class Asked(Protocol):
    """What waits to be answered."""

    @property
    def deadline_s(self) -> float:
        """The moment (time.monotonic) after which nobody listens."""


QuestionT = TypeVar("QuestionT", bound=Asked)
AnswerT = TypeVar("AnswerT")

Answerer = Callable[[Sequence[QuestionT], Sequence[int]], Sequence[AnswerT]]
"""Takes what is asked together and the microseconds each waited; gives their answers in order, on the worker thread.

It may raise: then each question is asked alone, and whose question fails alone gets the ServerError, or
PredictionFailedError for anything else.
"""


@dataclass(slots=True)
class _Job(Generic[QuestionT, AnswerT]):
    question: QuestionT
    future: asyncio.Future[AnswerT]
    enqueued_s: float


class Engine(Generic[QuestionT, AnswerT]):
    """Owns the worker thread and its queue. `submit` and `close` belong to the event loop that called `start`."""

    def __init__(
        self,
        answerer: Answerer[QuestionT, AnswerT],
        settings: ServerSettings,
        metrics: Metrics,
        *,
        batch_limit: int | None = None,
    ) -> None:
        """At most `batch_limit` questions, by default the settings', are answered together."""
        self._answerer = answerer
        self._settings = settings
        self._batch_limit = settings.batch_limit if batch_limit is None else batch_limit
        self._metrics = metrics
        self._queue: queue.SimpleQueue[_Job[QuestionT, AnswerT] | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="nowgraph-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    def start(self) -> None:
        """Starts the worker; answers come back on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._worker.start()

    def submit(self, question: QuestionT) -> asyncio.Future[AnswerT]:
        """Puts a question in the queue. Raises OverloadedError when it is full, DrainingError after `close`."""
        if self._closing or self._loop is None:
            raise DrainingError("the server is stopping")
        if self._queue.qsize() >= self._settings.queue_limit:
            self._metrics.shed.labels("queue").inc()
            raise OverloadedError(f"{self._settings.queue_limit} rows are waiting already")
        future: asyncio.Future[AnswerT] = self._loop.create_future()
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

    def _take(self) -> tuple[list[_Job[QuestionT, AnswerT]], bool]:
        """Blocks for the first job, then takes what else is there; True when the queue was closed behind them."""
        first = self._queue.get()
        if first is None:
            return [], True
        jobs = [first]
        while len(jobs) < self._batch_limit:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        self._metrics.queue_rows.set(self._queue.qsize())
        return jobs, False

    def _run(self, jobs: list[_Job[QuestionT, AnswerT]]) -> None:
        started_s = time.monotonic()
        live: list[_Job[QuestionT, AnswerT]] = []
        late: list[_Job[QuestionT, AnswerT]] = []
        for job in jobs:
            if job.future.done():  # the caller went away: its handler was cancelled and took the future with it
                self._metrics.cancelled.inc()
            elif job.question.deadline_s <= started_s:
                self._metrics.expired.inc()
                late.append(job)
            else:
                live.append(job)
        outcomes: list[AnswerT | ServerError] = [
            DeadlinePassedError("the deadline passed while the request waited")
        ] * len(late)
        if live:
            outcomes = outcomes + self._outcomes(live, started_s)
        if late or live:
            self._give_back(late + live, outcomes)

    def _outcomes(self, jobs: Sequence[_Job[QuestionT, AnswerT]], started_s: float) -> list[AnswerT | ServerError]:
        """Answers the jobs together; when that fails, each alone, so that one bad question fails no other."""
        try:
            return list(self._answers(jobs, started_s))
        except ServerError as error:
            if len(jobs) == 1:
                return [error]
        except Exception as error:  # noqa: BLE001 - whatever failed, each caller gets its answer and the worker lives
            _report(error, rows=len(jobs))
            if len(jobs) == 1:
                return [PredictionFailedError("the prediction failed; the server's log has the place")]
        return [outcome for job in jobs for outcome in self._outcomes([job], started_s)]

    def _answers(self, jobs: Sequence[_Job[QuestionT, AnswerT]], started_s: float) -> Sequence[AnswerT]:
        waited_s = [started_s - job.enqueued_s for job in jobs]
        answers = self._answerer([job.question for job in jobs], [round(waited * 1e6) for waited in waited_s])
        for waited in waited_s:
            self._metrics.stages["queue"].observe(waited)
        self._metrics.batch_rows.observe(len(jobs))
        self._metrics.model_rows.inc(len(jobs))
        return answers

    def _give_back(self, jobs: list[_Job[QuestionT, AnswerT]], outcomes: list[AnswerT | ServerError]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_resolve, jobs, outcomes)
        except RuntimeError:  # the loop is gone, and with it everyone who waited
            log.warning("answers_without_loop", rows=len(jobs))


def _resolve(jobs: list[_Job[QuestionT, AnswerT]], outcomes: list[AnswerT | ServerError]) -> None:
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
