"""A version of a row as bytes, and what the walk must know of it without decoding its cells.

    frame: uint32 size of the rest, visible time (8 ordered bytes), operation, links set: uint8, for each: link uint8,
           size uint8 (255: a uint32 follows), parent's ordered key (none: set to null), then the event: a RowEvent
           without its table

A row in Redis is its frames, one after another in the order of their arrival; the scripts read their first 12 bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from temporal_graph.redis.keys import time_bytes, time_of

INSERT: Final = 1
DELETE: Final = 3
ERASE: Final = 4

_HEAD = struct.Struct(">I8sBB")
_LONG = struct.Struct(">I")
_LONG_FROM = 255


@dataclass(frozen=True, slots=True)
class Version:
    """One version: `links` are the (link, parent's ordered key or b"") that it says; an insert says null of others."""

    visible_time_us: int
    operation: int
    links: tuple[tuple[int, bytes], ...]

    def parent(self, link: int) -> bytes | None:
        """Return the parent that this version sets: b"" for null, None where it says nothing of the link."""
        for said, key in self.links:
            if said == link:
                return key
        return b"" if self.operation == INSERT else None


def pack(version: Version, event: bytes) -> bytes:
    """Return the frame of a version and its event."""
    links = b"".join([bytes((link,)) + _sized(key) for link, key in version.links])
    size = _HEAD.size - 4 + len(links) + len(event)
    return _HEAD.pack(size, time_bytes(version.visible_time_us), version.operation, len(version.links)) + links + event


def _sized(key: bytes) -> bytes:
    if len(key) < _LONG_FROM:
        return bytes((len(key),)) + key
    return bytes((_LONG_FROM,)) + _LONG.pack(len(key)) + key


def unpack(frames: bytes) -> list[tuple[Version, bytes]]:
    """Return the versions of frames that follow one another, each with its event."""
    found = []
    at = 0
    while at < len(frames):
        size, visible, operation, count = _HEAD.unpack_from(frames, at)
        end = at + 4 + size
        at += _HEAD.size
        links = []
        for _ in range(count):
            link, length = frames[at], frames[at + 1]
            at += 2
            if length == _LONG_FROM:
                (length,) = _LONG.unpack_from(frames, at)
                at += _LONG.size
            links.append((link, frames[at : at + length]))
            at += length
        found.append((Version(time_of(visible), operation, tuple(links)), frames[at:end]))
        at = end
    return found


def openings(versions: Sequence[Version], links: Iterable[int]) -> set[tuple[int, bytes, int]]:
    """Return the (link, parent's key, time) entries that the lists of the parents need for a row of these versions.

    A link opens at the visible time of a version that sets it. While all that set it name one parent, it opens with
    the first; else each may open one, which of them do is for the reader's fold to say.
    """
    needed: set[tuple[int, bytes, int]] = set()
    for link in links:
        said = [(key, v.visible_time_us) for v in versions if (key := v.parent(link)) is not None]
        if len({key for key, _ in said}) == 1:
            said = [min(said)]
        needed.update((link, key, time_us) for key, time_us in said if key)
    return needed


def sure_opening(versions: Iterable[Version], link: int, parent: bytes) -> int | None:
    """Return when a link to this parent opened, for visible versions of which that is plain; None: fold to know.

    Plain is a row that was never deleted and whose every version that sets the link names this parent.
    """
    opened = None
    for version in versions:
        key = version.parent(link)
        if version.operation == DELETE or (key is not None and key != parent):
            return None
        if key is not None and (opened is None or version.visible_time_us < opened):
            opened = version.visible_time_us
    return opened
