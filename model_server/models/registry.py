"""A folder of models, local or behind a URL that fsspec knows: versions that never change, and channels that do.

    REGISTRY/<task>/<version>/checkpoint.json, weights.safetensors   as training left them
    REGISTRY/<task>/<version>/golden.npz                             requests with the answers they must get
    REGISTRY/<task>/<version>/manifest.json                          sizes and SHA-256; written last: no version without
    REGISTRY/<task>/channels/<channel>.json                          which versions are served

A version is named by the hash of all that decides its answers, so its name cannot stand for another model.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem

from graph_transformer.checkpoint import WEIGHTS_NAME
from model_server.config import LIVE
from model_server.models.channel import Channel
from model_server.models.errors import ModelRefused, Reason, RegistryError
from temporal_graph.object_store import why

FORMAT = 1
MANIFEST_NAME = "manifest.json"
GOLDEN_NAME = "golden.npz"
CHANNELS = "channels"
# Versions of one task that are kept on this machine of a registry that lies elsewhere.
CACHE_LIMIT = 8
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file of a version must be."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version says of itself; `golden` is how many requests it is verified with, 0 without any."""

    task: str
    version: str
    kind: str
    fingerprint: str
    pushed_at: str
    golden: int
    metrics: Mapping[str, Any]
    files: Mapping[str, FileEntry]

    def to_json(self) -> str:
        """The file's text."""
        files = {name: {"sha256": one.sha256, "bytes": one.size_bytes} for name, one in self.files.items()}
        rest = {name: getattr(self, name) for name in _PLAIN}
        return json.dumps({"format": FORMAT, **rest, "metrics": self.metrics, "files": files}, indent=1)

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Self:
        """Reads a file's text. Raises ModelRefused for what is none."""
        try:
            found: Mapping[str, Any] = json.loads(text)
            if found["format"] != FORMAT:
                raise ModelRefused(Reason.MISMATCH, f"{where} has format {found['format']}, expected {FORMAT}")
            files = {
                _plain_name(name): FileEntry(str(one["sha256"]), int(one["bytes"]))
                for name, one in found["files"].items()
            }
            return cls(**{name: found[name] for name in _PLAIN}, metrics=found["metrics"], files=files)
        except (ValueError, KeyError, TypeError) as error:
            raise ModelRefused(Reason.CORRUPT, f"{where} is no manifest: {error!r}") from None


_PLAIN = ("task", "version", "kind", "fingerprint", "pushed_at", "golden")


class Registry:
    """Reads and writes one registry. Not for two threads at once; any number of processes."""

    def __init__(self, url: str | Path, *, cache: Path | None = None) -> None:
        """`cache` is where versions of a registry that lies elsewhere are kept; by default a folder in the user's."""
        self.url = str(url)
        try:
            self._fs, root = fsspec.core.url_to_fs(self.url)
        except Exception as error:  # an unknown protocol, a library that is not installed, or what that one raises
            raise RegistryError(f"{self.url}: {why(error)}") from error
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)
        self._cache = cache if cache is not None else Path.home() / ".cache" / "nowgraph" / "models"

    def push(self, files: Mapping[str, Path], manifest: Manifest) -> bool:
        """Adds a version from its files by name; False where it is there already, which changes nothing.

        Raises RegistryError for a version that is there with other files: versions never change; and where it can't be
        written. ModelRefused where the registry can't be read.
        """
        at = self._path(manifest.task, manifest.version)
        if self._exists(f"{at}/{MANIFEST_NAME}"):
            there = self.manifest(manifest.task, manifest.version)
            if there.files[WEIGHTS_NAME] != manifest.files[WEIGHTS_NAME]:
                raise RegistryError(f"{at}: version {manifest.version} is there with other files")
            return False
        try:
            self._fs.makedirs(at, exist_ok=True)
            for name in manifest.files:
                self._fs.put_file(str(files[name]), f"{at}/{name}")
        except Exception as error:
            raise RegistryError(f"{at}: it can't be written: {why(error)}") from error
        self._write(f"{at}/{MANIFEST_NAME}", manifest.to_json())
        return True

    def tasks(self) -> list[str]:
        """The tasks that have a version or a channel, by name."""
        return sorted(self._names(self._root))

    def versions(self, task: str) -> list[Manifest]:
        """Every whole version of a task, the newest first; one that cannot be read is left out."""
        found = []
        for name in self._names(f"{self._root}/{task}"):
            if name != CHANNELS and self._exists(f"{self._path(task, name)}/{MANIFEST_NAME}"):
                try:
                    found.append(self.manifest(task, name))
                except ModelRefused:
                    continue
        return sorted(found, key=lambda one: (one.pushed_at, one.version), reverse=True)

    def named(self, task: str, prefix: str) -> str:
        """The version that begins so. Raises RegistryError where there is none, or more than one."""
        found = [one.version for one in self.versions(task) if one.version.startswith(prefix)]
        if len(found) != 1:
            known = ", ".join(one.version for one in self.versions(task)) or "none"
            what = f"no version of {task!r} begins with" if not found else f"several versions of {task!r} begin with"
            raise RegistryError(f"{self.url}: {what} {prefix!r} (there are: {known})")
        return found[0]

    def manifest(self, task: str, version: str) -> Manifest:
        """What a version says of itself. Raises ModelRefused where it is not there or not whole."""
        where = f"{self._path(task, version)}/{MANIFEST_NAME}"
        found = Manifest.from_json(self._read(where, f"{task} has no version {version}"), where)
        if (found.task, found.version) != (task, version):
            raise ModelRefused(Reason.CORRUPT, f"{where} is of {found.task} {found.version}")
        return found

    def fetch(self, task: str, version: str) -> tuple[Path, Manifest]:
        """A folder on this machine with a version's files, each as long and with the SHA-256 that its manifest says.

        Raises ModelRefused where a file is missing, truncated or altered, or the registry cannot be read.
        """
        at = self._path(task, version)
        if self._local:
            manifest = self.manifest(task, version)
            folder = Path(at)
            check_files(folder, manifest)
            return folder, manifest
        folder = self._cache / hashlib.sha256(self.url.encode()).hexdigest()[:12] / task / version
        found = _kept(folder, task, version)
        if found is None:  # not there yet, or spoiled on this machine
            found = self.manifest(task, version)
            self._download(at, folder, found)
        folder.touch()
        _forget_old(folder.parent)
        return folder, found

    def channel(self, task: str, name: str = LIVE) -> Channel:
        """What a channel says. Raises RegistryError where there is none, ModelRefused where it cannot be read."""
        path = self._channel_path(task, name)
        if not self._exists(path):
            known = ", ".join(self.tasks()) or "none"
            raise RegistryError(
                f"{self.url}: task {task!r} has no channel {name!r} (tasks here: {known}); "
                f"`nowgraph models promote {task} VERSION` makes it"
            )
        return Channel.from_json(self._read(path, f"{task} has no channel {name}"))

    def has_channel(self, task: str, name: str = LIVE) -> bool:
        """Whether a channel was ever promoted to."""
        return self._exists(self._channel_path(task, name))

    def change(self, task: str, name: str, step: Callable[[Channel | None], Channel]) -> Channel:
        """Replaces what a channel says by what `step` makes of it, as a whole; every version must be there.

        One change at a time on one machine; behind a URL the last of two changes at the same moment stands.
        """
        path = self._channel_path(task, name)
        with self._alone(path):
            before = self.channel(task, name) if self._exists(path) else None
            after = step(before)
            for version in after.versions:
                if before is None or version not in before.versions:
                    self.manifest(task, version)
            if self._local:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._write(path, after.to_json())
        return after

    def _download(self, at: str, folder: Path, manifest: Manifest) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name in manifest.files:
                try:
                    self._fs.get_file(f"{at}/{name}", str(beside / name))
                except FileNotFoundError:
                    raise ModelRefused(Reason.CORRUPT, f"{at}/{name} is missing") from None
                except Exception as error:
                    raise ModelRefused(Reason.UNAVAILABLE, f"{at}/{name}: {why(error)}") from error
            check_files(beside, manifest)
            (beside / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            beside.rename(folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _path(self, task: str, version: str) -> str:
        return f"{self._root}/{_plain_name(task)}/{_plain_name(version)}"

    def _channel_path(self, task: str, name: str) -> str:
        return f"{self._root}/{_plain_name(task)}/{CHANNELS}/{_plain_name(name)}.json"

    def _exists(self, path: str) -> bool:
        try:
            self._fs.invalidate_cache()  # a channel that another process wrote a moment ago
            return bool(self._fs.exists(path))
        except Exception as error:
            raise ModelRefused(Reason.UNAVAILABLE, f"{path}: {why(error)}") from error

    def _names(self, path: str) -> list[str]:
        try:
            self._fs.invalidate_cache()
            found = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        except Exception as error:
            raise ModelRefused(Reason.UNAVAILABLE, f"{path}: {why(error)}") from error
        return [
            name
            for one in found
            if one["type"] == "directory" and not (name := one["name"].rstrip("/").rsplit("/", 1)[-1]).startswith(".")
        ]

    def _read(self, path: str, missing: str) -> bytes:
        try:
            data: bytes = self._fs.cat_file(path)
        except FileNotFoundError:
            raise ModelRefused(Reason.UNAVAILABLE, f"{self.url}: {missing}") from None
        except Exception as error:
            raise ModelRefused(Reason.UNAVAILABLE, f"{path}: {why(error)}") from error
        return data

    def _write(self, path: str, text: str) -> None:
        """Replaces a file as a whole: a reader sees the old one or the new one."""
        if not self._local:
            try:
                self._fs.pipe_file(path, text.encode())  # one object, put at once
            except Exception as error:
                raise RegistryError(f"{path}: it can't be written: {why(error)}") from error
            return
        descriptor, beside = tempfile.mkstemp(prefix=".", dir=Path(path).parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).chmod(0o644)
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise

    @contextmanager
    def _alone(self, path: str) -> Iterator[None]:
        if not self._local:
            yield
            return
        folder = Path(path).parent
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def entries_of(files: Mapping[str, Path]) -> dict[str, FileEntry]:
    """What a manifest says of files by name."""
    return {name: FileEntry(_sha256(path), path.stat().st_size) for name, path in files.items()}


def now() -> str:
    """The time as a manifest says it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_files(folder: Path, manifest: Manifest) -> None:
    """Raises ModelRefused unless each file is there, as long and with the SHA-256 that the manifest says."""
    for name, entry in manifest.files.items():
        path = folder / name
        try:
            size_bytes = path.stat().st_size
            if size_bytes != entry.size_bytes:
                raise ModelRefused(Reason.CORRUPT, f"{path} has {size_bytes} bytes, expected {entry.size_bytes}")
            if _sha256(path) != entry.sha256:
                raise ModelRefused(Reason.CORRUPT, f"{path} is not the file that was pushed: its SHA-256 differs")
        except OSError as error:
            raise ModelRefused(Reason.CORRUPT, f"{path}: {error.strerror}") from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _plain_name(name: str) -> str:
    """A name that stays in its folder."""
    if not name or "/" in name or name.startswith("."):
        raise RegistryError(f"{name!r}: expected a name without slash, not beginning with a dot")
    return name


def _kept(folder: Path, task: str, version: str) -> Manifest | None:
    """What this machine has of a version, if it is whole: versions never change, so nobody need be asked."""
    try:
        manifest = Manifest.from_json((folder / MANIFEST_NAME).read_bytes(), str(folder))
        check_files(folder, manifest)
    except (OSError, ModelRefused):
        return None
    return manifest if (manifest.task, manifest.version) == (task, version) else None


def _forget_old(folder: Path) -> None:
    versions = sorted((one for one in folder.iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime)
    for old in versions[:-CACHE_LIMIT]:
        shutil.rmtree(old, ignore_errors=True)
