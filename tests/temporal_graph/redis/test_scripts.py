"""The rule inside Redis against `time_rule`, and what guarded scripts refuse."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest

from temporal_graph.redis.errors import StaleWriterError, StoreLostError
from temporal_graph.redis.frames import Version, pack
from temporal_graph.redis.keys import Names, entity, key_bytes, time_bytes
from temporal_graph.redis.scripts import ADD_CHILDREN, APPEND_VERSIONS, CLAIM, RAISE_FENCES, READ
from temporal_graph.redis.shards import Shards
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US, is_visible

pytestmark = pytest.mark.integration

_EDGES = [0, 2**32, 2**53, 1_700_000_000_000_000, -(2**32), ALWAYS_US + 2, TIME_MAX_US - 2]
TIMES = sorted({edge + step for edge in _EDGES for step in (-1, 0, 1)})


def asked(cutoff: int, *, size: int = 0, had: int = ALWAYS_US, lists: Any = ()) -> bytes:
    """What READ is asked of a row: a cut-off, what is there already, (link, count) lists up to the cut-off."""
    wanted = time_bytes(cutoff) + struct.pack(">I", size) + time_bytes(had)
    return wanted + b"".join(struct.pack(">BI", *each) + time_bytes(cutoff) for each in lists)


def test_the_rule_in_redis_is_the_rule(shards: Shards, redis_stores: Any) -> None:
    """At every pair of times that matter, rows and lists show a version exactly if `is_visible` does."""
    names = Names("rule")
    row, child = entity(0, key_bytes((1,))), key_bytes((2,))
    number, key = names.row(row)
    _, list_key = names.children(row, 5)
    shards.run(RAISE_FENCES, [(number, (names.fence(number),))])
    frames = [pack(Version(time_us, 1, ()), b"event") for time_us in TIMES]
    shards.run(APPEND_VERSIONS, [(number, (key, frame)) for frame in frames], head=[0, 0])
    shards.run(ADD_CHILDREN, [(number, (list_key, time_bytes(each) + child)) for each in TIMES], head=[0, 0])
    for cutoff in TIMES:
        [reply] = shards.run(READ, [(number, (key, asked(cutoff, lists=((5, 99),))))], head=[b""])
        seen = [time_us for time_us in TIMES if is_visible(time_us, time_us, cutoff)]
        shown = b"".join(pack(Version(time_us, 1, ()), b"event") for time_us in seen)
        entries = b"".join(struct.pack(">I", 8 + len(child)) + time_bytes(each) + child for each in reversed(seen))
        assert (
            reply
            == struct.pack(">iI", sum(map(len, frames)), len(shown)) + shown + struct.pack(">I", len(seen)) + entries
        )


def test_a_reader_gets_what_it_lacks(shards: Shards) -> None:
    """Told what a reader has, up to which cut-off, Redis sends the rest: later bytes, and times it could not see."""
    names = Names("lacks")
    number, key = names.row(entity(0, key_bytes((1,))))
    shards.run(RAISE_FENCES, [(number, (names.fence(number),))])
    frames = {time_us: pack(Version(time_us, 1, ()), b"%d" % time_us) for time_us in (10, 30, 20, 40)}
    shards.run(APPEND_VERSIONS, [(number, (key, frame)) for frame in frames.values()], head=[0, 0])
    two = len(frames[10]) + len(frames[30])
    for size, had, cutoff in itertools.product((0, two, 2 * two), (5, 15, 30), (5, 20, 40)):
        [reply] = shards.run(READ, [(number, (key, asked(cutoff, size=size, had=had)))], head=[b""])
        before = list(frames)[: {0: 0, two: 2, 2 * two: 4}[size]]
        lacks = [time_us for time_us in frames if time_us <= cutoff and not (time_us in before and time_us <= had)]
        found = b"".join(frames[time_us] for time_us in lacks)
        assert reply == struct.pack(">iI", 2 * two, len(found)) + found


def test_a_slice_without_a_fence_is_lost(shards: Shards) -> None:
    """A row that is not there is unknown where its slice is, and an error where it is not."""
    names = Names("fenceless")
    number, key = names.row(entity(0, key_bytes((1,))))
    with pytest.raises(StoreLostError):
        shards.run(READ, [(number, (key, asked(5)))], head=[b""])
    shards.run(RAISE_FENCES, [(number, (names.fence(number),))])
    assert shards.run(READ, [(number, (key, asked(5)))], head=[b""]) == [struct.pack(">iI", -1, 0)]


def test_a_claim_is_the_last_of_two(shards: Shards) -> None:
    """Of two that draw tokens at once the later has the partition, whichever writes first."""
    names = Names("claims")
    fence = names.fence(7)
    shards.run(RAISE_FENCES, [(7, (fence,))])
    for token in (1, 3):
        shards.run(CLAIM, [(7, (fence, b"t/0", token))])
    with pytest.raises(StaleWriterError):
        shards.run(CLAIM, [(7, (fence, b"t/0", 2))])
    shards.run(CLAIM, [(7, (fence, b"t/1", 2))])
    with pytest.raises(StoreLostError):
        shards.run(CLAIM, [(8, (names.fence(8), b"t/0", 9))])


def test_a_version_is_there_once(shards: Shards) -> None:
    """The same frame again changes nothing and says so; one that is part of another's bytes is another."""
    names = Names("once")
    number, key = names.row(entity(0, key_bytes((1,))))
    shards.run(RAISE_FENCES, [(number, (names.fence(number),))])
    inner = pack(Version(1, 1, ()), b"event")
    outer = pack(Version(2, 1, ()), inner)
    items = [(number, (key, frame)) for frame in (outer, inner, outer, inner)]
    assert shards.run(APPEND_VERSIONS, items, head=[0, 0]) == [
        [1, b""],
        [1, outer],
        [0, outer + inner],
        [0, outer + inner],
    ]
