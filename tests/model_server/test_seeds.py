from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graph_transformer.target import Kind, Target
from model_server.request import AskedRow
from model_server.seeds import key_of, sample, unknown_key, write_key
from online_sampler.errors import SeedError
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.schema import Schema

EVENTS = Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud")
CUSTOMERS = Target(Kind.REGRESSION, "customers", event_level=False)


def asked(event: bytes, cutoff_time_us: int, key: Any = None) -> AskedRow:
    """A question whose other parts do not matter here."""
    return AskedRow("", row_event_pb2.RowEvent(), event, cutoff_time_us, key)


def test_a_target_decides_where_a_question_enters(world: Any) -> None:
    """A row that is not in the graph by its event, an entity by its key: each with its own cut-off and history."""
    time_us = world.start_us + 50 * 60_000_000
    rows = [asked(world.event(900 + n, time_us, customer=3), time_us - 1 - n) for n in range(2)]
    events = sample(world.sampler, EVENTS, rows)
    assert events.cutoff_time_us.tolist() == [time_us - 1, time_us - 2]
    assert events.row[events.seed_offset[:-1]].tolist() == [-1, -1]
    known, unknown = world.privacy.hash(3), "nobody"
    entities = sample(world.sampler, CUSTOMERS, [asked(b"", time_us, known), asked(b"", time_us, unknown)])
    assert entities.row[entities.seed_offset[:-1]].tolist() == [
        world.graph.view().row_index("customers", [known])[0],
        -1,
    ]
    assert np.diff(entities.seed_offset).tolist() == [1 + 3 + 1, 1]  # three payments, one terminal; and nobody
    assert len(sample(world.sampler, CUSTOMERS, [])) == len(sample(world.sampler, EVENTS, [])) == 0


def test_an_entity_is_never_asked_about_without_its_key(world: Any) -> None:
    """A question that lost its key is refused, and not answered with its neighbor's."""
    with pytest.raises(SeedError):
        sample(world.sampler, CUSTOMERS, [asked(b"", 5), asked(b"", 5, world.privacy.hash(3))])


@pytest.mark.parametrize(("parts", "key"), [([], None), ([7], 7), (["x"], "x"), (["eu", 7], ("eu", 7))])
def test_keys_are_as_the_graph_takes_them(parts: list[int | str], key: Any) -> None:
    """None, one part, or a tuple of several, and back again; zero is a key like any other."""
    kinds: dict[type, Callable[[Any], row_event_pb2.KeyPart]] = {
        int: lambda part: row_event_pb2.KeyPart(integer=part),
        str: lambda part: row_event_pb2.KeyPart(text=part),
    }
    wire = row_event_pb2.Key(parts=[kinds[type(part)](part) for part in parts])
    assert key_of(wire) == key
    written = row_event_pb2.Key()
    write_key(written, key)
    assert written == wire
    assert key_of(row_event_pb2.Key(parts=[row_event_pb2.KeyPart(integer=0)])) == 0


def test_an_unknown_key_has_the_parts_of_its_table(schema: Schema) -> None:
    """Each number gives another; the sampler takes it like any key, and the graph does not know it."""
    one, other = (unknown_key(schema.table("shops"), number) for number in (0, 1))
    assert [part.WhichOneof("part") for part in one.parts] == ["text", "integer"]
    assert one != other
    assert key_of(unknown_key(schema.table("transactions"), 2)) == -(2**63) + 2
