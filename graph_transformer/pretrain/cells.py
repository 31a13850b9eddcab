"""Cells hidden from the model, which has to tell them from the rest of the neighborhood.

    Neighborhood ─► some cells of the seed, of its parents, of the newest row of a path ─► null ─► Neighborhood
                                                                └► the bin, category or flag they held ─► Answers

Outcomes are never asked: what is learned here knows no label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from graph_transformer.encoding.codes import CategoryIndex
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.quantile import signed_log
from graph_transformer.encoding.statistics import ColumnStatistics, Strings
from graph_transformer.pretrain.questions import NOT_ASKED, Answers, Question
from temporal_graph.schema import ColumnKind, Table
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood, TableColumns

ROW_SHARE = 0.3
"""How often the newest row of a path, or a row it points to, is asked about."""
CELL_SHARE = 0.5
"""How often each of its cells, and each of the seed's, is hidden."""
CATEGORIES_MAX = 64
"""Classes of a categorical cell; a larger vocabulary shares them."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CellQuestion:
    """A column of the rows of a path: where it stands in the sample, and how its values become classes."""

    path: int
    table: str
    field: str
    at: int
    question: Question
    edges: NDArray[np.float64] | None = None
    index: CategoryIndex | None = None

    def classes(self, values: NDArray[Any]) -> Ints:
        """Return int64[n]: the class of each cell, NOT_ASKED for a null."""
        if self.edges is not None:
            number = signed_log(values.astype(np.float64))
            return np.where(np.isfinite(number), np.searchsorted(self.edges, number, side="right"), NOT_ASKED)
        if self.index is not None:
            place = self.index.of(values) % self.question.classes
            return np.where(values == 0, NOT_ASKED, place)
        return np.where(values > 1, NOT_ASKED, values.astype(np.int64))


class CellMask:
    """Hides cells of neighborhoods and knows what they held. Safe to share between threads."""

    def __init__(self, encoding: Encoding, strings: Strings) -> None:
        """`strings` must be callable while the encoding is in use: of a view of its own, one call at a time."""
        self._encoding = encoding
        self.questions = tuple(_questions(encoding, strings))

    def hide(self, neighborhood: Neighborhood, random: np.random.Generator) -> tuple[Neighborhood, Answers]:
        """Return the neighborhoods with cells made null, and what these held, of each seed's questions."""
        path = self._encoding.paths.of_nodes(neighborhood)
        sample = np.repeat(np.arange(len(neighborhood)), np.diff(neighborhood.seed_offset))
        chosen = _chosen(neighborhood, path, sample, random)
        held = np.full((len(neighborhood), len(self.questions)), NOT_ASKED, dtype=np.int64)
        replaced: dict[str, dict[str, NDArray[Any]]] = {}
        for at, asked in enumerate(self.questions):
            columns = neighborhood.columns[asked.table]
            rows = np.flatnonzero(chosen[columns.node] & (path[columns.node] == asked.path))
            rows = rows[random.random(len(rows)) < CELL_SHARE]
            classes = asked.classes(getattr(columns, asked.field)[rows, asked.at])
            rows, classes = rows[classes != NOT_ASKED], classes[classes != NOT_ASKED]
            if not len(rows):
                continue
            held[sample[columns.node[rows]], at] = classes
            fields = replaced.setdefault(asked.table, {})
            if asked.field not in fields:
                fields[asked.field] = getattr(columns, asked.field).copy()
            fields[asked.field][rows, asked.at] = _NULL[asked.field]
        tables = {
            name: cast("TableColumns", _Changed(columns, replaced[name])) if name in replaced else columns
            for name, columns in neighborhood.columns.items()
        }
        return cast("Neighborhood", _Changed(neighborhood, {"columns": MappingProxyType(tables)})), Answers(held, held)


_NULL = {"numerical": np.nan, "coded": 0, "boolean": 2}
_FIELDS = {ColumnKind.NUMERICAL: "numerical", ColumnKind.CATEGORICAL: "coded", ColumnKind.BOOLEAN: "boolean"}
_CODED = (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL, ColumnKind.TEXT)


class _Changed:
    """An object with some of its attributes replaced."""

    def __init__(self, base: object, replaced: Mapping[str, Any]) -> None:
        self._base, self._replaced = base, replaced

    def __getattr__(self, name: str) -> Any:
        replaced = self.__dict__["_replaced"]
        return replaced[name] if name in replaced else getattr(self.__dict__["_base"], name)

    def __len__(self) -> int:
        return len(self.__dict__["_base"])


def _questions(encoding: Encoding, strings: Strings) -> Iterator[CellQuestion]:
    for position, path in enumerate(encoding.paths.paths):
        table = encoding.schema.table(path.table)
        outcome = None if table.outcome is None else table.outcome.name
        for column in encoding.statistics.columns:
            kind = ColumnKind(column.kind)
            if column.table != path.table or column.column == outcome or kind not in _FIELDS:
                continue
            where = f"{' '.join(path.links) or 'seed'}: {column.table}.{column.column}"
            asked = _question(position, table, column, where, strings)
            if asked.question.classes > 1:
                yield asked


def _question(path: int, table: Table, column: ColumnStatistics, name: str, strings: Strings) -> CellQuestion:
    kind = ColumnKind(column.kind)
    kinds = _CODED if kind in _CODED else (kind,)
    at = [found.name for found in table.columns if found.kind in kinds].index(column.column)
    field = _FIELDS[kind]
    if kind is ColumnKind.NUMERICAL:
        edges = np.array(column.edges[1:-1])
        return CellQuestion(path, table.name, field, at, Question(name, len(edges) + 1), edges=edges)
    if kind is ColumnKind.BOOLEAN:
        return CellQuestion(path, table.name, field, at, Question(name, 2))
    index = CategoryIndex(table.name, column.column, column.values, strings)
    classes = min(index.size, CATEGORIES_MAX)
    return CellQuestion(path, table.name, field, at, Question(name, classes), index=index)


def _chosen(neighborhood: Neighborhood, path: Ints, sample: Ints, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return bool[N]: seeds; some of their parents; of some paths the newest row, and some of its parents."""
    hop, parent, link = neighborhood.hop, neighborhood.parent, neighborhood.link
    event = neighborhood.event_time_us
    forward = link % 2 == 0  # edge types come in pairs, forward first
    chosen: NDArray[np.bool_] = hop == 0
    children = np.flatnonzero((hop > 0) & ~forward & (event != ALWAYS_US))
    order = children[np.lexsort((children, event[children], path[children], sample[children]))]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = (np.diff(path[order]) != 0) | (np.diff(sample[order]) != 0)
    newest = order[last]
    chosen[newest[random.random(len(newest)) < ROW_SHARE]] = True
    for depth in range(1, int(hop.max(initial=0)) + 1):
        parents = np.flatnonzero((hop == depth) & forward)
        parents = parents[chosen[parent[parents]]]
        chosen[parents[random.random(len(parents)) < ROW_SHARE]] = True
    return chosen
