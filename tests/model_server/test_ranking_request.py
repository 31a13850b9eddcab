from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from graph_transformer.ranking.lists import ItemFilter
from graph_transformer.task import parse_task
from model_server.errors import InvalidRequestError, UnknownTaskError
from model_server.ranking_request import RankReader
from model_server.rules import Cap, Diversity, Rules
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2

NOW_US = 1_700_000_000_000_000
Request = Callable[[], service_pb2.RankRequest]


def key(value: int | str) -> row_event_pb2.Key:
    """A key of one part."""
    part = row_event_pb2.KeyPart(text=value) if isinstance(value, str) else row_event_pb2.KeyPart(integer=value)
    return row_event_pb2.Key(parts=[part])


def click(number: int, item: int, time_us: int | None = None) -> row_event_pb2.RowEvent:
    """A row of a session."""
    row = row_event_pb2.RowEvent(table="clicks", key=key(number), event_time_us=time_us)
    row.cells.add(column="item_id", integer=item)
    return row


@pytest.fixture
def reader(shop: Any) -> RankReader:
    """Reads requests of the shop's task, at a clock that stands still, with limits small enough to reach."""
    settings = ServerSettings(
        rank_items_limit=50, rank_keys_limit=4, rank_session_limit=3, rank_filters_limit=2, id_bytes_limit=8
    )
    return RankReader(shop.schema, settings, task=shop.task, privacy=shop.privacy, clock_us=lambda: NOW_US)


@pytest.fixture
def full() -> Request:
    """Builds a valid request with every field; each call gives a new one to spoil."""

    def build() -> service_pb2.RankRequest:
        request = service_pb2.RankRequest(task="next_click", request_id="r1", user=key(7), k=3, exclude_seen=True)
        request.session.extend([click(1, 5, NOW_US - 10), click(2, 6, NOW_US - 30)])
        request.candidates.extend([key(4), key(3), key(4)])
        request.exclude.append(key(9))
        request.filters.add(column="color", negate=True).values.add(text="red")
        request.filters.add(column="price").values.add(number=2.0)
        request.diversity.column, request.diversity.weight = "tags", 0.3
        request.rules.deny.append(key(1))
        request.rules.allow.append(key(2))
        request.rules.caps.add(column="color", limit=2)
        request.rules.caps.add(column="tags", limit=0, value="a")
        request.rules.new_share_min = 0.25
        request.event_time_us = NOW_US - 5
        request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="clicks", offset=0))
        return request

    return build


def test_a_full_request_is_a_question_and_rules(reader: RankReader, full: Request, shop: Any) -> None:
    """Keys once, the session oldest first, the time as the cut-off, rules apart from the question."""
    asked = reader.read(full())
    question = asked.question
    assert (question.user, question.cutoff_time_us, asked.k) == (shop.privacy.hash(7), NOW_US - 5, 3)
    session = [row_event_pb2.RowEvent.FromString(event) for event in question.session]
    assert [row.event_time_us for row in session] == [NOW_US - 30, NOW_US - 10]
    assert (question.candidates, question.exclude, question.exclude_seen) == ((4, 3), (9,), True)
    assert question.filters == (ItemFilter("color", ("red",), True), ItemFilter("price", (2.0,)))
    assert asked.rules == Rules(
        allow=frozenset({2}),
        deny=frozenset({1}),
        diversity=Diversity(0.3, "tags"),
        caps=(Cap("color", 2), Cap("tags", 0, "a")),
        new_share_min=0.25,
    )
    assert question.limit == 50  # rules choose from all that was ranked
    assert not asked.live


def test_an_empty_request_is_asked_for_nobody_now(reader: RankReader) -> None:
    """Everything has a default: the task's number of items and its way with what was seen, the server's clock."""
    asked = reader.read(service_pb2.RankRequest())
    assert (asked.question.user, asked.question.session, asked.question.candidates) == (None, (), None)
    assert (asked.question.cutoff_time_us, asked.question.limit, asked.k) == (NOW_US, 5, 5)
    assert asked.question.exclude_seen is False
    assert asked.live
    assert not asked.rules
    assert asked.request.event_time_us == NOW_US


def test_the_task_says_whether_what_was_seen_is_left_out(shop: Any) -> None:
    """Where the request does not say."""
    task = parse_task(shop_task(shop, "exclude_seen: true"))
    reader = RankReader(shop.schema, ServerSettings(), task=task, privacy=shop.privacy)
    assert reader.read(service_pb2.RankRequest()).question.exclude_seen is True
    assert reader.read(service_pb2.RankRequest(exclude_seen=False)).question.exclude_seen is False


def shop_task(shop: Any, option: str) -> str:
    """The shop's task with one more option of the ranking."""
    import yaml

    values = shop.task.to_dict()
    values["ranking"] |= yaml.safe_load(option)
    return yaml.safe_dump(values)


def test_private_parts_are_hashed_wherever_they_stand(reader: RankReader, full: Request, shop: Any) -> None:
    """The user's key and the session's private cells are hashes in the question and in the record, as in the graph."""
    request = full()
    request.user.parts[0].integer = 123_454_321
    request.session[0].cells.add(column="user_id", integer=123_454_321)
    request.session[0].cells.add(column="note", text="a private note")
    asked = reader.read(request)
    record = asked.request.SerializeToString()
    assert asked.request.user.parts[0].text == shop.privacy.hash(123_454_321)
    everything = record + b"".join(asked.question.session)
    assert b"private note" not in everything
    assert shop.privacy.hash("a private note").encode() in everything
    assert request.user.parts[0].integer == 123_454_321  # the caller's message stays as it was
    cells = {cell.column for row in asked.request.session for cell in row.cells}
    assert "user_id" not in cells  # whose session it is, the request says


def test_session_rows_without_keys_are_told_apart(reader: RankReader) -> None:
    """A page need not number its clicks: each gets a key that no row has."""
    request = service_pb2.RankRequest(session=[click(1, 5), click(1, 6)])
    for row in request.session:
        row.ClearField("key")
    rows = [row_event_pb2.RowEvent.FromString(event) for event in reader.read(request).question.session]
    keys = [row.key.parts[0].integer for row in rows]
    assert keys == [-(2**63), -(2**63) + 1]


def test_a_session_row_without_a_time_happens_now(reader: RankReader) -> None:
    """At the list's own time; its known time and its operation do not matter."""
    request = service_pb2.RankRequest(event_time_us=NOW_US - 5, session=[click(1, 5)])
    request.session[0].known_time_us = NOW_US + 10**9
    (event,) = reader.read(request).question.session
    row = row_event_pb2.RowEvent.FromString(event)
    assert (row.event_time_us, row.HasField("known_time_us")) == (NOW_US - 5, False)
    assert row.operation == row_event_pb2.OPERATION_INSERT


INVALID: dict[str, tuple[str, Callable[[Any], object]]] = {
    "id": ("request_id", lambda r: setattr(r, "request_id", "x" * 9)),
    "token": ("freshness_token.topic", lambda r: setattr(r.freshness_token, "topic", "")),
    "k too large": ("k", lambda r: setattr(r, "k", 51)),
    "k negative": ("k", lambda r: setattr(r, "k", -1)),
    "time": ("event_time_us", lambda r: setattr(r, "event_time_us", NOW_US + 10**10)),
    "user": ("user.parts", lambda r: r.user.ClearField("parts")),
    "candidate": ("candidates[1].parts[0].text", lambda r: r.candidates[1].CopyFrom(key("x"))),
    "candidates": ("candidates", lambda r: r.candidates.extend([key(1)] * 2)),
    "exclude": ("exclude[0].parts", lambda r: r.exclude[0].parts.add(integer=1)),
    "allow": ("rules.allow[0].parts[0].text", lambda r: r.rules.allow[0].CopyFrom(key("x"))),
    "deny": ("rules.deny[0].parts[0]", lambda r: r.rules.deny[0].parts[0].ClearField("integer")),
    "session": ("session", lambda r: r.session.extend([click(8, 1), click(9, 1)])),
    "session table": ("session[1].table", lambda r: setattr(r.session[1], "table", "items")),
    "session deletes": ("session[0].operation", lambda r: setattr(r.session[0], "operation", 3)),
    "session later": ("session[0].event_time_us", lambda r: setattr(r.session[0], "event_time_us", NOW_US - 4)),
    "session no item": ("session[1].cells", lambda r: r.session[1].ClearField("cells")),
    "session null item": ("session[1].cells", lambda r: setattr(r.session[1].cells[0], "null", 0)),
    "session item": ("session[0].cells[0].text", lambda r: setattr(r.session[0].cells[0], "text", "x")),
    "session key": ("session[0].key.parts", lambda r: r.session[0].key.parts.add(integer=1)),
    "filters": ("filters", lambda r: r.filters.add(column="color")),
    "filter column": ("filters[0].column", lambda r: setattr(r.filters[0], "column", "size")),
    "filter text column": ("filters[0].column", lambda r: setattr(r.filters[0], "column", "title")),
    "filter private": ("filters[0].column", lambda r: setattr(r.filters[0], "column", "supplier")),
    "filter empty": ("filters[0].values", lambda r: r.filters[0].ClearField("values")),
    "filter kind": ("filters[1].values[0].text", lambda r: setattr(r.filters[1].values[0], "text", "2")),
    "filter none": ("filters[1].values[0]", lambda r: r.filters[1].values[0].Clear()),
    "filter nan": ("filters[1].values[0].number", lambda r: setattr(r.filters[1].values[0], "number", float("nan"))),
    "caps": ("rules.caps", lambda r: r.rules.caps.add(column="color")),
    "cap column": ("rules.caps[1].column", lambda r: setattr(r.rules.caps[1], "column", "price")),
    "cap limit": ("rules.caps[0].limit", lambda r: setattr(r.rules.caps[0], "limit", -1)),
    "share": ("rules.new_share_min", lambda r: setattr(r.rules, "new_share_min", 1.5)),
    "share nan": ("rules.new_share_min", lambda r: setattr(r.rules, "new_share_min", float("nan"))),
    "diversity": ("diversity.weight", lambda r: setattr(r.diversity, "weight", -0.1)),
    "diversity column": ("diversity.column", lambda r: setattr(r.diversity, "column", "in_stock")),
}


@pytest.mark.parametrize("name", INVALID)
def test_bad_requests_name_the_field(name: str, reader: RankReader, full: Request) -> None:
    """The path of the first wrong field, before anything is asked of the ranker."""
    path, spoil = INVALID[name]
    request = full()
    spoil(request)
    with pytest.raises(InvalidRequestError) as caught:
        reader.read(request)
    assert caught.value.field == path


@pytest.mark.parametrize("name", ["task", "tenant"])
def test_another_task_or_tenant_is_not_found(name: str, reader: RankReader, full: Request) -> None:
    """As for scores."""
    request = full()
    setattr(request, name, "other")
    with pytest.raises(UnknownTaskError) as caught:
        reader.read(request)
    assert caught.value.field == name


def test_what_the_wire_has_beside_the_message_goes_no_further(reader: RankReader) -> None:
    """Neither to the ranker nor into the record."""
    request = service_pb2.RankRequest(session=[click(1, 3)])
    clean = reader.read(request)
    request.session[0].MergeFromString(b"\x2a\x03web")
    request.MergeFromString(b"\xfa\x7f\x044000")
    strange = reader.read(request)
    assert (strange.question.session, strange.request) == (clean.question.session, clean.request)


def test_no_diversity_needs_no_column(reader: RankReader) -> None:
    """A weight of 0 asks for nothing."""
    request = service_pb2.RankRequest()
    request.diversity.weight = 0.0
    assert reader.read(request).rules.diversity is None
