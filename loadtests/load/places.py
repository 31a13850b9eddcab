"""Where benches keep what they make: in memory where the system has a file system there, and on disk out of memory."""

from __future__ import annotations

import os
from pathlib import Path


def memory_folder() -> Path | None:
    """The folder whose files are memory; None where there is none, which means the usual one for temporary files."""
    folder = Path("/dev/shm")
    return folder if folder.is_dir() else None


def forget_pages(path: Path) -> None:
    """Takes a file that nobody maps out of the page cache, where its file system lets us."""
    file = os.open(path, os.O_RDONLY)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
