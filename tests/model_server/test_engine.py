from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from model_server.backlog import Priority
from model_server.engine import Engine
from model_server.errors import (
    DeadlinePassedError,
    DrainingError,
    GraphUnavailableError,
    OverloadedError,
    PredictionFailedError,
)
from model_server.generation import Generations, Serving
from model_server.metrics import Metrics
from model_server.scorer import Question, Scored, Scorer
from model_server.settings import ServerSettings

Running = Callable[..., AbstractAsyncContextManager[Engine]]


@pytest.fixture
def generations(world: Any) -> Generations:
    """What is served: the world's graph and model."""
    view = world.graph.view()
    return Generations(Serving.over(view, world.predictor(view)))


@pytest.fixture
def running(generations: Generations, metrics: Metrics) -> Running:
    """Runs an engine with given limits."""

    @asynccontextmanager
    async def run(**limits: int) -> AsyncIterator[Engine]:
        engine = Engine(Scorer(generations.current, metrics), ServerSettings(**limits), metrics)
        engine.start()
        try:
            yield engine
        finally:
            await engine.close()

    return run


def question(world: Any, number: int = 500, *, after_s: float = 10.0, customer: int = 1) -> Question:
    """A payment an hour after the last one in the graph."""
    time_us = world.start_us + 100 * 60_000_000 + 3_600_000_000
    event = world.event(number, time_us, customer=customer)
    return Question(event, time_us - 1, time.monotonic() + after_s)


def model_rows(metrics: Metrics) -> float:
    """How many rows reached the model."""
    return metrics.registry.get_sample_value("nowgraph_model_rows_total") or 0.0


async def test_an_idle_engine_answers_at_once(world: Any, running: Running, metrics: Metrics) -> None:
    """One question is a batch of one, and says from what and when it was answered."""
    async with running() as engine:
        scored = await engine.submit(question(world))
    assert 0.0 < scored.answer.probability[0] < 1.0
    assert scored.history.history_count > 0
    assert scored.position.sequence == 100
    assert scored.stages.sample_us > 0
    assert model_rows(metrics) == 1


async def test_what_waits_is_scored_together(world: Any, running: Running, metrics: Metrics) -> None:
    """Questions that come while a batch runs share the next one, up to the limit, with the same answers as alone."""
    async with running(batch_limit=16) as engine:
        alone = [await engine.submit(question(world, 500 + n, customer=n)) for n in range(40)]
        batches = metrics.registry.get_sample_value("nowgraph_batch_rows_count") or 0
        together = await asyncio.gather(*(engine.submit(question(world, 500 + n, customer=n)) for n in range(40)))
    formed = (metrics.registry.get_sample_value("nowgraph_batch_rows_count") or 0) - batches
    assert 3 <= formed < 40
    assert metrics.registry.get_sample_value("nowgraph_batch_rows_bucket", {"le": "16.0"}) == batches + formed
    assert [one.answer.output[0] for one in together] == pytest.approx(
        [one.answer.output[0] for one in alone], abs=1e-5
    )


async def test_an_expired_question_never_reaches_the_model(world: Any, running: Running, metrics: Metrics) -> None:
    """A deadline that passes in the queue costs a counter and no forward pass; the next question is answered."""
    async with running() as engine:
        late = engine.submit(question(world, after_s=-0.001))
        with pytest.raises(DeadlinePassedError):
            await late
        assert model_rows(metrics) == 0
        await engine.submit(question(world))
    assert model_rows(metrics) == 1
    assert metrics.registry.get_sample_value("nowgraph_abandoned_total", {"reason": "expired"}) == 1


@pytest.mark.parametrize("everyone", [True, False])
async def test_a_store_that_is_away_is_asked_once_for_a_batch(
    settings: ServerSettings, metrics: Metrics, *, everyone: bool
) -> None:
    """All of a batch hear at once that it is away; where it lacks a part, only those whose rows are missing do."""
    asked: list[int] = []

    def answer(questions: Sequence[Question], _: Sequence[int]) -> list[Any]:
        asked.append(len(questions))
        if everyone or any(question.cutoff_time_us == 3 for question in questions):
            raise GraphUnavailableError("the store is away", everyone=everyone)
        return [question.cutoff_time_us for question in questions]

    engine: Engine[Question, Any] = Engine(answer, settings, metrics)
    engine.start()
    waiting = [engine.submit(Question(b"", number, time.monotonic() + 20)) for number in range(9)]
    found = await asyncio.gather(*waiting, return_exceptions=True)
    await engine.close()
    failed = [number for number, one in enumerate(found) if isinstance(one, GraphUnavailableError)]
    assert failed == (list(range(9)) if everyone else [3])
    if everyone:
        assert sum(asked) == 9


async def test_a_full_queue_refuses_at_once(world: Any, running: Running, metrics: Metrics) -> None:
    """Beyond the queue's limit a question is refused without waiting, and what was taken is still answered."""
    taken: list[asyncio.Future[Scored]] = []
    refused = 0
    async with running(queue_limit=4, batch_limit=1) as engine:
        for number in range(200):
            try:
                taken.append(engine.submit(question(world, 500 + number)))
            except OverloadedError:
                refused += 1
        assert len(await asyncio.gather(*taken)) == len(taken)
    assert refused == 200 - len(taken) > 100
    assert metrics.registry.get_sample_value("nowgraph_shed_total", {"buffer": "queue"}) == refused


async def test_one_bad_row_fails_alone(world: Any, running: Running) -> None:
    """A row that the sampler refuses gets its own error; the rest of its batch is answered, and nothing is quoted."""
    bad = Question(b"4000-1234 is no event", 0, time.monotonic() + 10)
    with structlog.testing.capture_logs() as logs:
        async with running() as engine:
            results = await asyncio.gather(
                *(engine.submit(one) for one in (question(world), bad, question(world))), return_exceptions=True
            )
    assert [type(result) for result in results] == [Scored, PredictionFailedError, Scored]
    assert "4000-1234" not in str(results[1]) + str(logs)
    assert any(entry["event"] == "prediction_failed" for entry in logs)


async def test_closing_answers_what_waits(world: Any, running: Running) -> None:
    """Questions in the queue are answered before `close` returns; later ones are told that the server stops."""
    async with running() as engine:
        waiting = [engine.submit(question(world, 500 + number)) for number in range(10)]
        await engine.close()
        assert all(isinstance(one.result(), Scored) for one in waiting)
        with pytest.raises(DrainingError):
            engine.submit(question(world))


async def test_the_next_batch_uses_what_replaced(world: Any, running: Running, generations: Generations) -> None:
    """After a replacement answers come from the new view and its model, without a restart."""
    async with running() as engine:
        before = await engine.submit(question(world))
        world.apply([world.event(101, world.start_us + 101 * 60_000_000)])
        view = world.graph.view()
        generations.replace(Serving.over(view, world.predictor(view)))
        after = await engine.submit(question(world))
    assert after.position.sequence == before.position.sequence + 1
    assert after.history.history_count == before.history.history_count + 1


class Timed:
    """An answerer of a known price: a base for the batch and a price for each row; notes what it was asked together."""

    def __init__(self, base_s: float = 0.005, row_s: float = 0.001, *, computes: bool = False) -> None:
        """Sleeps, or `computes` so long with Python's lock released, as a model does."""
        self.base_s, self.row_s, self.computes = base_s, row_s, computes
        self.begun = 0
        self.batches: list[list[int]] = []

    def __call__(self, questions: Sequence[Plain], queue_us: Sequence[int]) -> list[int]:
        """The questions' numbers."""
        self.begun += 1
        took_s = self.base_s + self.row_s * len(questions)
        until_s = time.thread_time() + took_s
        while self.computes and time.thread_time() < until_s:
            hashlib.pbkdf2_hmac("sha256", b"work", b"", 500)
        if not self.computes:
            time.sleep(took_s)
        self.batches.append([question.number for question in questions])
        return self.batches[-1]


@dataclass(frozen=True)
class Plain:
    """A number and a deadline."""

    number: int
    deadline_s: float


def plain(number: int, after_s: float = 10.0) -> Plain:
    """A question with a deadline from now."""
    return Plain(number, time.monotonic() + after_s)


@asynccontextmanager
async def timed(metrics: Metrics, answerer: Timed, **limits: int) -> AsyncIterator[Engine[Plain, int]]:
    """An engine that is warm: it knows the answerer's price."""
    engine: Engine[Plain, int] = Engine(answerer, ServerSettings(**limits), metrics)
    engine.start()
    await engine.warm_up(plain(-1))
    answerer.batches.clear()
    yield engine
    await engine.close()


async def begun(engine: Engine[Plain, int], answerer: Timed, number: int) -> asyncio.Future[int]:
    """A question that is being answered: what is asked now comes behind it."""
    before, future = answerer.begun, engine.submit(plain(number))
    while answerer.begun == before:  # noqa: ASYNC110 - the thread that answers knows no event of this loop
        await asyncio.sleep(0.001)
    return future


def shed(metrics: Metrics, buffer: str) -> float:
    """What was refused, by why."""
    return metrics.registry.get_sample_value("nowgraph_shed_total", {"buffer": buffer}) or 0.0


async def test_warming_up_teaches_what_a_batch_costs(metrics: Metrics) -> None:
    """After it a deadline that cannot be held is known at once: it is refused and costs no batch."""
    answerer = Timed(base_s=0.15, row_s=0.0)
    async with timed(metrics, answerer, batch_limit=4) as engine:
        waiting = [await begun(engine, answerer, 0)]
        waiting += [engine.submit(plain(number)) for number in range(1, 12)]
        with pytest.raises(OverloadedError) as caught:  # behind the batch that runs
            engine.submit(plain(99, after_s=0.1))
        assert shed(metrics, "predicted_wait") == 1
        assert 0.01 <= caught.value.retry_after_s < 1
        engine.submit(plain(12, after_s=5.0))
        await asyncio.gather(*waiting)
    assert all(99 not in batch for batch in answerer.batches)


async def test_an_idle_engine_never_refuses_by_a_forecast(metrics: Metrics) -> None:
    """However slow the model was, the next question is tried when nothing else is there, and corrects the forecast."""
    answerer = Timed(base_s=0.05, row_s=0.0)
    async with timed(metrics, answerer, batch_limit=4) as engine:
        answerer.base_s = 0.0
        for number in range(20):
            with suppress(DeadlinePassedError):
                await engine.ask(plain(number, after_s=0.02))
        assert await engine.ask(plain(20, after_s=0.02)) == 20
    assert shed(metrics, "predicted_wait") == 0


async def test_a_batch_is_cut_so_that_its_earliest_deadline_is_held(metrics: Metrics) -> None:
    """Forty wait, one of them for a moment only: its batch is a part of them, the rest comes after."""
    answerer = Timed(base_s=0.005, row_s=0.005)
    async with timed(metrics, answerer, batch_limit=64) as engine:
        held = await begun(engine, answerer, 1000)
        waiting = [engine.submit(plain(number)) for number in range(40)]
        urgent = engine.submit(plain(99, after_s=0.12))
        assert await urgent == 99
        await asyncio.gather(held, *waiting)
    batch = next(batch for batch in answerer.batches if 99 in batch)
    assert batch[0] == 99
    assert 1 < len(batch) < 30
    assert sorted(number for batch in answerer.batches for number in batch) == sorted([*range(40), 99, 1000])


async def test_interactive_first_and_batch_is_shed_first(metrics: Metrics) -> None:
    """Nightly rows wait behind payments; when the queue is full the last of them gives its place to a payment."""
    answerer = Timed(base_s=0.1, row_s=0.0)
    async with timed(metrics, answerer, batch_limit=4, queue_limit=8, queue_batch_limit=8) as engine:
        held = await begun(engine, answerer, 1000)
        nightly = [engine.submit(plain(number), Priority.BATCH) for number in range(8)]
        with pytest.raises(OverloadedError):
            engine.submit(plain(8), Priority.BATCH)
        payment = engine.submit(plain(99))
        assert await payment == 99
        results = await asyncio.gather(held, *nightly, return_exceptions=True)
    assert isinstance(results[-1], OverloadedError)
    assert results[:-1] == [1000, *range(7)]
    assert answerer.batches[1] == [99, 0, 1, 2]
    assert shed(metrics, "queue") == 2


async def test_asking_ends_with_the_deadline(metrics: Metrics) -> None:
    """Whoever asks hears at the deadline, though the model stands still; what was never taken never reaches it."""
    answerer = Timed(base_s=0.0, row_s=0.0)
    async with timed(metrics, answerer) as engine:
        answerer.base_s = 0.5
        held = asyncio.ensure_future(engine.ask(plain(1)))
        await asyncio.sleep(0.05)
        before_s = time.monotonic()
        with pytest.raises(DeadlinePassedError):
            await engine.ask(plain(2, after_s=0.05))
        assert time.monotonic() - before_s < 0.4
        assert await held == 1
    assert answerer.batches == [[1]]
    assert metrics.registry.get_sample_value("nowgraph_abandoned_total", {"reason": "expired"}) == 1


async def test_a_cancelled_question_never_reaches_the_model(metrics: Metrics) -> None:
    """When the caller goes away before its batch begins no work is done for it; the others are answered."""
    answerer = Timed(base_s=0.2, row_s=0.0)
    async with timed(metrics, answerer) as engine:
        running = await begun(engine, answerer, 1)
        gone, stays = engine.submit(plain(2)), engine.submit(plain(3))
        gone.cancel()
        running.cancel()
        assert await stays == 3
    assert answerer.batches == [[1], [3]]
    assert metrics.registry.get_sample_value("nowgraph_abandoned_total", {"reason": "cancelled"}) == 1


async def test_under_load_batches_grow(metrics: Metrics) -> None:
    """Rows that come faster than they could be answered one by one are gathered; a caller alone never waits."""
    answerer = Timed(base_s=0.004, row_s=0.0002, computes=True)

    async def load(engine: Engine[Plain, int], callers: int, each: int) -> None:
        async def caller(number: int) -> None:
            for _ in range(each):
                await engine.ask(plain(number))
                await asyncio.sleep(0.002)

        await asyncio.gather(*(caller(number) for number in range(callers)))

    async with timed(metrics, answerer) as engine:
        await load(engine, 40, 10)
        many = [len(batch) for batch in answerer.batches]
        answerer.batches.clear()
        await asyncio.sleep(0.1)
        await load(engine, 1, 10)
    assert sum(many) / len(many) > 5
    assert answerer.batches == [[0]] * 10


async def test_a_batch_is_finished_before_its_callers_run_on(metrics: Metrics) -> None:
    """Each answer is finished in its caller's context; what one of them raises is its own caller's alone."""
    caller: ContextVar[int] = ContextVar("caller")
    done: list[str] = []

    def finish(answer: int) -> str:
        done.append(f"finished {answer}")
        if answer == 2:
            raise ValueError("the second")
        return f"{answer} of {caller.get()}"

    async def ask(number: int) -> str:
        caller.set(number + 10)
        found = await engine.ask_finished(plain(number), finish)
        done.append(f"went on {number}")
        return found

    async with timed(metrics, Timed(base_s=0.005, row_s=0.0), batch_limit=4) as engine:
        found = await asyncio.gather(*(ask(number) for number in (1, 2, 3, 4)), return_exceptions=True)
    assert found[:1] + found[2:] == ["1 of 11", "3 of 13", "4 of 14"]
    assert isinstance(found[1], ValueError)
    assert done == [*(f"finished {n}" for n in (1, 2, 3, 4)), *(f"went on {n}" for n in (1, 3, 4))]
