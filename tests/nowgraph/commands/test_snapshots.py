"""Snapshots of a running updater: killed, it goes on from the newest good one; `verify` builds the same graph anew."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from stream.embedded_broker import EmbeddedBroker
from temporal_graph.errors import ArenaError
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


@pytest.mark.parametrize("place", ["folder", "storage"])
def test_a_second_replica_starts_from_the_snapshots_of_the_first(
    run_json: Callable,
    example: Path,
    broker: EmbeddedBroker,
    publish: Callable,
    killed_updater: Callable,
    tmp_path: Path,
    place: str,
) -> None:
    """Only what came since is applied into its own arena; the first one's snapshots stay as they are."""
    folder = killed_updater(100)
    url = str(folder)
    if place == "storage":
        url = f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").put(str(folder), url, recursive=True)
    publish(broker, range(100, 150))
    options = (
        "--schema", example / "schema.yaml", "--bootstrap-servers", broker.bootstrap, "--until-caught-up",
        "--metrics-port", 0, "--quiet",
    )  # fmt: skip
    before = Snapshots(url).inventory()[0]
    whole = run_json("update", *options, "--arena", tmp_path / "whole")
    second = run_json(
        "update", *options, "--arena", tmp_path / "second", "--snapshots", url, "--snapshot-every", "never"
    )
    assert (second["applied"], second["duplicate"]) == (50, 0)
    assert second["graph"] == whole["graph"]
    assert Snapshots(url).inventory()[0] == before != []


def test_a_standby_takes_the_place_of_an_updater_that_died(
    example: Path, broker: EmbeddedBroker, publish: Callable, free_port: Callable[[], int],
    until: Callable[..., None], tmp_path: Path,
) -> None:  # fmt: skip
    """It keeps up while there is a writer; then servers are sent to its generation, which holds all of the log."""
    schema, arena = example / "schema.yaml", tmp_path / "arena"
    command = [
        sys.executable, "-m", "nowgraph.cli", "update", "--schema", schema, "--arena", arena, "--standby",
        "--snapshots", tmp_path / "snapshots", "--snapshot-every", "50ms", "--bootstrap-servers", broker.bootstrap,
        "--metrics-port",
    ]  # fmt: skip
    port = str(free_port())
    publish(broker, range(100))
    first = subprocess.Popen([*command, "0"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    second: subprocess.Popen[str] | None = None
    try:
        until(lambda: _snapshot_of(tmp_path / "snapshots", 100) and CurrentGeneration(arena).get() == 1)
        view = GraphView.attach(load_schema(schema), arena)
        second = subprocess.Popen([*command, port], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert second.stderr is not None
        assert any("Standing by" in line for line in second.stderr)
        publish(broker, range(100, 150))
        until(lambda: _metric(port, "nowgraph_events_applied_total") == 50)
        time.sleep(0.5)  # ten times its interval: who stands by makes no snapshot
        assert _metric(port, 'nowgraph_snapshots_total{outcome="made"}') == 0
        assert _metric(port, "nowgraph_standing_by") == 1
        assert not view.superseded
        first.send_signal(signal.SIGKILL)
        died_s = time.monotonic()
        until(lambda: view.superseded)
        print(f"took over after {time.monotonic() - died_s:.2f} s")
        view.close()
        view = GraphView.attach(load_schema(schema), arena)
        assert sum(at for (topic, _), at in view.position().offsets.items() if topic == "transactions") == 150
        assert view.generation == 2
        view.close()
        assert _metric(port, "nowgraph_standing_by") == 0
        assert 0 < _metric(port, "nowgraph_ready_seconds") < 10
        until(lambda: _snapshot_of(tmp_path / "snapshots", 150))
        second.send_signal(signal.SIGTERM)
        assert second.wait(timeout=20) == 0
    finally:
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(timeout=20)


@pytest.mark.faults
def test_of_several_who_stand_by_each_has_its_turn(
    example: Path, broker: EmbeddedBroker, publish: Callable, free_port: Callable[[], int],
    until: Callable[..., None], tmp_path: Path,
) -> None:  # fmt: skip
    """Three start at once and the writer is killed again and again: one takes over, the others stand by for it."""
    arena, ports = tmp_path / "arena", [str(free_port()) for _ in range(4)]
    command = [
        sys.executable, "-m", "nowgraph.cli", "update", "--schema", example / "schema.yaml", "--arena", arena,
        "--standby", "--bootstrap-servers", broker.bootstrap, "--quiet", "--metrics-port",
    ]  # fmt: skip
    processes = {port: subprocess.Popen([*command, port]) for port in ports}
    try:
        published = 0
        while processes:
            publish(broker, range(published, published + 30))
            published += 30
            until(lambda: all(_metric_or_none(port, "nowgraph_standing_by") is not None for port in processes))
            until(lambda: [_metric_or_none(port, "nowgraph_standing_by") for port in processes].count(0.0) == 1)
            until(lambda: _whole(arena, example, published))  # noqa: B023
            (writer,) = (port for port in processes if _metric(port, "nowgraph_standing_by") == 0)
            process = processes.pop(writer)
            process.kill()
            process.wait(timeout=20)
        assert len(list(arena.glob("*.arena"))) == 1
    finally:
        for process in processes.values():
            process.kill()
            process.wait(timeout=20)


def _whole(arena: Path, example: Path, count: int) -> bool:
    """Whether the generation that serves holds so many payments."""
    try:
        view = GraphView.attach(load_schema(example / "schema.yaml"), arena)
    except ArenaError:
        return False
    rows = view.row_count("transactions")
    view.close()
    return rows == count


def _metric_or_none(port: str, name: str) -> float | None:
    try:
        return _metric(port, name)
    except OSError:
        return None


def test_a_standby_needs_a_log_that_goes_on(run_command: Callable, example: Path, tmp_path: Path) -> None:
    """The embedded broker and an end that is planned are refused: there is nobody to stand by for."""
    for more in (("--bootstrap-servers", "embedded"), ("--bootstrap-servers", "127.0.0.1:1", "--until-caught-up")):
        result = run_command(
            "update", "--schema", example / "schema.yaml", "--arena", tmp_path / "arena", "--standby", *more,
            exit_code=2,
        )  # fmt: skip
        assert "--standby" in result.stderr


def test_a_metrics_port_that_is_taken_is_named(run_command: Callable, example: Path, tmp_path: Path) -> None:
    """A standby on its writer's host wants one of its own, and says so in a line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run_command(
            "update", "--schema", example / "schema.yaml", "--arena", tmp_path / "arena", "--metrics-port", port,
            "--bootstrap-servers", "embedded", "--quiet", exit_code=2,
        )  # fmt: skip
    assert f"--metrics-port {port}: Address already in use" in result.stderr


def _metric(port: str, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.split(" ")[0] == name)


def _snapshot_of(folder: Path, count: int) -> bool:
    found, _ = Snapshots(folder).inventory()
    return bool(found) and sum(at for (topic, _), at in found[0].offsets.items() if topic == "transactions") == count


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
    result = run_command("snapshots", "verify", place, "--name", listed[0]["snapshot"], "--json", exit_code=1)
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
