"""What the command's tests share: a runner, and a small town's payments in files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
from click.testing import Result
from typer.testing import CliRunner

from nowgraph.cli import app
from nowgraph.payments_data import load_payments
from nowgraph.payments_generator import GeneratorSettings, generate

SMALL = GeneratorSettings(customers=60, terminals=80, days=30, radius=20.0, terminals_taken_per_day=1, seed=5)
EXAMPLE = Path("examples") / "payments"


@pytest.fixture
def run_command() -> Callable[..., Result]:
    """Runs the command in this process; checks the exit code, and gives the result with both outputs."""

    def run(*arguments: object, exit_code: int = 0) -> Result:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])
        structlog.reset_defaults()  # the command's log lines went to the runner's output, which is closed by now
        assert result.exit_code == exit_code, (result.output, result.stderr, result.exception)
        return result

    return run


@pytest.fixture
def run_json(run_command: Callable[..., Result]) -> Callable[..., Any]:
    """Runs the command with --json and gives the document: standard output holds nothing else."""
    return lambda *arguments: json.loads(run_command(*arguments, "--json").stdout)


@pytest.fixture
def example(repository: Path) -> Path:
    """The folder of the payments example."""
    return repository / EXAMPLE


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """transactions.parquet and fraud_reports.parquet of a month in a small town."""
    folder = tmp_path_factory.mktemp("town")
    generate(SMALL).write(folder / "raw")
    payments = load_payments(folder / "raw")
    payments.write_transactions(folder / "transactions.parquet")
    payments.write_fraud_reports(folder / "fraud_reports.parquet")
    return folder / "transactions.parquet", folder / "fraud_reports.parquet"


@pytest.fixture
def free_port(free_ports: Callable[[int], list[int]]) -> Callable[[], int]:
    """Gives a port on loopback that nobody listens on."""
    return lambda: free_ports(1)[0]


@pytest.fixture
def trained(
    world: Any, served_checkpoints: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Gives a folder as training leaves it, of one of the world's tasks: checkpoint, schema, and history beside it.

    transactions.parquet and spend.parquet (past labels) lie in its `history`; the secret is in the environment.
    """
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", world.secret)
    minute_us, count = 60_000_000, 60

    def make(task: str) -> Path:
        folder = tmp_path / task
        shutil.copytree(served_checkpoints(task), folder)
        (folder / "schema.yaml").write_text(world.schema_text)
        (folder / "history").mkdir()
        number = pa.array(range(count))
        times = pa.array([world.start_us + n * minute_us for n in range(count)], pa.timestamp("us"))
        payments = {
            "transaction_id": number,
            "tx_datetime": times,
            "tx_amount": [5.0 + n % 7 for n in range(count)],
            "channel": ["web"] * count,
            "customer_id": [n % 5 for n in range(count)],
            "terminal_id": [n % 7 for n in range(count)],
        }
        pq.write_table(pa.table(payments), folder / "history" / "transactions.parquet")
        anchor = world.start_us + 10 * minute_us
        spent = {
            "customer_id": pa.array(range(5)),
            "anchor_time_us": pa.array([anchor] * 5),
            "anchor_time": pa.array([anchor] * 5, pa.timestamp("us")),
            "known_at": pa.array([anchor + 30 * minute_us] * 5, pa.timestamp("us")),
            "label": [float(n) for n in range(5)],
        }
        pq.write_table(pa.table(spent), folder / "history" / "spend.parquet")
        return folder

    return make
