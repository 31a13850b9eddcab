from __future__ import annotations

import asyncio

import pytest

from model_server.caller import Caller, set_caller
from model_server.errors import OverloadedError
from model_server.metrics import Metrics
from model_server.quotas import Quotas, charged_once, quotas_of
from model_server.settings import ServerSettings


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """The quotas' clock."""
    return Clock()


def quotas(clock: Clock, *, names_limit: int = 100, by_name: dict[str, float] | None = None) -> Quotas:
    """Ten rows a second each, a burst of one second."""
    shed = Metrics().shed.labels("quota")
    return Quotas(10.0, burst_s=1.0, names_limit=names_limit, by_name=by_name, shed=shed, clock_s=clock)


def taken(quotas: Quotas, name: str, tries: int) -> int:
    """How many of so many rows are let in."""
    return sum(quotas.take(name) == 0.0 for _ in range(tries))


def test_a_burst_then_the_rate_each_for_itself(clock: Clock) -> None:
    """A caller has its burst and then its rate; another one is not touched by it."""
    limits = quotas(clock)
    assert taken(limits, "checkout", 50) == 10
    assert limits.take("checkout") == pytest.approx(0.1)
    assert taken(limits, "mail", 50) == 10
    clock.now_s += 0.5
    assert taken(limits, "checkout", 50) == 5


def test_names_have_rates_of_their_own(clock: Clock) -> None:
    """What the settings say of a name counts for it alone; 0 is no quota."""
    limits = quotas(clock, by_name={"checkout": 100.0, "drill": 0.0})
    assert taken(limits, "checkout", 500) == 100
    assert taken(limits, "drill", 500) == 500
    assert taken(limits, "mail", 500) == 10


def test_inventing_names_gains_nothing(clock: Clock) -> None:
    """Beyond the bound newcomers share one bucket, until somebody known has been idle for a burst."""
    limits = quotas(clock, names_limit=2)
    assert taken(limits, "a", 5) + taken(limits, "b", 5) == 10
    assert sum(taken(limits, f"invented {number}", 5) for number in range(100)) == 10
    clock.now_s += 2.0
    assert taken(limits, "c", 50) == 10
    assert taken(limits, "c", 50) == 0


def test_without_a_quota_everybody_is_let_in() -> None:
    """The default."""
    limits = quotas_of(ServerSettings(), Metrics())
    for _ in range(10_000):
        limits.admit(object())


def test_a_caller_beyond_its_quota_is_refused_with_a_hint() -> None:
    """The caller is who asks now; what is refused is counted, and says when there is a token again."""
    metrics = Metrics()
    limits = quotas_of(ServerSettings(quota_rows_per_s=2.0, quota_rows_per_s_by_caller={"mail": 1.0}), metrics)
    set_caller(Caller("mail"))
    limits.admit(object())
    with pytest.raises(OverloadedError, match="quota") as caught:
        limits.admit(object())
    assert 0.5 < caught.value.retry_after_s <= 1.0
    assert metrics.registry.get_sample_value("nowgraph_shed_total", {"buffer": "quota"}) == 1


async def test_a_request_is_charged_once_whoever_answers_it() -> None:
    """Where it is asked of several models, in tasks of their own too; one that was refused is not paid for."""
    limits = quotas_of(ServerSettings(quota_rows_per_s=0.001, quota_burst_s=2_000.0), Metrics())
    one, other, third = [object() for _ in range(3)]

    async def ask(request: object) -> None:
        limits.admit(request)

    with charged_once():
        await asyncio.gather(ask(one), ask(other))
        await asyncio.gather(ask(one), ask(other))
        for _ in range(2):
            with pytest.raises(OverloadedError):
                limits.admit(third)
    with pytest.raises(OverloadedError):
        limits.admit(one)
