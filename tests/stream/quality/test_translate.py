from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import orjson
import pytest

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.batch import NO_TIMESTAMP_US, Batch
from stream.decode import Decoder
from stream.privacy import Privacy
from stream.quality.config import AnswerKind, QualityTask
from stream.quality.records import Answer, Interaction, Outcome, ShownList, item_identity
from stream.quality.translate import OutcomeReader, PredictionReader
from temporal_graph.schema import Schema, parse_schema

NOW_US = 1_700_000_000_000_000
SCHEMA = """
version: 1
name: shop
tables:
  users:
    primary_key: {user_id: integer}
  items:
    primary_key: {item_id: integer}
  clicks:
    primary_key: {click_id: integer}
    time_column: clicked_at
    links: {user_id: users, item_id: items}
    private: [user_id]
  orders:
    primary_key: {order_id: integer}
    time_column: ordered_at
    columns:
      amount: numerical
      state: {kind: categorical, outcome: true}
    known_time: broker
  spend:
    primary_key: {user_id: integer, anchor_time_us: integer}
    time_column: anchor_time
    known_time: {column: known_at}
    columns:
      label: {kind: numerical, outcome: true}
      label_2: numerical
    links: {user_id: users}
    private: [user_id]
sources:
  - {topic: clicks, table: clicks, format: json}
"""
STATE = QualityTask(
    "state", AnswerKind.MULTICLASS, "orders", True, 10, outcome="state", classes=("paid", "open"), inputs=("amount",)
)
SPEND = QualityTask(
    "spend", AnswerKind.FORECAST, "users", False, 10, steps=2, levels=(0.1, 0.9), label_table="spend",
    label_columns=("label", "label_2"),
)  # fmt: skip


@pytest.fixture(scope="module")
def shop() -> Schema:
    return parse_schema(SCHEMA)


@pytest.fixture(scope="module")
def secret(shop: Schema) -> Privacy:
    return Privacy(shop, b"a secret of the tests, long enough")


@pytest.fixture
def read(shop: Schema, secret: Privacy, next_click: QualityTask) -> Callable[..., list[Outcome | Interaction]]:
    """Reads events of a topic that carries them as they are, with a timestamp."""
    reader = OutcomeReader([STATE, SPEND, next_click], shop, Decoder(shop, secret))

    def read(*events: bytes, topic: str = "events", stamp_us: int = NOW_US) -> list[Outcome | Interaction]:
        n = len(events)
        stamps = np.full(n, stamp_us, dtype=np.int64)
        batch = Batch(topic, np.zeros(n, np.int32), np.arange(n, dtype=np.int64), stamps, [None] * n, list(events))
        found = list(reader.read(batch))
        read.skipped = dict(+reader.skipped)  # type: ignore[attr-defined]
        return found

    return read


def order(number: int, operation: str = "INSERT", state: str | None = "paid", **cells: float) -> row_event_pb2.RowEvent:
    event = row_event_pb2.RowEvent(table="orders", event_time_us=NOW_US)
    event.operation = row_event_pb2.Operation.Value(f"OPERATION_{operation}")
    event.key.parts.add(integer=number)
    if state is not None:
        event.cells.add(column="state", text=state)
    for name, value in cells.items():
        event.cells.add(column=name, number=value)
    return event


def answered(kind: str = "MULTICLASS") -> service_pb2.Prediction:
    record = service_pb2.Prediction(row=order(1, state=None, amount=12.5), answered_time_us=NOW_US + 5, tenant="acme")
    response = record.response
    response.task, response.model_version = "state", "v1"
    response.kind = service_pb2.TargetKind.Value(f"TARGET_KIND_{kind}")
    response.classes.add(name="open", probability=0.25)
    response.classes.add(name="paid", probability=0.75)
    return record


def test_an_answer_has_its_classes_in_the_tasks_order_and_its_numbers() -> None:
    """Scores by class name, numerical cells by column, NaN where there is none; shadows beside it."""
    record = answered()
    shadow = record.shadows.add()
    shadow.CopyFrom(record.response)
    shadow.model_version = "v2"
    task = replace(STATE, inputs=("amount", "gone"))
    live, beside = PredictionReader([task]).read(record.SerializeToString())
    assert isinstance(live, Answer)
    assert isinstance(beside, Answer)
    assert (live.scores, live.key, live.event_time_us, live.answered_time_us) == (
        (0.75, 0.25),
        (1,),
        NOW_US,
        NOW_US + 5,
    )
    assert live.numbers[0] == 12.5
    assert math.isnan(live.numbers[1])
    assert (live.stream.tenant, live.stream.model_version, live.stream.role) == ("acme", "v1", "live")
    assert (beside.stream.model_version, beside.stream.role) == ("v2", "shadow")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: r.response.__setattr__("task", "other"), "task"),
        (lambda r: r.__setattr__("tenant", "other"), "task"),
        (lambda r: r.row.ClearField("key"), "no_key"),
        (lambda r: r.response.ClearField("classes"), "unfit"),
        (lambda r: r.response.__setattr__("kind", service_pb2.TARGET_KIND_BINARY), "unfit"),
        (lambda r: r.response.degraded.__setattr__("reason", service_pb2.DEGRADED_REASON_RULE), "rule"),
        (lambda r: r.row.__setattr__("event_time_us", NOW_US + 3_600_000_000), "future"),
    ],
    ids=["task", "tenant", "key", "classes", "kind", "rule", "future"],
)
def test_what_no_model_said_of_a_row_is_skipped(spoil: Callable[[object], None], reason: str) -> None:
    """Other tasks and tenants, rows without a key, answers of a rule: counted by reason, never measured."""
    record = answered()
    spoil(record)
    reader = PredictionReader([replace(STATE, tenant="acme")])
    assert reader.read(record.SerializeToString(), NOW_US) == []
    assert dict(reader.skipped) == {reason: 1}


def test_a_stale_answer_is_the_models_own() -> None:
    """A graph that lay behind makes an answer worse: that is what is measured."""
    record = answered()
    record.response.degraded.reason = service_pb2.DEGRADED_REASON_STALE_GRAPH
    assert len(PredictionReader([STATE]).read(record.SerializeToString())) == 1


def test_bytes_that_are_no_prediction_are_counted() -> None:
    """A foreign record is skipped and does not end the reading."""
    reader = PredictionReader([STATE])
    assert reader.read(b"\xff\xff\xff") == []
    assert reader.skipped["undecodable"] == 1


def test_forecasts_have_all_quantiles_step_by_step() -> None:
    """Steps times levels; one that lacks some does not fit."""
    record = service_pb2.Prediction(answered_time_us=NOW_US)
    record.row.event_time_us = NOW_US
    record.row.key.parts.add(text="hash")
    record.response.task, record.response.kind = "spend", service_pb2.TARGET_KIND_FORECAST
    for step in range(2):
        one = record.response.steps.add(value=step)
        for level in (0.1, 0.9):
            one.quantiles.add(level=level, value=step + level)
    (found,) = PredictionReader([SPEND]).read(record.SerializeToString())
    assert isinstance(found, Answer)
    assert found.scores == (0.1, 0.9, 1.1, 1.9)
    del record.response.steps[1]
    reader = PredictionReader([SPEND])
    assert reader.read(record.SerializeToString()) == []
    assert reader.skipped["unfit"] == 1


def test_a_list_has_its_items_in_order(next_click: QualityTask) -> None:
    """Of a user who is known; a list for a session alone can not be followed."""
    record = service_pb2.Prediction(answered_time_us=NOW_US)
    record.row.event_time_us = NOW_US
    response = record.ranking.response
    response.task, response.model_version, response.request_id = "next_click", "v1", "r"
    for number in (3, 1):
        response.items.add().key.parts.add(integer=number)
    reader = PredictionReader([next_click])
    assert reader.read(record.SerializeToString()) == []
    assert reader.skipped["no_key"] == 1
    record.row.key.parts.add(text="hash")
    (found,) = reader.read(record.SerializeToString())
    assert isinstance(found, ShownList)
    assert (found.user, found.items) == (("hash",), (item_identity([3]), item_identity([1])))


def test_an_outcome_is_a_cell_that_says_it(read: Callable[..., list[Outcome]]) -> None:
    """Set by an insert or a patch, withdrawn by a null or a deletion; a row that says nothing of it is none."""
    null = order(4, "UPSERT", state=None)
    null.cells.add(column="state", null=row_event_pb2.NULL_VALUE_UNSPECIFIED)
    events = [
        order(1),
        order(2, "UPSERT", state="open"),
        order(3, state=None, amount=2.0),
        null,
        order(5, "DELETE", state=None),
        order(6, state="unheard of"),
    ]
    found = read(*(event.SerializeToString() for event in events))
    assert [(one.key, one.label) for one in found] == [
        ((1,), (0.0,)), ((2,), (1.0,)), ((4,), None), ((5,), None), ((6,), None)
    ]  # fmt: skip
    assert [one.offset for one in found] == [0, 1, 3, 4, 5]


def test_an_outcome_is_known_when_the_graph_says_so(read: Callable[..., list[Outcome]]) -> None:
    """Its own known time, else the broker's where the table says so; never before it happened."""
    late = order(1)
    late.known_time_us = NOW_US + 9
    assert [one.known_time_us for one in read(late.SerializeToString())] == [NOW_US + 9]
    assert [one.known_time_us for one in read(order(1).SerializeToString(), stamp_us=NOW_US + 7)] == [NOW_US + 7]
    early = order(1)
    early.known_time_us = NOW_US - 9
    assert [one.known_time_us for one in read(early.SerializeToString())] == [NOW_US]


def test_an_event_from_the_future_moves_nothing(read: Callable[..., list[Outcome]]) -> None:
    """Known later than its record was written: it would settle everything at once. Without a stamp nobody can tell."""
    event = order(1)
    event.known_time_us = NOW_US + 3_600_000_000
    assert read(event.SerializeToString(), stamp_us=NOW_US) == []
    assert read.skipped == {"future": 1}  # type: ignore[attr-defined]
    assert len(read(event.SerializeToString(), stamp_us=NO_TIMESTAMP_US)) == 1


def test_past_labels_are_outcomes_as_of_their_anchor(read: Callable[..., list[Outcome]], secret: Privacy) -> None:
    """The key's last part is the anchor; the entity's parts are hashed as the predictions' are; all steps or none."""
    event = row_event_pb2.RowEvent(table="spend", event_time_us=NOW_US - 50, known_time_us=NOW_US)
    event.operation = row_event_pb2.OPERATION_INSERT
    event.key.parts.add(integer=17)
    event.key.parts.add(integer=NOW_US - 50)
    event.cells.add(column="label", number=1.5)
    (half,) = read(event.SerializeToString())
    event.cells.add(column="label_2", number=2.5)
    (found,) = read(event.SerializeToString())
    assert half.label is None
    assert found.label == (1.5, 2.5)
    assert (found.key, found.anchor_time_us) == ((secret.hash(17),), NOW_US - 50)


def test_a_click_ties_a_user_to_an_item(read: Callable[..., list[Interaction]], secret: Privacy) -> None:
    """Links as the graph has them, private ones hashed; a click on nothing is withdrawn; bad JSON is counted."""
    clicks = [
        orjson.dumps({"click_id": 1, "clicked_at": NOW_US, "user_id": 5, "item_id": 9}),
        orjson.dumps({"click_id": 2, "clicked_at": NOW_US, "user_id": 5, "item_id": None}),
        orjson.dumps({"click_id": 3, "clicked_at": NOW_US, "user_id": None, "item_id": 9}),
        b"{",
    ]
    found = read(*clicks, topic="clicks")
    assert [(one.user, one.item) for one in found] == [
        ((secret.hash(5),), item_identity([9])),
        ((secret.hash(5),), None),
    ]
    assert found[0].row != found[1].row
    assert read.skipped == {"undecodable": 1}  # type: ignore[attr-defined]
