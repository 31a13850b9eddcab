"""Updaters that start in milliseconds: this program has imported everything, and forks one for each order it reads.

    {"options": of `nowgraph update`, "environment": {}, "output": a file, "die": null} ─► pid ─► how it ended

Both answers are lines of their own. `die` is ["before" or "after", "package.module:Class.method", n]: the process kills
itself (SIGKILL) there, at the n-th call.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from nowgraph.commands.update import update

PATHS = ("schema", "arena")


def die_at(when: str, place: str, count: int) -> None:
    """Replaces the method by one that kills this process at its n-th call."""
    module, _, path = place.partition(":")
    name, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), name)
    whole, calls = getattr(owner, method), 0

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        result = whole(*arguments, **options)
        if when == "after" and calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, method, dying)


def live(order: dict[str, Any]) -> int:
    """The life of one updater: `nowgraph update`, as the command runs it."""
    output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(order["environment"])
    if order["die"] is not None:
        die_at(*order["die"])
    options = {name: Path(value) if name in PATHS else value for name, value in order["options"].items()}
    try:
        update(**options)
    except BaseException:  # noqa: BLE001 - a forked process goes no further up
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    gc.freeze()  # what is imported is shared by all
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            code = live(order)
            sys.stdout.flush()
            os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
