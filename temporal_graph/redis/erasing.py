"""Erases rows in Redis, and what is their own, while nobody else writes: see `lock` for how that is made sure.

    rows, until ─► marked ─► what is their own, marked too ─► ... ─► versions without what is erased, lists without them

Every step does nothing the second time, and what is found of a row stays to be found until the row is rid of it: an
erasure that was cut off is done again by whoever applies its event again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from temporal_graph.redis.erasure_scripts import ENTRIES, OWN, REMOVE_CHILDREN, REWRITE, ROWS
from temporal_graph.redis.frames import Version, openings, pack, unpack
from temporal_graph.redis.keys import Names, Ref, ref_bytes, time_bytes, time_of
from temporal_graph.redis.row_event import happened_us
from temporal_graph.redis.scripts import ADD_CHILDREN, SET_FIELDS
from temporal_graph.redis.shards import Item, Shards
from temporal_graph.redis.tombstones import NEVER_US, Tombstone, Tombstones
from temporal_graph.schema import Schema

Head = Sequence[bytes | int]
Entry = tuple[int, bytes, int]
"""An entry of a list: link, parent's key, time."""

ROWS_AT_ONCE: Final = 4096
ENTRIES_AT_ONCE: Final = 4096


@dataclass(slots=True)
class Removed:
    """What an erasure removed, by table's index: see `temporal_graph.view.Erased`."""

    rows: Counter[int] = field(default_factory=Counter)
    versions: Counter[int] = field(default_factory=Counter)
    links: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class _Row:
    """A row that is purged: its versions as they are, as they shall be, and the entries that it has or may have."""

    entity: bytes
    before: list[tuple[Version, bytes]]
    kept: list[tuple[Version, bytes]]
    gone: list[Version]
    marked: bool
    entries: set[Entry]
    needed: set[Entry]

    @property
    def changed(self) -> bool:
        return self.before != self.kept


class Erasing:
    """One erasure, under the lock: counts in `removed` what goes, says by `beat` that it is at work."""

    def __init__(
        self,
        schema: Schema,
        shards: Shards,
        names: Names,
        tombstones: Tombstones,
        *,
        head: Head,
        removed: Removed,
        beat: Callable[[], None],
    ) -> None:
        self._shards, self._names, self._tombstones = shards, names, tombstones
        self._head, self._removed, self._beat = head, removed, beat
        self._links = schema.links
        self._child = [schema.table_index(link.child) for link in schema.links]
        tables = range(len(schema.tables))
        parents = [schema.table_index(link.parent) for link in schema.links]
        self._links_of = [[link for link, child in enumerate(self._child) if child == table] for table in tables]
        self._lists_of = [[link for link, parent in enumerate(parents) if parent == table] for table in tables]
        self._marked: dict[Ref, int] = {}
        self._affected: dict[bytes, set[Entry]] = {}
        self._gone: set[bytes] = set()

    def run(self, until_us: Mapping[bytes, int]) -> None:
        """Erases rows until these times, and what is their own."""
        wave = {self._tombstones.ref(named): (time_us, named) for named, time_us in until_us.items()}
        while wave:
            self._beat()
            wave = self._spread(wave)
        todo = iter(self._affected.items())
        while some := dict(islice(todo, ROWS_AT_ONCE)):
            self._beat()
            self._purge(some)
        self._removed.rows.update(named[0] for named in self._gone)

    def _guarded(self, script: Any, items: Sequence[Item]) -> list[Any]:
        return self._shards.run(script, items, head=self._head) if items else []

    def _spread(self, wave: Mapping[Ref, tuple[int, bytes]]) -> dict[Ref, tuple[int, bytes]]:
        """Marks rows; returns what is their own and not yet marked until then."""
        found = self._tombstones.look(wave)
        marks: list[Item] = []
        rows: dict[bytes, int] = {}
        for ref, (time_us, given) in wave.items():
            there = found.get(ref, Tombstone())
            self._marked[ref] = max(time_us, there.until_us)
            number, key = self._names.tombstone(ref)
            marks.append((number, (key, b"until", time_bytes(self._marked[ref]))))
            named = given or there.row
            if named:
                marks.append((number, (key, b"row", named)))
                rows[named] = self._marked[ref]
                self._affected.setdefault(named, set())
        self._guarded(SET_FIELDS, marks)
        ahead: dict[Ref, tuple[int, bytes]] = {}

        def reach(ref: Ref, time_us: int, named: bytes) -> None:
            if time_us > max(self._marked.get(ref, NEVER_US), ahead.get(ref, (NEVER_US, b""))[0]):
                ahead[ref] = time_us, named or ahead.get(ref, (0, b""))[1]
            elif named and ref in ahead:
                ahead[ref] = ahead[ref][0], named

        refs = list(wave)
        for ref, owned in zip(refs, self._tombstones.owned(refs), strict=True):
            for one in owned:
                reach(one, self._marked[ref], b"")
        for named, time_us in rows.items():
            for link in self._lists_of[named[0]]:
                for opened_us, key in self._entries(named, link):
                    child = bytes((self._child[link],)) + key
                    self._affected.setdefault(child, set()).add((link, named[1:], opened_us))
                    if self._links[link].erases:
                        reach(self._tombstones.ref(child), time_us, child)
        return ahead

    def _entries(self, named: bytes, link: int) -> Iterator[tuple[int, bytes]]:
        number, key = self._names.children(named, link)
        after = b"-"
        while True:
            [found] = self._shards.run(ENTRIES, [(number, (key, after, ENTRIES_AT_ONCE))])
            yield from ((time_of(entry[:8]), entry[8:]) for entry in found)
            if len(found) < ENTRIES_AT_ONCE:
                return
            after = b"(" + found[-1]

    def _purge(self, affected: Mapping[bytes, set[Entry]]) -> None:
        """Rids rows of their erased versions and links, and lists of the entries of those.

        A row that was marked is found by its mark until it is rewritten, so its entries go first; one of which only
        links are cut is found by those entries, so they go last.
        """
        rows = self._planned(affected)
        changed = [row for row in rows if row.changed]
        owned = {
            pair
            for row in changed
            for version in row.gone
            for pair in self._tombstones.owners(version, self._tombstones.ref(row.entity))
        }
        self._guarded(OWN, own_items(self._names, owned))
        self._add([row for row in changed if row.kept])
        self._rewrite([row for row in changed if not row.marked])
        self._remove(rows)
        self._rewrite([row for row in rows if row.marked])
        for row in changed:
            self._removed.versions[row.entity[0]] += len(row.gone)
            if row.before and not row.kept:
                self._gone.add(row.entity)

    def _planned(self, affected: Mapping[bytes, set[Entry]]) -> list[_Row]:
        frames = self._shards.run(ROWS, [(number, (key,)) for number, key in map(self._names.row, affected)])
        before = {named: unpack(found or b"") for named, found in zip(affected, frames, strict=True)}
        found = self._tombstones.around([(named, version) for named, all_ in before.items() for version, _ in all_])
        found |= self._tombstones.look(map(self._tombstones.ref, affected))
        rows = []
        for named, versions in before.items():
            ref = self._tombstones.ref(named)
            until_us = found.get(ref, Tombstone()).until_us
            kept, gone = [], []
            for version, stored in versions:
                at_us = happened_us(stored)
                if at_us <= until_us:
                    gone.append(version)
                else:
                    kept.append(self._tombstones.cut(version, stored, at_us, found))
            had = {(link, key, v.visible_time_us) for v, _ in versions for link, key in v.links if key}
            needed = openings([version for version, _ in kept], self._links_of[named[0]])
            rows.append(_Row(named, versions, kept, gone, ref in self._marked, had | affected[named], needed))
        return rows

    def _add(self, rows: Sequence[_Row]) -> None:
        """Entries for what the versions that are kept name: earlier ones may have stood for them."""
        items: list[Item] = []
        tables: list[int] = []
        for row in rows:
            for link, key, time_us in row.needed:
                number, list_key = self._names.children(self._tombstones.parent(link, key), link)
                items.append((number, (list_key, time_bytes(time_us) + row.entity[1:])))
                tables.append(row.entity[0])
        for table, new in zip(tables, self._guarded(ADD_CHILDREN, items), strict=True):
            self._removed.links[table] -= int(new)

    def _remove(self, rows: Sequence[_Row]) -> None:
        items: list[Item] = []
        ends: list[tuple[int, bytes]] = []
        for row in rows:
            for link, key, time_us in row.entries - row.needed:
                parent = self._tombstones.parent(link, key)
                number, list_key = self._names.children(parent, link)
                member = time_bytes(time_us) + row.entity[1:]
                items.append((number, (list_key, member, *self._grave(parent))))
                ends.append((row.entity[0], parent))
        for (table, parent), (was, buried) in zip(ends, self._guarded(REMOVE_CHILDREN, items), strict=True):
            self._removed.links[table] += int(was)
            if buried:
                self._gone.add(parent)

    def _rewrite(self, rows: Sequence[_Row]) -> None:
        items: list[Item] = []
        for row in rows:
            number, key = self._names.row(row.entity)
            items.append((number, (key, b"".join([pack(*each) for each in row.kept]), *self._grave(row.entity))))
        for row, buried in zip(rows, self._guarded(REWRITE, items), strict=True):
            if buried:
                self._gone.add(row.entity)

    def _grave(self, named: bytes) -> tuple[bytes, bytes]:
        """What `bury` must know of a row: its tombstone, and the links that may have lists of it."""
        return self._names.tombstone(self._tombstones.ref(named))[1], bytes(self._lists_of[named[0]])


def own_items(names: Names, owned: set[tuple[Ref, Ref]]) -> list[Item]:
    """Return what `OWN` is told: whose own rows were, as (parent, row)."""
    items: list[Item] = []
    for parent, row in owned:
        number, key = names.owned(parent)
        items.append((number, (key, ref_bytes(row))))
    return items
