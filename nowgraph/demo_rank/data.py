"""Which shop a demo plays in: the tables a model is trained on, the question, and what a visitor will click.

The recommendation example's schema fits both: a wholesaler's year where NOWGRAPH_DATA has it, else a simulated shop.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import yaml

from graph_transformer.splits import iso_time
from nowgraph.demo_rank.settings import RankDemoSettings
from nowgraph.demo_rank.shop import DAY_US, MINUTE_US, Shop, generate
from nowgraph.errors import NowgraphError

EXAMPLE = Path(__file__).parent.parent / "examples" / "recommendation"
_RAW = "invoice_lines.parquet"

# The first products of the newest basket that is long enough to be a session.
_SESSION = """
    select list(distinct product_id order by product_id) as products from '{lines}'
    where customer_id is not null group by customer_id, invoiced_at having count(distinct product_id) >= {clicks}
    order by invoiced_at desc, customer_id limit 1"""
_ENDS = """
    select epoch_us(max(invoiced_at)), max(line_id), (select max(customer_id) from '{customers}') from '{lines}'"""


@dataclass(frozen=True, slots=True)
class RankDemoData:
    """`name` says whose shop it is; `tables` is the folder of its Parquet files, `task` the question as YAML.

    `product_names` and `prices` are by key. The visitor is a customer nobody has seen; `clicks` are the products that
    he clicks, one after the other from `start_us` on, as lines from `first_line` on.
    """

    name: str
    tables: Path
    task: str
    product_names: Mapping[str, str]
    prices: Mapping[str, float]
    visitor: int
    clicks: tuple[str, ...]
    start_us: int
    first_line: int


def demo_data(settings: RankDemoSettings, folder: Path, *, real: bool = True) -> RankDemoData:
    """Writes the tables into the folder: the wholesaler's where they are given and ``real`` allows it, else simulated.

    Raises NowgraphError where the given data cannot be prepared.
    """
    given = given_lines() if real else None
    if given is not None:
        name = "the wholesaler's year of UCI Online Retail (NOWGRAPH_DATA)"
        _prepare(given, folder)
        return _of_tables(name, folder, settings, _real_task(settings), None)
    name = "a simulated shop (set NOWGRAPH_DATA for a real one)"
    shop = generate(settings.shop)
    shop.write(folder)
    return _of_tables(name, folder, settings, _simulated_task(settings), simulated_clicks(shop, settings.clicks))


def given_lines() -> Path | None:
    """The folder of the invoice lines under ``NOWGRAPH_DATA``; None where it points to none."""
    root = os.environ.get("NOWGRAPH_DATA", "")
    folder = Path(root) / "retail"
    return folder if root and (folder / _RAW).is_file() else None


def simulated_clicks(shop: Shop, count: int) -> tuple[str, ...]:
    """What a visitor clicks who looks at one theme and then at another: a best seller and what goes with it, twice."""
    keys = shop.products["product_id"].to_pylist()
    theme = [name.split()[1] for name in shop.products["description"].to_pylist()]
    sold = dict.fromkeys(keys, 0)
    for key in shop.lines["product_id"].to_pylist():
        sold[key] += 1
    clicks: list[int] = []
    seen: set[str] = set()
    for place in sorted(range(len(keys)), key=lambda place: (-sold[keys[place]], keys[place])):
        if theme[place] not in seen:
            seen.add(theme[place])
            clicks += [place, int(shop.companion[place, 0])]
        if len(clicks) >= count:
            break
    return tuple(keys[place] for place in clicks[:count])


def _prepare(raw: Path, folder: Path) -> None:
    """The example's own first command."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "prepare.py"), str(folder), "--data", str(raw)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NowgraphError(f"{EXAMPLE / 'prepare.py'}: {done.stderr.strip()}")


def _real_task(settings: RankDemoSettings) -> str:
    """The example's question, with the demo's plan, on all of its days: nothing is held back to be measured."""
    task = yaml.safe_load((EXAMPLE / "next_basket.yaml").read_text(encoding="utf-8"))
    splits = task["splits"]
    task["splits"] = {"train": {"start": splits["train"]["start"], "end": splits["test"]["end"]}}
    return yaml.safe_dump({**task, **settings.plan}, sort_keys=False)


def _simulated_task(settings: RankDemoSettings) -> str:
    """What comes next within the half hour, asked before each line from the second week on."""
    shop = settings.shop
    begin, end = iso_time(shop.start_us + 7 * DAY_US), iso_time(shop.end_us)
    task = {
        "version": 1,
        "name": "next_product",
        "query": "PREDICT LIST_DISTINCT(lines.product_id, 0, 30, minutes) RANK TOP 10 FOR EACH customers.customer_id",
        "anchors": {"before": "lines", "last": end},
        "splits": {"train": {"start": begin, "end": end}},
    }
    return yaml.safe_dump({**task, **settings.plan}, sort_keys=False)


def _of_tables(
    name: str, folder: Path, settings: RankDemoSettings, task: str, clicks: tuple[str, ...] | None
) -> RankDemoData:
    products = pq.read_table(folder / "products.parquet").to_pydict()
    lines, customers = folder / "lines.parquet", folder / "customers.parquet"
    with duckdb.connect() as database:
        if clicks is None:
            found = database.execute(_SESSION.format(lines=lines, clicks=settings.clicks)).fetchone()
            if found is None:
                raise NowgraphError(f"{lines}: expected a basket of {settings.clicks} products")
            clicks = tuple(found[0][: settings.clicks])
        ends = database.execute(_ENDS.format(lines=lines, customers=customers)).fetchone()
    assert ends is not None  # an aggregate has a row
    newest_us, last_line, last_customer = ends
    return RankDemoData(
        name=name,
        tables=folder,
        task=task,
        product_names={
            key: text or key for key, text in zip(products["product_id"], products["description"], strict=True)
        },
        prices=dict(zip(products["product_id"], products["first_price"], strict=True)),
        visitor=last_customer + 1,
        clicks=clicks,
        start_us=newest_us + MINUTE_US,
        first_line=last_line + 1,
    )
