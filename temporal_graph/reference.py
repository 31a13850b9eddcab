"""The plain-Python twin of the native graph: the oracle of property tests, never used to serve.

    events ─► judge (late, future) ─► versions of rows ─► fold at a cut-off ─► state, children, parent, neighborhood

Rules, each in one place below:

- A row's versions are ordered by (event time, known time, operation, content), where insert < upsert < delete and the
  content is `reference_values.content_hash` of the cells.
- The state at cut-off c is the fold, in that order, of the versions whose visible time (the later clock) is <= c.
  insert = the whole row, upsert = a patch, delete hides and keeps what lies beneath, so that a later upsert revives it.
- The same (event time, operation, content) again changes nothing and is counted as a duplicate, unless it was known
  earlier: the earliest known time wins.
- A row of a table without time has ALWAYS_US on both clocks; an upsert or delete of it may say when it happened.
- A backfill is not judged late or future; where it does not know the known time, it is the event time.
- A row named only by a foreign key, in any version, is bare. A row with no visible version is shown bare as a parent.
- A link is opened at a visible time at which the folded foreign key becomes this parent; deletes do not close it.
- What is erased is as if it had never come: see `reference_erasure`.

`ReferenceGraph.dump()`, which the native graph's `dump()` equals:

    {table: {key: {"versions": [[event_time_us, known_time_us, operation, {column or link: value}], ...]}},
     "links": {backward edge type: {parent key: [[open_visible_time_us, child key], ...]}}}

    tables       every table of the schema, also one without rows
    key          compact JSON list as text: '[7]', '["eu",7]'
    versions     in fold order; [] for a bare row
    operation    "insert", "upsert" or "delete"
    cells        of the event: an insert without its nulls, an upsert with explicit nulls as None, a delete {}
                 numerical float, timestamp int, boolean bool, categorical and text str, multicategorical sorted list of
                 its distinct elements ([""] is []), embedding list of floats rounded through float32, foreign key int
                 or str, composite a list
    links        every backward edge type of the schema; only parents with an entry; every interval ever opened, each
                 once, ordered by (open visible time, child key): integers by value before texts by UTF-8 bytes
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from temporal_graph.reference_erasure import NEVER_US, Change, cut, erased_until
from temporal_graph.reference_values import OPERATIONS, Key, Value, canonical_cells, content_hash, key_order, key_text
from temporal_graph.schema_types import Link, Schema, Table
from temporal_graph.time_rule import ALWAYS_US, is_visible, visible_time_us

Operation = Literal["insert", "upsert", "delete", "erase"]

BARE: Final = "bare"
"""The state of a row without a visible version: it exists by name only."""
HIDDEN: Final = "hidden"
"""The state of a deleted row."""

State = dict[str, Value] | Literal["bare", "hidden"]


@dataclass(frozen=True)
class ReferenceEvent:
    """One change to one row. `cells` holds columns and links by name; a foreign key is a value or a tuple of parts.

    The times of an insert into a table without time are ignored; a missing known time is the event time.
    """

    table: str
    operation: Operation
    key: Key
    event_time_us: int = ALWAYS_US
    known_time_us: int | None = None
    cells: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class ReferenceApplied:
    """What became of a batch: counts, and (position in the batch, "late" or "future") of each rejected event."""

    applied: int
    duplicate: int
    erased: int
    rejected: tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class _Version:
    event_time_us: int
    known_time_us: int
    operation: str
    content: int
    cells: dict[str, Value]


@dataclass(frozen=True)
class _Moment:
    """The fold after one of the row's distinct visible times; `opened` maps a link to when its parent last changed."""

    visible_time_us: int
    cells: dict[str, Value]
    deleted: bool
    opened: dict[str, int]


@dataclass
class _Row:
    versions: dict[tuple[int, str, int], _Version] = field(default_factory=dict)
    timeline: list[_Moment] | None = None

    def ordered(self) -> list[_Version]:
        """Return the versions in fold order."""
        return sorted(
            self.versions.values(),
            key=lambda v: (v.event_time_us, v.known_time_us, OPERATIONS.index(v.operation), v.content),
        )


class ReferenceGraph:
    """The twin: rows as sets of versions, everything else computed from them when asked."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self._tables: dict[str, Table] = {table.name: table for table in schema.tables}
        self._rows: dict[str, dict[Key, _Row]] = {table.name: {} for table in schema.tables}
        self._backward: dict[str, Link] = {link.backward: link for link in schema.links}
        self._forward: dict[str, Link] = {link.forward: link for link in schema.links}
        # by backward edge type and parent: every child that ever named it, in whichever version
        self._named_by: dict[str, dict[Key, set[Key]]] = {link.backward: {} for link in schema.links}
        self._changes: list[Change] = []
        self._erasures: dict[tuple[str, Key], int] = {}
        self._until_us: dict[tuple[str, Key], int] = {}

    def apply(self, events: Iterable[ReferenceEvent], *, backfill: bool = False) -> ReferenceApplied:
        """Apply events in the order given; a backfill is not judged."""
        applied = duplicate = erased = 0
        rejected: list[tuple[int, str]] = []
        for position, event in enumerate(events):
            table = self._tables[event.table]
            event_time_us, known_time_us = self._clocks(table, event)
            reason = _judge(table, event_time_us, known_time_us, event.operation, backfill=backfill)
            if reason is not None:
                rejected.append((position, reason))
                continue
            change = Change(table.name, event.operation, event.key, event_time_us, known_time_us, event.cells)
            if event.operation == "erase":
                fresh = self._erase(change)
            else:
                self._settle(change)
                if event_time_us <= self._until_us.get((table.name, event.key), NEVER_US):
                    erased += 1
                    continue
                fresh = self._add(table, change)
            applied += fresh
            duplicate += not fresh
        return ReferenceApplied(applied, duplicate, erased, tuple(rejected))

    def _erase(self, change: Change) -> bool:
        row = change.table, change.key
        if self._erasures.get(row, NEVER_US) >= change.event_time_us:
            return False
        self._erasures[row] = change.event_time_us
        self._settle()
        return True

    def _settle(self, *more: Change) -> None:
        """Work out what is erased with what came now; earlier changes are entered anew where it is more than it was."""
        earlier, self._changes = self._changes, [*self._changes, *more]
        if not self._erasures:
            return
        until_us = erased_until(self.schema, self._changes, self._erasures)
        if until_us == self._until_us:
            return
        self._until_us = until_us
        self._rows = {name: {} for name in self._rows}
        self._named_by = {link: {} for link in self._named_by}
        for change in earlier:
            if change.event_time_us > until_us.get(change.row, NEVER_US):
                self._add(self._tables[change.table], change)

    @staticmethod
    def _clocks(table: Table, event: ReferenceEvent) -> tuple[int, int]:
        if event.operation == "erase":
            known_time_us = event.event_time_us if event.known_time_us is None else event.known_time_us
            return event.event_time_us, known_time_us
        if table.time_column is None and (event.operation == "insert" or event.event_time_us == ALWAYS_US):
            return ALWAYS_US, ALWAYS_US
        if event.known_time_us is None:
            return event.event_time_us, event.event_time_us
        return event.event_time_us, event.known_time_us

    def _add(self, table: Table, given: Change) -> bool:
        change = cut(table, given, self._until_us)
        cells = canonical_cells(table, change.operation, change.cells)
        content = content_hash(table, change.operation, cells)
        identity = (change.event_time_us, change.operation, content)
        row = self._rows[table.name].setdefault(change.key, _Row())
        earlier = row.versions.get(identity)
        if earlier is not None and earlier.known_time_us <= change.known_time_us:
            return False
        version = _Version(change.event_time_us, change.known_time_us, change.operation, content, cells)
        row.versions[identity] = version
        row.timeline = None
        for link in table.links:
            parent = cells.get(link.name)
            if parent is not None:
                assert isinstance(parent, tuple)
                self._rows[link.parent].setdefault(parent, _Row())
                self._named_by[link.backward].setdefault(parent, set()).add(change.key)
        return True

    @property
    def asked(self) -> Mapping[tuple[str, Key], int]:
        """The rows that events asked to erase, and until when."""
        return self._erasures

    def state(self, table: str, key: Key, cutoff_time_us: int) -> State:
        """Return the visible cells (links included, nulls left out), BARE or HIDDEN; an unknown key reads as bare."""
        moment = self._moment(table, key, cutoff_time_us)
        if moment is None:
            return BARE
        return HIDDEN if moment.deleted else dict(moment.cells)

    def shown_version(self, table: str, key: Key, cutoff_time_us: int) -> tuple[int, int, int]:
        """Return (version, event time, known time) as a neighborhood shows them.

        The version is the number of visible ones less one, -1 for none; the times are those of the first visible one in
        fold order (the row's own, not its last change's), ALWAYS_US for none.
        """
        row = self._rows[table].get(key, _Row())
        visible = [v for v in row.ordered() if is_visible(v.event_time_us, v.known_time_us, cutoff_time_us)]
        if not visible:
            return -1, ALWAYS_US, ALWAYS_US
        return len(visible) - 1, visible[0].event_time_us, visible[0].known_time_us

    def first_version(self, table: str, key: Key) -> dict[str, Value]:
        """Return the cells of the row's first version in fold order; none for a bare row."""
        versions = self._rows[table][key].ordered()
        return {name: value for name, value in versions[0].cells.items() if value is not None} if versions else {}

    def children(self, edge_type: str, parent: Key, cutoff_time_us: int) -> list[tuple[int, Key]]:
        """Return (link-open visible time, child key) of the visible children, oldest first, ties by key.

        `edge_type` is a backward one. A child counts if its row is visible, not deleted, and its folded foreign key is
        this parent at the cut-off.
        """
        link = self._backward[edge_type]
        found = []
        for child in self._named_by[edge_type].get(parent, ()):
            moment = self._moment(link.child, child, cutoff_time_us)
            if moment is not None and not moment.deleted and moment.cells.get(link.name) == parent:
                found.append((moment.opened[link.name], child))
        return sorted(found, key=_entry_order)

    def parent(self, edge_type: str, child: Key, cutoff_time_us: int) -> Key | None:
        """Return the parent of a visible row along a forward edge type; None without one or where it is deleted."""
        link = self._forward[edge_type]
        state = self.state(link.child, child, cutoff_time_us)
        return None if isinstance(state, str) else self.shown_parent(link, state, cutoff_time_us)

    def shown_parent(self, link: Link, cells: Mapping[str, Value], cutoff_time_us: int) -> Key | None:
        """Return the parent that `cells` name through a link, unless it is unknown, or deleted at the cut-off."""
        parent = cells.get(link.name)
        if parent is None:
            return None
        key = _as_key(parent)
        known = key in self._rows[link.parent]
        return key if known and self.state(link.parent, key, cutoff_time_us) != HIDDEN else None

    def keys(self, table: str) -> list[Key]:
        """Return the keys of all rows of a table, bare ones too, in key order."""
        return sorted(self._rows[table], key=key_order)

    def _moment(self, table: str, key: Key, cutoff_time_us: int) -> _Moment | None:
        row = self._rows[table].get(key)
        if row is None:
            return None
        if row.timeline is None:
            row.timeline = _timeline(self._tables[table], row)
        position = bisect_right(row.timeline, cutoff_time_us, key=lambda moment: moment.visible_time_us)
        return row.timeline[position - 1] if position else None

    def dump(self) -> dict[str, Any]:
        """Return the whole graph in the canonical plain structure that the module's docstring describes."""
        dumped: dict[str, Any] = {
            table: {
                key_text(key): {"versions": [_dump_version(version) for version in self._rows[table][key].ordered()]}
                for key in self.keys(table)
            }
            for table in self._rows
        }
        links: dict[str, dict[str, list[tuple[int, Key]]]] = {edge_type: {} for edge_type in self._backward}
        for edge_type, link in self._backward.items():
            for child, row in self._rows[link.child].items():
                for parent, opened in _intervals(_timeline(self._tables[link.child], row), link.name):
                    links[edge_type].setdefault(key_text(parent), []).append((opened, child))
        dumped["links"] = {
            edge_type: {
                parent: [[opened, key_text(child)] for opened, child in sorted(entries, key=_entry_order)]
                for parent, entries in sorted(parents.items())
            }
            for edge_type, parents in links.items()
        }
        return dumped


def _judge(table: Table, event_time_us: int, known_time_us: int, operation: str, *, backfill: bool) -> str | None:
    """Judge an event by its record alone: later or earlier than the table allows is not applied."""
    erases = operation == "erase"
    if backfill and not erases:
        return None
    if not erases and table.lateness_us is not None and known_time_us - event_time_us > table.lateness_us:
        return "late"
    if event_time_us - known_time_us > table.future_us:
        return "future"
    return None


def _fold(versions: Sequence[_Version], cutoff_time_us: int) -> tuple[dict[str, Value], bool]:
    """Fold versions in their order, as far as they are visible: (cells without nulls, deleted)."""
    cells: dict[str, Value] = {}
    deleted = False
    for version in versions:
        if not is_visible(version.event_time_us, version.known_time_us, cutoff_time_us):
            continue
        deleted = version.operation == "delete"
        if version.operation == "insert":
            cells = dict(version.cells)
        elif version.operation == "upsert":
            cells = {**cells, **version.cells}
    return {name: value for name, value in cells.items() if value is not None}, deleted


def _timeline(table: Table, row: _Row) -> list[_Moment]:
    """Walk the distinct visible times of the row's versions upwards, with the fold after each."""
    versions = row.ordered()
    moments: list[_Moment] = []
    before: dict[str, Value] = {}
    opened: dict[str, int] = {}
    for time_us in sorted({visible_time_us(version.event_time_us, version.known_time_us) for version in versions}):
        cells, deleted = _fold(versions, time_us)
        changed = {link.name: time_us for link in table.links if cells.get(link.name) != before.get(link.name)}
        opened = {**opened, **changed}
        moments.append(_Moment(time_us, cells, deleted, opened))
        before = cells
    return moments


def _intervals(timeline: Sequence[_Moment], link: str) -> Iterable[tuple[Key, int]]:
    """Yield (parent, visible time at which the link to it opened) once for each interval."""
    for moment in timeline:
        parent = moment.cells.get(link)
        if parent is not None and moment.opened[link] == moment.visible_time_us:
            yield _as_key(parent), moment.visible_time_us


def _entry_order(entry: tuple[int, Key]) -> tuple[int, tuple[tuple[int, int, bytes], ...]]:
    return entry[0], key_order(entry[1])


def _as_key(value: Value) -> Key:
    assert isinstance(value, tuple)
    return value


def _dump_version(version: _Version) -> list[Any]:
    cells = {name: _dump_value(value) for name, value in version.cells.items()}
    return [version.event_time_us, version.known_time_us, version.operation, cells]


def _dump_value(value: Value) -> Any:
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value
