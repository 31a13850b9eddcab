"""Where the columns' file of a generation lies: the cells of the tables whose `storage` is the disk.

<columns>/<the arena folder's path>/gen-<n>.columns   the file; the arena folder has a link of the same name to it

The path in the middle keeps the arenas of a machine apart. A file whose arena is gone, as one in memory is after the
machine was started anew, is removed by the next writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from temporal_graph.errors import ArenaError

COLUMNS_BYTES: Final = 256 << 30
"""The default size of a columns' file: sparse, blocks are taken as it fills."""


def columns_link(folder: Path, generation: int) -> Path:
    """Return the link by which readers find a generation's columns' file; there is none where all lie in memory."""
    return folder / f"gen-{generation}.columns"


def remove_columns(folder: Path, generation: int) -> None:
    """Remove a generation's columns' file and the link to it; who maps it keeps it until they let go."""
    link = columns_link(folder, generation)
    if link.is_symlink():
        link.readlink().unlink(missing_ok=True)
        link.unlink(missing_ok=True)


@contextmanager
def columns_file(
    tables: Sequence[str], columns: Path | None, folder: Path | None, generation: int
) -> Iterator[Path | None]:
    """Say where a new generation's columns' file is to be made; None where no table wants one.

    A graph without a folder has its file in `columns` or the temporary directory; it has no name after the block, and
    is gone with the last mapping of it.

    Raises:
        ArenaError: there is an arena's folder, and none for columns.
    """
    if not tables:
        yield None
    elif folder is None:
        with TemporaryDirectory(dir=columns, prefix="nowgraph-columns-") as own:
            yield Path(own) / "columns"
    elif columns is None:
        raise ArenaError(
            f"the columns of {', '.join(tables)} are to lie on disk: their folder must be given (--columns)"
        )
    else:
        yield _new_columns(folder, generation, columns)


def _new_columns(folder: Path, generation: int, columns: Path) -> Path:
    """Where the file is to be made; readers are led there."""
    own = columns.resolve() / str(folder.resolve()).strip("/").replace("/", "-")
    own.mkdir(parents=True, exist_ok=True)
    link = columns_link(folder, generation)
    for path in own.glob("gen-*.columns"):
        if path.name == link.name or not link.with_name(path.name).with_suffix(".arena").exists():
            path.unlink(missing_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(own / link.name)
    return own / link.name
