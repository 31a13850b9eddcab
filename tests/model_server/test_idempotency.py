"""Two instances on one real Redis stand for two processes: they share nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from model_server.caller import ANONYMOUS, Caller, set_caller
from model_server.errors import (
    DeadlinePassedError,
    IdempotencyUnavailableError,
    InvalidRequestError,
    NotConfiguredError,
    PredictionFailedError,
)
from model_server.idempotency import KEY_PREFIX, Idempotency, Repeats, idempotency_of, key_of
from model_server.metrics import Metrics
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

pytestmark = pytest.mark.integration

PLACE = ("", "fraud", "Score")


@asynccontextmanager
async def process(url: str, **options: Any) -> AsyncIterator[Idempotency]:
    """What one process has of a Redis."""
    given = {"window_s": 60.0, "timeout_s": 0.2, "on_failure": "refuse", **options}
    one = Idempotency(url, Metrics(), **given)
    await one.start()
    yield one
    await one.close()


@pytest.fixture
async def both(shared_redis: Callable[[], str]) -> AsyncIterator[tuple[Idempotency, Idempotency]]:
    """Two processes on one Redis."""
    async with AsyncExitStack() as stack:
        url = shared_redis()
        first, second = [await stack.enter_async_context(process(url)) for _ in range(2)]
        yield first, second


def asked(request_id: str, amount: float = 1.0) -> service_pb2.ScoreRequest:
    """A request with an id."""
    request = service_pb2.ScoreRequest(request_id=request_id)
    request.row.cells.add(column="amount", number=amount)
    return request


class Work:
    """Answers with its own name, counted, when it is let."""

    def __init__(self, name: str, *, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.name = name
        self.done = 0
        self._seconds = seconds
        self._error = error

    async def __call__(self) -> service_pb2.ScoreResponse:
        self.done += 1
        await asyncio.sleep(self._seconds)
        if self._error is not None:
            raise self._error
        return service_pb2.ScoreResponse(request_id="r", model_version=self.name, probability=0.25)


def answer(
    one: Idempotency, request: service_pb2.ScoreRequest, work: Work, *, seconds: float = 5.0, place: Any = PLACE
) -> Awaitable[service_pb2.ScoreResponse]:
    """Asks one process."""
    return one.answer(request, place, service_pb2.ScoreResponse, time.monotonic() + seconds, work)


def outcomes(one: Idempotency) -> dict[str, float]:
    """What became of a process's requests."""
    return {
        sample.labels["outcome"]: sample.value
        for family in one._metrics.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }


async def test_a_repeated_id_has_the_same_answer_from_any_process(both: tuple[Idempotency, Idempotency]) -> None:
    """Bit by bit, without working again; another id is another request."""
    here, there = both
    first, second = Work("first"), Work("second")
    given = await answer(here, asked("same answer"), first)
    for one in (here, there, there):
        again = await answer(one, asked("same answer"), second)
        assert again.SerializeToString() == given.SerializeToString()
    assert (first.done, second.done) == (1, 0)
    assert (await answer(there, asked("other"), second)).model_version == "second"
    assert outcomes(here) == {"first": 1, "repeated": 1}


async def test_two_at_once_are_worked_on_once(both: tuple[Idempotency, Idempotency]) -> None:
    """The other waits and gets what the first found."""
    here, there = both
    slow, other = Work("slow", seconds=0.3), Work("other")
    first = asyncio.ensure_future(answer(here, asked("at once"), slow))
    await asyncio.sleep(0.1)
    many = await asyncio.gather(*(answer(one, asked("at once"), other) for one in (here, there) * 10))
    assert {response.model_version for response in [await first, *many]} == {"slow"}
    assert (slow.done, other.done) == (1, 0)


async def test_another_request_with_the_id_is_refused(both: tuple[Idempotency, Idempotency]) -> None:
    """While the first is worked on, and after it: the field is the id."""
    here, there = both
    slow = asyncio.ensure_future(answer(here, asked("another", 1.0), Work("slow", seconds=0.2)))
    await asyncio.sleep(0.05)
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="another request had this id within the last 60 s") as error:
            await answer(there, asked("another", 2.0), Work("other"))
        assert error.value.field == "request_id"
        await slow


async def test_callers_tasks_and_tenants_do_not_share_ids(both: tuple[Idempotency, Idempotency]) -> None:
    """Nobody gets the answer to somebody else's request by guessing its id."""
    here, there = both
    places = [("", "fraud", "Score"), ("", "fraud", "Rank"), ("", "spend", "Score"), ("t", "fraud", "Score")]
    for place in places:
        work = Work(str(place))
        assert (await answer(here, asked("shared"), work, place=place)).model_version == str(place)
    set_caller(Caller("somebody"))
    work = Work("somebody's")
    assert (await answer(there, asked("shared", 2.0), work)).model_version == "somebody's"
    set_caller(ANONYMOUS)


async def test_what_failed_may_be_asked_again(both: tuple[Idempotency, Idempotency]) -> None:
    """An error is not kept, nor is the claim of a caller who went away."""
    here, there = both
    with pytest.raises(PredictionFailedError):
        await answer(here, asked("failed"), Work("bad", error=PredictionFailedError("no")))
    assert (await answer(there, asked("failed"), Work("good"), seconds=1)).model_version == "good"
    gone = asyncio.ensure_future(answer(here, asked("gone"), Work("slow", seconds=10), seconds=20))
    await asyncio.sleep(0.05)
    gone.cancel()
    assert (await answer(there, asked("gone"), Work("good"), seconds=1)).model_version == "good"


async def test_a_dead_process_claims_an_id_no_longer_than_its_deadline(both: tuple[Idempotency, Idempotency]) -> None:
    """Within the deadline others wait for it; afterwards the next one works."""
    here, there = both
    request = asked("dead")
    await here._claim(key_of(PLACE, ANONYMOUS.name, "dead"), _claim_of(request), 0.5)
    with pytest.raises(DeadlinePassedError, match="another request with this id"):
        await answer(there, request, Work("early"), seconds=0.2)
    assert (await answer(there, request, Work("late"), seconds=5)).model_version == "late"


def _claim_of(request: service_pb2.ScoreRequest) -> bytes:
    """What a process that then died had written."""
    import hashlib

    return b"C" + hashlib.sha256(request.SerializeToString(deterministic=True)).digest() + b"o" * 16


async def test_who_comes_too_late_gives_the_answer_that_was_given(both: tuple[Idempotency, Idempotency]) -> None:
    """A claim that ran out while its owner worked: the answer that another process gave meanwhile is the answer."""
    here, there = both
    slow = asyncio.ensure_future(answer(here, asked("slow"), Work("slow", seconds=0.6), seconds=0.1))
    await asyncio.sleep(0.3)
    assert (await answer(there, asked("slow"), Work("quick"))).model_version == "quick"
    assert (await slow).model_version == "quick"


async def test_the_window_ends(shared_redis: Callable[[], str]) -> None:
    """Within it the answer is kept, after it the id is free."""
    async with process(shared_redis(), window_s=0.3) as one:
        assert (await answer(one, asked("window"), Work("first"))).model_version == "first"
        assert (await answer(one, asked("window"), Work("second"))).model_version == "first"
        await asyncio.sleep(0.35)
        assert (await answer(one, asked("window"), Work("third"))).model_version == "third"


async def test_without_redis_nothing_is_promised(redis_server: Any) -> None:
    """Frozen or killed: refused within a few timeouts and not worked on, or by the other policy answered; and back."""
    async with process(redis_server.url) as strict, process(redis_server.url, on_failure="answer") as lax:
        first = Work("first")
        await answer(strict, asked("before"), first)
        for harm, mend in ((redis_server.freeze, redis_server.thaw), (redis_server.kill, redis_server.start)):
            harm()
            work = Work("work")
            begin_s = time.monotonic()
            with pytest.raises(IdempotencyUnavailableError):
                await answer(strict, asked("during"), work)
            assert time.monotonic() - begin_s < 3
            assert work.done == 0
            assert (await answer(lax, asked("during"), work)).model_version == "work"
            assert outcomes(strict)["unavailable"] >= 1
            mend()
            assert (await answer(strict, asked("after"), work)).model_version == "work"
        assert (await answer(strict, asked("before"), first)).model_version == "first"
        assert first.done == 2  # a Redis that was killed has forgotten: the window is as durable as Redis is


async def test_a_flushed_redis_has_forgotten_and_still_keeps_one_answer(redis_server: Any) -> None:
    """What was kept is asked anew, once. Of two that both work because the first one's claim is gone, both callers get
    the answer that was kept first; and where the other one is still at it, the first gets none, not another.
    """
    async with process(redis_server.url) as here, process(redis_server.url) as there:
        assert (await answer(here, asked("kept"), Work("before"))).model_version == "before"
        redis_server.flush()
        assert (await answer(there, asked("kept"), Work("after"))).model_version == "after"
        assert (await answer(here, asked("kept"), Work("late"))).model_version == "after"

        slow = asyncio.ensure_future(answer(here, asked("while"), Work("slow", seconds=0.3)))
        await asyncio.sleep(0.1)
        redis_server.flush()
        assert (await answer(there, asked("while"), Work("quick"))).model_version == "quick"
        assert (await slow).model_version == "quick"

        first = asyncio.ensure_future(answer(here, asked("both"), Work("first", seconds=0.3)))
        await asyncio.sleep(0.1)
        redis_server.flush()
        second = asyncio.ensure_future(answer(there, asked("both"), Work("second", seconds=0.5)))
        with pytest.raises(DeadlinePassedError, match="before the answer could be kept"):
            await first
        assert (await second).model_version == "second"
        assert (await answer(here, asked("both"), Work("third"))).model_version == "second"


async def test_a_claim_that_was_flushed_is_not_given_back_for_another(redis_server: Any) -> None:
    """Who fails after the flush does not free the id that somebody else works on by now."""
    async with process(redis_server.url) as here, process(redis_server.url) as there:
        failing = Work("failing", seconds=0.2, error=PredictionFailedError("no"))
        first = asyncio.ensure_future(answer(here, asked("freed"), failing))
        await asyncio.sleep(0.1)
        redis_server.flush()
        second = asyncio.ensure_future(answer(there, asked("freed"), Work("second", seconds=0.4)))
        with pytest.raises(PredictionFailedError):
            await first
        await asyncio.sleep(0.1)
        third = Work("third")
        assert (await answer(here, asked("freed"), third)).model_version == "second"
        assert ((await second).model_version, third.done) == ("second", 0)


async def test_an_answer_that_cannot_be_kept_is_not_given(redis_server: Any) -> None:
    """Redis goes away between claim and answer."""
    async with process(redis_server.url) as one:

        async def work() -> service_pb2.ScoreResponse:
            redis_server.freeze()
            return service_pb2.ScoreResponse()

        with pytest.raises(IdempotencyUnavailableError):
            await answer(one, asked("r"), work)  # type: ignore[arg-type]
        redis_server.thaw()


async def test_ids_and_cells_are_not_in_the_keys(shared_redis: Callable[[], str]) -> None:
    """Who lists Redis's keys reads no request ids."""
    assert key_of(PLACE, "a", "card 4000").startswith(KEY_PREFIX)
    assert "4000" not in key_of(PLACE, "a", "card 4000")
    assert key_of(("a", "bc"), "d", "e") != key_of(("ab", "c"), "d", "e")
    assert len(key_of(PLACE, "a", "x" * 500)) == len(key_of(PLACE, "a", ""))


async def test_half_of_the_option_refuses_to_start(redis_server: Any) -> None:
    """A window without a Redis, a URL that is none, a Redis that is not there: each says what is missing."""
    settings = ServerSettings(idempotency_window_s=60)
    with pytest.raises(NotConfiguredError, match="needs redis_url"):
        idempotency_of(settings, Metrics())
    assert idempotency_of(ServerSettings(redis_url=SecretStr(redis_server.url)), Metrics()) is None
    with pytest.raises(NotConfiguredError, match="redis_url: expected"):
        idempotency_of(settings.model_copy(update={"redis_url": SecretStr("http://secret")}), Metrics())
    found = idempotency_of(settings.model_copy(update={"redis_url": SecretStr(redis_server.url)}), Metrics())
    assert found is not None
    redis_server.kill()
    with pytest.raises(NotConfiguredError, match="Redis does not answer"):
        await found.start()
    await found.close()


async def test_one_method_of_one_task(both: tuple[Idempotency, Idempotency]) -> None:
    """`Repeats` is an idempotency with its place."""
    repeats = Repeats(both[0], *PLACE)
    deadline_s = time.monotonic() + 5
    first = await repeats.answer(asked("one"), service_pb2.ScoreResponse, deadline_s, Work("first"))
    assert first == await answer(both[1], asked("one"), Work("second"))
