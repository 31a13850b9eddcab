"""Erasure in snapshots that are there already: each is restored, the erasure applied, and its image written anew.

snapshot ─► graph in memory ─► apply(erasures) ─► image, under the same positions ─► takes the snapshot's place
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from temporal_graph.errors import ArenaError, ImageRefusedError
from temporal_graph.graph import ARENA_BYTES, TemporalGraph
from temporal_graph.schema import Schema
from temporal_graph.snapshots import IMAGE, Refused, Snapshot, SnapshotError, Snapshots


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What became of the snapshots of one place.

    `rewritten` have taken the place of others, `clean` held nothing to erase; `refused` can't be read: whatever they
    hold, they hold.
    """

    rewritten: tuple[Snapshot, ...]
    clean: tuple[Snapshot, ...]
    refused: tuple[Refused, ...]


def erase_in_snapshots(
    snapshots: Snapshots, schema: Schema, erasures: Sequence[bytes], *, arena_bytes: int = ARENA_BYTES
) -> Rewritten:
    """Apply erasures (serialized RowEvents) to every snapshot of a place; needs memory for one graph.

    Raises:
        SnapshotError: the place can't be read, or a new snapshot can't be written; those that are there stay.
        ArenaFullError: a graph has no room in `arena_bytes`.
    """
    found, refused = snapshots.inventory()
    rewritten: list[Snapshot] = []
    clean: list[Snapshot] = []
    for snapshot in found:
        try:
            with snapshots.image_of(snapshot) as path:
                graph = TemporalGraph.create(schema, arena_bytes=arena_bytes, image=path)
        except (SnapshotError, ImageRefusedError) as error:
            refused.append(Refused(snapshot.name, str(error)))
            continue
        with graph:
            made = _rewrite(snapshots, snapshot, graph, erasures)
        (clean if made is None else rewritten).append(made or snapshot)
    return Rewritten(tuple(rewritten), tuple(clean), tuple(refused))


def _rewrite(
    snapshots: Snapshots, snapshot: Snapshot, graph: TemporalGraph, erasures: Sequence[bytes]
) -> Snapshot | None:
    applied = graph.apply(erasures)
    if applied.rejected:
        raise ValueError(f"{applied.rejected[0].reason}: {applied.rejected[0].detail}")
    if applied.applied == 0:
        return None
    folder = snapshots.making()
    try:
        image = graph.image(folder / IMAGE)
        settled = image.settle()
        size = image.finish()
    except ArenaError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise SnapshotError(f"{snapshots.url}: {snapshot.name} can't be written anew: {error}") from error
    return snapshots.replace(snapshot, folder, settled, size=size, fingerprint=graph.schema.fingerprint())
