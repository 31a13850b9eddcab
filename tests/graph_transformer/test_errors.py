from __future__ import annotations

from graph_transformer.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    GraphTransformerError,
    NotEnoughExamples,
    TaskError,
)


def test_a_server_can_catch_every_bad_checkpoint_as_one() -> None:
    """Corrupt and mismatched checkpoints are CheckpointErrors, and with the others GraphTransformerErrors."""
    assert issubclass(CheckpointCorrupt, CheckpointError)
    assert issubclass(CheckpointMismatch, CheckpointError)
    for error in (CheckpointError, TaskError, NotEnoughExamples):
        assert issubclass(error, GraphTransformerError)


def test_a_task_error_names_the_key_what_belongs_there_and_what_is() -> None:
    """All three parts are in the message and readable as attributes."""
    error = TaskError("splits.train.end", "a time after the start", "2018-01-01")
    assert str(error) == "splits.train.end: expected a time after the start, found '2018-01-01'"
    assert error.path == "splits.train.end"
