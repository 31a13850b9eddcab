from __future__ import annotations

from graph_transformer.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    GraphTransformerError,
    NotEnoughExamples,
    QueryError,
    TaskError,
)


def test_a_server_can_catch_every_bad_checkpoint_as_one() -> None:
    """Corrupt and mismatched checkpoints are CheckpointErrors, and with the others GraphTransformerErrors."""
    assert issubclass(CheckpointCorrupt, CheckpointError)
    assert issubclass(CheckpointMismatch, CheckpointError)
    for error in (CheckpointError, TaskError, NotEnoughExamples, QueryError):
        assert issubclass(error, GraphTransformerError)


def test_a_task_error_names_the_key_what_belongs_there_and_what_is() -> None:
    """All three parts are in the message and readable as attributes."""
    error = TaskError("splits.train.end", "a time after the start", "2018-01-01")
    assert str(error) == "splits.train.end: expected a time after the start, found '2018-01-01'"
    assert error.path == "splits.train.end"


def test_a_query_error_names_its_place() -> None:
    """Line and column from 1, the nearest name, and a mark under the place, tabs and lines before it included."""
    error = QueryError(
        "PREDICT a.b\n\tFOR EACH usrs.id", 22, expected="a table", found="'usrs'", word="usrs", names=["users"]
    )
    assert (error.line, error.column, error.nearest) == (2, 11, "users")
    first, line, mark = str(error).split("\n")
    assert first == "query, line 2, column 11: expected a table, found 'usrs'; did you mean users?"
    assert line[mark.index("^") :] == "usrs.id"
