"""What can go wrong between a checkpoint, a schema and a neighborhood."""

from __future__ import annotations


class GraphTransformerError(Exception):
    """The root of this package's operating errors."""


class TaskError(GraphTransformerError):
    """A task file does not say what is needed: `path` is the key, `expected` what belongs there."""

    def __init__(self, path: str, expected: str, found: object) -> None:
        super().__init__(f"{path}: expected {expected}, found {found!r}")
        self.path, self.expected, self.found = path, expected, found


class CheckpointError(GraphTransformerError):
    """A checkpoint can not be used."""


class CheckpointCorrupt(CheckpointError):
    """A file of the checkpoint is missing, truncated, altered, or holds weights that are not finite."""


class CheckpointMismatch(CheckpointError):
    """The checkpoint is whole but was made for something else: another schema, or another version of this format."""


class NotEnoughExamples(GraphTransformerError):
    """A split has too few labels of one kind to train or to measure anything."""
