"""What a killed training goes on from: one file per phase, written beside and renamed, so that it is whole or the last.

FOLDER/<phase>.pt   key, step, seconds spent, model, average, optimizer, choice, losses
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.errors import StateMismatch


def key_of(values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return a hash of all that decides what comes out of a training: plain values, and the examples' arrays."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class StateFile:
    """The state of one phase; `key` names the training that it is of."""

    def __init__(self, folder: Path, phase: str, key: str) -> None:
        self.path = folder / f"{phase}.pt"
        self._key = key

    def save(self, values: Mapping[str, Any]) -> None:
        """Replace the file; a kill at any moment leaves the one before or this one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        with new.open("wb") as file:
            torch.save({**values, "key": self._key}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path)

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last; None where nothing was.

        Raises:
            StateMismatch: it is of another training.
        """
        if not self.path.exists():
            return None
        values: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
        if values.pop("key") != self._key:
            raise StateMismatch(
                f"{self.path} is of another training (its task, examples or seed differ): train without resuming"
            )
        return values


def forget(folder: Path) -> None:
    """Remove the states of a training that is done."""
    shutil.rmtree(folder, ignore_errors=True)
