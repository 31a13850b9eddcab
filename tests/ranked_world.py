"""A small shop to rank in: a live graph that is real in every part, and a ranker as simple as the contract allows.

What the server does around a ranker is tested with it; what the real one ranks is tested where it is made. Heavy
packages are imported where they are used: this file is loaded for every test run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from graph_transformer.ranking.lists import RankedList, RankedLists, RankQuestion
    from graph_transformer.task import Task
    from model_server.server import Server
    from model_server.settings import ServerSettings
    from stream.privacy import Privacy
    from temporal_graph.graph import TemporalGraph
    from temporal_graph.schema import Schema
    from temporal_graph.view import GraphView

ARENA_BYTES = 64 << 20
START_US = 1_672_531_200_000_000  # 2023-01-01
DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
SECRET = "a secret of the tests, long enough"
COLORS = ("red", "green", "blue")
TAGS = ("a", "b", "c")

SCHEMA = """
version: 1
name: shop
tables:
  users:
    primary_key: {user_id: integer}
  items:
    primary_key: {item_id: integer}
    time_column: listed_at
    columns:
      color: categorical
      tags: multicategorical
      price: numerical
      in_stock: boolean
      title: text
      supplier: {kind: categorical, private: true}
  clicks:
    primary_key: {click_id: integer}
    time_column: clicked_at
    future: 5m
    columns:
      note: {kind: categorical, private: true}
    links:
      user_id: users
      item_id: items
    private: [user_id]
sources:
  - {topic: clicks, table: clicks, format: protobuf}
  - {topic: items, table: items, format: protobuf}
"""
TASK = """
version: 1
name: next_click
kind: ranking
table: users
level: entity
horizon: 7d
ranked: {interactions: clicks, user_link: user_id, item_link: item_id, items: items, top: 5}
ranking: {new_within: 3d, history: 8, dimension: 8}
model: {width: 8, layers: 1, heads: 2}
splits: {train: {start: 2023-01-01, end: 2023-02-01}}
sampling_plan: {num_neighbors: [{hop1: {default: 8}}, {hop2: {default: 1}}]}
"""


class CountingRanker:
    """A ranker by counts, over the whole history each time: what it answers can be worked out by hand.

    An item's score is the clicks that it had until the cut-off, and 100 more for each click of the user's or the
    session's on the item before it by key.
    """

    version = "counting"

    def __init__(self, view: GraphView, task: Task) -> None:
        self._view = view
        self.task = task
        self.asked: list[int] = []

    def rank(self, questions: Sequence[RankQuestion]) -> RankedLists:
        """Answers the questions, each on its own."""
        from graph_transformer.ranking.lists import RankedLists

        self.asked.append(len(questions))
        position = self._view.position()
        return RankedLists(tuple(self._one(question, at) for at, question in enumerate(questions)), position, 7, 3)

    def _one(self, question: RankQuestion, place: int) -> RankedList:
        from graph_transformer.errors import RankQuestionError
        from graph_transformer.ranking.lists import RankedList, Source

        cutoff_us = question.cutoff_time_us
        items, first_seen_us = self._items(cutoff_us)
        popular, history = self._clicks(question.user, cutoff_us)
        session = [self._item_of(event) for event in question.session]
        if 666 in {key for _, _, key in session}:
            raise RankQuestionError(place, "session[0].cells[0]", "an item that is no beast", 666)
        seen = {row for row, _ in history} | {row for row, _, _ in session}
        given = None if question.candidates is None else set(question.candidates)
        found = []
        for row, key in items.items():
            if (given is not None and key not in given) or key in question.exclude:
                continue
            if (question.exclude_seen and row in seen) or not all(self._holds(one, row) for one in question.filters):
                continue
            after = sum(key == before + 1 for before in self._keys_of(history, session))
            source = Source.GIVEN if given is not None else Source.POPULAR
            found.append((-(popular.get(row, 0) + 100.0 * after), key, row, source | (Source.CO_VISIT if after else 0)))
        found.sort()
        shown = found[: question.limit]
        times_us = [time_us for _, time_us in history] + [time_us for _, time_us, _ in session]
        return RankedList(
            item=np.array([row for _, _, row, _ in shown], dtype=np.int64),
            key=[key for _, key, _, _ in shown],
            score=np.array([-score for score, *_ in shown]),
            source=np.array([int(source) for *_, source in shown], dtype=np.int64),
            first_seen_us=np.array([first_seen_us[row] for _, _, row, _ in shown], dtype=np.int64),
            history_count=len(history),
            session_count=len(session),
            newest_age_us=cutoff_us - max(times_us) if times_us else None,
            candidate_count=len(found),
        )

    def _items(self, cutoff_us: int) -> tuple[dict[int, Any], dict[int, int]]:
        at = self._view.versions("items")
        shown = ~at.deleted & (at.valid_from_us <= cutoff_us) & (cutoff_us < at.valid_to_us)
        rows = at.row[shown]
        first: dict[int, int] = {}
        for row, from_us in zip(at.row.tolist(), at.valid_from_us.tolist(), strict=True):
            first.setdefault(row, from_us)
        self._cells = {row: index for index, row in zip(np.flatnonzero(shown).tolist(), rows.tolist(), strict=True)}
        self._at = at
        return dict(zip(rows.tolist(), self._view.keys("items", rows), strict=True)), first

    def _clicks(self, user: Any, cutoff_us: int) -> tuple[dict[int, int], list[tuple[int, int]]]:
        at = self._view.versions("clicks")
        shown = ~at.deleted & (at.valid_from_us <= cutoff_us) & (cutoff_us < at.valid_to_us)
        users, items = (
            at.parents[shown, at.link_names.index("user_id")],
            at.parents[shown, at.link_names.index("item_id")],
        )
        own = -2 if user is None else int(self._view.row_index("users", [user])[0])
        rows, counts = np.unique(items, return_counts=True)
        mine = (users == own) & (own >= 0)
        history = list(zip(items[mine].tolist(), at.event_time_us[shown][mine].tolist(), strict=True))
        return dict(zip(rows.tolist(), counts.tolist(), strict=True)), history

    def _item_of(self, event: bytes) -> tuple[int, int, int]:
        from protos.nowgraph.v1 import row_event_pb2

        row = row_event_pb2.RowEvent.FromString(event)
        key = next(cell.integer for cell in row.cells if cell.column == "item_id")
        return int(self._view.row_index("items", [key])[0]), row.event_time_us, key

    def _keys_of(self, history: Sequence[tuple[int, int]], session: Sequence[tuple[int, int, int]]) -> list[Any]:
        rows = np.array([row for row, _ in history], dtype=np.int64)
        return [*self._view.keys("items", rows), *(key for _, _, key in session)]

    def _holds(self, one: Any, row: int) -> bool:
        at, index = self._at, self._cells[row]
        if one.column == "price":
            cells = {at.numerical[index, at.numerical_names.index("price")]}
        elif one.column == "in_stock":
            cells = {{0: False, 1: True}.get(int(at.boolean[index, 0]))}
        else:
            codes = at.coded[index : index + 1, at.coded_names.index(one.column)]
            (text,) = self._view.strings("items", one.column, codes)
            cells = set() if text is None else set(text.split("\x1f"))
        return bool(cells & set(one.values)) != one.negate


class RankedWorld:
    """A live graph of a shop, and its ranker."""

    schema_text = SCHEMA
    secret = SECRET
    start_us = START_US
    minute_us = MINUTE_US
    day_us = DAY_US

    def __init__(self, schema: Schema, graph: TemporalGraph, privacy: Privacy) -> None:
        from graph_transformer.task import parse_task

        self.schema = schema
        self.graph = graph
        self.privacy = privacy
        self.task = parse_task(TASK)
        self.rankers: list[CountingRanker] = []
        self.offsets: dict[tuple[str, int], int] = {}
        self.clicks = 0

    def item(self, key: int, listed_us: int, **cells: Any) -> bytes:
        """An item of a color and tags by its key, listed at a time."""
        from protos.nowgraph.v1 import row_event_pb2

        row = row_event_pb2.RowEvent(table="items", operation=row_event_pb2.OPERATION_INSERT, event_time_us=listed_us)
        row.key.parts.add(integer=key)
        if "color" not in cells or cells["color"] is not None:
            row.cells.add(column="color", text=cells.get("color", COLORS[key % 3]))
        tags = [name for bit, name in enumerate(TAGS) if key >> bit & 1]
        row.cells.add(column="tags", texts=row_event_pb2.TextList(values=tags))
        row.cells.add(column="price", number=float(key % 4))
        row.cells.add(column="in_stock", boolean=key % 5 != 0)
        row.cells.add(column="supplier", text=f"supplier of {key}")
        self.privacy.protect(row)
        return row.SerializeToString()

    def click(self, user: int, item: int, time_us: int, key: int | None = None) -> bytes:
        """A click as it enters the graph: hashed."""
        from protos.nowgraph.v1 import row_event_pb2

        self.clicks += 1
        row = row_event_pb2.RowEvent(table="clicks", operation=row_event_pb2.OPERATION_INSERT, event_time_us=time_us)
        row.key.parts.add(integer=self.clicks if key is None else key)
        row.cells.add(column="user_id", integer=user)
        row.cells.add(column="item_id", integer=item)
        self.privacy.protect(row)
        return row.SerializeToString()

    def categories(self, key: int, column: str) -> set[str]:
        """An item's color or tags, as `item` gives them."""
        return {COLORS[key % 3]} if column == "color" else {tag for bit, tag in enumerate(TAGS) if key >> bit & 1}

    def apply(self, events: Sequence[bytes], *, topic: str = "history", partition: int = 0) -> int:
        """Applies events as if they had come from a log of their own; returns the first offset that is not applied."""
        next_offset = self.offsets.get((topic, partition), 0) + len(events)
        self.offsets[topic, partition] = next_offset
        applied = self.graph.apply(list(events), backfill=True, positions=self.offsets)
        assert applied.rejected == ()
        return next_offset

    def ranker(self, view: GraphView) -> CountingRanker:
        """The ranker over a view of the graph; `rankers` keeps it."""
        self.rankers.append(CountingRanker(view, self.task))
        return self.rankers[-1]

    def server(self, settings: ServerSettings, *, checkpoint: Path | None = None, **options: Any) -> Server:
        """A server over the graph, not started; of a checkpoint's ranker in place of the counting one."""
        from model_server.loading import load_model
        from model_server.server import build_server

        view = self.graph.view()
        model = self.ranker(view) if checkpoint is None else load_model(checkpoint, view, settings)
        return build_server(view, model, settings=settings, privacy=self.privacy, **options)


def stock(world: RankedWorld) -> None:
    """Twenty items, a day apart, and a click of user n on item n a minute after noon of the day after it came."""
    world.apply([world.item(key, START_US + key * DAY_US) for key in range(20)])
    world.apply([world.click(key, key, START_US + (key + 1) * DAY_US + MINUTE_US) for key in range(20)])


def save_ranker(world: RankedWorld, folder: Path) -> None:
    """Saves towers and a fusion with random weights, of the first 15 of the shop's items: a checkpoint of a ranking."""
    import torch

    from graph_transformer.calibration import Calibration
    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.encoding.encoding import Encoding
    from graph_transformer.encoding.statistics import fit_statistics
    from graph_transformer.heads import Unit
    from graph_transformer.ranking.features import feature_names
    from graph_transformer.ranking.fusion import Fusion, FusionConfig
    from graph_transformer.ranking.identity import identities_of
    from graph_transformer.ranking.model import build_ranking
    from graph_transformer.ranking.parts import RankingParts
    from graph_transformer.ranking.plans import default_plan
    from online_sampler.sampler import Sampler

    view, target = world.graph.view(), world.task.target
    task = replace(world.task, sampling_plan=default_plan(world.schema, target, world.task.ranking))
    users = np.arange(view.row_count("users"))
    asked = Sampler(view, task.sampling_plan).sample_rows(
        "users", users, np.full(len(users), view.watermark_us), as_of=True
    )
    statistics = fit_statistics([asked], world.schema, view.strings, target=target)
    encoding = Encoding(statistics, world.schema, view.strings, identified="items")
    identities = identities_of(view, "items", np.arange(15))
    torch.manual_seed(3)
    names = feature_names(towers=True)
    fusion = Fusion(FusionConfig(names, (0.0,) * len(names), (1.0,) * len(names), width=8, members=1))
    model = build_ranking(encoding, task, identities.count, fusion)
    Checkpoint(
        task=task,
        fingerprint=world.schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=task.model,
        unit=Unit(),
        calibration=Calibration.of(target),
        weights=model.state_dict(),
        ranking=RankingParts(identities, fusion.to_dict()),
    ).save(folder)


@pytest.fixture(scope="session")
def ranking_checkpoint(
    shop_schema: Schema,
    ranked_world: Callable[[TemporalGraph], RankedWorld],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder of a ranking with random weights, which every shop's graph can use."""
    from temporal_graph.graph import TemporalGraph

    folder = tmp_path_factory.mktemp("ranking") / "checkpoint"
    with TemporalGraph.create(shop_schema, arena_bytes=ARENA_BYTES) as graph:
        save_ranker(ranked_world(graph), folder)
    return folder


@pytest.fixture(scope="session")
def shop_schema() -> Schema:
    """Users, items with columns to filter and to vary by, clicks."""
    from temporal_graph.schema import parse_schema

    return parse_schema(SCHEMA)


@pytest.fixture(scope="session")
def ranked_world(shop_schema: Schema) -> Callable[[TemporalGraph], RankedWorld]:
    """Stocks a graph with twenty items and a click on each; 30 days after the start all of it is past."""
    from stream.privacy import Privacy

    def make(graph: TemporalGraph) -> RankedWorld:
        world = RankedWorld(shop_schema, graph, Privacy(shop_schema, SECRET.encode()))
        stock(world)
        return world

    return make


@pytest.fixture
def shop(shop_schema: Schema, ranked_world: Callable[[TemporalGraph], RankedWorld]) -> Iterator[RankedWorld]:
    """A stocked graph of the test's own."""
    from temporal_graph.graph import TemporalGraph

    with TemporalGraph.create(shop_schema, arena_bytes=ARENA_BYTES) as graph:
        yield ranked_world(graph)
