"""How much a server can answer: a first guess by a closed loop, then the curve, step by step, by open loops.

A closed loop with many in flight says what a saturated server gives; only an open loop shows what its callers wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import uvloop

from loadtests.load.clients import Outcome, Request
from loadtests.load.histogram import at_ms
from loadtests.load.scenario import Objectives
from loadtests.load.verdict import Verdict, Word, judge

IN_FLIGHT = 64
TIMEOUT_S = 10.0
SHARES = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
"""Of the first guess: dense where the curve bends."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rate of the curve, and what came of it."""

    share: float
    outcome: Outcome
    verdict: Verdict

    @property
    def row(self) -> dict[str, float | str]:
        """Its figures by name."""
        outcome = self.outcome
        return {
            "share": self.share,
            "offered_per_s": outcome.offered_per_s,
            "achieved_per_s": outcome.achieved_per_s,
            "p50_ms": at_ms(outcome.latency, 50),
            "p99_ms": at_ms(outcome.latency, 99),
            "error_ratio": outcome.error_ratio,
            "dropped_ratio": outcome.dropped_ratio,
            "send_delay_p99_ms": at_ms(outcome.send_delay, 99),
            "verdict": self.verdict.word.value,
        }


@dataclass(frozen=True, slots=True)
class Curve:
    """The steps by rising rate, and the closed loop's guess that they are shares of."""

    guess_per_s: float
    steps: tuple[Step, ...]

    @property
    def within_objectives_per_s(self) -> float:
        """The highest rate achieved while the objectives were held; NaN where they never were."""
        held = [step.outcome.achieved_per_s for step in self.steps if step.verdict.word is Word.HELD]
        return max(held, default=float("nan"))

    @property
    def saturated_per_s(self) -> float:
        """The most that was answered in a second, whatever it took."""
        return max((step.outcome.achieved_per_s for step in self.steps), default=float("nan"))


def closed_loop(requests: Sequence[Request], *, seconds: float, in_flight: int = IN_FLIGHT) -> float:
    """OK answers per second when so many requests are always under way."""
    return float(uvloop.run(_closed_loop(requests, seconds, in_flight)))


async def _closed_loop(requests: Sequence[Request], seconds: float, in_flight: int) -> float:
    answered = 0
    channels = {target: grpc.aio.insecure_channel(target) for target in {request.target for request in requests}}
    until_s = time.perf_counter() + seconds

    async def worker(first: int) -> None:
        nonlocal answered
        number = first
        while time.perf_counter() < until_s:
            request = requests[number % len(requests)]
            number += in_flight
            try:
                await channels[request.target].unary_unary(request.path)(request.body, timeout=TIMEOUT_S)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.01)  # shed: asking again at once would measure refusals
            else:
                answered += 1

    start_s = time.perf_counter()
    await asyncio.gather(*(worker(number) for number in range(in_flight)))
    took_s = time.perf_counter() - start_s
    for channel in channels.values():
        await channel.close(None)
    return answered / took_s


def curve(
    guess_per_s: float, step: Callable[[float], Outcome], objectives: Objectives, *, shares: Sequence[float] = SHARES
) -> Curve:
    """Runs `step` at each share of the guess, in turn."""
    steps = []
    for share in shares:
        outcome = step(guess_per_s * share)
        steps.append(Step(share, outcome, judge(outcome, objectives)))
    return Curve(guess_per_s, tuple(steps))
