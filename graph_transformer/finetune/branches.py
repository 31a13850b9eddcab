"""Which links a question follows, hop by hop, and how far: from the schema, the task and what questions find there.

seed ─► its parents ─► their history ─► ... one hop at a time: candidates by role, degrees measured, a number decided
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from graph_transformer.finetune.degrees import WIDE, Degrees, draw, measure
from graph_transformer.finetune.examples import Examples
from graph_transformer.target import Target
from temporal_graph.schema import Link, Schema

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

HOPS_MAX = 4
"""An order's items, their product and its category: further away nothing is worth its rows."""
FAR_EXAMPLES = 96
"""Examples that measure the third hop and beyond, where each reaches many rows."""
HISTORY_LEAST = 4
DETAIL_MOST = 16
SIDE_MOST = 16
SHARED = 0.2
"""A parent that every fifth question has: what others did there says little about this one."""
CROWDED = 0.05
CROWDED_MOST = 8
"""Rows taken of a parent that every twentieth question has, and that has more rows than are counted."""
FRESH_LEAST = 0.02
"""A parent that fewer than one question in fifty does not have already is not worth its place in the plan."""
DESCENT_SOURCES = 6
"""Going down again pays from few parents (the teams of a driver), not from every product ever bought."""
DESCENT_RATIO = 20
"""Parents with this many times the question's own rows are hubs."""
DESCENT_MOST = 16


class Role(StrEnum):
    """What the rows that a link leads to are for the question."""

    PARENT = "parent"  # of the seed, and theirs
    HISTORY = "history"  # children of the seed; of an event, those of its parents
    SIDE = "side"  # children of an entity's parents
    DETAIL = "detail"  # children of the history's rows
    FOLD = "fold"  # parents of history and details: each completes the row that names it
    DESCENT = "descent"  # other children of those parents


SEED = "seed"
_UP = (SEED, Role.PARENT)
_DOWN = (Role.HISTORY, Role.SIDE, Role.DETAIL, Role.FOLD)


@dataclass(frozen=True, slots=True)
class Branch:
    """One link at one hop: what questions find there, the number wanted of it (0: not followed), and why."""

    hop: int
    link: str
    source: str
    table: str
    role: Role
    degrees: Degrees
    wanted: int
    why: str

    @property
    def key(self) -> tuple[int, str]:
        """Its hop and link."""
        return self.hop, self.link

    @property
    def least(self) -> int:
        """The number below which the branch is dropped rather than cut."""
        return min(self.wanted, {Role.HISTORY: HISTORY_LEAST, Role.SIDE: 2, Role.DESCENT: 4}.get(self.role, 1))


@dataclass(frozen=True, slots=True)
class Reached:
    """A table at one hop: by which links, and as what."""

    arrivals: frozenset[str]
    roles: frozenset[str]


def grow(view: GraphView, target: Target, examples: Examples, *, most: int) -> list[Branch]:
    """Return all branches worth naming, hop by hop, with the numbers wanted; `most` rows of one link's history."""
    reached = {target.table: Reached(frozenset(), frozenset({SEED}))}
    branches: list[Branch] = []
    hops: list[dict[str, int]] = []
    own: dict[str, float] = {}
    for hop in range(1, HOPS_MAX + 1):
        found = candidates(view.schema, target, reached, hop)
        asked = examples if hop <= 2 else draw(examples, FAR_EXAMPLES)
        degrees = measure(view, target, asked, hops, [candidate.link for candidate in found])
        rules = Rules(view.schema, target, most, own)
        decided = [rules.decide(candidate, degrees[candidate.link]) for candidate in found]
        branches += decided
        for branch in decided:
            if branch.role is Role.HISTORY:
                own[branch.table] = max(own.get(branch.table, 0.0), branch.degrees.median)
        active = [branch for branch in decided if branch.wanted]
        if not active:
            break
        hops.append({branch.link: branch.wanted for branch in active})
        reached = {
            table: Reached(
                frozenset(branch.link for branch in active if branch.table == table),
                frozenset(branch.role for branch in active if branch.table == table),
            )
            for table in {branch.table for branch in active}
        }
    return without_dead_ends(view.schema, branches)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A link that may be followed at a hop from a table, which was reached as `at` says, to another."""

    hop: int
    link: str
    source: str
    table: str
    role: Role
    at: Reached


def candidates(schema: Schema, target: Target, reached: dict[str, Reached], hop: int) -> list[Candidate]:
    """Return every link that may be followed from the tables reached."""
    found = []
    for link in schema.links:
        if (at := reached.get(link.child)) is not None and (role := _role_up(link, at, hop)) is not None:
            found.append(Candidate(hop, link.forward, link.child, link.parent, role, at))
        if (at := reached.get(link.parent)) is not None and (role := _role_down(at, target, hop)) is not None:
            found.append(Candidate(hop, link.backward, link.parent, link.child, role, at))
    return found


def _role_up(link: Link, at: Reached, hop: int) -> Role | None:
    if at.arrivals == {link.backward}:
        return None  # leads back to where it came from
    if any(role in at.roles for role in _UP):
        return Role.PARENT if hop <= 2 else None
    return Role.FOLD if any(role in at.roles for role in _DOWN) else None


def _role_down(at: Reached, target: Target, hop: int) -> Role | None:
    if SEED in at.roles:
        return Role.HISTORY
    if Role.PARENT in at.roles and hop == 2:
        return Role.HISTORY if target.event_level else Role.SIDE
    if Role.HISTORY in at.roles:
        return Role.DETAIL
    # Around an event it was measured to lose: other payments at all the terminals that a customer ever used.
    return Role.DESCENT if Role.FOLD in at.roles and hop == 3 and not target.event_level else None


@dataclass(frozen=True, slots=True)
class Rules:
    """How a number follows from degrees; `own` has the median rows of a question's own history, by table."""

    schema: Schema
    target: Target
    most: int
    own: dict[str, float]

    def decide(self, found: Candidate, degrees: Degrees) -> Branch:
        """Return the branch with the number wanted and the reason."""
        act = {
            Role.PARENT: self._parent,
            Role.FOLD: self._parent,
            Role.HISTORY: self._history,
            Role.SIDE: self._side,
            Role.DETAIL: self._detail,
            Role.DESCENT: self._descent,
        }[found.role]
        wanted, why = act(found, degrees)
        return Branch(found.hop, found.link, found.source, found.table, found.role, degrees, wanted, why)

    def _parent(self, found: Candidate, degrees: Degrees) -> tuple[int, str]:
        if degrees.empty:
            return 0, "off: no question found one"
        if degrees.fresh < FRESH_LEAST and degrees.targets <= 1.0:
            return 0, "off: leads to what is there already"
        return 1, "parent" if found.role is Role.PARENT else "parent, completes the row that names it"

    def _history(self, found: Candidate, degrees: Degrees) -> tuple[int, str]:
        if degrees.empty:
            if self.target.event_level:
                return 0, "off: nothing is there before the event"
            return HISTORY_LEAST, "none yet; a few, in case some come"
        if found.hop > 1 and degrees.share >= SHARED and degrees.median > self.most:
            return 0, hub(degrees)
        if found.hop > 1 and degrees.share >= CROWDED and degrees.median >= WIDE:
            return CROWDED_MOST, f"few, as {degrees.share:.0%} of all questions have the same one"
        return _within(HISTORY_LEAST, degrees.maximum, self.most), ""

    def _side(self, found: Candidate, degrees: Degrees) -> tuple[int, str]:
        if self.schema.table(found.table).time_column is None:
            return 0, "off: siblings without a time say little"
        wanted, why = self._history(found, degrees)
        return min(wanted, SIDE_MOST), why

    def _detail(self, found: Candidate, degrees: Degrees) -> tuple[int, str]:
        if degrees.empty:
            return 0, "off: no question found one"
        if found.table in self.own:
            return 0, "off: the same table is followed from nearer"
        return _within(1, degrees.p90, DETAIL_MOST), ""

    def _descent(self, found: Candidate, degrees: Degrees) -> tuple[int, str]:
        if self.schema.table(found.table).time_column is None:
            return 0, "off: siblings without a time say little"
        if degrees.sources_p90 < 1 or degrees.p90 < 1:
            return 0, "off: fewer than one in ten has any"
        if degrees.sources_p90 > DESCENT_SOURCES:
            return 0, f"off: {degrees.sources:.0f} such parents a question"
        if degrees.share >= SHARED:
            return 0, hub(degrees)
        ratio = degrees.median / max(1.0, self._own(found.at))
        if ratio > DESCENT_RATIO:
            return 0, f"off: a hub, {ratio:.0f} times the question's own rows"
        is_same = any(link.child == found.table and link.forward in found.at.arrivals for link in self.schema.links)
        most = DESCENT_MOST if is_same else DESCENT_MOST // 2
        return _within(HISTORY_LEAST, degrees.p90, most), f"down again from {degrees.sources:.1f} parents"

    def _own(self, at: Reached) -> float:
        """Return the question's own rows in the tables by which these parents were reached."""
        children = {link.child for link in self.schema.links if link.forward in at.arrivals}
        return max((self.own.get(table, 0.0) for table in children), default=0.0)


def without_dead_ends(schema: Schema, branches: list[Branch]) -> list[Branch]:
    """Return the branches without parents that say nothing and lead nowhere, and without what they alone led to."""
    kept = branches
    while True:
        active = [branch for branch in kept if branch.wanted]
        onward = {(branch.hop, branch.source) for branch in active}
        arrived = {(branch.hop, branch.table) for branch in active}
        alive = [
            branch
            for branch in kept
            if (branch.hop == 1 or (branch.hop - 1, branch.source) in arrived)
            and (
                branch.role not in (Role.PARENT, Role.FOLD)
                or informative(schema, branch.table)
                or (branch.hop + 1, branch.table) in onward
            )
        ]
        if len(alive) == len(kept):
            return kept
        kept = alive


def informative(schema: Schema, table: str) -> bool:
    """Return whether a row of the table says something by itself."""
    found = schema.table(table)
    return bool(found.columns) or found.time_column is not None


def hub(degrees: Degrees) -> str:
    """Return why nothing is taken of a parent that everybody has."""
    return f"off: a hub, {degrees.share:.0%} of all questions have the same one"


def counted(degrees: Degrees) -> str:
    """Return the children per row as text, `512+` for more than are counted."""

    def number(value: float) -> str:
        return f"{WIDE}+" if value >= WIDE else f"{value:.0f}"

    return f"median {number(degrees.median)}, p95 {number(degrees.p95)}, most {number(degrees.maximum)}"


def _within(least: int, value: float, most: int) -> int:
    return max(least, min(most, math.ceil(value)))
