"""What stays of erased rows in Redis, and what it means for changes that come later: the rule of `reference_erasure`.

changes ─► tombstones of their rows and of what they name ─► rows to be erased first; then: dropped, or cut, or kept
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from temporal_graph.redis.erasure_scripts import LOOK, OWNED
from temporal_graph.redis.frames import Version
from temporal_graph.redis.keys import Names, Ref, ref_from, ref_of, time_of
from temporal_graph.redis.row_event import Change, EventReader
from temporal_graph.redis.shards import Shards
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US

NEVER_US: Final = ALWAYS_US - 1
"""Before every time: the row was not erased."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Until when a row is erased, until when events asked for it, and the entity while it is there (again)."""

    until_us: int = NEVER_US
    asked_us: int = NEVER_US
    row: bytes = b""


_NONE = Tombstone()


@dataclass(frozen=True, slots=True)
class Judged:
    """`kept` are changes without what they may not name, `dropped` those that are as if they had never come.

    `owned` says whose own the rows of dropped changes were, as (parent, row); `named` are the rows with a tombstone
    that are there again with the kept ones.
    """

    kept: list[Change]
    dropped: int
    owned: set[tuple[Ref, Ref]]
    named: dict[Ref, bytes]


class Tombstones:
    """The tombstones of one graph."""

    def __init__(self, schema: Schema, shards: Shards, names: Names, reader: EventReader) -> None:
        self._shards, self._names, self._reader = shards, names, reader
        self._tables = [table.name for table in schema.tables]
        self._parents = [schema.table_index(link.parent) for link in schema.links]
        self._erases = [link.erases for link in schema.links]

    def ref(self, named: bytes) -> Ref:
        """Return what the tombstone of an entity is found by."""
        return ref_of(self._tables[named[0]], named)

    def parent(self, link: int, key: bytes) -> bytes:
        """Return the entity that a link names."""
        return bytes((self._parents[link],)) + key

    def look(self, refs: Iterable[Ref]) -> dict[Ref, Tombstone]:
        """Return the tombstones that there are."""
        wanted = list(dict.fromkeys(refs))
        items = [(ref[0], (self._names.tombstone(ref)[1],)) for ref in wanted]
        found = {}
        for ref, (until, asked, row) in zip(wanted, self._shards.run(LOOK, items), strict=True):
            if until is not None or asked is not None or row is not None:
                found[ref] = Tombstone(
                    NEVER_US if until is None else time_of(until),
                    NEVER_US if asked is None else time_of(asked),
                    row or b"",
                )
        return found

    def owned(self, refs: Sequence[Ref]) -> list[list[Ref]]:
        """Return what was each row's own by changes that are gone."""
        sets = self._shards.run(OWNED, [self._item(ref) for ref in refs])
        return [[ref_from(one) for one in members] for members in sets]

    def _item(self, ref: Ref) -> tuple[int, tuple[bytes | int, ...]]:
        number, key = self._names.owned(ref)
        return number, (key,)

    def around(self, changes: Iterable[tuple[bytes, Version]]) -> dict[Ref, Tombstone]:
        """Return the tombstones of the rows of changes and of all that they name."""
        entities = {named for named, _ in changes}
        entities.update(self.parent(link, key) for _, version in changes for link, key in version.links if key)
        return self.look(self.ref(named) for named in entities)

    def raised(self, changes: Sequence[Change], found: Mapping[Ref, Tombstone]) -> dict[bytes, int]:
        """Return the rows that changes make an erased row's own, and until when they are erased with it."""
        until_us: dict[bytes, int] = {}
        for change in changes:
            own = found.get(self.ref(change.entity), _NONE).until_us
            for link, key in change.version.links:
                if key and self._erases[link]:
                    theirs = found.get(self.ref(self.parent(link, key)), _NONE).until_us
                    if theirs > max(own, until_us.get(change.entity, NEVER_US)):
                        until_us[change.entity] = theirs
        return until_us

    def judge(self, changes: Sequence[Change], found: Mapping[Ref, Tombstone]) -> Judged:
        """Tell what becomes of changes of which none is to raise anything any more."""
        judged = Judged([], 0, set(), {})
        dropped = 0
        for change in changes:
            ref = self.ref(change.entity)
            if change.event_time_us <= found.get(ref, _NONE).until_us:
                dropped += 1
                judged.owned.update(self.owners(change.version, ref))
                continue
            version, stored = self.cut(change.version, change.stored, change.event_time_us, found)
            judged.kept.append(replace(change, version=version, stored=stored))
            named = [change.entity, *(self.parent(link, key) for link, key in version.links if key)]
            judged.named.update({self.ref(one): one for one in named if self.ref(one) in found})
        return replace(judged, dropped=dropped)

    def owners(self, version: Version, ref: Ref) -> set[tuple[Ref, Ref]]:
        """Return whose own a version made its row."""
        return {(self.ref(self.parent(link, key)), ref) for link, key in version.links if key and self._erases[link]}

    def cut(
        self, version: Version, stored: bytes, event_time_us: int, found: Mapping[Ref, Tombstone]
    ) -> tuple[Version, bytes]:
        """Return a version without the links to rows that were erased after it."""
        gone = [
            link
            for link, key in version.links
            if key
            and not self._erases[link]
            and event_time_us <= found.get(self.ref(self.parent(link, key)), _NONE).until_us
        ]
        return self._reader.cut(version, stored, gone) if gone else (version, stored)
