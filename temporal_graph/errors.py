"""The errors of the package: one small tree under `TemporalGraphError`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TemporalGraphError(Exception):
    """The root of everything this package raises about its operation."""


class SchemaError(TemporalGraphError):
    """A schema that does not say what it must.

    Attributes:
        path: the keys that lead to the place, joined by dots: `tables.transactions.links.customer_id`.
        expected: what is allowed there.
        found: what stands there, as it would be written.
        nearest: the valid name that looks most like the one found, where a name was meant.
    """

    def __init__(self, path: str, expected: str, found: object, *, choices: Iterable[str] = ()) -> None:
        self.path = path
        self.expected = expected
        self.found = found
        self.nearest = nearest_name(found, choices)
        hint = f"; did you mean {self.nearest!r}?" if self.nearest is not None else ""
        super().__init__(f"{path or 'schema'}: expected {expected}, found {describe(found)}{hint}")


class SchemaMismatchError(TemporalGraphError):
    """Something made under one schema (an arena, a snapshot, a checkpoint) is opened under another."""


def nearest_name(found: object, choices: Iterable[str]) -> str | None:
    """Return the choice that looks most like `found`, or None where nothing does."""
    if not isinstance(found, str):
        return None
    folded = {choice.lower(): choice for choice in choices}
    matches = difflib.get_close_matches(found.lower(), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def describe(found: object) -> str:
    """Write a value as the reader of an error should see it: short, with its YAML type where that is the surprise."""
    if found is None:
        return "nothing"
    if isinstance(found, str):
        return repr(found)
    if isinstance(found, bool):
        return f"the boolean {str(found).lower()}"
    if isinstance(found, dict):
        return "a mapping of " + ", ".join(str(key) for key in found) if found else "an empty mapping"
    if isinstance(found, list | tuple):
        return f"the list {list(found)!r}" if found else "an empty list"
    return f"the {_YAML_NAMES.get(type(found).__name__, type(found).__name__)} {found}"


_YAML_NAMES = {"int": "integer", "float": "number"}


class ArenaError(TemporalGraphError):
    """An arena that can't be made, mapped or written: another writer, another layout, nothing served yet."""


class ArenaFullError(ArenaError):
    """The arena, or the file system it lies in, has no room for the next event."""


class ImageRefusedError(ArenaError):
    """An image that is damaged, cut off, of another layout or of other tables; another one may serve."""


class WriterBusyError(ArenaError):
    """The arena has a writer already; when it ends, another may take its place."""


class OvertakenError(ArenaError):
    """A generation that can never serve: readers were sent to a later one while it was built."""
