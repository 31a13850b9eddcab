"""Requests that are nearly right, or nothing at all, to a real server over real connections: none of them is a bug.

What the protocol allows is changed at random (fields away, doubled, swapped, extreme), and so are its bytes. A server
may refuse as it likes, but INTERNAL and UNKNOWN are defects, and so is an answer that is no number.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

pytestmark = pytest.mark.integration

SERVICE = "/nowgraph.v1.PredictionService/"
NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS}
NEVER_NUMBERS = {code.value[0] for code in NEVER}
# As many calls as a server takes at once (`accept_pending_limit`) are not wanted: they would be CANCELLED.
IN_FLIGHT = 24
BATCH = 256
GROWTH_BYTES_MAX = 300 << 20

INTEGERS = (0, 1, -1, 2, 5, 100, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63), 1 - 2**63, 2 - 2**63)
FLOATS = (0.0, -0.0, 0.5, 1.0, 2.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 3.5e38)
TEXTS = (
    "", "a", "web", "north", "\x00", "\x1f", "\U0010ffff", "é" * 40, "0" * 300, "-1", "../..", "%s%n", "null",
    "transactions", "customers", "spend", "clicks", "items", "users", "tx_amount", "tx_fraud", "channel", "tags",
    "note", "seen_at", "online", "face", "card_number", "customer_id", "terminal_id", "shop_region+shop_number",
    "color", "price", "in_stock", "supplier", "item_id", "user_id", "fraud", "next_click", "nowgraph.events",
)  # fmt: skip
Method = type[Message]
REQUESTS: dict[str, Method] = {
    "Score": service_pb2.ScoreRequest,
    "ScoreBatch": service_pb2.ScoreBatchRequest,
    "Neighborhood": service_pb2.NeighborhoodRequest,
    "Rank": service_pb2.RankRequest,
    "RankBatch": service_pb2.RankBatchRequest,
    "Ingest": service_pb2.IngestRequest,
}
RESPONSES: dict[str, Method] = {
    "Score": service_pb2.ScoreResponse,
    "ScoreBatch": service_pb2.ScoreBatchResponse,
    "Neighborhood": service_pb2.NeighborhoodResponse,
    "Rank": service_pb2.RankResponse,
    "RankBatch": service_pb2.RankBatchResponse,
    "Ingest": service_pb2.IngestResponse,
}


class Mutator:
    """Changes messages of any type at random places."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def change(self, message: Message) -> None:
        """One to four changes."""
        for _ in range(self.chance.choice((1, 1, 2, 4))):
            parts = list(_parts(message))
            part = self.chance.choice(parts)
            fields = part.DESCRIPTOR.fields
            if fields:
                self._change(part, self.chance.choice(fields), parts)

    def _change(self, part: Any, field: FieldDescriptor, parts: Sequence[Message]) -> None:
        chance, name = self.chance, field.name
        if chance.random() < 0.2:
            part.ClearField(name)
        elif field.message_type is not None:
            alike = [one for one in parts if one.DESCRIPTOR.full_name == field.message_type.full_name]
            if not field.is_repeated:
                getattr(part, name).SetInParent()
                if alike:
                    copied = type(alike[0])()
                    copied.CopyFrom(chance.choice(alike))
                    getattr(part, name).CopyFrom(copied)
                return
            found = getattr(part, name)
            if found and chance.random() < 0.3:
                del found[chance.randrange(len(found))]
            elif alike and chance.random() < 0.8:
                found.extend([chance.choice(alike)] * chance.choice((1, 2, 2, 2, 600 if chance.random() < 0.02 else 3)))
            else:
                found.add()
        elif field.is_repeated:
            getattr(part, name).extend(self._scalar(field) for _ in range(chance.choice((1, 2, 9))))
        else:
            setattr(part, name, self._scalar(field))

    def _scalar(self, field: FieldDescriptor) -> Any:
        chance = self.chance
        match field.cpp_type:
            case FieldDescriptor.CPPTYPE_STRING:
                long = chance.random() < 0.01
                return "x" * chance.choice((300, 9_000, 300_000)) if long else chance.choice(TEXTS)
            case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
                return chance.choice(FLOATS)
            case FieldDescriptor.CPPTYPE_BOOL:
                return chance.random() < 0.5
            case FieldDescriptor.CPPTYPE_INT64:
                return chance.choice(INTEGERS)
            case _:  # int32, and enumerations, which are open
                return max(-(2**31), min(2**31 - 1, chance.choice(INTEGERS)))

    def bytes_of(self, message: Message) -> bytes:
        """The message's bytes, some of them others."""
        value = bytearray(message.SerializeToString())
        chance = self.chance
        act = chance.random()
        if act < 0.2:
            return chance.randbytes(chance.randrange(80))
        for _ in range(chance.choice((1, 1, 3, 8))):
            at = chance.randrange(len(value) + 1)
            if act < 0.4:
                del value[at : at + chance.randrange(6)]
            elif act < 0.6:
                value[at:at] = chance.randbytes(chance.randrange(6))
            elif value:
                value[at % len(value)] ^= 1 << chance.randrange(8)
        return bytes(value)


def _parts(message: Message) -> Iterable[Message]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                yield from _parts(one)


def wrong_of(response: Any) -> str:
    """What is no answer about a response; empty where all is well."""
    match response:
        case service_pb2.ScoreResponse():
            numbers = [response.logit, response.value, *(one.value for one in response.quantiles)]
            if not 0.0 <= response.probability <= 1.0 or not all(map(math.isfinite, numbers)):
                return f"probability {response.probability}, numbers {numbers}"
        case service_pb2.RankResponse():
            if not all(math.isfinite(item.score) for item in response.items):
                return f"scores {[item.score for item in response.items]}"
            keys = [item.key.SerializeToString() for item in response.items]
            if len(set(keys)) < len(keys):
                return "an item twice"
        case service_pb2.ScoreBatchResponse() | service_pb2.RankBatchResponse():
            return next(filter(None, map(wrong_of, response.results)), "")
        case service_pb2.ScoreResult() | service_pb2.RankResult():
            if response.WhichOneof("result") == "response":
                return wrong_of(response.response)
            if response.error.code in NEVER_NUMBERS:
                return f"code {response.error.code}: {response.error.message}"
    return ""


class Asking:
    """Asks a server many things at once, and counts what came of them; the first wrong thing ends it."""

    def __init__(self, channel: grpc.aio.Channel, streaming: grpc.Channel) -> None:
        self.heard: Counter[tuple[str, str]] = Counter()
        self._calls = {
            name: channel.unary_unary(SERVICE + name, response_deserializer=RESPONSES[name].FromString)
            for name in REQUESTS
        }
        self._stream = streaming.stream_stream(
            f"{SERVICE}ScoreStream", response_deserializer=service_pb2.ScoreStreamResponse.FromString
        )

    async def all_of(self, requests: Iterable[tuple[str, bytes]]) -> None:
        """Asks them, `IN_FLIGHT` at a time."""
        left = iter(requests)

        async def some() -> None:
            for method, data in left:
                await (self._many(data) if method == "ScoreStream" else self._one(method, data))

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(some())

    async def _one(self, method: str, data: bytes) -> None:
        try:
            response = await self._calls[method](data, timeout=60)
        except grpc.aio.AioRpcError as error:
            _check(error, f"{method} {data.hex()[:2000]}")
            self.heard[method, error.code().name] += 1
            return
        wrong = wrong_of(response)
        assert not wrong, f"{method} {data.hex()[:2000]}: {wrong}"
        results = getattr(response, "results", None)
        if results is None:
            self.heard[method, "OK"] += 1
        for one in results or ():
            said = "OK" if one.WhichOneof("result") == "response" else _name(one.error.code)
            self.heard[method, said] += 1

    async def _many(self, data: bytes) -> None:
        """One stream: its messages, length and bytes, are joined in `data`.

        By the client without asyncio: the other one calls its own failure to write to a stream that the server has
        ended INTERNAL, whatever the server said.
        """
        answers, code = await asyncio.to_thread(self._listen, list(_split(data)))
        self.heard["ScoreStream", "answer"] += answers
        self.heard["ScoreStream", code.name] += 1

    def _listen(self, messages: Sequence[bytes]) -> tuple[int, grpc.StatusCode]:
        call, answers = self._stream(iter(messages), timeout=60), 0
        try:
            for answer in call:
                wrong = wrong_of(answer.result)
                assert not wrong, wrong
                answers += 1
        except grpc.RpcError:
            _check(call, f"ScoreStream {joined(messages).hex()[:2000]}")
        return answers, call.code()


def _check(error: Any, asked: str) -> None:
    assert error.code() not in NEVER, f"{asked}: {error.code()}: {error.details()}"


def _name(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


def joined(messages: Iterable[bytes]) -> bytes:
    """Messages as one string of bytes."""
    return b"".join(len(message).to_bytes(4) + message for message in messages)


def _split(data: bytes) -> Iterable[bytes]:
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def score_requests(served: Any, seed: int, count: int) -> Iterable[tuple[str, bytes]]:
    """So many requests about rows, of every method, most of them items of batches."""
    change = Mutator(seed)
    chance = change.chance

    def changed() -> service_pb2.ScoreRequest:
        request: service_pb2.ScoreRequest = served.payment(chance.randrange(2_000_000))
        change.change(request)
        return request

    while count > 0:
        act = chance.random()
        if act < 0.05:
            size = min(count, chance.choice((1, 16, BATCH)))
            yield (
                "ScoreBatch",
                service_pb2.ScoreBatchRequest(requests=[changed() for _ in range(size)]).SerializeToString(),
            )
        elif act < 0.1:
            size = min(count, 64)
            rows = [service_pb2.ScoreStreamRequest(request=changed()) for _ in range(size)]
            spoiled = chance.random() < 0.3
            yield (
                "ScoreStream",
                joined(
                    change.bytes_of(row) if spoiled and not at % 40 else row.SerializeToString()
                    for at, row in enumerate(rows)
                ),
            )
        else:
            size = 1
            method = chance.choice(("Score", "Score", "Neighborhood"))
            request = changed() if method == "Score" else service_pb2.NeighborhoodRequest(request=changed())
            yield method, change.bytes_of(request) if chance.random() < 0.5 else request.SerializeToString()
        count -= size


def rank_requests(served: Any, seed: int, count: int) -> Iterable[tuple[str, bytes]]:
    """So many requests for lists."""
    change = Mutator(seed)
    chance = change.chance

    def changed() -> service_pb2.RankRequest:
        request: service_pb2.RankRequest = served.list_for(chance.randrange(9))
        change.change(request)
        return request

    while count > 0:
        if chance.random() < 0.1:
            size = min(count, chance.choice((1, 16, 64)))
            yield (
                "RankBatch",
                service_pb2.RankBatchRequest(requests=[changed() for _ in range(size)]).SerializeToString(),
            )
        else:
            size, request = 1, changed()
            yield "Rank", change.bytes_of(request) if chance.random() < 0.4 else request.SerializeToString()
        count -= size


def events(served: Any, seed: int, count: int) -> Iterable[tuple[str, bytes]]:
    """So many events to ingest."""
    change = Mutator(seed)
    for _ in range(count):
        request = service_pb2.IngestRequest(event=served.payment(change.chance.randrange(2_000_000)).row)
        if change.chance.random() < 0.8:
            change.change(request)
        spoiled = change.chance.random() < 0.3
        yield "Ingest", change.bytes_of(request) if spoiled else request.SerializeToString()


async def answered(served: Any, method: str, request: Message) -> Any:
    """The answer to a request, but for where its time went."""
    async with grpc.aio.insecure_channel(served.target) as channel:
        call = channel.unary_unary(SERVICE + method, response_deserializer=RESPONSES[method].FromString)
        response = await call(request.SerializeToString(), timeout=60)
    response.ClearField("timing")
    return response


async def stand(
    served: Any, what: Callable[[Any, int, int], Iterable[tuple[str, bytes]]], seed: int, count: int
) -> None:
    """Asks so many requests; the server must live, remember nothing of them, and have counted none as a bug."""
    async with grpc.aio.insecure_channel(served.target) as channel, AsyncExitStack() as stack:
        asking = Asking(channel, stack.enter_context(grpc.insecure_channel(served.target)))
        await asking.all_of(what(served, seed, max(200, count // 10)))  # from here on nothing is new to the process
        before = served.resident_bytes
        await asking.all_of(what(served, seed + 1, count))
    growth = served.resident_bytes - before
    print(f"{sum(asking.heard.values()):,} answers, {growth / 2**20:.0f} MiB more: {asking.heard.most_common()}")
    assert growth < GROWTH_BYTES_MAX
    assert served.process.poll() is None
    counted = served.metric("nowgraph_requests_total")
    assert [labels for labels in counted if "INTERNAL" in labels or "UNKNOWN" in labels] == []
    assert any("OK" in labels for labels in counted)


@pytest.mark.parametrize(
    "count", [4_000, pytest.param(500_000, marks=[pytest.mark.faults, pytest.mark.timeout(3_000)])]
)
async def test_requests_about_rows(fraud_server: Any, count: int) -> None:
    """Score, ScoreBatch, ScoreStream, Neighborhood: no INTERNAL; afterwards the same request has the same bits."""
    probe = fraud_server.payment()
    before = await answered(fraud_server, "Score", probe)
    await stand(fraud_server, score_requests, 7, count)
    assert await answered(fraud_server, "Score", probe) == before


@pytest.mark.parametrize("count", [500, pytest.param(60_000, marks=[pytest.mark.faults, pytest.mark.timeout(3_000)])])
async def test_requests_for_lists(shop_server: Any, count: int) -> None:
    """Rank and RankBatch, likewise."""
    probe = shop_server.list_for(1)
    before = await answered(shop_server, "Rank", probe)
    await stand(shop_server, rank_requests, 8, count)
    assert await answered(shop_server, "Rank", probe) == before


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=[pytest.mark.faults, pytest.mark.timeout(3_000)])])
async def test_events_by_grpc(fraud_server: Any, count: int) -> None:
    """Ingest: what was taken is in the graph, the rest is refused by its field; scores go on."""
    before = await answered(fraud_server, "Score", fraud_server.payment())
    await stand(fraud_server, events, 9, count)
    after = await answered(fraud_server, "Score", fraud_server.payment())
    assert after.graph_position.sequence > before.graph_position.sequence
