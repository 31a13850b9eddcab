"""Answers to rows joined with what became known of them, whichever comes first, however often.

Answer ──► row by key ◄── Outcome        of several answers of a model the last given counts,
              │                          of several outcomes the last known
              └─► Columns of one stream, in an order that does not depend on arrival
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stream.quality.config import QualityTask
from stream.quality.records import Answer, Outcome, Stream, identity

Floats = NDArray[np.float64]
Times = NDArray[np.int64]
NEVER_US = 2**63 - 1
_Given = tuple[int, int, tuple[float, ...], tuple[float, ...]]  # answered, event time, scores, numbers


@dataclass(slots=True)
class _Row:
    answers: dict[Stream, _Given] = field(default_factory=dict)
    label: tuple[float, ...] | None = None
    # Known time, offset and label of the outcome that counts, withdrawn or not.
    known: tuple[int, int, tuple[float, ...]] | None = None
    first_known_us: int = NEVER_US


@dataclass(frozen=True, slots=True)
class Columns:
    """One stream's n answers by event time: `event_time_us` int64 [n]; `scores` float64 [n, scores]; `numbers`
    float64 [n, inputs]; `label` float64 [n, labels], NaN where none is known; `first_known_us` int64 [n], when a label
    was first known, `NEVER_US` where none was.
    """

    event_time_us: Times
    scores: Floats
    numbers: Floats
    label: Floats
    first_known_us: Times


class RowJoin:
    """Holds the rows of one task. One thread."""

    def __init__(self, task: QualityTask) -> None:
        self._task = task
        self._rows: dict[bytes, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def answer(self, answer: Answer) -> None:
        """Take an answer; one that was given earlier than the stream's present one for this row changes nothing."""
        row = self._row(answer.key, answer.event_time_us)
        given = (answer.answered_time_us, answer.event_time_us, answer.scores, answer.numbers)
        before = row.answers.get(answer.stream)
        if before is None or before[:3] < given[:3]:
            row.answers[answer.stream] = given

    def outcome(self, outcome: Outcome) -> None:
        """Take what became known; of several the one known last counts."""
        row = self._row(outcome.key, outcome.anchor_time_us)
        known = (outcome.known_time_us, outcome.offset, outcome.label or ())
        if row.known is None or row.known < known:
            row.known, row.label = known, outcome.label
        if outcome.label is not None:
            row.first_known_us = min(row.first_known_us, outcome.known_time_us)

    def columns(self) -> Mapping[Stream, Columns]:
        """Return what every stream answered, with the labels known now."""
        parts: dict[Stream, list[tuple[int, bytes, _Given, _Row]]] = {}
        for name, row in self._rows.items():
            for stream, given in row.answers.items():
                parts.setdefault(stream, []).append((given[1], name, given, row))
        labels = len(self._task.classes) if self._task.kind == "multilabel" else self._task.steps
        none = (np.nan,) * labels
        found = {}
        for stream, answers in parts.items():
            answers.sort(key=lambda part: part[:2])
            count = len(answers)
            numbers = [given[3] or (np.nan,) * len(self._task.inputs) for _, _, given, _ in answers]
            found[stream] = Columns(
                event_time_us=np.fromiter((part[0] for part in answers), np.int64, count),
                scores=np.array([given[2] for _, _, given, _ in answers], dtype=np.float64).reshape(count, -1),
                numbers=np.array(numbers, dtype=np.float64).reshape(count, -1),
                label=np.array([row.label or none for *_, row in answers], dtype=np.float64).reshape(count, labels),
                first_known_us=np.fromiter((row.first_known_us for *_, row in answers), np.int64, count),
            )
        return found

    def unmatched_outcomes(self) -> int:
        """Return of how many rows an outcome is known and no answer."""
        return sum(1 for row in self._rows.values() if not row.answers)

    def forget(self, until_us: int) -> None:
        """Let go of answers to rows up to a time, and of outcomes known by then that no answer waits for.

        What is known of a row is known when it happens or later, so no answer to a later row can need them.
        """
        empty = []
        for name, row in self._rows.items():
            for stream in [stream for stream, given in row.answers.items() if given[1] <= until_us]:
                del row.answers[stream]
            if not row.answers and (row.known is None or row.known[0] <= until_us):
                empty.append(name)
        for name in empty:
            del self._rows[name]

    def thin(self, limit: bytes) -> None:
        """Let go of every row whose digest is not below `limit`."""
        self._rows = {name: row for name, row in self._rows.items() if name < limit}

    def drop(self, stream: Stream) -> None:
        """Let go of a stream's answers."""
        for row in self._rows.values():
            row.answers.pop(stream, None)

    def _row(self, key: tuple[int | str, ...], time_us: int | None) -> _Row:
        name = identity(key)
        if not self._task.event_level and time_us is not None:
            # An entity is asked about again and again, each time a question of its own; sampled by entity all the same.
            name += time_us.to_bytes(8, "big", signed=True)
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = _Row()
        return row
