"""A simulated shop: settings -> products of themes, customers with tastes, baskets -> Parquet, as the example has it.

A basket stays within a theme. Its first product is drawn by popularity, and every next one is most often one of the few
that go with the one before it: what a ranker can learn, and a reader can see. Products appear over the whole time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

_Ints = npt.NDArray[np.int64]

DAY_US = 86_400_000_000
MINUTE_US = 60_000_000
THEMES = {
    "garden": ("lantern", "trowel", "planter", "bird house", "watering can"),
    "kitchen": ("whisk", "measuring jug", "recipe box", "egg timer", "cake stand"),
    "party": ("bunting", "balloons", "paper cups", "candles", "invitations"),
    "office": ("notebook", "desk tidy", "pencil case", "ruler", "bookend"),
    "bath": ("soap dish", "hand towel", "bath mat", "sponge", "candle holder"),
    "travel": ("luggage tag", "wash bag", "passport cover", "flask", "sleep mask"),
    "nursery": ("night light", "soft toy", "mobile", "height chart", "building blocks"),
    "christmas": ("wreath", "bauble", "advent house", "stocking", "tree topper"),
}
STYLES = ("red", "blue", "striped", "vintage", "wooden", "spotty")
COUNTRIES = ("United Kingdom", "France", "Germany", "Ireland")


@dataclass(frozen=True, slots=True)
class ShopSettings:
    """How much to simulate. The start is a Monday; `new_share` of the products appear after it, evenly."""

    customers: int = 500
    baskets_per_customer: float = 7.0
    days: int = 120
    start: datetime = datetime(2025, 1, 6, tzinfo=UTC)
    products_in_basket: float = 4.0
    companions: int = 2
    companion_share: float = 0.75
    taste_share: float = 0.8
    new_share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("customers", "days", "companions"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")

    @property
    def start_us(self) -> int:
        """The first microsecond."""
        return int(self.start.timestamp()) * 1_000_000

    @property
    def end_us(self) -> int:
        """The first microsecond after the last day."""
        return self.start_us + self.days * DAY_US


@dataclass(frozen=True)
class Shop:
    """The tables of the recommendation example's schema, and what the simulation knows: which products go together.

    `companion` int64[products, companions]: indices of the products that most often follow.
    """

    products: pa.Table
    customers: pa.Table
    lines: pa.Table
    companion: _Ints

    def write(self, folder: Path) -> None:
        """Writes products.parquet, customers.parquet and lines.parquet."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("products", "customers", "lines"):
            pq.write_table(getattr(self, name), folder / f"{name}.parquet")


def generate(settings: ShopSettings) -> Shop:
    """Simulates a shop; equal settings give equal shops."""
    random = np.random.default_rng(settings.seed)
    theme, products, first_us = _products(settings, random)
    companion = _companions(theme, settings, random)
    popularity = random.permutation(len(theme)).astype(np.float64)
    popularity = 1.0 / (1.0 + popularity) ** 0.7
    customer, item, time_us = _baskets(settings, _Catalog(theme, first_us, companion, popularity), random)
    order = np.argsort(time_us, kind="stable")
    count = len(order)
    lines = pa.table(
        {
            "line_id": np.arange(count),
            "invoiced_at": pa.array(time_us[order], pa.timestamp("us")),
            "customer_id": customer[order],
            "product_id": products["product_id"].take(item[order]),
            "quantity": random.integers(1, 6, count).astype(np.float64),
            "unit_price": products["first_price"].take(item[order]),
        }
    )
    known = np.unique(customer)
    country = [COUNTRIES[int(number) % 7 if number % 7 < len(COUNTRIES) else 0] for number in known]
    return Shop(products, pa.table({"customer_id": known, "country": country}), lines, companion)


def _products(settings: ShopSettings, random: np.random.Generator) -> tuple[_Ints, pa.Table, _Ints]:
    """The theme of each product int64[n], their table, and when each appeared int64[n]."""
    names, themes = [], []
    for number, (theme, nouns) in enumerate(THEMES.items()):
        for style, noun in product(STYLES, nouns):
            names.append(f"{style} {theme} {noun}")
            themes.append(number)
    count = len(names)
    late = random.random(count) < settings.new_share
    appeared = np.where(late, random.uniform(0.0, settings.days - 1.0, count), 0.0)
    first_us = settings.start_us + (appeared * DAY_US).astype(np.int64)
    code = [f"P{number:04d}" for number in random.permutation(count)]
    table = pa.table(
        {
            "product_id": code,
            "first_sold_at": pa.array(first_us, pa.timestamp("us")),
            "description": names,
            "first_price": np.round(random.lognormal(1.0, 0.7, count), 2),
        }
    )
    return np.array(themes, dtype=np.int64), table, first_us


def _companions(theme: _Ints, settings: ShopSettings, random: np.random.Generator) -> _Ints:
    """int64[n, companions]: other products of the same theme that go with each."""
    found = []
    for index in range(len(theme)):
        others = np.flatnonzero(theme == theme[index])
        found.append(random.choice(others[others != index], settings.companions, replace=False))
    return np.stack(found)


@dataclass(frozen=True, slots=True)
class _Catalog:
    """Of each product: its theme, when it appeared, what goes with it [companions], and how popular it is."""

    theme: _Ints
    first_us: _Ints
    companion: _Ints
    popularity: npt.NDArray[np.float64]


def _baskets(settings: ShopSettings, catalog: _Catalog, random: np.random.Generator) -> tuple[_Ints, _Ints, _Ints]:
    """Customer, product and time of each line, int64[lines]; customers count from 1, lines are a minute apart."""
    theme, first_us, companion = catalog.theme, catalog.first_us, catalog.companion
    customers: list[int] = []
    items: list[int] = []
    times: list[int] = []
    themes = int(theme.max()) + 1
    for customer in range(1, settings.customers + 1):
        tastes = random.choice(themes, 2, replace=False)
        for _ in range(1 + random.poisson(settings.baskets_per_customer - 1.0)):
            time_us = settings.start_us + int(random.integers(settings.days * DAY_US // MINUTE_US - 60)) * MINUTE_US
            chosen = int(random.choice(tastes) if random.random() < settings.taste_share else random.integers(themes))
            there = np.flatnonzero((theme == chosen) & (first_us <= time_us))
            weight = catalog.popularity[there] / catalog.popularity[there].sum()
            item = int(random.choice(there, p=weight))
            basket: list[int] = []
            for _ in range(1 + random.poisson(settings.products_in_basket - 1.0)):
                if item not in basket:
                    basket.append(item)
                after = companion[item][first_us[companion[item]] <= time_us]
                follows = len(after) and random.random() < settings.companion_share
                item = int(random.choice(after) if follows else random.choice(there, p=weight))
            customers += [customer] * len(basket)
            items += basket
            times += [time_us + place * MINUTE_US for place in range(len(basket))]
    return np.array(customers), np.array(items), np.array(times)
