"""Fetches from Redis all that a sample by `most_recent` can reach: the walk itself is the native sampler's.

    seeds ─► rows and newest entries of lists ─► the rows that they name, with their lists ─► ... one round a hop

An entry may be untrue by now (its row moved, was deleted, or named this parent earlier already), so of each list it is
made sure that enough are true: where they are not, more are fetched. What is fetched beyond need does no harm: the
sampler sees true rows that lie further back. That it is enough: a child whose link opened no earlier than the last
entry fetched has an entry among those fetched, so its row was fetched too; once there are as many of these as the plan
takes, and one for the seed's own row, no older one can be taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from online_sampler.resolved_plan import ResolvedPlan
from temporal_graph.redis.errors import StoreLostError
from temporal_graph.redis.frames import Version, sure_opening, unpack
from temporal_graph.redis.keys import Names
from temporal_graph.redis.view import UNKNOWN, Found, ListWant, RedisView, Want
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US

Stop = tuple[bytes, int]
"""A row on the way, and the cut-off of the seed that leads to it."""


@dataclass(slots=True)
class KnownRow:
    """What was fetched of a row: its versions up to a cut-off, of so many bytes, and in which walk.

    `told` is the size by which a row without versions was told to the native graph: 0 of one that is only named.
    """

    size: int = 0
    cutoff_time_us: int = ALWAYS_US
    versions: list[Version] = field(default_factory=list)
    walk: int = -1
    told: int | None = None


@dataclass(frozen=True, slots=True)
class Root:
    """A seed: where it stands, up to which cut-off its own versions are wanted, and rows that it names itself."""

    entity: bytes
    cutoff_time_us: int
    versions_cutoff_us: int
    names: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _List:
    entries: tuple[tuple[int, bytes], ...]
    asked: int

    @property
    def exhausted(self) -> bool:
        return len(self.entries) < self.asked


class Rows:
    """The rows a reader has, and of them what its native graph does not have yet.

    `new` are stored events by table, `bare` rows that are only named, `unseen` those without a version at the cut-off.
    """

    def __init__(self) -> None:
        self.known: dict[bytes, KnownRow] = {}
        self.new: list[tuple[int, bytes]] = []
        self.bare: list[bytes] = []
        self.unseen: list[bytes] = []


class Routes:
    """Where a plan leads over a schema: the same for all walks.

    `forward` and `backward` are, by hop and table, the links to follow to a parent, and those to children with how many
    to take; `parent` and `child` are the tables of a link.
    """

    def __init__(self, schema: Schema, plan: ResolvedPlan) -> None:
        numbers, tables = plan.num_neighbors.tolist(), range(len(schema.tables))
        self.child = [schema.table_index(link.child) for link in schema.links]
        self.parent = [schema.table_index(link.parent) for link in schema.links]
        self.hops = len(numbers)
        self.forward = [[_followed(hop, self.child, table, 0) for table in tables] for hop in numbers]
        self.backward = [[_followed(hop, self.parent, table, 1) for table in tables] for hop in numbers]
        self.backward.append([[] for _ in tables])


class Walk:
    """One question's walk. Rows that other walks have fetched are asked again, but only for what changed since."""

    def __init__(
        self, view: RedisView, names: Names, routes: Routes, rows: Rows, number: int, *, erasures: int | None
    ) -> None:
        """`erasures`: as of which rows were fetched; None: rows may change, and are asked for whole each time."""
        self._erasures = erasures
        self._view, self._names, self._rows, self._number = view, names, rows, number
        self._routes, self._forward, self._backward = routes, routes.forward, routes.backward
        self._lists: dict[tuple[Stop, int], _List] = {}

    def run(self, roots: Sequence[Root]) -> None:
        """Fetches everything around the seeds into the rows."""
        beyond = {root.entity: root.versions_cutoff_us for root in roots}
        stops = dict.fromkeys((root.entity, root.cutoff_time_us) for root in roots)
        self._fetch(stops, 0, beyond)
        given = [(name, root.cutoff_time_us) for root in roots for name in root.names]
        for hop in range(self._routes.hops):
            reached = self._reached(stops, hop, beyond)
            reached.update(dict.fromkeys(given) if hop == 0 else {})
            self._fetch(reached, hop + 1, {})
            while short := self._short(stops, hop):
                self._fetch_lists(short)
                more = {stop: None for stop in self._reached(stops, hop, beyond) if stop not in reached}
                self._fetch(more, hop + 1, {})
                reached.update(more)
            stops = reached

    def _fetch(self, stops: Iterable[Stop], hop: int, beyond: dict[bytes, int]) -> None:
        """One round: the rows of stops, as far as this walk has not fetched them, with the lists of the hop."""
        cutoffs: dict[bytes, int] = {}
        lists: dict[bytes, list[ListWant]] = {}
        for stop in stops:
            named, cutoff = stop
            row = self._rows.known.get(named)
            upto = max(cutoff, beyond.get(named, ALWAYS_US))
            if row is None or row.walk != self._number or row.cutoff_time_us < upto:
                cutoffs[named] = max(upto, cutoffs.get(named, ALWAYS_US))
            for link, number in self._backward[hop][named[0]]:
                have = self._lists.get((stop, link))
                if have is None or (have.asked <= number and not have.exhausted):
                    lists.setdefault(named, []).append(ListWant(link, number + 1, cutoff))
        self._round(cutoffs, lists)

    def _fetch_lists(self, short: Sequence[tuple[Stop, int]]) -> None:
        """Twice as much of lists of which too little is true."""
        lists: dict[bytes, list[ListWant]] = {}
        for stop, link in short:
            asked = 2 * self._lists[stop, link].asked
            lists.setdefault(stop[0], []).append(ListWant(link, asked, stop[1]))
        self._round({}, lists)

    def _round(self, cutoffs: dict[bytes, int], lists: dict[bytes, list[ListWant]]) -> None:
        wants = []
        for named in dict.fromkeys((*cutoffs, *lists)):
            row = self._rows.known.get(named, _NOTHING)
            upto = max(cutoffs.get(named, ALWAYS_US), row.cutoff_time_us)
            size = 0 if self._erasures is None else row.size
            wants.append(Want(named, upto, size, row.cutoff_time_us, tuple(lists.get(named, ()))))
        if not wants:
            return
        for want, found in zip(wants, self._view.read(self._names, wants, self._erasures), strict=True):
            self._keep(want, found)

    def _keep(self, want: Want, found: Found) -> None:
        for one, entries in zip(want.lists, found.lists, strict=True):
            self._lists[(want.entity, one.cutoff_time_us), one.link] = _List(entries, one.count)
        if found.size == UNKNOWN:
            return
        row = self._rows.known.get(want.entity)
        if row is None:
            row = self._rows.known[want.entity] = KnownRow()
        for version, stored in unpack(found.frames):
            row.versions.append(version)
            self._rows.new.append((want.entity[0], stored))
        if not row.versions and (row.told is None or (found.size > 0) != (row.told > 0)):
            (self._rows.unseen if found.size else self._rows.bare).append(want.entity)
            row.told = found.size
        row.size, row.walk = found.size, self._number
        row.cutoff_time_us = max(row.cutoff_time_us, want.cutoff_time_us)

    def _reached(self, stops: Iterable[Stop], hop: int, beyond: dict[bytes, int]) -> dict[Stop, None]:
        """The rows one link further, of what was fetched so far."""
        reached: dict[Stop, None] = {}
        for stop in stops:
            named, cutoff = stop
            row = self._rows.known.get(named)
            upto = max(cutoff, beyond.get(named, ALWAYS_US))
            for link, _ in self._forward[hop][named[0]]:
                table = bytes((self._routes.parent[link],))
                for version in row.versions if row is not None else ():
                    parent = version.parent(link)
                    if parent and version.visible_time_us <= upto:
                        reached[table + parent, cutoff] = None
            for link, _ in self._backward[hop][named[0]]:
                table = bytes((self._routes.child[link],))
                for _, key in self._lists[stop, link].entries:
                    reached[table + key, cutoff] = None
        return reached

    def _short(self, stops: Iterable[Stop], hop: int) -> list[tuple[Stop, int]]:
        """The lists of which fewer entries are surely true than the plan may take, and which have more."""
        return [
            (stop, link)
            for stop in stops
            for link, number in self._backward[hop][stop[0][0]]
            if not self._enough(stop, link, number)
        ]

    def _enough(self, stop: Stop, link: int, number: int) -> bool:
        found = self._lists[stop, link]
        (named, cutoff), entries = stop, found.entries
        table = bytes((self._routes.child[link],))
        true: set[bytes] = set()
        for _, key in entries:
            row = self._rows.known.get(table + key)
            visible = [v for v in row.versions if v.visible_time_us <= cutoff] if row is not None else []
            if not visible:
                raise StoreLostError("a list names a row that is not there")
            opened = sure_opening(visible, link, named[1:])
            if opened is not None and (opened, key) >= entries[-1]:
                true.add(key)
        return found.exhausted or len(true) > number


_NOTHING = KnownRow()


def _followed(numbers: Sequence[int], ends: Sequence[int], table: int, backward: int) -> list[tuple[int, int]]:
    """The (link, number) of a hop's plan that lead on from a table."""
    found = [(link, numbers[2 * link + backward]) for link, end in enumerate(ends) if end == table]
    return [(link, number) for link, number in found if number > 0]
