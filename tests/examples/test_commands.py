"""The commands of each example's page, as they stand there: raw files in, a served and calibrated model out.

The data are slices and the plan is small; nothing else differs from what a reader types.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import duckdb
import pytest
import typer

from nowgraph.cli import app
from nowgraph.client import Client, Score
from nowgraph.client_values import Row
from nowgraph.payments_generator import GeneratorSettings, generate

PLAN = """
sampling_plan: {num_neighbors: [{hop1: {default: 4}}, {hop2: {default: 2}}]}
model: {width: 16, layers: 1, heads: 4}
training: {steps: 4, batch: 32, evaluate_every: 4, validation_examples: 64}
"""
TOWN = GeneratorSettings(
    customers=150,
    terminals=300,
    days=50,
    start=datetime(2018, 7, 1, tzinfo=UTC),
    radius=15.0,
    terminals_taken_per_day=1,
    customers_leaked_per_day=1,
)
RANKING = """
ranking: {dimension: 8, history: 8, negatives: 16, fusion_steps: 20, fusion_span: 60d, co_visit: 20, nearest: 20}
"""
"""Beside the plan, where lists are asked for."""
FILES_ANYWHERE = {"checkpoint.json", "weights.safetensors", "schema.yaml", "plan.yaml"}


@dataclass(frozen=True)
class Example:
    """A page's commands on a slice of its data, and a question that the server must answer.

    `prepared` are more options of the first command; `swapped` takes the page's task for another of the same folder.
    """

    folder: str
    ask: Callable[[Path], Row]
    kind: str
    label_file: str | None = None
    prepared: Callable[[Path], list[str]] = lambda raw: ["--data", str(raw)]
    raw: Callable[[Path], None] = lambda raw: None
    real_data: bool = False
    swapped: tuple[str, str] = ("", "")


def town(raw: Path) -> None:
    generate(TOWN).write(raw)


def sliced(name: str, kept: dict[str, str]) -> Callable[[Path], None]:
    """Copies the Parquet files of a folder of the real data, only the rows of the conditions in those named."""

    def copy(raw: Path) -> None:
        source = Path(os.environ["NOWGRAPH_DATA"]) / name
        with duckdb.connect() as database:
            for path in sorted(source.rglob("*.parquet")):
                target = raw / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                where = kept.get(path.stem, "true")
                database.execute(f"copy (select * from '{path}' where {where}) to '{target}' (format parquet)")

    return copy


def invoices(raw: Path) -> None:
    """A wholesaler's year: sixty customers who come every nine days for some of eight products they like, of thirty."""
    raw.mkdir()
    with duckdb.connect() as database:
        database.execute(f"""
            copy (
              select visit * 60 + customer as invoice_no, 'P' || product as stock_code,
                'toy ' || product as description, 1 + product % 3 as quantity, 1.5 + product as unit_price,
                'Norway' as country,
                timestamp '2010-12-01 09:00:00' + to_days((visit * 9 + customer % 9)::integer)
                  + to_minutes(customer::bigint) as invoice_date,
                case when customer = 0 then 0 else 12000 + customer end as customer_id
              from range(41) visits(visit), range(60) customers(customer), range(30) products(product)
              where (product + customer * 7) % 30 < 8 and hash(visit, customer, product) % 3 = 0
            ) to '{raw}/invoice_lines.parquet' (format parquet)""")


def flown(raw: Path) -> None:
    """A month of flights as the package has them: two of twelve planes are late each second day."""
    raw.mkdir()
    day = "2013 as year, 7 as month, 1 as day"
    plain = {
        "airlines": "select 'UA' as carrier, 'United' as name",
        "airports": "select unnest(['EWR', 'LGA', 'IAH']) as faa, 'A' as name, 40 as lat, -70 as lon, 9 as alt",
        "planes": "select 'N' || number as tailnum, 2000 as year, 'Fixed' as type from range(12) planes(number)",
        "weather": f"""
            select 'EWR' as origin, {day}, hour, timestamp '2013-07-01' + to_hours(hour) as time_hour, 75.2 as temp
            from range(700) hours(hour)""",
        "flights": f"""
            select {day}, timestamp '2013-07-01' + to_hours(number // 2) as time_hour, number // 2 % 24 as hour,
              number % 2 * 30 as minute, 'UA' as carrier, number % 50 as flight, 'N' || number % 12 as tailnum,
              if(number % 3 = 0, 'LGA', 'EWR') as origin, 'IAH' as dest, 1400 as distance, 200 as air_time,
              late as dep_delay, late - 5 as arr_delay
            from (select number, if(number % 12 < 2 and number // 48 % 2 = 0, 60, number % 7) as late
              from range(1400) flights(number))""",
    }
    with duckdb.connect() as database:
        for name, query in plain.items():
            database.execute(f"copy ({query}) to '{raw}/{name}.csv' (header, nullstr 'NA')")


def payment(data: Path) -> Row:
    who, at = newest(data, "transactions", "customer_id", "tx_datetime")
    return Row("transactions", 9_000_000, {"customer_id": who, "terminal_id": 7, "tx_amount": 57.16}, at)


def driver(data: Path) -> Row:
    who, at = newest(data, "results", "driverId", "date")
    return Row("drivers", who, {}, at)


def household(data: Path) -> Row:
    who, at = newest(data, "transactions", "household_id", "transaction_timestamp")
    return Row("households", who, {}, at)


def ticket(data: Path) -> Row:
    who, at = newest(data, "tickets", "account_code", "opened")
    cells = {"account_code": who, "component": "billing", "priority": "high", "subject": "cannot pay"}
    return Row("tickets", 9_000_000, cells, at)


def flight(data: Path) -> Row:
    cells = {"carrier": "UA", "tailnum": "N1", "origin": "EWR", "dest": "IAH", "distance": 1400.0}
    return Row("flights", 9_000_000, cells, datetime(2013, 7, 31, tzinfo=UTC))


def account(data: Path) -> Row:
    who, at = newest(data, "sessions", "account_code", "started")
    return Row("accounts", who, {}, at)


def customer(data: Path) -> Row:
    return Row("customers", 12_007, {}, datetime(2011, 12, 10, tzinfo=UTC))


def newest(data: Path, table: str, key: str, time: str) -> tuple[Any, datetime]:
    """Who did something last, and when."""
    file = next(data.rglob(f"{table}.parquet"))
    with duckdb.connect() as database:
        who, at = database.execute(
            f"select {key}, {time} from '{file}' order by {time} desc, {key} limit 1"
        ).fetchall()[0]
    return who, at


ESCALATION = Example("helpdesk", ticket, "binary", prepared=lambda raw: ["--accounts", "40"])
EXAMPLES = {
    "payments": Example("payments", payment, "binary", raw=town),
    "f1": Example(
        "f1",
        driver,
        "binary",
        "driver_dnf.parquet",
        raw=sliced("f1", {"driver-dnf-train": "date >= timestamp '1995-01-01'"}),
        real_data=True,
    ),
    "grocery": Example(
        "grocery",
        household,
        "binary",
        "churn.parquet",
        raw=sliced(
            "grocery",
            {
                "transactions_sample": "household_id::integer % 5 = 0",
                "promotions_sample": "product_id::bigint % 50 = 0",
                "coupons": "product_id::bigint % 50 = 0",
            },
        ),
        real_data=True,
    ),
    "recommendation": Example("recommendation", customer, "ranking", "next_basket.parquet", raw=invoices),
    "flights": Example("flights", flight, "binary", raw=flown),
    "helpdesk": ESCALATION,
    "helpdesk, usage": replace(
        ESCALATION, ask=account, kind="regression", label_file="usage.parquet", swapped=("escalation", "usage")
    ),
}


RARE = ("flights",)
"""Examples that differ from others in their data alone: too long for every run."""


def shop(data: Path) -> None:
    """Customers and orders of a shop, as the README has them; a quarter of the customers stop coming on the way."""
    data.mkdir()
    with duckdb.connect() as database:
        database.execute(f"""
            copy (select who as customer_id, if(who % 3 = 0, 'north', 'south') as region from range(120) people(who))
            to '{data}/customers.parquet' (format parquet)""")
        database.execute(f"""
            copy (
              select number as order_id, (hash(number) % 120)::bigint as customer_id, 5.0 + number % 90 as amount,
                timestamp '2026-01-01' + to_minutes((number * 75)::bigint) as ordered_at
              from range(4000) orders(number) where hash(number) % 120 % 4 <> 0 or number < 2500
            ) to '{data}/orders.parquet' (format parquet)""")


def commands(page: str) -> list[list[str]]:
    """The commands of a page's first block of shell, as words."""
    found = re.search(r"```(?:ba)?sh\n(.*?)```", page, re.DOTALL)
    assert found is not None
    lines = found[1].replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def runnable(words: list[str], *more: object) -> list[str]:
    """A command of the page, by this interpreter."""
    programs = {"python": [sys.executable, "-P"], "nowgraph": [sys.executable, "-P", "-m", "nowgraph.cli"]}
    return [*programs[words[0]], *words[1:], *map(str, more)]


@pytest.fixture
def here(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are typed: a folder that sees the examples as the clone does, and is thrown away."""
    # None where the installed wheel is tested: an empty entry would be the folder one stands in.
    paths = [str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    if "NOWGRAPH_DATA" in os.environ:
        monkeypatch.setenv("NOWGRAPH_DATA", str(Path(os.environ["NOWGRAPH_DATA"]).absolute()))
    (tmp_path / "examples").symlink_to(repository / "examples")
    (tmp_path / "small.yaml").write_text(PLAN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def served(command: list[str]) -> Iterator[dict[str, Any]]:
    """Runs the server for the block and gives what it says about itself; it must end well."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("}"):
                break
        assert lines, process.communicate()[1]
        yield json.loads("".join(lines))
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    finally:
        process.kill()
        process.communicate()


def done(command: list[str]) -> str:
    """Standard output of a command that succeeded."""
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("folder", sorted({example.folder for example in EXAMPLES.values()}))
def test_the_commands_of_a_page_are_commands(folder: str, repository: Path) -> None:
    """Every option is one that the command has, every file of the examples is there, and each has what it must have."""
    prepare, *others = commands((repository / "examples" / folder / "README.md").read_text(encoding="utf-8"))
    assert [words[1] for words in (prepare, *others)] == [f"examples/{folder}/prepare.py", "train", "serve"]
    for words in (prepare, *others):
        missing = [word for word in words if word.startswith("examples/") and not (repository / word).is_file()]
        assert missing == []
    for _, name, *arguments in others:
        command = typer.main.get_group(app).get_command(click.Context(click.Command(name)), name)
        assert command is not None
        command.make_context(name, list(arguments))  # a click.UsageError where the command would not run


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.faults] * (name in RARE)) for name in EXAMPLES])
def test_three_commands_lead_from_raw_files_to_a_calibrated_answer(name: str, here: Path) -> None:
    """Every file fits its schema, the output holds what serving needs, and an answer has the fields of its kind."""
    example = EXAMPLES[name]
    if example.real_data and "NOWGRAPH_DATA" not in os.environ:
        pytest.skip("needs the real data")
    page = (here / "examples" / example.folder / "README.md").read_text(encoding="utf-8")
    prepare, train, serve = ([word.replace(*example.swapped) for word in words] for words in commands(page))
    example.raw(here / "raw")
    if example.kind == "ranking":
        (here / "small.yaml").write_text(PLAN + RANKING)
    done(runnable(prepare, *example.prepared(here / "raw")))
    made = json.loads(done(runnable(train, "--plan", "small.yaml", "--no-floors", "--quiet", "--json")))
    assert {"validation", "test"} <= set(made["metrics"])
    folder = Path(made["checkpoint"])
    files = {path.name for path in folder.iterdir()}
    assert files >= FILES_ANYWHERE
    assert example.label_file is None or example.label_file in files
    assert not Path("dead-letters.jsonl").exists()

    with served(runnable(serve, "--port", 0, "--metrics-port", 0, "--quiet", "--json")) as where:
        assert where["kafka"] is not None
        asked = example.ask(Path("demo-output"))
        with Client(where["grpc"], timeout_s=60) as client:
            if example.kind == "ranking":
                listed = client.rank(asked.key, event_time=asked.event_time)
                assert (listed.task, listed.model_version) == (made["task"], made["version"])
                assert len(set(listed.keys)) == 10
                assert listed.history_count > 0
                return
            score = client.score(asked.table, asked.key, asked.cells, event_time=asked.event_time)
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
            exec(block.replace("127.0.0.1:50051", where["grpc"]), {})
    assert (score.task, score.model_version) == (made["task"], made["version"])
    assert score.history_count > 0
    check(score, example.kind, json.loads((folder / "checkpoint.json").read_text())["calibration"])


@pytest.mark.slow
def test_the_readme_leads_from_tables_to_an_answer_that_knows_the_last_order(
    here: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A schema drafted from files, one sentence, a server; an order by Ingest is in the answer that asks for it."""
    page = (repository / "README.md").read_text(encoding="utf-8").partition("## Use it")[2]
    infer, train, serve = commands(page)
    shop(here / "data")
    done(runnable(infer))
    done(runnable(train, "--plan", "small.yaml", "--no-floors", "--quiet"))
    with served(runnable(serve, "--port", 0, "--metrics-port", 0, "--quiet", "--json")) as where:
        program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
        assert program is not None
        exec(program[1].replace("127.0.0.1:50051", where["grpc"]), said := {})
        with Client(where["grpc"], timeout_s=60) as client:
            rows = client.neighborhood("customers", 17).neighbors
    assert re.match(r"\d+% to stay away for 30 days, by \d+ rows", capsys.readouterr().out)
    assert said["answer"].probability is not None
    assert 7001 in [row.key for row in rows if row.table == "orders"]


def check(score: Score, kind: str, calibration: dict[str, Any]) -> None:
    """The fields of the kind are there, by a calibration that was fitted."""
    assert calibration["method"] != "none"
    assert score.kind == kind
    if kind == "binary":
        assert score.probability is not None
        assert 0 < score.probability < 1
        assert score.value is None
    else:
        quantiles = list(score.quantiles.values())
        assert quantiles == sorted(quantiles)
        assert score.value in quantiles
        assert score.probability is None
