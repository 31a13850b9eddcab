"""Names and orders in Redis: bytes whose order is the graph's, and keys that keep an entity together.

    (table, key) ─► entity: table byte, key in order ─► slice of SLICES ─► `<graph>{slice}<entity>` and its lists

A slice is a hash tag: all of its keys lie in one slot, with the fence that says who may write there.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Final

from temporal_graph.reference_values import Key

SLICES: Final = 1024
"""Hash tags of a graph: what a shard holds is a multiple of them. More than any cluster has shards, and few enough
that a writer claims them all in milliseconds."""

ROW_TABLES_MAX: Final = 252  # the bytes above name a fence, two accounts and tombstones
LINKS_MAX: Final = 254

FENCE: Final = b"\xff"
"""What follows a slice in the key of its fence."""

_INTEGER, _TEXT = b"\x01", b"\x02"
_BIAS = 1 << 63


def time_bytes(time_us: int) -> bytes:
    """Return int64 microseconds as eight bytes that are ordered as the times are."""
    return (time_us + _BIAS).to_bytes(8, "big")


def time_of(ordered: bytes) -> int:
    """Return the time of eight such bytes."""
    return int.from_bytes(ordered, "big") - _BIAS


def key_bytes(key: Key) -> bytes:
    """Return a key as bytes ordered as keys are: part by part, integers by value before texts by their UTF-8 bytes."""
    return b"".join([_integer(part) if isinstance(part, int) else text_bytes(part.encode()) for part in key])


def _integer(part: int) -> bytes:
    return _INTEGER + time_bytes(part)


def text_bytes(part: bytes) -> bytes:
    """Return one text part, given as UTF-8, as `key_bytes` writes it."""
    return _TEXT + part.replace(b"\0", b"\0\xff") + b"\0\0"


def key_of(ordered: bytes) -> Key:
    """Return the key that `key_bytes` wrote."""
    parts: list[int | str] = []
    at = 0
    while at < len(ordered):
        if ordered[at : at + 1] == _INTEGER:
            parts.append(time_of(ordered[at + 1 : at + 9]))
            at += 9
            continue
        end = at + 1
        while True:
            end = ordered.index(b"\0", end)
            if ordered[end + 1] == 0:
                break
            end += 2
        parts.append(ordered[at + 1 : end].replace(b"\0\xff", b"\0").decode())
        at = end + 2
    return tuple(parts)


def entity(table_index: int, ordered_key: bytes) -> bytes:
    """Return what names a row: its table's index and its key's ordered bytes."""
    return bytes((table_index,)) + ordered_key


def slice_of(named: bytes) -> int:
    """Return the slice of an entity."""
    return zlib.crc32(named) % SLICES


Ref = tuple[int, bytes]
"""A row by its slice and half of the SHA-256 of its table and key: all that stays of an erased one."""

_REF_SLICE_BYTES = 2


def ref_of(table_name: str, named: bytes) -> Ref:
    """Return what a row's tombstone is found by."""
    return slice_of(named), hashlib.sha256(table_name.encode() + b"\0" + named[1:]).digest()[:16]


def ref_bytes(ref: Ref) -> bytes:
    """Return a reference as bytes."""
    return ref[0].to_bytes(_REF_SLICE_BYTES, "big") + ref[1]


def ref_from(written: bytes) -> Ref:
    """Return the reference that `ref_bytes` wrote."""
    return int.from_bytes(written[:_REF_SLICE_BYTES], "big"), written[_REF_SLICE_BYTES:]


class Names:
    """The Redis keys of one graph: `prefix` is its namespace and the letters of this building of it."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._slices = [f"{prefix}{{{number}}}".encode() for number in range(SLICES)]

    def row(self, named: bytes) -> tuple[int, bytes]:
        """Return the slice and the key of a row's versions."""
        number = slice_of(named)
        return number, self._slices[number] + named

    def children(self, named: bytes, link: int) -> tuple[int, bytes]:
        """Return the slice and the key of the list of a row's children over a link: its row's key and one byte."""
        number, row = self.row(named)
        return number, row + bytes((link,))

    def tombstone(self, ref: Ref) -> tuple[int, bytes]:
        """Return the slice and the key of a tombstone."""
        return ref[0], self._slices[ref[0]] + b"\xfc" + ref[1]

    def owned(self, ref: Ref) -> tuple[int, bytes]:
        """Return the slice and the key of the set of what was a row's own by changes that are gone."""
        number, key = self.tombstone(ref)
        return number, key + b"o"

    def fence(self, number: int) -> bytes:
        """Return the key of a slice's fence: no table has its byte."""
        return self._slices[number] + FENCE

    @property
    def positions(self) -> bytes:
        """The key of the stream positions, in slice 0."""
        return self._slices[0] + b"\xfe"

    @property
    def complete(self) -> bytes:
        """The key of the times up to which partitions are complete, in slice 0."""
        return self._slices[0] + b"\xfd"
