"""What the native core refuses, as this package's own errors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from temporal_graph import _native
from temporal_graph.errors import ArenaError, ArenaFullError, ImageRefusedError


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Raise ArenaFullError, ImageRefusedError and ArenaError where the native core has no room or refuses."""
    try:
        yield
    except _native.ArenaFull as error:
        raise ArenaFullError(str(error)) from error
    except _native.ImageRefused as error:
        raise ImageRefusedError(str(error)) from error
    except _native.ArenaRefused as error:
        raise ArenaError(str(error)) from error
