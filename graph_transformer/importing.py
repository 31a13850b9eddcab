"""Code that a task names by its import path, `package.module:name`: a model of one's own, a sentence encoder."""

from __future__ import annotations

import importlib
from typing import Any

from graph_transformer.errors import TaskError


def load_object(option: str, path: str) -> Any:
    """Return what an import path names; `option` is the key it was given under.

    Raises:
        TaskError: the path has no colon, the module can not be imported, or has no such name.
    """
    check_path(option, path)
    module, name = path.split(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise TaskError(option, f"a module that can be imported here ({error}; is it on PYTHONPATH?)", path) from error
    except AttributeError:
        raise TaskError(option, f"a name that the module {module} has", path) from None


def check_path(option: str, path: object) -> None:
    """Raise TaskError unless the path is written as one."""
    module, _, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise TaskError(option, "an import path, package.module:name", path)
