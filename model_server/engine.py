"""The micro-batcher: what waits is answered together, in time, and nothing waits for company.

    ask (event loop) -> admission -> backlog by class and deadline -> worker thread: sample, collate, forward, or rank
        ^------------------------------------- future (event loop) <----------------------------------------'

One worker takes what is waiting, up to the batch limit. When the server is idle a request is a batch of one and is
taken at once; what comes together, or while a batch runs, is a batch as soon as the event loop has read it
(`gathering.py`), so batches grow with load and no timer adds delay. What a batch
of n rows takes is measured: a batch is cut short where all of it would end after its earliest deadline, and a question
that cannot be answered in time is refused when it comes. What answers is native code and torch, which release Python's
lock, so the event loop keeps reading requests meanwhile.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

import structlog

from model_server.admission import Admission, retry_after_s
from model_server.backlog import Backlog, Priority
from model_server.errors import (
    DeadlinePassedError,
    DrainingError,
    GraphUnavailableError,
    OverloadedError,
    PredictionFailedError,
    ServerError,
)
from model_server.expiry import Expiry
from model_server.gathering import GATHER_S, Gathering
from model_server.metrics import Metrics
from model_server.service_time import ServiceTime
from model_server.settings import ServerSettings

log = structlog.get_logger(__name__)


class Asked(Protocol):
    """What waits to be answered."""

    @property
    def deadline_s(self) -> float:
        """The moment (time.monotonic) after which nobody listens."""


QuestionT = TypeVar("QuestionT", bound=Asked)
AnswerT = TypeVar("AnswerT")
FinishedT = TypeVar("FinishedT")

Answerer = Callable[[Sequence[QuestionT], Sequence[int]], Sequence[AnswerT]]
"""Takes what is asked together and the microseconds each waited; gives their answers in order, on the worker thread.

It may raise: then each question is asked alone, and whose question fails alone gets the ServerError, or
PredictionFailedError for anything else.
"""


@dataclass(slots=True)
class _Job(Generic[QuestionT, AnswerT]):
    question: QuestionT
    future: asyncio.Future[Any]
    enqueued_s: float
    deadline_s: float
    # When it was expected to be answered, without a margin.
    forecast_s: float
    # What makes of the answer what its caller waits for.
    finish: Callable[[AnswerT], Any] | None = None
    # The request's, so that what the worker logs of it names its trace.
    context: Context = field(default_factory=copy_context)


class Engine(Generic[QuestionT, AnswerT]):
    """Owns the worker thread and what waits for it; its methods belong to the event loop that called `start`."""

    def __init__(
        self,
        answerer: Answerer[QuestionT, AnswerT],
        settings: ServerSettings,
        metrics: Metrics,
        *,
        batch_limit: int | None = None,
        unread: Callable[[], int] = lambda: 0,
    ) -> None:
        """At most `batch_limit` questions, by default the settings', are answered together.

        `unread` says how many calls have come that may bring more of them.
        """
        self._answerer = answerer
        self._settings = settings
        self._batch_limit = settings.batch_limit if batch_limit is None else batch_limit
        self._unread = unread
        self._metrics = metrics
        self._shed = {buffer: metrics.shed.labels(buffer) for buffer in ("queue", "predicted_wait")}
        self._service = ServiceTime()
        self._admission = Admission(self._service, self._batch_limit)
        self._backlog: Backlog[_Job[QuestionT, AnswerT]] = Backlog(batch_share=settings.queue_batch_share)
        self._changed = threading.Condition(threading.Lock())
        self._worker = threading.Thread(target=self._work, name="nowgraph-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._expiry: Expiry | None = None
        self._closing = False
        self._gathering: Gathering | None = None
        # Whether what waits is all that had come.
        self._gathered = False

    def start(self) -> None:
        """Starts the worker; answers come back on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._expiry = Expiry(self._loop)
        self._gathering = Gathering(self._backlog.__len__, self._wake, unread=self._unread)
        self._worker.start()

    async def warm_up(self, question: QuestionT) -> None:
        """Asks one question alone, then in batches of rising size: from then on it is known what a batch costs."""
        await self.submit(question)
        rows = 1
        while rows < self._batch_limit:
            rows = min(rows * 4, self._batch_limit)
            await asyncio.gather(*(self.submit(question) for _ in range(min(rows, self._settings.queue_limit // 2))))

    async def ask(
        self, question: QuestionT, priority: Priority = Priority.INTERACTIVE, *, admitted: bool = False
    ) -> AnswerT:
        """The answer, within the deadline. Raises as `submit`, DeadlinePassedError, and what answering raised."""
        return cast("AnswerT", await self._watched(question, self.submit(question, priority, admitted=admitted)))

    async def ask_finished(
        self,
        question: QuestionT,
        finish: Callable[[AnswerT], FinishedT],
        priority: Priority = Priority.INTERACTIVE,
        *,
        admitted: bool = False,
    ) -> FinishedT:
        """What `finish` makes of the answer, in the caller's context. Raises as `ask`, and what `finish` raised.

        A batch is finished in one go before its callers run on. What one caller after the other does, with all of
        gRPC's sending in between, takes several times as long: nothing of it is in the processor's caches any more.
        """
        future = self.submit(question, priority, admitted=admitted, finish=finish)
        return cast("FinishedT", await self._watched(question, future))

    def _watched(self, question: QuestionT, future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        assert self._expiry is not None
        self._expiry.watch(future, question.deadline_s)
        return future

    def admit(self, deadline_s: float, priority: Priority = Priority.INTERACTIVE) -> None:
        """Whether a question that comes now would be taken. Raises OverloadedError with when to ask again.

        It costs microseconds, so that it can be asked before a request is read; `submit` asks it again.
        """
        with self._changed:
            self._admit(deadline_s, priority)

    def _admit(self, deadline_s: float, priority: Priority) -> None:
        now_s = time.monotonic()
        waiting = len(self._backlog)
        batch = priority is Priority.BATCH
        limit = self._settings.queue_batch_limit if batch else self._settings.queue_limit
        if waiting >= limit and (batch or not self._backlog.waiting(Priority.BATCH)):
            self._shed["queue"].inc()
            hint_s = retry_after_s(self._service.cost_s(self._batch_limit))
            raise OverloadedError(f"{waiting} rows are waiting already", retry_after_s=hint_s)
        late_s = self._late_s(now_s, deadline_s, priority)
        if late_s > 0 and deadline_s > now_s:  # after its deadline nothing is late: the worker says that it expired
            self._shed["predicted_wait"].inc()
            hint_s = retry_after_s(late_s)
            raise OverloadedError(
                f"{waiting} rows are waiting already, the deadline cannot be held", retry_after_s=hint_s
            )

    def _late_s(self, now_s: float, deadline_s: float, priority: Priority) -> float:
        """By how much a question that comes now would be late, or make the last one of its class late."""
        rows, latest_s = self._backlog.last(priority)
        own_s = self._admission.answer_s(now_s, self._backlog.ahead_of(priority, deadline_s)) - deadline_s
        if latest_s <= deadline_s:
            return own_s
        return max(own_s, self._admission.answer_s(now_s, rows) - latest_s)

    def submit(
        self,
        question: QuestionT,
        priority: Priority = Priority.INTERACTIVE,
        *,
        admitted: bool = False,
        finish: Callable[[AnswerT], Any] | None = None,
    ) -> asyncio.Future[Any]:
        """Puts a question in the backlog; one that is `admitted` has been let in by `admit` at this very moment.

        Raises as `admit`, and DrainingError after `close`.

        When the backlog is full a question of the interactive class takes the place of the last one of the batch class.
        """
        if self._closing or self._loop is None:
            raise DrainingError("the server is stopping")
        deadline_s = question.deadline_s
        dropped: _Job[QuestionT, AnswerT] | None = None
        with self._changed:
            if not admitted:
                self._admit(deadline_s, priority)
            if len(self._backlog) >= self._settings.queue_limit:
                dropped = self._backlog.drop_newest_batch()
            future: asyncio.Future[Any] = self._loop.create_future()
            now_s = time.monotonic()
            forecast_s = self._admission.answer_s(now_s, self._backlog.ahead_of(priority, deadline_s))
            # An idle engine forecasts nothing; and rows of the batch class are late because others came in between.
            forecast_s = max(forecast_s - self._admission.margin_s, now_s + self._service.cost_s(1))
            if priority is Priority.BATCH:
                forecast_s = math.inf
            job = _Job(question, future, now_s, deadline_s, forecast_s, finish)
            self._backlog.push(job, priority)
            waiting = len(self._backlog)
        assert self._gathering is not None
        late_s = now_s + GATHER_S + self._service.cost_s(waiting)
        self._gathering.row_came(urgent=waiting >= self._batch_limit or deadline_s < late_s)
        if dropped is not None and not dropped.future.done():
            self._shed["queue"].inc()
            hint_s = retry_after_s(self._service.cost_s(self._batch_limit))
            error = OverloadedError("the queue is full of requests of a higher class", retry_after_s=hint_s)
            dropped.future.set_exception(error)
        return future

    async def close(self) -> None:
        """Takes no more questions, answers those that wait, and ends the worker."""
        if self._closing:
            return
        self._closing = True
        with self._changed:
            self._changed.notify()
        if self._worker.is_alive():
            await asyncio.to_thread(self._worker.join)
        if self._expiry is not None:
            self._expiry.close()

    def _wake(self) -> None:
        with self._changed:
            self._gathered = True
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closing and not (self._gathered and len(self._backlog)):
                    self._changed.wait()
                if not len(self._backlog):
                    return
                self._gathered = False
                began_s = time.monotonic()
                jobs, late = self._take(began_s)
                self._admission.busy_until_s = began_s + self._service.cost_s(len(jobs)) if jobs else 0.0
                waiting = len(self._backlog)
            self._metrics.queue_rows.set(waiting)
            self._run(jobs, late, began_s)

    def _take(self, now_s: float) -> tuple[list[_Job[QuestionT, AnswerT]], list[_Job[QuestionT, AnswerT]]]:
        """What is answered together now, and what came too late for it.

        A batch is as large as it can be without ending after the earliest deadline in it that can be held at all. What
        can no longer be answered in time is left out, unless there is nothing else: then it shows what a batch costs.
        """
        alone_s = now_s + self._service.cost_s(1)
        room: float = self._batch_limit
        jobs: list[_Job[QuestionT, AnswerT]] = []
        hopeless: list[_Job[QuestionT, AnswerT]] = []
        late: list[_Job[QuestionT, AnswerT]] = []
        for job in self._backlog:
            future = job.future
            if future.done():  # the caller went away, or its deadline passed
                (self._metrics.cancelled if future.cancelled() else self._metrics.expired).inc()
            elif job.deadline_s <= now_s:
                self._metrics.expired.inc()
                late.append(job)
            elif job.deadline_s < alone_s:
                hopeless.append(job)
            else:
                room = min(room, max(1.0, self._service.rows_within(job.deadline_s - now_s)))
                jobs.append(job)
            if len(jobs) >= int(room) or len(hopeless) >= self._batch_limit:
                break
        if not jobs:
            return hopeless, late
        self._metrics.expired.inc(len(hopeless))
        return jobs, late + hopeless

    def _run(
        self, live: list[_Job[QuestionT, AnswerT]], late: list[_Job[QuestionT, AnswerT]], started_s: float
    ) -> None:
        outcomes: list[AnswerT | ServerError] = [
            DeadlinePassedError("the deadline passed while the request waited")
        ] * len(late)
        if live:
            outcomes = outcomes + self._outcomes(live, started_s)
            self._admission.busy_until_s = 0.0  # before anybody hears of it and asks again
        self._give_back(late + live, outcomes)

    def _outcomes(self, jobs: Sequence[_Job[QuestionT, AnswerT]], started_s: float) -> list[AnswerT | ServerError]:
        """Answers the jobs together; when that fails, each alone, so that one bad question fails no other."""
        try:
            return list(self._answers(jobs, started_s))
        except ServerError as error:
            # Where a store is away it is no question's fault: each alone would wait for it again.
            if len(jobs) == 1 or (isinstance(error, GraphUnavailableError) and error.everyone):
                return [error] * len(jobs)
        except Exception as error:  # noqa: BLE001 - whatever failed, each caller gets its answer and the worker lives
            jobs[0].context.run(_report, error, rows=len(jobs))
            if len(jobs) == 1:
                return [PredictionFailedError("the prediction failed; the server's log has the place")]
        return [outcome for job in jobs for outcome in self._outcomes([job], started_s)]

    def _answers(self, jobs: Sequence[_Job[QuestionT, AnswerT]], started_s: float) -> Sequence[AnswerT]:
        waited_s = [started_s - job.enqueued_s for job in jobs]
        begun_s = time.perf_counter()
        answers = self._answerer([job.question for job in jobs], [round(waited * 1e6) for waited in waited_s])
        self._service.observe(len(jobs), time.perf_counter() - begun_s)
        observe = self._metrics.stages["queue"].observe
        for waited in waited_s:
            observe(waited)
        self._metrics.batch_rows.observe(len(jobs))
        self._metrics.model_rows.inc(len(jobs))
        return answers

    def _give_back(self, jobs: list[_Job[QuestionT, AnswerT]], outcomes: list[AnswerT | ServerError]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._resolve, jobs, outcomes)
        except RuntimeError:  # the loop is gone, and with it everyone who waited
            log.warning("answers_without_loop", rows=len(jobs))

    def _resolve(self, jobs: list[_Job[QuestionT, AnswerT]], outcomes: list[AnswerT | ServerError]) -> None:
        forecast_s = min((job.forecast_s for job in jobs), default=math.inf)
        if forecast_s < math.inf:
            self._admission.learn(time.monotonic() - forecast_s)
        finished = [_finished(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]
        for job, outcome in zip(jobs, finished, strict=True):
            if job.future.done():
                continue
            if isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
        assert self._gathering is not None
        self._gathering.answered(len(jobs))


def _finished(job: _Job[Any, AnswerT], outcome: AnswerT | ServerError) -> Any:
    """What the caller waits for, or the exception in its place."""
    if job.finish is None or isinstance(outcome, ServerError) or job.future.done():
        return outcome
    try:
        return job.context.run(job.finish, outcome)
    except Exception as error:  # noqa: BLE001 - it is its own caller's, and others' answers wait behind it
        return error


def _report(error: Exception, *, rows: int) -> None:
    """Logs what failed and where, never the message: it may quote a row."""
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("prediction_failed", error=type(error).__name__, where=where[-6:], rows=rows)
