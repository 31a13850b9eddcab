"""Reads a YAML file that somebody wrote; what is wrong with it is told without a word of what it holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from model_server.errors import NotConfiguredError


def read_yaml(path: Path) -> Any:
    """What the file holds, as plain values. Raises NotConfiguredError with the path, and the line where it knows it."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotConfiguredError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise NotConfiguredError(f"{path}: not UTF-8") from None
    except yaml.YAMLError as error:  # its own words quote the line
        mark = getattr(error, "problem_mark", None)
        raise NotConfiguredError(f"{path}: not YAML{f', line {mark.line + 1}' if mark else ''}") from None
