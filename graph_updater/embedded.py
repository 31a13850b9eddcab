"""The updater on a thread of the process that also serves: the same code as the process of its own."""

from __future__ import annotations

import gc
import threading
from types import TracebackType
from typing import Self

import structlog

from graph_updater.updater import Updater

log = structlog.get_logger(__name__)


class UpdaterThread:
    """Runs an updater between `start` and `stop`, or as a context manager; `check` raises what ended it early."""

    def __init__(self, updater: Updater) -> None:
        self.updater = updater
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="nowgraph-updater", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self._thread.is_alive()

    def start(self) -> Self:
        """Begins to apply events; until `stop`, the garbage collector leaves alone what is loaded by now.

        Records on their way make it look through everything now and then: for the libraries alone that is a tenth of
        a second in which nothing is applied.
        """
        gc.freeze()
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stops after the batch in hand, closes the sources, and raises what had ended the updater before."""
        self.updater.stop()
        if self._thread.ident is not None:
            self._thread.join()
            gc.unfreeze()
        self.updater.close()
        self.check()

    def check(self) -> None:
        """Raises the error that ended the updater; nothing while it runs or after it was stopped."""
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            self.updater.run()
        except BaseException as error:  # kept and raised by check(): a thread has nobody else to tell
            self._error = error
            log.exception("the updater stopped")
