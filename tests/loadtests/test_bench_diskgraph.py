"""The bench beside diskgraph asks another interpreter, and says what that one said when it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from loadtests.bench_diskgraph import DISKGRAPH_VARIABLE, _Peer, diskgraph_interpreter, plan_of
from loadtests.bench_graph import powerlaw_events


def test_the_named_interpreter_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name it is this one if it has the wheel, else none: then the table is left out."""
    monkeypatch.setenv(DISKGRAPH_VARIABLE, "/elsewhere/python")
    assert diskgraph_interpreter() == "/elsewhere/python"
    monkeypatch.delenv(DISKGRAPH_VARIABLE)
    assert diskgraph_interpreter() in (None, sys.executable)


def test_a_plan_has_one_number_for_every_link_of_a_hop() -> None:
    """Hop by hop, in the wheel's form: no link has a fan-out of its own."""
    layers = json.loads(plan_of([16, 8], "uniform"))["layers"]
    assert [layer["default_fanout"]["fanout"] for layer in layers] == [16, 8]
    assert all(layer["fanouts"] == {} and layer["default_fanout"]["mode"] == "uniform" for layer in layers)


def test_an_interpreter_that_ends_is_an_error_with_what_it_said(tmp_path: Path) -> None:
    """A wheel that can't be imported or refuses the rows is not left out in silence."""
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho no such wheel >&2\nexit 1\n")
    interpreter.chmod(0o700)
    with pytest.raises(RuntimeError, match="no such wheel"):
        _Peer(str(interpreter), tmp_path, powerlaw_events(100))
