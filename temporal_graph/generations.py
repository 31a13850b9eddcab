"""A folder of arenas, one a generation: which one serves, and who may write.

writer.lock      held by the one writer, freed by the kernel when it dies
current          the serving generation: 8 bytes, mapped by every reader, so that looking costs nothing
gen-<n>.arena    the arenas; those older than the serving one are unlinked when it takes over (a reader that
                 still maps one keeps it until it lets go), newer ones are of those who stand by
gen-<n>.columns  a link to the file of the columns that lie on disk, where a table wants it (columns.py)
gen-<n>.complete up to when a generation holds all that its log held: 8 bytes, mapped by its readers; locked by
                 the process that builds it, so that what a dead one left is known
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from temporal_graph.columns import remove_columns
from temporal_graph.errors import ArenaError, OvertakenError, WriterBusyError

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
    def create(cls, generation: Generation | None) -> CompleteTime:
        """The word of a new generation; None keeps it in this process."""
        if generation is None:
            return cls(mmap.mmap(-1, _WORD.size))
        with generation.complete.open("r+b") as file:
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


class Generation:
    """A number of a folder, taken for the arena that this process builds; the kernel gives it back when that dies."""

    def __init__(self, folder: Path) -> None:
        """Takes one beyond every one there is, and removes what dead builders left."""
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        self.folder: Final = folder
        self.number, self._file = _taken(folder)
        self.arena: Final = arena_path(folder, self.number)
        self.complete: Final = complete_path(folder, self.number)

    def check(self) -> None:
        """Raise OvertakenError where readers are sent to a later one: this one can never serve."""
        serving = _serving(self.folder)
        if serving > self.number:
            raise OvertakenError(f"{self.folder}: generation {serving} serves, so {self.number} never will")

    def discard(self) -> None:
        """Remove the files: no reader was ever sent to them."""
        _remove(self.folder, self.number)

    def close(self) -> None:
        """Give the number back; the files stay."""
        os.close(self._file)


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

    def publish(self, generation: int) -> None:
        """Make the generation the serving one and unlink all others but those that stand by to follow it."""
        current = CurrentGeneration(self._folder)
        current.set(generation)
        current.close()
        for number in _numbers(self._folder):
            if number < generation:
                _remove(self._folder, number)
        _sweep(self._folder)

    def close(self) -> None:
        """Give the right back."""
        os.close(self._file)


def arena_path(folder: Path, generation: int) -> Path:
    """Return the file of a generation."""
    return folder / f"gen-{generation}.arena"


def complete_path(folder: Path, generation: int) -> Path:
    """Return the file of a generation's complete time."""
    return folder / f"gen-{generation}.complete"


def _serving(folder: Path) -> int:
    """The serving generation, 0 before the first."""
    try:
        current = CurrentGeneration(folder)
    except ArenaError:
        return 0
    serving = current.get()
    current.close()
    return serving


def _numbers(folder: Path) -> set[int]:
    return {int(path.stem.removeprefix("gen-")) for path in folder.glob("gen-*.*")}


def _taken(folder: Path) -> tuple[int, int]:
    """A number beyond all others and its locked file."""
    while True:
        number = max([_serving(folder), *_numbers(folder)]) + 1
        try:
            file = os.open(complete_path(folder, number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            continue  # somebody else took it between the two looks
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_nlink > 0:
            os.write(file, _WORD.pack(0))
            return number, file
        os.close(file)  # swept away before it was locked


def _sweep(folder: Path) -> None:
    """Removes the generations beyond the serving one that nobody builds any more."""
    serving = _serving(folder)
    for number in _numbers(folder):
        if number > serving and _abandoned(complete_path(folder, number)):
            _remove(folder, number)


def _abandoned(path: Path) -> bool:
    """Whether nobody holds the lock of a generation's file."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)  # while it is locked: whoever has just made it sees that it is gone
        return True
    finally:
        os.close(file)


def _remove(folder: Path, number: int) -> None:
    """An arena goes before its columns: who finds the one without the other knows that both were removed."""
    arena_path(folder, number).unlink(missing_ok=True)
    remove_columns(folder, number)
    for path in folder.glob(f"gen-{number}.*"):
        path.unlink(missing_ok=True)
