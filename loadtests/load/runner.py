"""A scenario on a started world: the schedule is made, the writers are set going, the senders sent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from loadtests.load.clients import START_IN_S, Outcome, Request, Senders, run
from loadtests.load.scenario import Clients, Scenario
from loadtests.load.worlds import Cores, Tested


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a scenario, what the writers really applied meanwhile, and what the servers' cores did."""

    outcome: Outcome
    ingested_per_s: float
    server_cpu_cores: float


def run_scenario(scenario: Scenario, tested: Tested, cores: Cores, *, capacity_per_s: float) -> Ran:
    """Runs it once; `capacity_per_s` is what rates of the unit `capacity` are shares of."""
    random = np.random.default_rng(scenario.seed)
    due_us = scenario.arrivals.times_us(scenario.seconds, capacity_per_s, random)
    requests, which = mix(scenario, tested, len(due_us), random)
    tested.ingest(scenario.ingest_per_s)
    before_s = sum(server.cpu_s() for server in tested.servers.values())
    with _replacing(scenario, tested):
        outcome = run(requests, due_us, which, seconds=scenario.seconds, how=senders(scenario.clients, cores))
    cpu_s = sum(server.cpu_s() for server in tested.servers.values()) - before_s
    return Ran(outcome, tested.ingest(0), cpu_s / max(scenario.seconds, outcome.took_s))


@contextmanager
def _replacing(scenario: Scenario, tested: Tested) -> Iterator[None]:
    """Tells the workers' supervisor to replace them, where the scenario says when."""
    if scenario.replace_at_s is None:
        yield
        return
    supervisor = tested.servers["Score"].process
    timer = threading.Timer(START_IN_S + scenario.replace_at_s, supervisor.send_signal, (signal.SIGHUP,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def mix(
    scenario: Scenario, tested: Tested, count: int, random: np.random.Generator
) -> tuple[list[Request], np.ndarray]:
    """The requests that may be sent, and for each of `count` sends which it is, by the methods' shares."""
    methods = list(scenario.calls)
    shares = np.array([scenario.calls[method] for method in methods])
    requests: list[Request] = []
    first = []
    for method in methods:
        first.append(len(requests))
        requests += tested.requests[method]
    method_of = random.choice(len(methods), size=count, p=shares / shares.sum())
    sizes = np.array([len(tested.requests[method]) for method in methods])
    return requests, np.array(first)[method_of] + random.integers(1 << 30, size=count) % sizes[method_of]


def mixed_requests(scenario: Scenario, tested: Tested, count: int = 2_000) -> Sequence[Request]:
    """Requests in the scenario's shares, for a closed loop."""
    requests, which = mix(scenario, tested, count, np.random.default_rng(scenario.seed))
    return [requests[number] for number in which.tolist()]


def senders(clients: Clients, cores: Cores) -> Senders:
    """The senders that a scenario asks for, on this machine."""
    return Senders(
        processes=clients.processes,
        cores=cores.clients if clients.pinned else (),
        connections=clients.connections,
        in_flight_max=clients.in_flight_max,
        timeout_s=clients.timeout_s,
    )
