"""The demo from start to end, by the commands that anybody would type: tables -> train -> serve -> a visitor's session.

tables ─► nowgraph train ─► checkpoint ─► nowgraph serve (embedded broker) ◄── Ingest, Rank ── the visitor
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from nowgraph.client import Client
from nowgraph.demo_rank.data import EXAMPLE, RankDemoData, demo_data
from nowgraph.demo_rank.session import Step, play
from nowgraph.demo_rank.settings import RankDemoSettings
from nowgraph.demo_rank.show import click_rows, clicks_of
from nowgraph.errors import NowgraphError

_STOP_S = 30.0
Say = Callable[[str], None]
ShowStep = Callable[[Step, int, RankDemoData], None]


@dataclass(frozen=True)
class RankDemoResult:
    """What a run came to; `seconds` by phase."""

    data: str
    model: Path
    task: Path
    tables: Path
    steps: tuple[Step, ...]
    names: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> int:
        """How many clicks changed the next list."""
        return sum(step.changed for step in clicks_of(self.steps))

    def document(self) -> dict[str, Any]:
        """The result as one JSON document."""
        return {
            "data": self.data,
            "model": str(self.model),
            "clicks": len(clicks_of(self.steps)),
            "changed": self.changed,
            "steps": click_rows(self.steps, self.names),
            "listed_place": self.steps[-1].place_of_listed,
            "lists": [[self.names.get(str(key), str(key)) for key in step.after.keys] for step in self.steps],
            "seconds": self.seconds,
        }


class RankDemo:
    """One run. ``run`` starts everything, and nothing is left running when it returns or raises."""

    def __init__(self, settings: RankDemoSettings, *, say: Say, show: ShowStep, real_data: bool = True) -> None:
        """``say`` is told of each phase, ``show`` each list with the number of its click."""
        self._settings = settings
        self._say = say
        self._show = show
        self._real_data = real_data
        self._seconds: dict[str, float] = {}

    def run(self) -> RankDemoResult:
        """Plays the demo. Raises NowgraphError when a command fails or a click left the list as it was."""
        output = self._settings.output
        output.mkdir(parents=True, exist_ok=True)
        with self._phase("data"):
            data = demo_data(self._settings, output / "tables", real=self._real_data)
        self._say(f"Shop: {data.name}, {len(data.product_names):,} products")
        task, model = output / "task.yaml", output / "model"
        task.write_text(data.task, encoding="utf-8")
        with self._phase("training"):
            _run("train", "--schema", EXAMPLE / "schema.yaml", "--task", task, "--output", model, "--history",
                 data.tables, "--no-floors", "--json", "--quiet")  # fmt: skip
        steps: list[Step] = []
        with self._phase("session"), _served(model, data.tables, self._settings.serve_timeout_s) as target:
            self._say(f"Serving on {target}, with an embedded broker")
            with Client(target, timeout_s=self._settings.timeout_s) as client:
                for step in play(client, data, self._settings):
                    steps.append(step)
                    self._show(step, len(steps) - 1, data)
        result = RankDemoResult(
            data.name, model, task, data.tables, tuple(steps), dict(data.product_names), self._seconds
        )
        if result.changed < len(data.clicks):
            raise NowgraphError(f"{result.changed} of {len(data.clicks)} clicks changed the next list")
        return result

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start_s = time.monotonic()
        if name == "training":
            self._say("Training: nowgraph train ...")
        yield
        self._seconds[name] = time.monotonic() - start_s


def _command(*arguments: object) -> list[str]:
    # What this program is installed as, and not a folder of the same name that one happens to stand in.
    return [sys.executable, "-P", "-m", "nowgraph.cli", *(str(argument) for argument in arguments)]


def _run(*arguments: object) -> None:
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise NowgraphError(f"nowgraph {arguments[0]}: {done.stderr.strip()}")


@contextmanager
def _served(checkpoint: Path, tables: Path, timeout_s: float) -> Iterator[str]:
    """`nowgraph serve` with a broker of its own, for as long as the block runs; gives the address it serves on."""
    command = _command(
        "serve", "--checkpoint", checkpoint, "--history", tables, "--bootstrap-servers", "embedded", "--port", 0,
        "--metrics-port", 0, "--json", "--quiet",
    )  # fmt: skip
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        late = threading.Timer(timeout_s, process.kill)
        late.start()
        try:
            where = _document(process.stdout)
            late.cancel()
            if where is None:
                process.wait()
                errors.seek(0)
                raise NowgraphError(f"nowgraph serve: {errors.read().strip() or f'not ready within {timeout_s:.0f} s'}")
            yield str(where["grpc"])
        finally:
            late.cancel()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _document(lines: IO[str] | None) -> dict[str, Any] | None:
    """The first JSON document of the lines; None where they end before it does."""
    text = ""
    for line in lines or ():
        text += line
        if line.startswith("}"):
            found: dict[str, Any] = json.loads(text)
            return found
    return None
