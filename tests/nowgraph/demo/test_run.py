"""The demo runs from start to end, leaves what it says, and nothing running."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from graph_transformer.finetune.question import written_task
from nowgraph.demo.live import Picture
from nowgraph.demo.result import ALONE, GRAPH
from nowgraph.demo.run import Demo
from nowgraph.demo.settings import DemoSettings
from temporal_graph.schema import load_schema

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_the_quick_demo_takes_the_whole_path(example: Path, tmp_path: Path) -> None:
    """Every live payment scored over gRPC and then applied with all reports; figures, a checkpoint and a picture."""
    before = {thread.name for thread in threading.enumerate()}
    settings = DemoSettings.quick().into(tmp_path)
    schema = load_schema(example / "schema.yaml")
    task = written_task(example / "task.yaml", schema)
    result = Demo(schema, task, settings, Picture(Console(stderr=True), show=False), real_data=False).run()
    found = result.measures[GRAPH]
    assert found.payments == result.measures[ALONE].payments == result.rates.scored > 500
    assert 0 < found.frauds < found.payments
    assert result.rates.events_applied >= result.rates.scored
    for value in (found.average_precision, found.roc_auc, result.rates.score_ms_p99, result.rates.visible_ms_p99):
        assert np.isfinite(value)
    assert result.handbook[GRAPH].payments < found.payments
    assert result.picture.read_bytes().startswith(b"\x89PNG")
    assert {"checkpoint.json", "weights.safetensors"} <= {file.name for file in result.model.iterdir()}
    left = {thread.name for thread in threading.enumerate()} - before
    assert not {name for name in left if name.startswith("nowgraph")}


def test_the_command_prints_json_alone(tmp_path: Path) -> None:
    """`nowgraph demo --quick --json`: one document on standard output, whatever the logs say elsewhere."""
    done = subprocess.run(
        [sys.executable, "-m", "nowgraph.cli", "demo", "--quick", "--json", "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["measures"][GRAPH]["payments"] == document["rates"]["scored"]
    assert "Traceback" not in done.stderr
