"""The demo's live picture: a table that redraws on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.table import Table

from nowgraph.report import cell_text

_LINE_EVERY_S = 5.0
_DRAWN_PER_S = 4.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What the live table shows: the simulated clock, rates, latencies, and how good the scores are so far."""

    clock_us: int
    scored: int
    applied: int
    scores_per_s: float
    events_per_s: float
    visible_ms_p50: float
    visible_ms_p99: float
    score_ms_p50: float
    score_ms_p99: float
    labels_known: int
    frauds_known: int
    graph_ap: float
    alone_ap: float


def clock_text(time_us: int) -> str:
    """A time of the data as a person reads it, UTC."""
    return datetime.fromtimestamp(time_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M")


class Picture:
    """Shows moments; ``due()`` says when the next one is worth computing, for average precision is not free."""

    def __init__(self, console: Console, *, show: bool) -> None:
        self._console = console
        self._show = show
        self._live: Live | None = None
        self._next_s = 0.0

    @contextmanager
    def running(self) -> Iterator[Picture]:
        """Draws from here to the end of the block; on a terminal the last table stays."""
        if not (self._show and self._console.is_terminal):
            yield self
            return
        with Live(console=self._console, auto_refresh=False) as self._live:
            yield self
        self._live = None

    def due(self) -> bool:
        """Whether it is time to draw again."""
        return self._show and time.monotonic() >= self._next_s

    def draw(self, moment: Moment) -> None:
        """Shows the moment."""
        if not self._show:
            return
        every_s = _LINE_EVERY_S if self._live is None else 1 / _DRAWN_PER_S
        self._next_s = time.monotonic() + every_s
        if self._live is not None:
            self._live.update(_table(moment), refresh=True)
        else:
            self._console.print(_line(moment), highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line about a phase."""
        if self._show:
            self._console.print(text, highlight=False)


@contextmanager
def phase(picture: Picture, text: str, done: Callable[[], str]) -> Iterator[None]:
    """Announces a phase, and when it ends says what it brought and how long it took."""
    picture.say(f"[bold]{text}[/bold] ...")
    start_s = time.monotonic()
    yield
    picture.say(f"  {done()} in {time.monotonic() - start_s:.1f} s")


def _line(moment: Moment) -> str:
    return (
        f"{clock_text(moment.clock_us)}  scored {moment.scored:,} ({moment.scores_per_s:.0f}/s)  "
        f"events {moment.events_per_s:,.0f}/s  visible {_ms(moment.visible_ms_p50)}/{_ms(moment.visible_ms_p99)} ms  "
        f"score {_ms(moment.score_ms_p50)}/{_ms(moment.score_ms_p99)} ms (p50/p99)  "
        f"frauds known {moment.frauds_known:,}  "
        f"AP {cell_text(moment.graph_ap)} with the graph, {cell_text(moment.alone_ap)} without"
    )


def _table(moment: Moment) -> Table:
    table = Table(title=f"Live: {clock_text(moment.clock_us)} UTC in the data", title_justify="left", min_width=72)
    for name in ("", "now", "p50", "p99"):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("events applied", f"{moment.applied:,}  {moment.events_per_s:,.0f}/s", "", "")
    table.add_row("event to visible, ms", "", _ms(moment.visible_ms_p50), _ms(moment.visible_ms_p99))
    table.add_row("payments scored", f"{moment.scored:,}  {moment.scores_per_s:,.0f}/s", "", "")
    table.add_row("score over gRPC, ms", "", _ms(moment.score_ms_p50), _ms(moment.score_ms_p99))
    table.add_section()
    table.add_row("labels known", f"{moment.labels_known:,}  ({moment.frauds_known:,} frauds)", "", "")
    table.add_row("AP so far, with the graph", f"[bold]{cell_text(moment.graph_ap)}[/bold]", "", "")
    table.add_row("AP so far, without it", cell_text(moment.alone_ap), "", "")
    return table


def _ms(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.1f}"
