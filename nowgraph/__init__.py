"""Every event is in the next prediction. ``nowgraph.Client`` talks to a server; the command is ``nowgraph``."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nowgraph.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]

try:
    __version__ = version("nowgraph")
except PackageNotFoundError:  # run from a folder that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    """Imports the client (and with it gRPC) only when it is asked for, so that the command starts quickly."""
    if name in ("AsyncClient", "Client"):
        from nowgraph import client

        return getattr(client, name)
    raise AttributeError(f"module 'nowgraph' has no attribute {name!r}")
