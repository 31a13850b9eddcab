from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from model_server.backlog import Backlog, Priority


@dataclass(frozen=True)
class Job:
    """A name and a deadline."""

    name: str
    deadline_s: float


def filled(interactive: int, batch: int, *, batch_share: float = 0.1) -> Backlog[Job]:
    """So many of each class, deadlines rising."""
    backlog: Backlog[Job] = Backlog(batch_share=batch_share)
    for number in range(interactive):
        backlog.push(Job("interactive", number), Priority.INTERACTIVE)
    for number in range(batch):
        backlog.push(Job("batch", number), Priority.BATCH)
    return backlog


def test_the_earliest_deadline_is_served_first_and_equals_in_order() -> None:
    """Within a class: whoever's time is up first, and of equals whoever came first."""
    backlog: Backlog[Job] = Backlog(batch_share=0.1)
    for name, deadline_s in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("b2", 2.0)):
        backlog.push(Job(name, deadline_s), Priority.INTERACTIVE)
    assert [job.name for job in backlog] == ["a", "b", "b2", "c"]
    assert len(backlog) == 0


def test_interactive_comes_first_and_batch_is_never_forgotten() -> None:
    """Of a hundred rows taken while both wait ten are of the batch class, whatever their deadlines."""
    backlog = filled(500, 500)
    names = [job.name for job in islice(backlog, 100)]
    assert names.count("batch") == 10
    assert names[:9] == ["interactive"] * 9


def test_alone_the_batch_class_has_everything() -> None:
    """Its share is a floor, not a ceiling; and what it had alone it does not owe later."""
    backlog = filled(0, 5)
    assert [job.name for job in islice(backlog, 3)] == ["batch"] * 3
    backlog.push(Job("interactive", 9.0), Priority.INTERACTIVE)
    assert next(backlog).name == "interactive"


def test_what_is_ahead_counts_by_class() -> None:
    """A batch row waits for all of the other class, an interactive one for the share that the other takes meanwhile."""
    backlog = filled(90, 500)
    assert backlog.ahead_of(Priority.BATCH, 1e9) == 590
    assert backlog.ahead_of(Priority.INTERACTIVE, 1e9) == 90 + 10
    assert filled(90, 4).ahead_of(Priority.INTERACTIVE, 1e9) == 90 + 4


def test_only_what_ends_earlier_is_ahead() -> None:
    """Of one's own class later deadlines are taken later; an equal one that came before is ahead."""
    backlog = filled(90, 50)
    assert backlog.ahead_of(Priority.BATCH, 9.0) == 90 + 10
    assert backlog.ahead_of(Priority.INTERACTIVE, 8.5) == 9 + 1
    assert backlog.ahead_of(Priority.INTERACTIVE, -1.0) == 0
    assert backlog.last(Priority.BATCH) == (140, 49)
    assert backlog.last(Priority.INTERACTIVE) == (100, 89)
    assert filled(0, 5).last(Priority.INTERACTIVE) == (0, 0)


def test_the_newest_of_the_batch_class_gives_way() -> None:
    """The one that would have been served last is dropped, the order of the others stands; without any, nobody is."""
    backlog = filled(2, 20)
    dropped = backlog.drop_newest_batch()
    assert dropped == Job("batch", 19)
    left = [job.deadline_s for job in backlog if job.name == "batch"]
    assert left == list(range(19))
    assert filled(2, 0).drop_newest_batch() is None
