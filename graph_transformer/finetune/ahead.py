"""Work done ahead of its reader in background threads, handed over in order.

    work 0, 1, 2 … ─► thread 1 ─┐
                   ─► thread 2 ─┴─► ready, at most AHEAD items ─► reader, in the order of the work

Which thread made an item, and when, decides nothing: item n is a function of n and its work alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

W = TypeVar("W")
T = TypeVar("T")

AHEAD = 4
"""Items ready before the reader asks, beside one in the hands of each thread: hides a slow one, little memory."""


class Ahead(Generic[W, T]):
    """Iterates over `maker(n, work)` for the work of `work`, from number `first` on; a context, so that threads end.

    One thread per maker: each owns what it works with. An error is raised where its item would have come.
    """

    def __init__(self, makers: Sequence[Callable[[int, W], T]], work: Iterator[W], *, first: int = 0) -> None:
        self._work, self._taken, self._given = work, first, first
        self._most = AHEAD + len(makers)
        self._ready: dict[int, T | BaseException] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self.waited_s = 0.0
        """Seconds the reader has waited for items that were not ready."""
        self._threads = [
            threading.Thread(target=self._run, args=(maker,), name=f"finetune-feed-{index}", daemon=True)
            for index, maker in enumerate(makers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def __iter__(self) -> Iterator[T]:
        while True:
            began = time.perf_counter()
            with self._changed:
                self._changed.wait_for(lambda: self._given in self._ready)
                item = self._ready.pop(self._given)
                self._given += 1
                self._changed.notify_all()
            self.waited_s += time.perf_counter() - began
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self, maker: Callable[[int, W], T]) -> None:
        while (taken := self._take()) is not None:
            number, work = taken
            try:
                item: T | BaseException = work if isinstance(work, BaseException) else maker(number, work)
            except BaseException as error:  # noqa: BLE001  # raised again where the reader waits
                item = error
            with self._changed:
                self._ready[number] = item
                self._changed.notify_all()

    def _take(self) -> tuple[int, W | BaseException] | None:
        """Return the next number and its work, once there is room for it; None when the reader has left."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._taken - self._given < self._most)
            if self._stopped:
                return None
            number = self._taken
            self._taken += 1
            try:
                return number, next(self._work)
            except BaseException as error:  # noqa: BLE001  # likewise
                return number, error
