"""Snapshots: images of a graph with the positions they hold, in a folder or an object store.

    <url>/<name>/graph.image           the arena's bytes, each page with its hash
    <url>/<name>/graph.image.columns   those of the columns' file, where tables keep their columns on disk
    <url>/<name>/manifest.json         what it holds; written last: without it there is no snapshot

A snapshot is made beside the others and renamed, or uploaded manifest last, so that none is ever seen half. `url` is a
path or whatever fsspec knows (s3://…, gs://…, memory://…); from a remote one an image is fetched to `cache` first.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, Final, Self

import fsspec
import structlog
from fsspec.implementations.local import LocalFileSystem

from temporal_graph.columns import COLUMNS_BYTES
from temporal_graph.errors import ImageRefusedError, TemporalGraphError
from temporal_graph.graph import ARENA_BYTES, TemporalGraph
from temporal_graph.image import Settled, columns_of_image, verify_image
from temporal_graph.object_store import why
from temporal_graph.schema import Schema

log = structlog.get_logger(__name__)

IMAGE: Final = "graph.image"
COLUMNS: Final = columns_of_image(Path(IMAGE)).name
MANIFEST: Final = "manifest.json"
MAKING: Final = ".making-"
"""What the name of a folder begins with while its snapshot is made; left behind, it is of a process that died."""
MANIFEST_VERSION: Final = 2


class SnapshotError(TemporalGraphError):
    """A snapshot that is not there, or can't be read, written or used."""


class _UnfinishedError(SnapshotError):
    """A folder that has no manifest, which is more than that it can't be read now."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a snapshot's manifest says.

    made_time_us, watermark_us: int64 microseconds since the epoch, UTC; generation and sequence: of the graph it is an
    image of; offsets: the next offset of each (topic, partition), from where the log goes on; erasures: the graph's
    count of them; bytes: of the graph; topic_ids: which topics the offsets are of, as far as their broker says.
    """

    name: str
    made_time_us: int
    watermark_us: int
    generation: int
    sequence: int
    offsets: Mapping[tuple[str, int], int]
    erasures: int
    bytes: int
    fingerprint: str
    topic_ids: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        offsets = [[topic, number, offset] for (topic, number), offset in sorted(self.offsets.items())]
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "offsets"}
        return {"version": MANIFEST_VERSION, **own, "offsets": offsets}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> Self:
        """Return what `to_dict` wrote; raises SnapshotError for anything else."""
        try:
            if written["version"] != MANIFEST_VERSION:
                raise SnapshotError(f"its manifest has version {written['version']}, expected {MANIFEST_VERSION}")
            offsets = {(str(topic), int(number)): int(offset) for topic, number, offset in written["offsets"]}
            given = {"topic_ids": {}, **written}  # which older snapshots lack
            own = {name: given[name] for name in cls.__dataclass_fields__ if name != "offsets"}
            own["topic_ids"] = {str(topic): str(its) for topic, its in own["topic_ids"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"its manifest is none: {error!r}") from error
        return cls(**own, offsets=offsets)


@dataclass(frozen=True, slots=True)
class Refused:
    """A snapshot that could not be used, and why; `unfinished`: it never was one, or is removed by half."""

    name: str
    reason: str
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """A graph made of a snapshot, and the newer ones that were refused before it."""

    graph: TemporalGraph
    snapshot: Snapshot
    refused: tuple[Refused, ...]


class Snapshots:
    """The snapshots of one place. Methods may be called from any thread; one process at a time makes and removes."""

    def __init__(
        self,
        url: str | Path,
        *,
        cache: Path | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """Images of a remote place are kept in `cache`, by default a folder of the temporary directory.

        Raises:
            SnapshotError: there is nothing on this machine that knows such a place.
        """
        self.url: Final = str(url)
        try:
            self._fs, root = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # an unknown protocol, a library that is not installed, or what that one raises
            raise SnapshotError(f"{self.url}: {why(error)}") from error
        self._root: Final = str(root).rstrip("/")
        self._local: Final = isinstance(self._fs, LocalFileSystem)
        self._cache = cache
        self._clock_us = clock_us

    def inventory(self) -> tuple[list[Snapshot], list[Refused]]:
        """Return the snapshots, the newest first, and those whose manifest can't be read.

        Raises:
            SnapshotError: the place can't be read.
        """
        found: list[Snapshot] = []
        refused: list[Refused] = []
        for name in self._names():
            try:
                found.append(self._read(name))
            except SnapshotError as error:
                refused.append(Refused(name, str(error), isinstance(error, _UnfinishedError)))
        return sorted(found, key=lambda each: (each.made_time_us, each.name), reverse=True), refused

    @contextmanager
    def image_of(self, snapshot: Snapshot) -> Iterator[Path]:
        """Give the path of a snapshot's image: its own, or that of a copy that goes with the block.

        Raises:
            SnapshotError: it is not there, or can't be fetched.
        """
        if self._local:
            path = Path(self._root) / snapshot.name / IMAGE
            if not path.is_file():
                raise SnapshotError(f"{path}: it is not there")
            yield path
            return
        with TemporaryDirectory(dir=self._cache, prefix="nowgraph-snapshot-") as folder:
            path, place = Path(folder) / IMAGE, f"{self._root}/{snapshot.name}"
            try:
                self._fs.get_file(f"{place}/{IMAGE}", str(path))
                with suppress(FileNotFoundError):  # of a graph whose columns are all in memory
                    self._fs.get_file(f"{place}/{COLUMNS}", str(columns_of_image(path)))
            except Exception as error:
                raise SnapshotError(f"{self.url}: {snapshot.name} can't be fetched: {why(error)}") from error
            yield path

    def making(self) -> Path:
        """Return a new folder in which an image may be made that `add` then takes.

        What processes that died have left goes first: it may be what fills the disk.

        Raises:
            SnapshotError: there is no room for it.
        """
        try:
            self._remove(self._left(self.inventory()[1]))
            if self._local:
                Path(self._root).mkdir(parents=True, exist_ok=True)
            base = Path(self._root) if self._local else self._cache
            return Path(mkdtemp(dir=base, prefix=MAKING))
        except OSError as error:
            raise SnapshotError(f"{self.url}: no snapshot can be made there: {error}") from error

    def add(
        self,
        folder: Path,
        settled: Settled,
        *,
        size: int,
        fingerprint: str,
        topic_ids: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """Make a snapshot of the image in a folder of `making`, which is gone then.

        Raises:
            SnapshotError: it can't be written; the snapshots that are there stay.
        """
        # A clock that was set back must not make the newest one look older than those before it.
        made_us = max([self._clock_us(), *(each.made_time_us + 1 for each in self.inventory()[0][:1])])
        ids = dict(topic_ids or {})
        return self._add(folder, settled, size=size, fingerprint=fingerprint, topic_ids=ids, made_us=made_us)

    def replace(self, old: Snapshot, folder: Path, settled: Settled, *, size: int, fingerprint: str) -> Snapshot:
        """Put a snapshot into the place of another, between the same neighbors, and remove that; else as `add`."""
        made_us = old.made_time_us + 1
        name = _name(made_us, settled.position.sequence)
        self._remove([name])  # of a process that died before it removed the old one
        ids = old.topic_ids
        made = self._add(folder, settled, size=size, fingerprint=fingerprint, topic_ids=ids, made_us=made_us)
        self._remove([old.name])
        return made

    def _add(
        self,
        folder: Path,
        settled: Settled,
        *,
        size: int,
        fingerprint: str,
        topic_ids: Mapping[str, str],
        made_us: int,
    ) -> Snapshot:
        position = settled.position
        snapshot = Snapshot(
            name=_name(made_us, position.sequence),
            made_time_us=made_us,
            watermark_us=settled.watermark_us,
            generation=position.generation,
            sequence=position.sequence,
            offsets=position.offsets,
            erasures=settled.erasures,
            bytes=size,
            fingerprint=fingerprint,
            topic_ids=topic_ids,
        )
        try:
            _write(folder / MANIFEST, json.dumps(snapshot.to_dict(), indent=2))
            if self._local:
                folder.rename(Path(self._root) / snapshot.name)
                _keep_names(Path(self._root))
            else:
                for name in (IMAGE, *([COLUMNS] if (folder / COLUMNS).exists() else []), MANIFEST):
                    self._fs.put_file(str(folder / name), f"{self._root}/{snapshot.name}/{name}")
        except Exception as error:
            raise SnapshotError(f"{self.url}: {snapshot.name} can't be written: {why(error)}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return snapshot

    def keep(self, count: int) -> list[str]:
        """Remove all but the newest `count`, and what processes that died have left; return the names.

        Those go too that hold what the newest has erased, once every byte of the newest was found to be good.
        A snapshot whose manifest is there but can't be used stays: another version of this package may have made it.
        """
        found, refused = self.inventory()
        stale = [each.name for each in found[1:count] if each.erasures < found[0].erasures]
        if stale:
            self.verify(found[0])
        names = [*(each.name for each in found[count:]), *stale, *self._left(refused)]
        self._remove(names)
        return names

    def _left(self, refused: Iterable[Refused]) -> list[str]:
        """The names of what was not made, or not removed, to the end; what can't be read now may be a good one."""
        names = [each.name for each in refused if each.unfinished]
        if self._local and Path(self._root).is_dir():
            names += [path.name for path in Path(self._root).glob(f"{MAKING}*")]
        return names

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                # The manifest first: from then on there is no such snapshot, whatever happens to the rest.
                with suppress(FileNotFoundError):
                    self._fs.rm_file(f"{self._root}/{name}/{MANIFEST}")
                with suppress(FileNotFoundError):
                    self._fs.rm(f"{self._root}/{name}", recursive=True)
            except Exception as error:
                raise SnapshotError(f"{self.url}: {name} can't be removed: {why(error)}") from error

    def verify(self, snapshot: Snapshot) -> None:
        """Check every byte of a snapshot. Raises SnapshotError that says what is damaged."""
        with self.image_of(snapshot) as path:
            try:
                verify_image(path)
            except ImageRefusedError as error:
                raise SnapshotError(str(error)) from error

    def restore(
        self,
        schema: Schema,
        *,
        arena: Path | None = None,
        arena_bytes: int = ARENA_BYTES,
        columns: Path | None = None,
        columns_bytes: int = COLUMNS_BYTES,
        publish: bool = True,
        standby: bool = False,
        until: Mapping[tuple[str, int], int] | None = None,
    ) -> Restored | None:
        """Make a graph of the newest snapshot that can be used; None where there is none. Arguments as of `create`.

        A snapshot that is damaged, or has what the schema lacks, is refused with its reason, and the one before is
        tried; one with fewer tables, columns or links, or with columns elsewhere, is taken over. `until` leaves out
        those that hold a record at or beyond these offsets, or of another partition.

        Raises:
            SnapshotError: the place can't be read.
            ArenaFullError: the arena is too small.
            ArenaError: another writer has the arena.
        """
        found, refused = self.inventory()
        for snapshot in found:
            if until is not None and any(at > until.get(place, 0) for place, at in snapshot.offsets.items()):
                continue
            try:
                with self.image_of(snapshot) as path:
                    graph = TemporalGraph.create(
                        schema,
                        arena=arena,
                        arena_bytes=arena_bytes,
                        columns=columns,
                        columns_bytes=columns_bytes,
                        publish=publish,
                        image=path,
                        standby=standby,
                    )
            except (SnapshotError, ImageRefusedError) as error:
                refused.append(Refused(snapshot.name, str(error)))
                log.warning("snapshot_refused", snapshot=snapshot.name, reason=str(error))
                continue
            graph.topic_ids.update(snapshot.topic_ids)
            if graph.migrated:
                log.info("snapshot_migrated", snapshot=snapshot.name)
            return Restored(graph, snapshot, tuple(refused))
        return None

    def _names(self) -> list[str]:
        try:
            self._fs.invalidate_cache()  # object stores remember listings, and other processes make and remove, too
            entries = self._fs.ls(self._root, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise SnapshotError(f"{self.url}: it can't be read: {why(error)}") from error
        folders = [str(each["name"]) for each in entries if each["type"] == "directory"]
        names = [folder.rstrip("/").rpartition("/")[2] for folder in folders]
        return [name for name in names if not name.startswith(MAKING)]

    def _read(self, name: str) -> Snapshot:
        try:
            text = self._fs.cat_file(f"{self._root}/{name}/{MANIFEST}")
        except FileNotFoundError as error:
            raise _UnfinishedError("it has no manifest") from error
        except Exception as error:
            raise SnapshotError(f"its manifest can't be read: {why(error)}") from error
        try:
            written = json.loads(text)
        except ValueError as error:
            raise SnapshotError(f"its manifest is none: {error}") from error
        if not isinstance(written, dict):
            raise SnapshotError("its manifest is none")
        snapshot = Snapshot.from_dict(written)
        if snapshot.name != name:
            raise SnapshotError(f"its manifest is of {snapshot.name}")
        return snapshot


def _write(path: Path, text: str) -> None:
    """Writes a file that the disk has when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _keep_names(path.parent)


def _keep_names(folder: Path) -> None:
    """Waits for the disk to have the names in a folder: older snapshots go only after that."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _name(made_us: int, sequence: int) -> str:
    at = datetime.fromtimestamp(made_us / 1e6, UTC)
    return f"{at:%Y%m%dT%H%M%S}.{made_us % 1_000_000:06d}Z-{sequence}"
