"""``nowgraph quality``: how good the answers of a running server turn out to be, once outcomes are known."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer
from prometheus_client import CollectorRegistry, start_http_server

from nowgraph.assembly import privacy_of, schema_of
from nowgraph.commands.options import AsJson, Bootstrap, CheckpointSchemaPath, Quiet
from nowgraph.commands.running import Stop, progress_line
from nowgraph.errors import UsageError
from nowgraph.quality import document_of, quality_task, rows_of, task_of
from nowgraph.report import emit, time_text
from stream.errors import ConfigurationError, SourceError
from stream.quality.config import QualitySettings
from stream.quality.feed import Feed
from stream.quality.reader import QualityReader
from stream.quality.report import Report
from stream.settings import EVENTS_TOPIC, StreamSettings
from temporal_graph.duration import parse_duration_us
from temporal_graph.schema import load_schema


def quality(
    *,
    checkpoint: Annotated[
        list[Path], typer.Option("--checkpoint", help="Folder that `nowgraph train` made; again for more tasks.")
    ],
    bootstrap_servers: Bootstrap,
    schema: CheckpointSchemaPath = None,
    window: Annotated[
        list[str] | None, typer.Option("--window", help="A rolling window such as 1d; again for more. Default: 1d.")
    ] = None,
    label_delay: Annotated[
        str | None, typer.Option(help="From when on a label counts as known, such as 7d. Default: as the task says.")
    ] = None,
    absence: Annotated[
        Literal["negative", "unknown"] | None, typer.Option(help="What no outcome within the delay means.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Only predictions of this tenant; empty: all.")] = "",
    references: Annotated[
        Path | None, typer.Option(help="File of what is usual of scores and inputs: read if it is there, kept up.")
    ] = None,
    metrics_port: Annotated[int, typer.Option(help="The port of Prometheus metrics; 0 for none.")] = 9466,
    metrics_host: Annotated[str, typer.Option(help="The address they are served on.")] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Read to the topics' present end, report and end.")] = False,
    faust: Annotated[bool, typer.Option("--faust", help="By Faust: state in changelog topics, not read anew.")] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Join predictions with late outcomes and report rolling figures, until stopped.

    Reads the predictions topic and the schema's topics from their beginning, and measures every model that answered,
    shadows included: by Prometheus while it runs, by a table at the end.
    """
    loaded = load_schema(schema_of(checkpoint[0], schema))
    stream = StreamSettings(kafka_bootstrap=bootstrap_servers)
    settings = QualitySettings() if not window else QualitySettings(windows_us=tuple(_duration(w) for w in window))
    delay_us = None if label_delay is None else _duration(label_delay)
    negative = None if absence is None else absence == "negative"
    tasks = [
        quality_task(task_of(one), loaded, tenant=tenant, label_delay_us=delay_us, absence_is_negative=negative)
        for one in checkpoint
    ]
    feed = Feed(tasks, loaded, privacy=privacy_of(loaded, stream), stream=stream, settings=settings)
    if references is not None and references.is_file():
        feed.monitor.use_references(references.read_text(encoding="utf-8"))
    stop = Stop(signal.SIGTERM, signal.SIGINT)
    last: list[Report] = []
    with progress_line(quiet=quiet) as show:

        def on_report(report: Report) -> None:
            last[:] = [report]
            show(f"{report.rows:,} rows held, up to {time_text(report.watermark_us)}")
            if references is not None:
                _keep(references, feed.monitor.references())

        run = _Run(feed, stream, settings, stop, on_report, (metrics_host, metrics_port))
        if faust and not once:
            run.by_faust()
        else:
            run.by_kafka(once=once)
    if last:
        emit(rows_of(last[0]), title="Quality", as_json=as_json, document=document_of(last[0]))


@dataclass(frozen=True)
class _Run:
    """What both ways of reading the topics need."""

    feed: Feed
    stream: StreamSettings
    settings: QualitySettings
    stop: Stop
    on_report: Callable[[Report], None]
    metrics_at: tuple[str, int]

    def by_kafka(self, *, once: bool) -> None:
        with ExitStack() as stack:
            reader = stack.enter_context(self._reader())
            if once:
                self.on_report(reader.catch_up(lambda: self.stop.wait(0)))
                return
            self._serve(reader.metrics.registry, stack)
            reader.run(lambda: self.stop.wait(0), self.on_report)

    def by_faust(self) -> None:
        from stream.quality.faust_app import FaustQuality

        with ExitStack() as stack:
            # The topics' partitions, which those of the changelogs must equal, by a reader that ends.
            with self._reader() as reader:
                partitions = reader.partitions()
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nowgraph-quality-")))
            shell = FaustQuality(
                self.feed,
                self.stream,
                folder=folder,
                partitions=partitions,
                report_every_s=self.settings.report_every_s,
                takeover_s=self.settings.takeover_s,
                on_report=self.on_report,
            )
            self._serve(shell.metrics.registry, stack)

            async def run() -> None:
                await shell.app.start()
                try:
                    while shell.failure is None and not await asyncio.to_thread(self.stop.wait, 0.2):
                        pass
                    if shell.failure is not None:
                        raise SourceError(f"Faust stopped reading: {shell.failure}") from shell.failure
                    self.on_report(await shell.report())
                finally:
                    await shell.app.stop()

            shell.prepare()
            asyncio.run(run())

    def _reader(self) -> QualityReader:
        """Reads the feed's topics, and where the broker has it also that of events which came by Ingest."""
        feed, every_s = self.feed, self.settings.report_every_s
        if EVENTS_TOPIC not in feed.topics:
            try:
                return QualityReader(feed, self.stream, topics=(*feed.topics, EVENTS_TOPIC), report_every_s=every_s)
            except ConfigurationError:
                pass  # nobody ingests, or another topic is missing: then the next line says which
        return QualityReader(feed, self.stream, report_every_s=every_s)

    def _serve(self, registry: CollectorRegistry, stack: ExitStack) -> None:
        host, port = self.metrics_at
        if port:
            server, thread = start_http_server(port, addr=host, registry=registry)
            stack.callback(thread.join)
            stack.callback(server.server_close)
            stack.callback(server.shutdown)


def _duration(text: str) -> int:
    try:
        return parse_duration_us(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _keep(path: Path, text: str) -> None:
    """Writes a file anew where it changed; whoever reads it sees the old one or the new one."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        beside = path.with_name(path.name + ".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
