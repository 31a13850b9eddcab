"""Snapshots of a running updater: killed, it goes on from the newest good one; `verify` builds the same graph anew."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stream.embedded_broker import EmbeddedBroker
from temporal_graph.generations import CurrentGeneration
from temporal_graph.schema import load_schema
from temporal_graph.snapshots import IMAGE, Snapshots
from temporal_graph.view import GraphView

pytestmark = pytest.mark.integration


def test_a_killed_updater_goes_on_from_its_newest_good_snapshot(
    run_json: Callable,
    example: Path,
    broker: EmbeddedBroker,
    publish: Callable,
    killed_updater: Callable,
    tmp_path: Path,
) -> None:
    """Only what came since is applied, and the graph is the whole log's; with a damaged one, from the one before."""
    schema = example / "schema.yaml"
    place = killed_updater(100, 200)
    publish(broker, range(200, 300))

    options = ("--schema", schema, "--bootstrap-servers", broker.bootstrap, "--quiet")
    caught_up = ("--until-caught-up", "--metrics-port", 0)
    whole = run_json("update", *options, *caught_up, "--arena", tmp_path / "whole")
    tail = run_json("update", *options, *caught_up, "--arena", tmp_path / "arena", "--snapshots", place)
    assert (whole["applied"], tail["applied"], tail["duplicate"]) == (300, 100, 0)
    assert tail["graph"] == whole["graph"]
    assert tail["generation"] > 1

    verified = run_json("verify", *options, "--snapshots", place)
    assert verified["equal"]
    assert verified["hash of the rebuild"] == verified["hash of the snapshot"]

    found, _ = Snapshots(place).inventory()
    with (place / found[0].name / IMAGE).open("r+b") as file:
        file.seek(70_000)
        file.write(b"damage")
    before = run_json("update", *options, *caught_up, "--arena", tmp_path / "before", "--snapshots", place)
    assert before["applied"] == 300 - sum(at for (topic, _), at in found[1].offsets.items() if topic == "transactions")
    assert before["graph"] == whole["graph"]


def test_a_standby_takes_the_place_of_an_updater_that_died(
    example: Path, broker: EmbeddedBroker, publish: Callable, tmp_path: Path
) -> None:
    """It waits while there is a writer; then servers are sent to its generation, which holds all of the log."""
    schema, arena = example / "schema.yaml", tmp_path / "arena"
    command = [
        sys.executable, "-m", "nowgraph.cli", "update", "--schema", schema, "--arena", arena, "--standby",
        "--snapshots", tmp_path / "snapshots", "--snapshot-every", "50ms", "--bootstrap-servers", broker.bootstrap,
        "--metrics-port", "0",
    ]  # fmt: skip
    publish(broker, range(100))
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    second: subprocess.Popen[str] | None = None
    try:
        _until(lambda: _snapshot_of(tmp_path / "snapshots", 100) and CurrentGeneration(arena).get() == 1)
        view = GraphView.attach(load_schema(schema), arena)
        second = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert second.stderr is not None
        assert "Standing by" in second.stderr.readline()
        publish(broker, range(100, 150))
        first.send_signal(signal.SIGKILL)
        died_s = time.monotonic()
        _until(lambda: view.superseded)
        print(f"took over after {time.monotonic() - died_s:.2f} s")
        view.close()
        view = GraphView.attach(load_schema(schema), arena)
        assert sum(at for (topic, _), at in view.position().offsets.items() if topic == "transactions") == 150
        assert view.generation == 2
        view.close()
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=20) == 0
    finally:
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(timeout=20)


def _snapshot_of(folder: Path, count: int) -> bool:
    found, _ = Snapshots(folder).inventory()
    return bool(found) and sum(at for (topic, _), at in found[0].offsets.items() if topic == "transactions") == count


def _until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def test_snapshots_are_listed_and_checked(
    run_json: Callable, run_command: Callable, example: Path, killed_updater: Callable, tmp_path: Path
) -> None:
    """The newest first with what it holds; a damaged one fails the check with its place."""
    place = killed_updater(100)
    listed = run_json("snapshots", "list", place)
    assert "transactions/0=50, transactions/1=50" in listed[0]["offsets"]
    assert all(not row["unusable"] for row in listed)
    assert all(not row["unusable"] for row in run_json("snapshots", "verify", place))
    with (place / listed[0]["snapshot"] / IMAGE).open("r+b") as file:
        file.truncate(66_000)
    result = run_command("snapshots", "verify", place, "--name", listed[0]["snapshot"], exit_code=1)
    assert "cut off" in result.stdout
    result = run_command("snapshots", "verify", place, "--name", "nothing", exit_code=2)
    assert "no snapshot nothing" in result.stderr
    result = run_command(
        "update", "--schema", example / "schema.yaml", "--arena", tmp_path / "b", "--snapshots", place,
        "--bootstrap-servers", "embedded", exit_code=2,
    )  # fmt: skip
    assert "--snapshots" in result.stderr
    result = run_command(
        "update", "--schema", example / "schema.yaml", "--arena", tmp_path / "b", "--snapshots", place,
        "--bootstrap-servers", "127.0.0.1:1", "--snapshot-every", "soon", exit_code=2,
    )  # fmt: skip
    assert "--snapshot-every soon: expected a duration" in result.stderr
