"""Quality as it goes: records in any order, a report whenever one is asked for, memory within limits.

    Answer, Outcome, ShownList, Interaction ─► add ─► joins by task ─► report ─► Report

The watermark W is the newest time seen, of answers and of events. With windows of L and a label delay of D an answer
counts from W = its time + D on, for L; what is older is let go of. So a report says the same in whatever order the same
records came, and however often, as long as the limits hold.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from stream.errors import ConfigurationError
from stream.quality.config import AnswerKind, QualitySettings, QualityTask
from stream.quality.list_join import ListJoin
from stream.quality.measure import Usual, measure_lists, measure_rows
from stream.quality.records import Answer, Interaction, Outcome, Record, ShownList, Stream, identity
from stream.quality.report import Measured, Report, TaskState
from stream.quality.row_join import Columns, RowJoin

_HASHES = 1 << 128  # of digests of 16 bytes
_LONG_AGO_US = -(2**63)


@dataclass(slots=True)
class _Life:
    """A stream's first and newest event time, and what was usual when it began, once that is settled."""

    first_us: int
    newest_us: int
    usual: Usual | None = None


class Monitor:
    """Measures the tasks of one graph. One thread adds and asks."""

    def __init__(self, tasks: Iterable[QualityTask], settings: QualitySettings | None = None) -> None:
        self._settings = settings or QualitySettings()
        self._tasks = {task.name: task for task in tasks}
        self._joins = {task.name: self._join(task) for task in self._tasks.values()}
        self._newest_outcome_us: dict[str, int] = {}
        self._lives: dict[Stream, _Life] = {}
        self._given: dict[Stream, Usual] = {}
        self._watermark_us = _LONG_AGO_US
        self._halvings = 0
        self.taken: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    @property
    def tasks(self) -> Mapping[str, QualityTask]:
        """What is measured, by name."""
        return self._tasks

    @property
    def horizon_us(self) -> int:
        """Up to here, records of no task can count any more."""
        return min((self._horizon_us(task) for task in self._tasks.values()), default=_LONG_AGO_US)

    def advance(self, time_us: int) -> None:
        """Say that it is at least this late: an event came that is no outcome."""
        self._watermark_us = max(self._watermark_us, time_us)

    def add(self, record: Record) -> None:
        """Take a record, whenever it comes and however often; one of another task, or too old to count, is skipped."""
        answers = isinstance(record, Answer | ShownList)
        task = self._tasks.get(record.stream.task if isinstance(record, Answer | ShownList) else record.task)
        if task is None:
            self.skipped["task"] += 1
            return
        time_us = record.known_time_us if isinstance(record, Outcome) else record.event_time_us
        self.advance(time_us)
        known = (
            record.label if isinstance(record, Outcome) else record.item if isinstance(record, Interaction) else None
        )
        if known is not None:
            self._newest_outcome_us[task.name] = max(time_us, self._newest_outcome_us.get(task.name, time_us))
        if time_us <= self._horizon_us(task):
            self.skipped["old"] += 1
            return
        name = record.user if isinstance(record, ShownList | Interaction) else record.key
        if self._halvings and identity(name) >= self._limit():
            self.skipped["sampled"] += 1
            return
        if isinstance(record, Answer | ShownList):
            self._live(record.stream, time_us)
        self._hand_over(record)
        self.taken["answers" if answers else "outcomes"] += 1
        if self._held() > self._settings.rows_max:
            self._make_room()

    def report(self) -> Report:
        """Measure every stream over every window at the present watermark; lets go of what can count no more."""
        measured: list[Measured] = []
        for task in self._tasks.values():
            join = self._joins[task.name]
            if isinstance(join, RowJoin):
                for stream, columns in sorted(join.columns().items()):
                    usual = self._usual(task, stream, columns)
                    measured += [self._measure(task, stream, columns, window, usual) for window in self._windows]
            else:
                for stream, lists in sorted(join.followed().items()):
                    measured += [
                        measure_lists(task, stream, lists, watermark_us=self._watermark_us, window_us=window)
                        for window in self._windows
                    ]
            join.forget(self._horizon_us(task))
        states = [
            TaskState(
                task.name,
                task.label_delay_us,
                self._joins[task.name].unmatched_outcomes(),
                self._newest_outcome_us.get(task.name),
            )
            for task in self._tasks.values()
        ]
        return Report(
            watermark_us=self._watermark_us,
            measured=tuple(measured),
            tasks=tuple(states),
            rows=self._held(),
            sample_ratio=0.5**self._halvings,
            taken=dict(self.taken),
            skipped=dict(self.skipped),
        )

    def references(self) -> str:
        """Return as JSON what is settled to be usual of every stream: to be given to the next process."""
        found = [[*astuple(s), life.usual.to_dict()] for s, life in sorted(self._lives.items()) if life.usual]
        return json.dumps(found)

    def use_references(self, text: str) -> None:
        """Compare with what another process found usual.

        Raises:
            ConfigurationError: the text is not what `references` returns.
        """
        try:
            found: list[Any] = json.loads(text)
            self._given |= {Stream(*names): Usual.from_dict(values) for *names, values in found}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigurationError(f"the references of drift can not be read: {error!r}") from error

    @property
    def _windows(self) -> tuple[int, ...]:
        return self._settings.windows_us

    def _join(self, task: QualityTask) -> RowJoin | ListJoin:
        if task.kind is not AnswerKind.RANKING:
            return RowJoin(task)
        limits = self._settings
        return ListJoin(task, lists_max=limits.lists_per_user_max, interactions_max=limits.interactions_per_user_max)

    def _measure(
        self, task: QualityTask, stream: Stream, columns: Columns, window_us: int, usual: Usual | None
    ) -> Measured:
        return measure_rows(
            task,
            stream,
            columns,
            watermark_us=self._watermark_us,
            window_us=window_us,
            usual=usual,
            answers_min=self._settings.drift_answers_min,
        )

    def _hand_over(self, record: Record) -> None:
        if isinstance(record, Answer | Outcome):
            task = record.stream.task if isinstance(record, Answer) else record.task
            rows = self._joins[task]
            assert isinstance(rows, RowJoin), f"{task}: a ranking has lists, not rows"
            if isinstance(record, Answer):
                rows.answer(record)
            else:
                rows.outcome(record)
            return
        lists = self._joins[record.stream.task if isinstance(record, ShownList) else record.task]
        assert isinstance(lists, ListJoin), "only a ranking has lists"
        if isinstance(record, ShownList):
            lists.shown(record)
        else:
            lists.interaction(record)

    def _live(self, stream: Stream, time_us: int) -> None:
        life = self._lives.get(stream)
        if life is not None:
            life.first_us, life.newest_us = min(life.first_us, time_us), max(life.newest_us, time_us)
            return
        if len(self._lives) >= self._settings.streams_max:
            oldest = min(self._lives, key=lambda one: (self._lives[one].newest_us, one))
            del self._lives[oldest]
            self._joins[oldest.task].drop(oldest)
            self.skipped["stream"] += 1
        self._lives[stream] = _Life(time_us, time_us, self._given.get(stream))

    def _usual(self, task: QualityTask, stream: Stream, columns: Columns) -> Usual | None:
        """What is usual of a stream: once its first stretch is over, and for good before any of it is let go of."""
        life = self._lives[stream]
        if life.usual is not None:
            return life.usual
        end_us = life.first_us + self._settings.reference_us
        leaves = self._horizon_us(task) >= life.first_us
        if self._watermark_us < end_us and not leaves:
            return None
        first = columns.event_time_us < end_us
        if int(first.sum()) < self._settings.drift_answers_min:
            return None
        usual = Usual.of(task, columns, first)
        if leaves:
            life.usual = usual
        return usual

    def _horizon_us(self, task: QualityTask) -> int:
        return max(_LONG_AGO_US, self._watermark_us - task.label_delay_us - self._windows[-1])

    def _held(self) -> int:
        return sum(map(len, self._joins.values()))

    def _limit(self) -> bytes:
        return (_HASHES >> self._halvings).to_bytes(16, "big")

    def _make_room(self) -> None:
        """Let go of what is too old; while there is too much still, of every second key, by its hash."""
        for task in self._tasks.values():
            join = self._joins[task.name]
            unsettled = any(one.task == task.name and not life.usual for one, life in self._lives.items())
            if isinstance(join, RowJoin) and unsettled:
                for stream, columns in join.columns().items():
                    self._usual(task, stream, columns)
            join.forget(self._horizon_us(task))
        while self._held() > 0.9 * self._settings.rows_max:
            self._halvings += 1
            for join in self._joins.values():
                join.thin(self._limit())
