"""A checkpoint's folder becomes a version of a registry: checked, with golden requests where a graph is given."""

from __future__ import annotations

import tempfile
from pathlib import Path

from graph_transformer.checkpoint import MANIFEST_NAME as CHECKPOINT_NAME
from graph_transformer.checkpoint import WEIGHTS_NAME, Checkpoint
from graph_transformer.target import Kind
from model_server.models import golden
from model_server.models.registry import GOLDEN_NAME, Manifest, Registry, entries_of, now
from temporal_graph.view import GraphView


def push(
    registry: Registry, folder: Path, view: GraphView | None, *, count: int = golden.COUNT
) -> tuple[Manifest, bool]:
    """Adds a checkpoint to a registry; returns what it says of itself, and whether it is added by this.

    `view` is the graph that golden requests are recorded on; a ranking has none, because it reads the whole graph.
    Raises CheckpointCorrupt or CheckpointMismatch for a checkpoint that cannot be used with the graph, ModelRefused for
    a graph without rows of the task.
    """
    checkpoint = Checkpoint.load(folder, None if view is None else view.schema)
    task, version = checkpoint.task, checkpoint.version
    files = {CHECKPOINT_NAME: folder / CHECKPOINT_NAME, WEIGHTS_NAME: folder / WEIGHTS_NAME}
    with tempfile.TemporaryDirectory() as beside:
        recorded = 0
        if view is not None and task.target.kind is not Kind.RANKING:
            found = golden.record(view, checkpoint, count)
            golden.verify(found, checkpoint)
            files[GOLDEN_NAME] = Path(beside) / GOLDEN_NAME
            golden.save(found, files[GOLDEN_NAME])
            recorded = len(found)
        manifest = Manifest(
            task=task.name,
            version=version,
            kind=task.target.kind.value,
            fingerprint=checkpoint.fingerprint,
            pushed_at=now(),
            golden=recorded,
            metrics=checkpoint.metrics,
            files=entries_of(files),
        )
        return manifest, registry.push(files, manifest)
