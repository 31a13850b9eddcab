"""What is learned about columns before training: scales, bins and vocabularies, from training neighborhoods only.

    neighborhoods at the training examples' cut-offs ─► fit_statistics ─► Statistics ─► checkpoint

Nothing later than a training example's own cut-off can be in a training neighborhood, so nothing later is in these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.config import TOLD
from graph_transformer.encoding.clock import log_age
from graph_transformer.encoding.paths import LinkPath, fit_paths
from graph_transformer.encoding.quantile import even_edges, quantile_edges, signed_log
from graph_transformer.encoding.tallies import PathTally, fit_tallies
from graph_transformer.importing import load_object
from graph_transformer.target import Target
from temporal_graph.schema import Column, ColumnKind, Schema
from temporal_graph.time_rule import ALWAYS_US

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood, TableColumns

Strings = Callable[[str, str, NDArray[np.int32]], Sequence[str | None]]
"""(table, column, codes) -> their texts; `GraphView.strings`."""

VOCABULARY_MAX = 4096
"""Categories with a vector of their own, the most frequent first; the others share the unseen one."""
BAG_MAX = 128
"""Elements of a multicategorical column that have a place in its bag."""
SEEN_MIN = 2
"""A category seen once counts as unseen, so that the unseen vector is trained as well."""
ELEMENT_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """One column: mean and std of its signed log (numerical), bin edges, vocabulary, embedding length.

    `encoder` is the import path of what reads a text column, its vectors of length `dim`; hashed n-grams without one.
    Fields that a kind does not use keep their defaults.
    """

    table: str
    column: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    edges: tuple[float, ...] = ()
    values: tuple[str, ...] = ()
    dim: int = 0
    encoder: str = ""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Everything `collate` needs beside the schema: plain values, kept in the checkpoint as JSON.

    `outcome` is the column of an event-level task, which no seed may show; None at entity level. `tallies` is empty
    and `comparisons` false where the model reads none.
    """

    seed_table: str
    outcome: str | None
    columns: tuple[ColumnStatistics, ...]
    paths: tuple[LinkPath, ...]
    age_edges: tuple[float, ...]
    tallies: tuple[PathTally, ...] = ()
    comparisons: bool = False

    def tables(self) -> dict[str, tuple[str, ...]]:
        """Return the tables a model of these statistics reads, each with its columns."""
        names = dict.fromkeys(path.table for path in self.paths)
        return {name: tuple(c.column for c in self.columns if c.table == name) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; of what the model does not read nothing, as checkpoints had it before there was."""
        unread = [name for name in TOLD if not getattr(self, name)]
        return {name: value for name, value in asdict(self).items() if name not in unread}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Statistics:
        """Build from `to_dict`'s values; raises KeyError or TypeError for anything else."""
        columns = (
            ColumnStatistics(**{**c, "edges": tuple(c["edges"]), "values": tuple(c["values"])})
            for c in values["columns"]
        )
        paths = (LinkPath(tuple(p["links"]), p["table"], p["share"]) for p in values["paths"])
        return cls(
            seed_table=values["seed_table"],
            outcome=values["outcome"],
            columns=tuple(columns),
            paths=tuple(paths),
            age_edges=tuple(values["age_edges"]),
            tallies=tuple(PathTally.from_dict(each) for each in values.get("tallies", ())),
            comparisons=values.get("comparisons", False),
        )


def fit_statistics(
    neighborhoods: Sequence[Neighborhood],
    schema: Schema,
    strings: Strings,
    *,
    target: Target,
    text_encoder: str | None = None,
    tallies: bool = False,
    comparisons: bool = False,
) -> Statistics:
    """Learn scales, bins, vocabularies and link paths from neighborhoods of a target's training examples.

    `text_encoder`, `tallies` and `comparisons` are those of `ModelConfig`. Every row counts as often as it was
    sampled, which is how often the model will read it.
    """
    paths = fit_paths(neighborhoods, schema, target.table)
    columns = tuple(
        _fit_column(neighborhoods, table, column, strings, text_encoder)
        for table in dict.fromkeys(path.table for path in paths)
        for column in schema.table(table).columns
    )
    age_edges = even_edges(_joined([_ages(n) for n in neighborhoods]))
    hidden = target.column if target.event_level else None
    tallied = fit_tallies(neighborhoods, schema, paths) if tallies else ()
    return Statistics(target.table, hidden, columns, paths, age_edges, tallied, comparisons)


def _ages(neighborhood: Neighborhood) -> NDArray[np.float64]:
    sample = np.repeat(np.arange(len(neighborhood.cutoff_time_us)), np.diff(neighborhood.seed_offset))
    timed = (neighborhood.event_time_us != ALWAYS_US) & (neighborhood.hop > 0)
    age_us = neighborhood.cutoff_time_us[sample][timed] - neighborhood.event_time_us[timed]
    return log_age(np.maximum(age_us, 0))


def _fit_column(
    neighborhoods: Sequence[Neighborhood], table: str, column: Column, strings: Strings, text_encoder: str | None
) -> ColumnStatistics:
    kind = column.kind
    fitted = ColumnStatistics(table, column.name, kind.value, dim=column.dim)
    parts = [(n, n.columns[table]) for n in neighborhoods if table in n.columns]
    if kind is ColumnKind.NUMERICAL:
        raw = _joined([c.numerical[:, c.numerical_names.index(column.name)] for _, c in parts])
        values = signed_log(raw[np.isfinite(raw)])
        mean, std = (float(values.mean()), float(values.std())) if len(values) else (0.0, 1.0)
        return replace(fitted, mean=mean, std=max(std, 1e-6), edges=quantile_edges(values))
    if kind is ColumnKind.TIMESTAMP:
        ages = _joined([_timestamp_ages(n, c, column.name) for n, c in parts])
        return replace(fitted, edges=even_edges(ages))
    if kind in (ColumnKind.CATEGORICAL, ColumnKind.MULTICATEGORICAL):
        codes = _joined([c.coded[:, c.coded_names.index(column.name)] for _, c in parts]).astype(np.int32)
        return replace(fitted, values=_vocabulary(codes, table, column, strings))
    if kind is ColumnKind.TEXT and text_encoder is not None:
        length = sentence_encoder(text_encoder)([""]).shape[1]
        return replace(fitted, dim=length, encoder=text_encoder)
    return fitted


def sentence_encoder(path: str) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Return the function from n texts to float32[n, d] that an import path names; raises TaskError."""
    encoder: Callable[[Sequence[str]], NDArray[np.float32]] = load_object("model.text_encoder", path)
    return encoder


def _timestamp_ages(neighborhood: Neighborhood, columns: TableColumns, name: str) -> NDArray[np.float64]:
    values = columns.timestamp[:, columns.timestamp_names.index(name)]
    sample = np.searchsorted(neighborhood.seed_offset, columns.node, side="right") - 1
    present = values != ALWAYS_US
    return log_age(neighborhood.cutoff_time_us[sample][present] - values[present])


def _vocabulary(codes: NDArray[np.int32], table: str, column: Column, strings: Strings) -> tuple[str, ...]:
    distinct, counts = np.unique(codes[codes > 0], return_counts=True)
    seen: dict[str, int] = {}
    for text, count in zip(strings(table, column.name, distinct.astype(np.int32)), counts.tolist(), strict=True):
        if text is None:
            continue
        elements = text.split(ELEMENT_SEPARATOR) if column.kind is ColumnKind.MULTICATEGORICAL else (text,)
        for element in elements:
            seen[element] = seen.get(element, 0) + count
    limit = BAG_MAX if column.kind is ColumnKind.MULTICATEGORICAL else VOCABULARY_MAX
    frequent = sorted((text for text in seen if seen[text] >= SEEN_MIN), key=lambda text: (-seen[text], text))
    return tuple(sorted(frequent[:limit]))


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0)
