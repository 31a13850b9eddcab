"""Whatever a library raises is said in words that help."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.registry import known_implementations

from temporal_graph.graph import TemporalGraph
from temporal_graph.object_store import why
from temporal_graph.schema import Schema
from temporal_graph.snapshots import Snapshot, SnapshotError, Snapshots

Snap = Callable[[Snapshots, TemporalGraph], Snapshot]


class NoCredentialsError(Exception):
    """As botocore's: no OSError."""


def test_an_error_of_the_library_names_itself_and_what_to_look_at() -> None:
    """Also one that says nothing; and a refusal, which file systems have too."""
    found = why(NoCredentialsError("Unable to locate credentials"))
    assert found.startswith("NoCredentialsError: Unable to locate credentials (")
    assert "credentials its library finds" in found
    assert why(NoCredentialsError()).startswith("NoCredentialsError: NoCredentialsError (")
    assert "credentials its library finds" in why(PermissionError("Access Denied"))


@pytest.mark.parametrize("error", [OSError("No space left on device"), ValueError("Protocol not known: nosuch")])
def test_an_error_of_the_machine_speaks_for_itself(error: Exception) -> None:
    """Where credentials can't be the reason they are not mentioned."""
    assert why(error) == str(error)


def test_a_library_that_is_missing_is_said() -> None:
    """As fsspec does, which says what to install."""
    assert why(ImportError("Install s3fs to access S3")) == (
        "Install s3fs to access S3 (the library of this kind of place is not installed)"
    )


@pytest.mark.parametrize("call", ["ls", "cat_file", "get_file", "put_file", "rm_file"])
def test_snapshots_raise_errors_of_their_own(
    schema: Schema,
    payment: Callable[..., bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    snap: Snap,
) -> None:
    """With the place and what to look at, whatever a library raises; nothing that was there is lost by it."""
    snapshots = Snapshots(f"memory://{tmp_path.name}", cache=tmp_path)

    def refuse(*_: Any, **__: Any) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    with TemporalGraph.create(schema, arena_bytes=64 << 20) as graph:
        graph.apply([payment(1, 1)], backfill=True)
        made = [snap(snapshots, graph), snap(snapshots, graph)]
        asks = {
            "ls": snapshots.inventory,
            "cat_file": lambda: _raise_refused(snapshots),
            "get_file": lambda: snapshots.verify(made[0]),
            "put_file": lambda: snap(snapshots, graph),
            "rm_file": lambda: snapshots.keep(1),
        }
        with monkeypatch.context() as failing:
            failing.setattr(snapshots._fs, call, refuse)
            with pytest.raises(SnapshotError, match=r"NoCredentialsError: .* \(look at") as caught:
                asks[call]()
        assert call == "cat_file" or snapshots.url in str(caught.value)
        assert snapshots.inventory() == (made[::-1], [])


def _raise_refused(snapshots: Snapshots) -> None:
    raise SnapshotError(snapshots.inventory()[1][0].reason)


@pytest.mark.parametrize("url", ["nosuch://x", "absent://x"])
def test_a_place_that_nothing_here_knows_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is given: an unknown protocol, and one whose library is not installed."""
    known = {"class": "absent_library.FileSystem", "err": "Install absent_library"}
    monkeypatch.setitem(known_implementations, "absent", known)
    with pytest.raises(SnapshotError, match=url):
        Snapshots(url)
