"""What the scripts of an erasure refuse, and when a row's key goes."""

from __future__ import annotations

from typing import Any

import pytest

from temporal_graph.redis.erasure_scripts import ENTRIES, LOCK, LOOK, OWN, OWNED, REMOVE_CHILDREN, REWRITE, ROWS
from temporal_graph.redis.errors import ErasingError, StoreLostError
from temporal_graph.redis.frames import Version, pack
from temporal_graph.redis.keys import Names, entity, key_bytes, ref_of
from temporal_graph.redis.scripts import ADD_CHILDREN, APPEND_VERSIONS, RAISE_FENCES, READ, SET_FIELDS
from temporal_graph.redis.shards import Shards

pytestmark = pytest.mark.integration

ROW = entity(0, key_bytes(("a",)))
FRAME = pack(Version(5, 1, ()), b"event")
IDLE: list[bytes | int] = [0, 0]


@pytest.fixture
def names(shards: Shards, request: pytest.FixtureRequest) -> Names:
    """A graph of the test's own, with its fences."""
    made = Names("e" + str(abs(hash(request.node.nodeid))))
    shards.run(RAISE_FENCES, [(number, (made.fence(number),)) for number in range(1024)])
    return made


def grave(names: Names) -> tuple[bytes, bytes]:
    """The row's tombstone, and the links that may have lists of it."""
    return names.tombstone(ref_of("table", ROW))[1], b"\x05\x06"


def test_a_row_goes_with_its_last_version_and_entry(shards: Shards, names: Names) -> None:
    """With an entry left its name stays; with the last one it goes, and so does its name in the tombstone."""
    (number, row), (_, children) = names.row(ROW), names.children(ROW, 6)
    tombstone, links = grave(names)
    shards.run(APPEND_VERSIONS, [(number, (row, FRAME))], head=IDLE)
    shards.run(ADD_CHILDREN, [(number, (children, b"one")), (number, (children, b"two"))], head=IDLE)
    shards.run(
        SET_FIELDS, [(number, (tombstone, b"row", ROW)), (number, (tombstone, b"until", b"12345678"))], head=IDLE
    )
    assert shards.run(ENTRIES, [(number, (children, b"-", 1))]) == [[b"one"]]
    assert shards.run(ENTRIES, [(number, (children, b"(one", 5))]) == [[b"two"]]
    assert shards.run(REMOVE_CHILDREN, [(number, (children, b"one", tombstone, links))], head=IDLE) == [[1, 0]]
    assert shards.run(REWRITE, [(number, (row, b"", tombstone, links))], head=IDLE) == [0]
    assert shards.run(ROWS, [(number, (row,))]) == [b""]
    assert shards.run(REMOVE_CHILDREN, [(number, (children, b"two", tombstone, links))] * 2, head=IDLE) == [
        [1, 1],
        [0, 0],
    ]
    assert shards.run(ROWS, [(number, (row,))]) == [None]
    assert shards.run(LOOK, [(number, (tombstone,))]) == [[b"12345678", None, None]]
    assert shards.run(REWRITE, [(number, (row, b"", tombstone, links))], head=IDLE) == [0]
    assert shards.run(ROWS, [(number, (row,))]) == [None]


def test_what_was_owned_is_a_set(shards: Shards, names: Names) -> None:
    """Said twice it is there once."""
    number, key = names.owned(ref_of("table", ROW))
    shards.run(OWN, [(number, (key, b"one")), (number, (key, b"one")), (number, (key, b"two"))], head=IDLE)
    assert [sorted(one) for one in shards.run(OWNED, [(number, (key,))])] == [[b"one", b"two"]]


def test_writers_and_readers_of_another_erasure_are_refused(shards: Shards, names: Names) -> None:
    """While one is at work and once it is over, until they have looked again; nothing is written meanwhile."""
    number, row = names.row(ROW)
    wants = b"\xff" * 8 + b"\0" * 12
    lock: Any = lambda must, shall: shards.run(LOCK, [(number, (names.fence(number), must, shall))])  # noqa: E731
    lock(0, -4)
    lock(0, -4)
    with pytest.raises(ErasingError):
        lock(0, -5)
    with pytest.raises(ErasingError):
        lock(b"", 3)
    for said, here in ((0, -4), (0, 4), (-4, 4)):
        lock(b"", here)
        with pytest.raises(ErasingError):
            shards.run(APPEND_VERSIONS, [(number, (row, FRAME))], head=[said, 0])
        with pytest.raises(ErasingError):
            shards.run(READ, [(number, (row, wants))], head=[said])
    assert shards.run(ROWS, [(number, (row,))]) == [None]
    assert shards.run(APPEND_VERSIONS, [(number, (row, FRAME))], head=[4, 0]) == [[1, b""]]
    for head in (4, b""):
        assert FRAME in shards.run(READ, [(number, (row, wants))], head=[head])[0]


def test_a_slice_that_is_gone_is_not_locked(shards: Shards) -> None:
    """An emptied shard is found out before anything is erased."""
    with pytest.raises(StoreLostError):
        shards.run(LOCK, [(7, (Names("never").fence(7), 0, -1))])
