"""Lists joined with what their users did afterwards: which of the shown items were taken within the delay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stream.quality.config import QualityTask
from stream.quality.records import Interaction, ShownList, Stream, identity

_Place = tuple[Stream, int, str]  # stream, event time, request id


@dataclass(slots=True)
class _User:
    lists: dict[_Place, tuple[int, tuple[int, ...]]] = field(default_factory=dict)  # answered, items
    done: dict[bytes, tuple[int, int, int, int | None]] = field(default_factory=dict)  # known, offset, time, item


@dataclass(frozen=True, slots=True)
class Followed:
    """A list and what came of it: the ranks (from 1) of its items that were taken, and how many items were taken."""

    event_time_us: int
    length: int
    ranks: tuple[int, ...]
    taken: int


class ListJoin:
    """Holds the users of one ranking. One thread."""

    def __init__(self, task: QualityTask, *, lists_max: int, interactions_max: int) -> None:
        self._task = task
        self._lists_max = lists_max
        self._interactions_max = interactions_max
        self._users: dict[bytes, _User] = {}
        self._held = 0
        self.dropped = 0

    def __len__(self) -> int:
        return self._held

    def shown(self, shown: ShownList) -> None:
        """Take a list; one of the same request and time replaces the one answered before it."""
        user = self._user(shown.user)
        place = (shown.stream, shown.event_time_us, shown.request_id)
        before = user.lists.get(place)
        if before is None:
            self._held += 1
            if len(user.lists) >= self._lists_max:
                self._drop(user.lists, min(user.lists, key=lambda one: one[1]))
        if before is None or before < (shown.answered_time_us, shown.items):
            user.lists[place] = (shown.answered_time_us, shown.items)

    def interaction(self, done: Interaction) -> None:
        """Take what a user did; of a row's versions the one known last counts."""
        user = self._user(done.user)
        before = user.done.get(done.row)
        if before is None:
            self._held += 1
            if len(user.done) >= self._interactions_max:
                self._drop(user.done, min(user.done, key=lambda row: user.done[row][2]))
        if before is None or before[:2] <= (done.known_time_us, done.offset):
            user.done[done.row] = (done.known_time_us, done.offset, done.event_time_us, done.item)

    def followed(self) -> Mapping[Stream, list[Followed]]:
        """Return every list with what its user did after it, within the delay."""
        found: dict[Stream, list[Followed]] = {}
        for user in self._users.values():
            done = [(time_us, item) for _, _, time_us, item in user.done.values() if item is not None]
            for (stream, time_us, _), (_, items) in user.lists.items():
                until_us = time_us + self._task.label_delay_us
                taken = {item for at_us, item in done if time_us < at_us <= until_us}
                ranks = tuple(rank for rank, item in enumerate(items, 1) if item in taken)
                found.setdefault(stream, []).append(Followed(time_us, len(items), ranks, len(taken)))
        for lists in found.values():
            lists.sort(key=lambda one: (one.event_time_us, one.ranks, one.length, one.taken))
        return found

    def unmatched_outcomes(self) -> int:
        """Return how many interactions are held of users who were shown nothing."""
        return sum(len(user.done) for user in self._users.values() if not user.lists)

    def forget(self, until_us: int) -> None:
        """Let go of lists and interactions up to a time."""
        for name, user in list(self._users.items()):
            for place in [place for place in user.lists if place[1] <= until_us]:
                del user.lists[place]
            for row in [row for row, done in user.done.items() if done[2] <= until_us]:
                del user.done[row]
            if not user.lists and not user.done:
                del self._users[name]
        self._count()

    def thin(self, limit: bytes) -> None:
        """Let go of every user whose digest is not below `limit`."""
        self._users = {name: user for name, user in self._users.items() if name < limit}
        self._count()

    def drop(self, stream: Stream) -> None:
        """Let go of a stream's lists."""
        for user in self._users.values():
            for place in [place for place in user.lists if place[0] == stream]:
                del user.lists[place]
        self._count()

    def _drop(self, held: dict[Any, Any], key: Any) -> None:
        del held[key]
        self._held -= 1
        self.dropped += 1

    def _count(self) -> None:
        self._held = sum(len(user.lists) + len(user.done) for user in self._users.values())

    def _user(self, key: tuple[int | str, ...]) -> _User:
        name = identity(key)
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = _User()
        return user
