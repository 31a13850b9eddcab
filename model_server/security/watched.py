"""Files that may be replaced while they are used: the newest that can be read is in force.

    changed on disk? ─► load ─┬─► good: in force from now on
                              └─► bad: logged and counted, what was in force stays

Two files that belong together (a certificate and its key) are replaced one after the other; between the two they do not
fit, are refused, and are looked at again once one of them changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from model_server.errors import NotConfiguredError
from model_server.security.metrics import SecurityMetrics

log = structlog.get_logger(__name__)

Value = TypeVar("Value")
Stamp = tuple[tuple[int, int, int] | None, ...]


class Watched(Generic[Value]):
    """What some files say. May be used from any thread."""

    def __init__(
        self,
        name: str,
        paths: Sequence[Path],
        load: Callable[[], Value],
        metrics: SecurityMetrics,
        *,
        check_s: float = 0.0,
    ) -> None:
        """Loads at once and raises what `load` raises; `check_s` is how often at most the disk is asked for changes."""
        self._name = name
        self._paths = tuple(paths)
        self._load = load
        self._metrics = metrics
        self._check_s = check_s
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._next_s = time.monotonic() + check_s
        self.version = 0
        self.value = load()

    def changed(self) -> bool:
        """Whether it is time to `refresh`: one look at the disk, at most every `check_s`."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return False
        self._next_s = now_s + self._check_s
        return self._stamp() != self._seen

    def refresh(self) -> bool:
        """Loads what changed; returns whether `value` is another one now. What `load` raises is logged."""
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._seen = stamp  # before the files are read: what changes meanwhile is seen the next time
            try:
                value = self._load()
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the new one, the old one is in force
                self._metrics.reloads.labels(self._name, "refused").inc()
                # Others' words might quote the file.
                reason = str(error) if isinstance(error, NotConfiguredError) else type(error).__name__
                log.error("security_file_refused", file=self._name, reason=reason)  # noqa: TRY400 - a trace quotes too
                return False
            self.value = value
            self.version += 1
            self._metrics.reloads.labels(self._name, "loaded").inc()
            log.info("security_file_loaded", file=self._name)
            return True

    def _stamp(self) -> Stamp:
        return tuple(_stamp_of(path) for path in self._paths)


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced, symbolic links followed; None for a file that is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
