"""A part of a task's file (`model`, `training`, `ranking`) as the dataclass that checks it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any, ClassVar, Protocol, TypeVar

from graph_transformer.errors import TaskError


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


OptionsT = TypeVar("OptionsT", bound=_Dataclass)


def options_of(kind: type[OptionsT], part: str, values: Mapping[str, Any]) -> OptionsT:
    """Build the part from its mapping; raises TaskError for a name that does not exist, or a value it can not have."""
    names = [option.name for option in fields(kind)]
    for name in values:
        if name not in names:
            raise TaskError(f"{part}.{name}", f"one of {', '.join(names)}", name)
    try:
        return kind(**values)
    except TypeError as error:  # a text compared with a number
        raise TaskError(part, "numbers where numbers are expected", str(error)) from error
