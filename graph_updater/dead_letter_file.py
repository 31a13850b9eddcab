"""Dead letters without a broker: one JSON object a line, exact bytes in base64, on disk before positions pass them."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

from stream.batch import DeadLetter

REASONS_MAX = 1_000
"""Details that are counted apart: some name a value, and differ from letter to letter."""


class DeadLetterFile:
    """Appends to `path`; the file is made with its first letter. Use as a context manager, or `close` it.

    `count` is the number of letters appended by this object, `reasons` that number by detail, of so many details.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self._file: Any = None

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Writes the letters; raises OSError when the file cannot be written."""
        if not letters:
            return
        if self._file is None:
            self._file = self.path.open("ab")
        for letter in letters:
            self._file.write(orjson.dumps(_document(letter), option=orjson.OPT_APPEND_NEWLINE))
            if letter.detail in self.reasons or len(self.reasons) < REASONS_MAX:
                self.reasons[letter.detail] += 1
        self.count += len(letters)

    def flush(self, timeout_s: float) -> None:  # noqa: ARG002  # a disk has no deadline to keep
        """Returns once the letters are on disk; raises OSError when they cannot be put there."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _document(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp_us": letter.timestamp_us,
        "reason": letter.reason,
        "detail": letter.detail,
        "key": _text(letter.key),
        "value": _text(letter.value),
    }


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
