"""Protobuf's wire format for a whole column of messages at once: numpy writes the k-th byte of all rows together.

    pieces (constants, varints, doubles, texts) ─► lengths of every row ─► one buffer ─► bytes of each row

A message is a list of pieces; each knows its length in every row, 0 where a mask leaves it out. Lengths come first, so
the buffer is allocated once and nothing is moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Lengths = NDArray[np.int64]
Mask = NDArray[np.bool_] | None


class Piece(Protocol):
    """A part of every row's bytes. `lengths` int64 [N]: of this part, in bytes."""

    lengths: Lengths

    def write(self, buffer: NDArray[np.uint8], at: Lengths) -> None:
        """Write row i's part at byte `at[i]`."""


class Constant:
    """The same bytes in every row of the mask."""

    def __init__(self, content: bytes, rows: int, mask: Mask = None) -> None:
        self._content = content
        self._mask = mask
        self.lengths = np.full(rows, len(content), np.int64) if mask is None else mask * np.int64(len(content))

    def write(self, buffer: NDArray[np.uint8], at: Lengths) -> None:
        """Write the constant, one scatter a byte."""
        start = at if self._mask is None else at[self._mask]
        for k, byte in enumerate(self._content):
            buffer[start + k] = byte


class Varints:
    """A varint in every row of the mask; `values` int64 [N], negative ones in two's complement."""

    def __init__(self, values: NDArray[np.int64], mask: Mask = None) -> None:
        self._values = values.astype(np.int64, copy=False).view(np.uint64)
        self._mask = mask
        lengths = np.ones(len(values), np.int64)
        largest = int(self._values.max(initial=0))
        for bits in range(7, 64, 7):
            if largest >> bits == 0:
                break
            lengths += self._values >= np.uint64(1 << bits)
        self.lengths = lengths if mask is None else lengths * mask

    def write(self, buffer: NDArray[np.uint8], at: Lengths) -> None:
        """Write seven bits of all rows at a time; rows that are done drop out."""
        rest = self._values if self._mask is None else self._values[self._mask]
        position = at if self._mask is None else at[self._mask]
        while rest.size:
            low = (rest & np.uint64(127)).astype(np.uint8)
            rest = rest >> np.uint64(7)
            more = rest != 0
            buffer[position] = low | (more.view(np.uint8) << 7)
            if more.all():
                position = position + 1
            else:
                rest, position = rest[more], position[more] + 1


class Doubles:
    """Eight bytes in every row of the mask; `values` float64 [N]."""

    def __init__(self, values: NDArray[np.float64], mask: Mask = None) -> None:
        self._bytes = np.ascontiguousarray(values, dtype="<f8").view(np.uint8).reshape(-1, 8)
        self._mask = mask
        self.lengths = np.full(len(values), 8, np.int64) if mask is None else mask * np.int64(8)

    def write(self, buffer: NDArray[np.uint8], at: Lengths) -> None:
        """Write the doubles, little-endian."""
        start, content = (at, self._bytes) if self._mask is None else (at[self._mask], self._bytes[self._mask])
        buffer[start[:, None] + np.arange(8)] = content


class Blobs:
    """Row i's bytes are `content[offsets[i]:offsets[i + 1]]`; `offsets` int64 [N + 1], empty where there is none."""

    def __init__(self, content: NDArray[np.uint8], offsets: Lengths) -> None:
        self._content = content
        self._offsets = offsets
        self.lengths = np.diff(offsets)

    @classmethod
    def of(cls, values: Sequence[bytes]) -> Blobs:
        """Take bytes of Python."""
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(values), np.uint8), offsets)

    def write(self, buffer: NDArray[np.uint8], at: Lengths) -> None:
        """Copy all rows' bytes with one scatter."""
        first, last = int(self._offsets[0]), int(self._offsets[-1])
        shift = np.repeat(at - self._offsets[:-1], self.lengths)
        buffer[np.arange(first, last) + shift] = self._content[first:last]


def nested(tag: bytes, content: Sequence[Piece], rows: int, mask: Mask = None) -> list[Piece]:
    """Wrap pieces as a length-delimited field; all of them must share the mask."""
    return [Constant(tag, rows, mask), Varints(total_lengths(content, rows), mask), *content]


def total_lengths(pieces: Sequence[Piece], rows: int) -> Lengths:
    """Return the bytes of each row, int64 [N]."""
    total = np.zeros(rows, np.int64)
    for piece in pieces:
        total += piece.lengths
    return total


def assemble(pieces: Sequence[Piece], rows: int) -> list[bytes]:
    """Return the bytes of every row: its pieces, in order."""
    ends = np.cumsum(total_lengths(pieces, rows))
    buffer = np.empty(int(ends[-1]) if rows else 0, np.uint8)
    at = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if rows else ends
    for piece in pieces:
        piece.write(buffer, at)
        at = at + piece.lengths
    whole, bounds = buffer.tobytes(), [0, *ends.tolist()]
    return [whole[start:end] for start, end in pairwise(bounds)]
