"""Snapshots on a disk that is full, for real: a small file system of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from temporal_graph.snapshots import IMAGE, MAKING

pytestmark = [pytest.mark.integration, pytest.mark.kafka, pytest.mark.faults]

SEED = 28
DISK_BYTES = 256 << 20
BLOCK_BYTES = 4096


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize(
    ("share", "blocks_less"),
    [
        pytest.param(0.0, 0, id="no room"),
        pytest.param(0.3, 0, id="for a third"),
        pytest.param(0.9, 0, id="for most"),
        pytest.param(1.0, 1, id="for all but its end"),
        pytest.param(1.0, 0, id="for all but its manifest"),
    ],
)
def test_a_disk_is_full_while_a_snapshot_is_made(
    apache_kafka: str,
    make_world: Callable[..., Any],
    updaters: Any,
    small_disk: Path,
    share: float,
    blocks_less: int,
) -> None:
    """With room for a part of one: the graph goes on, older snapshots stay, nothing half is left to take the room; and
    with room again a snapshot holds all that came meanwhile.
    """
    world = make_world(apache_kafka, seed=SEED, count=600)
    world.snapshots = small_disk / "snapshots"
    world.tell(0, 2)
    updaters.start(world)
    updaters.until(lambda: world.holds(1, 2))
    held = world.offsets()
    blocks = -(-max(each.stat().st_size for each in world.snapshots.glob(f"*/{IMAGE}")) // BLOCK_BYTES)
    room = int(share * blocks) - blocks_less
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(small_disk).free - room * BLOCK_BYTES)
    world.tell(1, 2)
    updaters.until(lambda: updaters.said().count("snapshot_failed") > 3)
    assert "No space left on device" in updaters.said()
    assert world.offsets() == held
    updaters.until(lambda: list(world.snapshots.glob(f"{MAKING}*")) == [], timeout_s=20)
    ballast.unlink()
    updaters.finish(world)
    world.check()
