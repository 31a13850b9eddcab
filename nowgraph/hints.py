"""The next command to try, with names and keys of the graph at hand."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from graph_transformer.target import Target
from temporal_graph.schema import KeyType, Table
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphView

# Of a graph whose newest event lies this far back a question is asked as of then: what it holds is history by now.
STALE_US = 86_400_000_000
# What a shell changes between double quotes.
_SPECIAL = set('"$`\\!')


def example_call(view: GraphView, target: Target, address: str) -> str:
    """A shell command that asks the server about something its graph holds; hashed keys are left to fill in."""
    table = view.schema.table(target.table)
    call, arguments = ("score", [repr(table.name)]) if target.ranked is None else ("rank", [])
    if target.event_level:
        cells = {
            link.name: key
            for link in table.links
            if (key := _newest_key(view, view.schema.table(link.parent))) is not None
        }
        arguments += [repr(_new_key(table)), repr(cells)]
    else:
        arguments.append(repr(_newest_key(view, table) or _new_key(table)))
    newest_us = view.watermark_us
    if newest_us != ALWAYS_US and time.time_ns() // 1_000 - newest_us > STALE_US:
        arguments.append(f"event_time={newest_us + 1}")
    code = f"from nowgraph import Client; print(Client({address!r}).{call}({', '.join(arguments)}))"
    return f"python -c {shlex.quote(code) if _SPECIAL & set(code) else chr(34) + code + chr(34)}"


def activation() -> str:
    """The line that puts this environment's programs on the shell's path, or nothing where they are on it."""
    script = Path(sys.prefix) / "bin" / "activate"
    found = shutil.which("nowgraph")
    if (found is not None and Path(found).parent == script.parent) or not script.is_file():
        return ""
    below = script.is_relative_to(Path.cwd())
    return f"  source {shlex.quote(os.path.relpath(script) if below else str(script))}\n"


def _newest_key(view: GraphView, table: Table) -> Any:
    count = view.row_count(table.name)
    if not count or table.private_keys.intersection(part.name for part in table.primary_key):
        return None
    return view.keys(table.name, np.array([count - 1]))[0]


def _new_key(table: Table) -> Any:
    parts = tuple(0 if part.type is KeyType.INTEGER else "..." for part in table.primary_key)
    return parts[0] if len(parts) == 1 else parts or None
