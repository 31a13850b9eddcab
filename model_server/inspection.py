"""What the model would see: a sampled neighborhood as rows, with keys and the cells visible at the cut-off.

Private columns are left out; private keys are shown as the hashes that the graph holds. It has a thread and a sampler
of its own, so that looking never waits behind scoring and scoring never behind looking.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from model_server.answer import position_of
from model_server.errors import OverloadedError
from model_server.freshness import Freshness
from model_server.generation import Serving
from model_server.metrics import Metrics
from model_server.request import AskedRow, RequestReader
from model_server.row_check import ELEMENT_SEPARATOR
from model_server.seeds import sample, write_key
from model_server.settings import ServerSettings
from online_sampler.neighborhood import Neighborhood, TableColumns
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.schema import ColumnKind
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphView

BOOLEAN_NULL = 2


class Inspection:
    """Answers Neighborhood requests one at a time; a few may wait. Belongs to the event loop, save its own thread."""

    def __init__(
        self,
        serving: Callable[[], Serving],
        reader: RequestReader,
        freshness: Freshness,
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        self._serving = serving
        self._reader = reader
        self._freshness = freshness
        self._settings = settings
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nowgraph-inspection")
        self._waiting = 0

    async def neighborhood(
        self, request: service_pb2.NeighborhoodRequest, deadline_s: float
    ) -> service_pb2.NeighborhoodResponse:
        """The neighborhood of one row; its row is neighbor 0. Raises ServerError."""
        asked = self._reader.read(request.request)
        if self._waiting >= self._settings.inspection_limit:
            self._metrics.shed.labels("inspection").inc()
            raise OverloadedError(f"{self._settings.inspection_limit} neighborhoods are being looked at already")
        self._waiting += 1
        try:
            await self._freshness.wait_for(request.request, deadline_s)
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, asked)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=True)

    def _look(self, asked: AskedRow) -> service_pb2.NeighborhoodResponse:
        serving = self._serving()
        found = sample(serving.look_sampler, serving.predictor.task.target, [asked])
        response = service_pb2.NeighborhoodResponse(
            cutoff_time_us=asked.cutoff_time_us, graph_position=position_of(found.position)
        )
        response.neighbors.extend(neighbors_of(found, serving.look_sampler.view, asked.row.key))
        return response


def neighbors_of(found: Neighborhood, view: GraphView, seed_key: row_event_pb2.Key) -> list[service_pb2.Neighbor]:
    """The rows of one seed's neighborhood, in order; `seed_key` names the seed, which the graph may not hold."""
    schema = view.schema
    neighbors = [
        service_pb2.Neighbor(
            table=schema.tables[table].name,
            hop=hop,
            parent=parent,
            link="" if link < 0 else schema.edge_types[link],
            event_time_us=None if event_us == ALWAYS_US else event_us,
            known_time_us=None if known_us == ALWAYS_US else known_us,
            version=version,
        )
        for table, hop, parent, link, event_us, known_us, version in zip(
            found.table.tolist(),
            found.hop.tolist(),
            found.parent.tolist(),
            found.link.tolist(),
            found.event_time_us.tolist(),
            found.known_time_us.tolist(),
            found.version.tolist(),
            strict=True,
        )
    ]
    _name(neighbors, found, view)
    neighbors[0].key.CopyFrom(seed_key)
    for name, columns in found.columns.items():
        _fill(neighbors, columns, name, view, found.unseen)
    return neighbors


def _name(neighbors: Sequence[service_pb2.Neighbor], found: Neighborhood, view: GraphView) -> None:
    for index, table in enumerate(view.schema.tables):
        nodes = np.flatnonzero((found.table == index) & (found.row >= 0))
        if len(nodes) == 0 or not table.primary_key:
            continue
        for node, key in zip(nodes.tolist(), view.keys(table.name, found.row[nodes]), strict=True):
            if key is not None:  # erased since it was sampled
                write_key(neighbors[node].key, key)


def _fill(
    neighbors: Sequence[service_pb2.Neighbor],
    columns: TableColumns,
    table: str,
    view: GraphView,
    unseen: Sequence[str],
) -> None:
    """Adds the cells that are neither null nor private."""
    nodes = columns.node.tolist()
    for name, cells in _cells(columns, table, view, unseen):
        for node, cell in zip(nodes, cells, strict=True):
            if cell is not None:
                cell.column = name
                neighbors[node].cells.append(cell)


def _cells(
    columns: TableColumns, table: str, view: GraphView, unseen: Sequence[str]
) -> Iterator[tuple[str, list[row_event_pb2.Cell | None]]]:
    private = {column.name for column in view.schema.table(table).columns if column.private}
    for index, name in enumerate(columns.numerical_names):
        if name not in private:
            numbers = columns.numerical[:, index].tolist()
            yield name, [None if number != number else row_event_pb2.Cell(number=number) for number in numbers]  # noqa: PLR0124
    for index, name in enumerate(columns.coded_names):
        if name not in private:
            kind = view.schema.table(table).column(name).kind
            codes = columns.coded[:, index]
            texts = view.strings(table, name, codes)
            for at in np.flatnonzero(codes < 0).tolist():
                texts[at] = unseen[-1 - int(codes[at])]
            yield name, [_text(text, kind) for text in texts]
    for index, name in enumerate(columns.boolean_names):
        if name not in private:
            flags = columns.boolean[:, index].tolist()
            yield name, [None if flag == BOOLEAN_NULL else row_event_pb2.Cell(boolean=bool(flag)) for flag in flags]
    for index, name in enumerate(columns.timestamp_names):
        if name not in private:
            times_us = columns.timestamp[:, index].tolist()
            yield name, [None if time == ALWAYS_US else row_event_pb2.Cell(timestamp_us=time) for time in times_us]
    start = 0
    for name in columns.embedding_names:
        stop = start + view.schema.table(table).column(name).dim
        if name not in private:
            yield name, [_vector(row) for row in columns.embedding[:, start:stop]]
        start = stop


def _text(text: str | None, kind: ColumnKind) -> row_event_pb2.Cell | None:
    if text is None:
        return None
    if kind is ColumnKind.MULTICATEGORICAL:
        values = text.split(ELEMENT_SEPARATOR) if text else []
        return row_event_pb2.Cell(texts=row_event_pb2.TextList(values=values))
    return row_event_pb2.Cell(text=text)


def _vector(values: np.ndarray) -> row_event_pb2.Cell | None:
    if np.isnan(values).any():
        return None
    return row_event_pb2.Cell(vector=row_event_pb2.Vector(values=values.tolist()))
