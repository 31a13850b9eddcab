"""An image in the making: what it costs, that it can be given up, and what a file must be to be one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from temporal_graph.errors import ArenaError, ArenaFullError, ImageRefusedError
from temporal_graph.graph import TemporalGraph
from temporal_graph.image import verify_image
from temporal_graph.schema import Schema

ARENA_BYTES = 64 << 20
PAGE_BYTES = 4096


def test_settling_writes_what_changed_since_the_copy(
    schema: Schema, payment: Callable[..., bytes], tmp_path: Path
) -> None:
    """Little of a large graph after one more event; and the position is the newest."""
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        keys = np.arange(300_000)
        graph.append("customers", keys, event_time_us=keys)
        image = graph.image(tmp_path / "image")
        image.copy()
        graph.apply([payment(1, 1, customer=7)], backfill=True, positions={("p", 0): 5})
        settled = image.settle()
        size = image.finish()
        assert size == graph.memory().used_bytes
        assert 0 < settled.pages < size // PAGE_BYTES // 4
        assert settled.position == graph.view().position()
        assert settled.pause_s > 0
    verify_image(tmp_path / "image")


def test_a_copy_can_be_given_up(schema: Schema, tmp_path: Path) -> None:
    """Soon, however slowly it was to go; the file is no image."""
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        keys = np.arange(300_000)
        graph.append("customers", keys, event_time_us=keys)
        image = graph.image(tmp_path / "image")
        failed: list[str] = []

        def copy() -> None:
            try:
                image.copy(bytes_per_s=1 << 20)
            except ArenaError as error:
                failed.append(str(error))

        copying = threading.Thread(target=copy)
        copying.start()
        time.sleep(0.1)
        image.cancel()
        copying.join(timeout=20)
        assert "given up" in failed[0]
    with pytest.raises(ImageRefusedError):
        verify_image(tmp_path / "image")


def test_a_file_that_is_no_image_is_refused(schema: Schema, payment: Callable[..., bytes], tmp_path: Path) -> None:
    """Nothing, noise, another file's bytes; and an arena that is too small says so."""
    for name, content in (("empty", b""), ("short", b"x" * 50), ("noise", bytes(range(256)) * 4096)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageRefusedError):
            verify_image(tmp_path / name)
        with pytest.raises(ImageRefusedError):
            TemporalGraph.create(schema, arena_bytes=ARENA_BYTES, image=tmp_path / name)
    with pytest.raises(ImageRefusedError, match="cannot open"):
        verify_image(tmp_path / "nothing")
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        graph.apply([payment(1, 1, customer=7)], backfill=True)
        image = graph.image(tmp_path / "image")
        image.settle()
        image.finish()
    with pytest.raises(ArenaFullError, match="too small for an image"):
        TemporalGraph.create(schema, arena_bytes=1 << 20, image=tmp_path / "image")
