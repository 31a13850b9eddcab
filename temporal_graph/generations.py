"""A folder of arenas, one a generation: which one serves, and who may write.

writer.lock      held by the one writer, freed by the kernel when it dies
current          the serving generation: 8 bytes, mapped by every reader, so that looking costs nothing
gen-<n>.arena    the arenas; those older than the serving one are unlinked when it takes over (a reader that
                 still maps one keeps it until it lets go)
gen-<n>.columns  a link to the file of the columns that lie on disk, where a table wants it (columns.py)
gen-<n>.complete up to when a generation holds all that its log held: 8 bytes, mapped by its readers
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from temporal_graph.columns import remove_columns
from temporal_graph.errors import ArenaError, WriterBusyError

_LOCK: Final = "writer.lock"
_CURRENT: Final = "current"
_WORD: Final = struct.Struct("<q")


class CurrentGeneration:
    """The number of the serving generation, 0 before the first; reading it is one load from mapped memory."""

    def __init__(self, folder: Path) -> None:
        path = folder / _CURRENT
        try:
            self._file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            raise ArenaError(f"no graph is served from {folder}: no writer has published one yet") from None
        self._map = mmap.mmap(self._file, _WORD.size)

    def get(self) -> int:
        """Return the serving generation."""
        return int(_WORD.unpack_from(self._map)[0])

    def set(self, generation: int) -> None:
        """Make `generation` the serving one: an aligned 8-byte store, seen whole by every reader."""
        _WORD.pack_into(self._map, 0, generation)

    def close(self) -> None:
        """Let go of the mapping."""
        self._map.close()
        os.close(self._file)


class CompleteTime:
    """Up to when a graph is complete, as its writer last knew: everything that the log held then is in the graph.

    One word of memory that the writer and all views share; 0 before the writer knows.
    """

    def __init__(self, memory: mmap.mmap) -> None:
        self._map = memory

    @classmethod
    def create(cls, path: Path | None) -> CompleteTime:
        """The word of a new generation; None keeps it in this process."""
        if path is None:
            return cls(mmap.mmap(-1, _WORD.size))
        path.write_bytes(_WORD.pack(0))
        with path.open("r+b") as file:
            return cls(mmap.mmap(file.fileno(), _WORD.size))

    @classmethod
    def attach(cls, path: Path) -> CompleteTime | None:
        """The word of a generation, to be read; None where its writer left none."""
        try:
            with path.open("rb") as file:
                return cls(mmap.mmap(file.fileno(), _WORD.size, access=mmap.ACCESS_READ))
        except FileNotFoundError:
            return None

    def get(self) -> int:
        """Return microseconds of the wall clock, or 0."""
        return int(_WORD.unpack_from(self._map)[0])

    def set(self, time_us: int) -> None:
        """Say it to all views: an aligned 8-byte store, seen whole by every reader."""
        _WORD.pack_into(self._map, 0, time_us)


class WriterLock:
    """The right to write in a folder: an open file description lock, so that it dies with its process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise WriterBusyError(f"{folder} has a writer already") from None
        current = folder / _CURRENT
        if not current.exists():
            current.with_suffix(".new").write_bytes(_WORD.pack(0))
            current.with_suffix(".new").rename(current)

    def next_arena(self) -> tuple[int, Path]:
        """Return the number and path of a new generation: one beyond every one there is."""
        numbers = [_number(path) for path in self._folder.glob("gen-*.arena")]
        current = CurrentGeneration(self._folder)
        generation = max([current.get(), *numbers]) + 1
        current.close()
        return generation, arena_path(self._folder, generation)

    def publish(self, generation: int) -> None:
        """Make the generation the serving one and unlink the others."""
        current = CurrentGeneration(self._folder)
        current.set(generation)
        current.close()
        # An arena goes before its columns: who finds the one without the other knows that both were replaced.
        for path in [*self._folder.glob("gen-*.arena"), *self._folder.glob("gen-*.complete")]:
            if _number(path) != generation:
                path.unlink(missing_ok=True)
                remove_columns(self._folder, _number(path))

    def discard(self, generation: int) -> None:
        """Remove the arena of a generation that no reader was ever sent to."""
        arena_path(self._folder, generation).unlink(missing_ok=True)
        complete_path(self._folder, generation).unlink(missing_ok=True)
        remove_columns(self._folder, generation)

    def close(self) -> None:
        """Give the right back."""
        os.close(self._file)


def arena_path(folder: Path, generation: int) -> Path:
    """Return the file of a generation."""
    return folder / f"gen-{generation}.arena"


def complete_path(folder: Path, generation: int) -> Path:
    """Return the file of a generation's complete time."""
    return folder / f"gen-{generation}.complete"


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("gen-"))
