"""What can go wrong between a checkpoint, a schema and a neighborhood."""

from __future__ import annotations

from collections.abc import Iterable

from temporal_graph.errors import nearest_name


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


class DeviceUnavailable(GraphTransformerError):
    """A device that is asked for is not there, or cannot compute what is asked: `device`, and why in the message."""

    def __init__(self, device: str, why: str) -> None:
        super().__init__(f"device {device!r}: {why}")
        self.device = device


class NotEnoughExamples(GraphTransformerError):
    """A split has too few labels of one kind to train or to measure anything."""


class QueryError(GraphTransformerError):
    """A predictive query that cannot be understood, or does not fit the schema.

    Attributes:
        line, column: the place, from 1.
        expected: what may stand there.
        found: what stands there.
        nearest: the valid word or name that looks most like the one found, where one was meant.
    """

    keeps_lines = True  # the message shows the query's line with a mark under the place

    def __init__(
        self, text: str, at: int, *, expected: str, found: str, word: str | None = None, names: Iterable[str] = ()
    ) -> None:
        before = text[:at]
        self.line, self.column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
        self.expected, self.found = expected, found
        self.nearest = nearest_name(found if word is None else word, names)
        hint = f"; did you mean {self.nearest}?" if self.nearest is not None else ""
        shown = text.split("\n")[self.line - 1].replace("\t", " ")
        super().__init__(
            f"query, line {self.line}, column {self.column}: expected {expected}, found {found}{hint}\n"
            f"  {shown}\n  {' ' * (self.column - 1)}^"
        )


class RankQuestionError(GraphTransformerError):
    """A question to a ranker can not be answered: which `question`, `path` of its field, what is `expected` there."""

    def __init__(self, question: int, path: str, expected: str, found: object) -> None:
        super().__init__(f"question {question}: {path}: expected {expected}, found {found!r}")
        self.question, self.path, self.expected, self.found = question, path, expected, found


class TrainingDiverged(GraphTransformerError):
    """A loss or gradient became infinite or no number."""


class StateMismatch(GraphTransformerError):
    """A state file to go on from is of another training."""
