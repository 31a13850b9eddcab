"""A thousand worlds in which everything breaks, and in each the graph of the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SIMULATION = Path(__file__).parent / "simulation.py"
SEEDS = 1_000


def run(*options: str) -> subprocess.CompletedProcess[str]:
    """The simulation as a program; it finds the packages where this process does."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SIMULATION), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=840, env=environment, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_seed_ends_with_the_graph_of_its_log() -> None:
    """Whatever crashes, rots, comes twice, late or shuffled; and every kind of fault was among them."""
    ran = run("--seeds", str(SEEDS))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = json.loads(ran.stdout)
    assert told["broken"] == {}
    assert told["restarts"] > SEEDS
    assert told["restored"] > SEEDS / 4
    assert told["samples"] > 10 * SEEDS
    kinds = {
        "broker gone", "clock stepped back", "disk full", "manifest gone", "snapshot cut off", "snapshot rotten",
        "crash at poll", "crash at dead letters, before they are safe", "crash at dead letters, after they are safe",
        "crash at snapshot, before it begins", "crash at snapshot, before it is whole",
        "crash at snapshot, once it is whole", "crash at snapshot, after older ones went",
    }  # fmt: skip
    assert set(told["faults"]) == kinds
    assert min(told["faults"].values()) > 20


def test_a_seed_is_the_same_again() -> None:
    """Told step by step: the same crashes, the same snapshots, the same count of samples."""
    first, second = run("--seed", "1"), run("--seed", "1")
    assert first.returncode == 0, first.stderr
    assert first.stdout.rsplit("cpu_s", 1)[0] == second.stdout.rsplit("cpu_s", 1)[0]
    assert "crash at" in first.stdout


def test_a_broken_promise_is_told_with_its_seed(tmp_path: Path) -> None:
    """A graph that loses one event in a hundred is found out, and the seed is named."""
    broken = tmp_path / "simulation.py"
    broken.write_text(
        SIMULATION.read_text().replace(
            "    structlog.configure(",
            "    whole = Decoder.decode\n"
            "    def losing(self, batch):\n"
            "        made = whole(self, batch)\n"
            "        if len(batch) != 7:\n"
            "            return made\n"
            "        import dataclasses\n"
            "        return dataclasses.replace(made, events=made.events[1:], record_index=made.record_index[1:],\n"
            "                                   broker_time_us=made.broker_time_us[1:])\n"
            "    Decoder.decode = losing\n"
            "    structlog.configure(",
            1,
        )
    )
    (tmp_path / "simulated_log.py").write_text((SIMULATION.parent / "simulated_log.py").read_text())
    ran = subprocess.run(
        [sys.executable, str(broken), "--seeds", "20"], capture_output=True, text=True, timeout=200, check=False
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    why = json.loads(ran.stdout)["broken"]
    assert why
    assert any("not that of the log" in text or "dead letters" in text for text in why.values())
