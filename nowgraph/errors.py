"""What the command says when something goes wrong that its user can mend."""

from __future__ import annotations

_PACKAGES = (
    "nowgraph", "model_server", "graph_transformer", "online_sampler", "graph_updater", "stream", "temporal_graph",
)  # fmt: skip


class NowgraphError(Exception):
    """The root of the command's own errors."""


class UsageError(NowgraphError):
    """Options that do not go together, or files that are not there."""


def explain(error: Exception) -> str | None:
    """One line for an error that the user can mend; None for a defect, which deserves its traceback.

    Mendable are the operating errors of our own packages (every class they define), files that cannot be opened, and
    settings that pydantic refuses.
    """
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{error.title}: {place + ': ' if place else ''}{first['msg']}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if type(error).__module__.split(".")[0] in _PACKAGES:
        if getattr(error, "keeps_lines", False):  # its lines show a place in a text
            return str(error)
        return " ".join(str(error).split()) or type(error).__name__
    return None
