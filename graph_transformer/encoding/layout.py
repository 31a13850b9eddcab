"""The shapes a model is built from: what statistics of training neighborhoods decide, and nothing of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

STATES = 3
"""What is known of a row's outcome at the cut-off: 0 not known (or none to), 1 known (of a boolean: false), 2 true."""
AGE_STEPS = 8
"""Steps of log age by which the rows of a path are counted."""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """One table: width of the dense cells, entries per categorical column, dense columns of each column of cells.

    `spans` gives for every column its positions among the dense cells; categorical columns have none and come after.
    """

    table: str
    dense_width: int
    category_sizes: tuple[int, ...]
    spans: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class LinkLayout:
    """A foreign key: its edge type, and the positions among the layout's tables of the child's and the parent's."""

    name: str
    child: int
    parent: int


@dataclass(frozen=True, slots=True)
class PathLayout:
    """A link path: hop, position of its table (one more than the last for OTHER), share of the training tokens.

    `timed`: its rows are events. `states`: how many a row's outcome can be in, 1 where there is none to know.
    """

    hop: int
    table: int
    share: float = 0.0
    timed: bool = False
    states: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """Link paths (the seed's first, OTHER last), tables, links, and widths of the other arrays of a `Batch`.

    `folded` are the links, in order, by which a row takes in the row it points to: a parent's own parents first.
    `identities`: how many identities rows may have, that of all unknown ones (0) counted; 0 where the model has none.
    `tallies_width` and `comparisons_width` are 0 where the model reads none.
    """

    paths: tuple[PathLayout, ...]
    tables: tuple[TableLayout, ...]
    links: tuple[LinkLayout, ...]
    folded: tuple[int, ...]
    clock_width: int
    seed_width: int
    counts_width: int
    identities: int = 0
    tallies_width: int = 0
    comparisons_width: int = 0

    @property
    def outcome_paths(self) -> tuple[int, ...]:
        """Paths whose rows can have an outcome, the most frequent first; never the seed's own."""
        return self._by_share(lambda path: path.states > 1)

    @property
    def event_paths(self) -> tuple[int, ...]:
        """Paths whose rows are events without an outcome, the most frequent first."""
        return self._by_share(lambda path: path.timed and path.states == 1)

    def _by_share(self, chosen: Callable[[PathLayout], bool]) -> tuple[int, ...]:
        inner = range(1, len(self.paths) - 1)
        return tuple(sorted((i for i in inner if chosen(self.paths[i])), key=lambda i: -self.paths[i].share))
