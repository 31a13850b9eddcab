"""The write face: what is accepted, refused, counted and published."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.errors import ArenaError, ArenaFullError
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema

HOUR_US = 3_600_000_000
Build = Callable[..., bytes]


def cell(**value: object) -> bytes:
    """A payment whose only cell is this one."""
    event = pb.RowEvent(table="payments", operation=pb.OPERATION_INSERT, event_time_us=1)
    event.key.parts.add(integer=1)
    event.cells.add(**value)
    return event.SerializeToString()


def test_a_duplicate_changes_nothing(schema: Schema, payment: Build) -> None:
    """Applying an event twice is counted and leaves the canonical hash as it was."""
    with TemporalGraph.create(schema) as graph:
        first = graph.apply([payment(1, 10, customer=5, amount=2.0)])
        before = graph.canonical_hash()
        second = graph.apply([payment(1, 10, customer=5, amount=2.0)])
        assert (first.applied, second.applied, second.duplicate) == (1, 0, 1)
        assert graph.canonical_hash() == before
        graph.apply([payment(1, 10, customer=5, amount=3.0)])
        assert graph.canonical_hash() != before


def test_other_threads_run_while_a_batch_is_applied(schema: Schema, payment: Build) -> None:
    """Python's lock is released: another thread goes on in the middle of a call that applies a large batch."""
    once = [payment(number, 10, customer=number % 100, amount=1.0) for number in range(2_000)]
    events = once * 200
    ticks: list[float] = []
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(0.001):
            ticks.append(monotonic())

    thread = threading.Thread(target=tick)
    with TemporalGraph.create(schema) as graph:
        thread.start()
        begun_s = monotonic()
        graph.apply(events)
        took_s = monotonic() - begun_s
        stop.set()
        thread.join()
    assert any(begun_s + 0.4 * took_s < at < begun_s + 0.9 * took_s for at in ticks)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b"\xff\xff", "malformed"),
        (b"", "unknown_table"),
        (cell(column="amount", number=1.0)[:-3], "malformed"),
        (pb.RowEvent(table="nowhere", operation=pb.OPERATION_INSERT).SerializeToString(), "unknown_table"),
        (pb.RowEvent(table="payments", event_time_us=1).SerializeToString(), "bad_operation"),
        (pb.RowEvent(table="payments", operation=1, event_time_us=1).SerializeToString(), "missing_key"),
        (cell(column="colour", number=1.0), "unknown_column"),
        (cell(column="amount", text="much"), "wrong_kind"),
        (cell(column="amount", number=float("nan")), "not_finite"),
        (cell(column="amount", number=float("inf")), "not_finite"),
        (cell(column="fraud", number=1.0), "wrong_kind"),
        (cell(column="customer_id", text="5"), "wrong_kind"),
        (cell(column="tags", text="a"), "wrong_kind"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(schema: Schema, event: bytes, reason: str) -> None:
    """A bad event is rejected by its place in the batch, and the events around it are applied."""
    good = cell(column="amount", number=1.0)
    with TemporalGraph.create(schema) as graph:
        result = graph.apply([event, good])
        assert [(one.index, one.reason) for one in result.rejected] == [(0, reason)]
        assert result.applied == 1
        assert graph.view().row_count("payments") == 1


def test_a_refusal_never_quotes_a_value(schema: Schema) -> None:
    """The detail names the column and what was expected, not what stood there."""
    with TemporalGraph.create(schema) as graph:
        result = graph.apply([cell(column="amount", text="4111-1111")])
        assert "amount" in result.rejected[0].detail
        assert "4111" not in result.rejected[0].detail


def test_lateness_and_future_are_judged_from_the_record(schema: Schema, payment: Build) -> None:
    """Known at the bound is on time and one microsecond beyond is late; the same ahead of time."""
    base, minute_us = 10 * HOUR_US, 60_000_000
    cases = [(HOUR_US, None), (HOUR_US + 1, "late"), (-minute_us, None), (-minute_us - 1, "future")]
    for key, (delay_us, reason) in enumerate(cases):
        with TemporalGraph.create(schema) as graph:
            result = graph.apply([payment(key, base)], broker_time_us=np.array([base + delay_us]))
            assert [one.reason for one in result.rejected] == ([] if reason is None else [reason])
            assert graph.apply([payment(key + 9, base)], broker_time_us=np.array([0]), backfill=True).applied == 1


def test_the_broker_s_time_is_the_known_time(schema: Schema, payment: Build) -> None:
    """A table whose known time is the broker's takes it from the log, unless the event knows better or is history."""
    with TemporalGraph.create(schema) as graph:
        graph.apply([payment(1, 100), payment(2, 100, known_time_us=150)], broker_time_us=np.array([200, 200]))
        graph.apply([payment(3, 100)], broker_time_us=np.array([200]), backfill=True)
        event_time_us, known_time_us = graph.view().times("payments")
        assert event_time_us.tolist() == [100, 100, 100]
        assert known_time_us.tolist() == [200, 150, 100]


def test_a_row_without_a_key_is_named_by_its_place_in_the_log(schema: Schema) -> None:
    """A replay finds the same rows again; without a place or an event id there is nothing to name it by."""
    visit = pb.RowEvent(table="visits", operation=pb.OPERATION_INSERT, event_time_us=5).SerializeToString()
    with TemporalGraph.create(schema) as graph:
        for _ in range(2):
            graph.apply(
                [visit, visit], topic="v", partition=np.array([3, 3], np.int32), offset=np.array([7, 8], np.int64)
            )
        assert graph.view().row_index("visits", ["v/3/7", "v/3/8", "v/3/9"]).tolist() == [0, 1, -1]
        assert graph.apply([visit]).rejected[0].reason == "missing_key"
        named = pb.RowEvent(table="visits", operation=pb.OPERATION_INSERT, event_time_us=5, event_id="a")
        assert graph.apply([named.SerializeToString()]).applied == 1


def test_positions_and_rows_are_published_together(schema: Schema, payment: Build) -> None:
    """A view sees the offsets of the batch whose rows it sees."""
    with TemporalGraph.create(schema) as graph:
        view = graph.view()
        assert view.position().sequence == 0
        graph.apply([payment(1, 1), payment(2, 2)], positions={("p", 0): 2, ("p", 1): 0})
        assert view.position().offsets == {("p", 0): 2, ("p", 1): 0}
        assert view.position().sequence == view.row_count("payments") == 2
        assert graph.positions == {("p", 0): 2, ("p", 1): 0}


def test_columns_appended_are_the_rows_that_events_make(schema: Schema) -> None:
    """The bulk path and the event path give the same graph, by its canonical hash."""
    text = "{version: 1, name: n, tables: {a: {primary_key: {id: integer}}, b: {primary_key: {id: integer}, "
    schema = parse_schema(text + "time_column: t, links: {a_id: a}}}}")
    rng = np.random.default_rng(3)
    keys, times, parents = np.arange(4_000), rng.integers(0, 10**9, 4_000), rng.integers(0, 9, 4_000)
    events = []
    for key, time, parent in zip(keys.tolist(), times.tolist(), parents.tolist(), strict=True):
        event = pb.RowEvent(table="b", operation=pb.OPERATION_INSERT, event_time_us=time)
        event.key.parts.add(integer=key)
        event.cells.add(column="a_id", integer=parent)
        events.append(event.SerializeToString())
    with TemporalGraph.create(schema) as bulk, TemporalGraph.create(schema) as single:
        assert bulk.append("b", keys, event_time_us=times, parents={"a_id": parents}).applied == 4_000
        assert bulk.append("b", keys, event_time_us=times, parents={"a_id": parents}).duplicate == 4_000
        single.apply(events)
        assert bulk.canonical_hash() == single.canonical_hash()


def test_columns_make_the_same_graph_in_batches_of_any_length() -> None:
    """Rows that go in together find one another: keys given twice, parents that a row just before made."""
    text = "{version: 1, name: n, tables: {a: {primary_key: {id: integer}}, b: {primary_key: {id: integer}, "
    schema = parse_schema(text + "time_column: t, links: {a_id: a, b_id: b}}}}")
    rng, count = np.random.default_rng(5), 1_500
    keys, times = rng.integers(0, 1_200, count), rng.integers(0, 10**9, count)
    parents = {"a_id": rng.integers(0, 40, count), "b_id": rng.integers(0, 1_600, count)}

    def hash_of(sizes: Iterable[int]) -> tuple[str, int]:
        done = applied = 0
        with TemporalGraph.create(schema) as graph:
            for size in sizes:
                part = slice(done, done + size)
                columns = {link: of[part] for link, of in parents.items()}
                applied += graph.append("b", keys[part], event_time_us=times[part], parents=columns).applied
                done += size
            assert done == count
            return graph.canonical_hash(), applied

    one_by_one = hash_of([1] * count)
    assert one_by_one[1] < count - 100
    for sizes in ([count], [0, 2, 3, 5, 63, 64, 65, 66, 67, 68, 69, 130, 898]):
        assert hash_of(sizes) == one_by_one


def test_a_full_arena_says_so(schema: Schema, payment: Build) -> None:
    """The writer stops with an error of its own, and what was published stays readable."""
    with TemporalGraph.create(schema, arena_bytes=48 << 20) as graph:
        graph.apply([payment(-1, 1)])
        batches = ([payment(key, key, customer=key) for key in range(s, s + 1_000)] for s in range(0, 10**6, 1_000))
        with pytest.raises(ArenaFullError, match="full"):
            collections.deque(map(graph.apply, batches), maxlen=0)
        assert graph.view().row_index("payments", [-1]).tolist() == [0]


def test_retention_forgets_by_age_and_by_degree() -> None:
    """Rows beyond the age bound are no key and no neighbour, at it they stay; a list keeps its newest children."""
    text = "{version: 1, name: n, tables: {a: {primary_key: {id: integer}}, b: {primary_key: {id: integer}, "
    schema = parse_schema(text + "time_column: t, links: {a_id: a}, retention: {age: 1s, degree: 3}}}}")
    times = np.array([0, 999_999, 1_000_000, 1_500_000, 1_600_000, 2_000_000])
    with TemporalGraph.create(schema) as graph:
        graph.append("b", np.arange(6), event_time_us=times, parents={"a_id": np.zeros(6, np.int64)})
        evicted = graph.evict()
        assert (evicted.rows, evicted.entries) == (2, 3)
        assert graph.view().row_index("b", [0, 1, 2, 3]).tolist() == [-1, -1, 2, 3]
        children = graph.dump()["links"]["a.id->b.a_id"]["[0]"]
        assert [key for _, key in children] == ["[3]", "[4]", "[5]"]
        assert graph.view().evictions == 1
        graph.evict()
        assert graph.view().evictions == 1


def test_a_folder_has_one_writer(schema: Schema, tmp_path: Path) -> None:
    """A second writer is refused while the first holds the folder, and let in when it is gone."""
    graph = TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20)
    with pytest.raises(ArenaError, match="writer"):
        TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20)
    graph.close()
    with pytest.raises(ArenaError, match="closed"):
        graph.canonical_hash()
    with TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20) as second:
        assert second.generation == 2


def test_a_generation_nobody_was_sent_to_leaves_no_file(schema: Schema, tmp_path: Path) -> None:
    """Closed before it was published, an arena is removed; a published one stays for its readers."""
    TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20).close()
    TemporalGraph.create(schema, arena=tmp_path, arena_bytes=64 << 20, publish=False).close()
    assert [path.name for path in tmp_path.glob("*.arena")] == ["gen-1.arena"]
