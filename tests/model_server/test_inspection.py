from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_server.inspection import neighbors_of
from nowgraph.client import Client
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import row_event_pb2


def test_neighbors_are_the_sampled_rows(world: Any) -> None:
    """Every node of the neighborhood is there, in order, with its clocks and the key the graph holds."""
    view = world.graph.view()
    time_us = world.start_us + 10**10
    event = world.event(900, time_us, customer=3, terminal=4)
    plan = world.predictor(view).plan
    found = Sampler(view, plan).sample_events([event], np.array([time_us - 1]))
    seed_key = row_event_pb2.Key(parts=[row_event_pb2.KeyPart(integer=900)])
    neighbors = neighbors_of(found, view, seed_key)
    assert [one.parent for one in neighbors] == found.parent.tolist()
    assert neighbors[0].key == seed_key
    assert neighbors[0].event_time_us == time_us
    customer = next(one for one in neighbors if one.table == "customers")
    assert customer.key.parts[0].text == world.privacy.hash(3)
    assert not customer.HasField("event_time_us")
    assert customer.version == -1
    payments = {one.key.parts[0].integer for one in neighbors[1:] if one.table == "transactions"}
    assert payments == {3, 23, 43, 63, 83} | {24, 34, 44, 54, 64, 74, 84, 94}


def test_cells_are_shown_as_they_are_and_private_ones_are_not(world: Any) -> None:
    """Numbers, categories and lists are the row's own; a null and a private column are left out."""
    view = world.graph.view()
    time_us = world.start_us + 10**10
    found = Sampler(view, world.predictor(view).plan).sample_events(
        [world.event(900, time_us, customer=3)], np.array([time_us - 1])
    )
    rows = neighbors_of(found, view, row_event_pb2.Key())
    payment = next(one for one in rows[1:] if one.table == "transactions" and one.key.parts[0].integer == 83)
    cells = {cell.column: cell for cell in payment.cells}
    assert set(cells) == {"tx_amount", "channel", "tags"}
    assert cells["tx_amount"].number == 5.0 + 83 % 7
    assert cells["channel"].text == "web"
    assert list(cells["tags"].texts.values) == ["a", "b"]


def test_the_seed_shows_strings_that_the_graph_has_never_stored(world: Any) -> None:
    """A new category, list and text of the asked row are shown as they came; a private one is left out, new or not."""
    view = world.graph.view()
    row = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_INSERT)
    row.key.parts.add(integer=900)
    row.event_time_us = world.start_us + 10**10
    row.cells.add(column="channel", text="pigeon")
    row.cells.add(column="tags", texts=row_event_pb2.TextList(values=["a", "never"]))
    row.cells.add(column="note", text="said for the first time")
    row.cells.add(column="card_number", text="4000-never")
    found = Sampler(view, world.predictor(view).plan).sample_events(
        [row.SerializeToString()], np.array([row.event_time_us - 1])
    )
    cells = {cell.column: cell for cell in neighbors_of(found, view, row.key)[0].cells}
    assert set(cells) == {"channel", "tags", "note"}
    assert cells["channel"].text == "pigeon"
    assert list(cells["tags"].texts.values) == ["a", "never"]
    assert cells["note"].text == "said for the first time"


@pytest.mark.integration
def test_a_neighbor_shows_the_version_visible_at_the_cutoff(world: Any, client: Client) -> None:
    """A report is in the neighbor's cells from the microsecond it was known, and not before."""
    known_us = world.start_us + 10**10
    report = row_event_pb2.RowEvent(table="transactions", operation=row_event_pb2.OPERATION_UPSERT)
    report.key.parts.add(integer=83)
    report.event_time_us = report.known_time_us = known_us
    report.cells.add(column="tx_fraud", boolean=True)
    report.cells.add(column="seen_at", timestamp_us=known_us)
    report.cells.add(column="face", vector=row_event_pb2.Vector(values=[0.5, 1.0]))
    world.apply([report.SerializeToString()])
    shown = []
    for asked_us in (known_us, known_us + 1):
        rows = client.neighborhood("transactions", 900, {"customer_id": 3}, event_time=asked_us).neighbors
        shown.append(next(row for row in rows if row.key == 83))
    before, after = shown
    assert before.version == 0
    assert "tx_fraud" not in before.cells
    assert after.version == 1
    assert after.cells["tx_fraud"] is True
    assert after.cells["seen_at"] == known_us
    assert after.cells["face"] == [0.5, 1.0]
    assert after.cells["channel"] == "web"
