from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pytest

from loadtests.load import worlds
from loadtests.load.clients import Request
from loadtests.load.commands import scenario_of
from loadtests.load.runner import mix, mixed_requests, senders
from loadtests.load.scenario import Clients, load_scenario
from loadtests.load.worlds import Cores

MIXED = load_scenario(Path("mixed"))
WORLD = worlds.Tested(
    servers={},
    writers={},
    requests={
        "Score": tuple(Request("a", "/x/Score", bytes([n])) for n in range(100)),
        "Rank": tuple(Request("b", "/x/Rank", bytes([n])) for n in range(20)),
    },
)


def test_methods_are_mixed_by_their_shares() -> None:
    """Nine scores to one list, of all requests that there are, the same in every run of the same seed."""
    requests, which = mix(MIXED, WORLD, 20_000, np.random.default_rng(0))
    sent = [requests[n] for n in which.tolist()]
    assert sum(request.method == "Rank" for request in sent) == pytest.approx(2_000, rel=0.1)
    assert len(set(sent)) == 120
    assert mixed_requests(MIXED, WORLD, 50) == mixed_requests(MIXED, WORLD, 50)


def test_senders_stay_on_their_cores() -> None:
    """Away from the server's where there are enough, unless the scenario leaves them to the scheduler."""
    cores = Cores(server=(0,), writer=1, clients=(2, 3))
    assert senders(Clients(processes=2), cores).cores == (2, 3)
    assert senders(Clients(pinned=False), cores).cores == ()


def test_a_machine_is_divided() -> None:
    """The server has a core of its own; what lacks is shared by the writer and the senders, never with the server."""
    here = Cores.of_machine(servers=64, clients=64)
    assert here.server
    assert here.clients
    if len({*here.server, here.writer}) > 1:
        assert not {*here.clients, here.writer} & set(here.server)


def test_the_command_line_changes_a_scenario() -> None:
    """Seconds, workers and senders, checked like a file."""
    options = argparse.Namespace(scenario="score", seconds=2.0, workers=3, processes=4, rate=None)
    found = scenario_of(options, "mixed")
    assert (found.name, found.seconds, found.workers, found.clients.processes) == ("score", 2.0, 3, 4)
    with pytest.raises(ValueError, match="workers"):
        scenario_of(argparse.Namespace(scenario=None, seconds=None, workers=1_000, processes=None, rate=None), "mixed")


def test_a_rate_of_the_command_line_is_a_number_a_second() -> None:
    """In place of a share of the capacity; arrivals of several rates have none to replace."""
    options = {"seconds": None, "workers": None, "processes": None, "rate": 40.0}
    asked = scenario_of(argparse.Namespace(scenario="soak", **options), "soak")
    due_us = asked.arrivals.times_us(100.0, 1e6, np.random.default_rng(0))
    assert len(due_us) == pytest.approx(4_000, rel=0.1)
    with pytest.raises(ValueError, match="--rate"):
        scenario_of(argparse.Namespace(scenario="spike", **options), "soak")
