"""The demo from start to end: data -> broker -> graph -> training -> live payments over gRPC -> their worth."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from graph_transformer.finetune.plots import plot_precision_recall
from graph_transformer.task import Task
from graph_updater.embedded import UpdaterThread
from graph_updater.updater import Updater
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.assembly import embedded_server, share_one_process
from nowgraph.client import AsyncClient
from nowgraph.demo.data import DemoData, demo_data
from nowgraph.demo.live import Moment, Picture, phase
from nowgraph.demo.measures import measure, not_yet_compromised
from nowgraph.demo.player import FRAUD_REPORTS, TRANSACTIONS, Player
from nowgraph.demo.result import ALONE, GRAPH, DemoResult, Rates
from nowgraph.demo.settings import DemoSettings
from nowgraph.demo.training import payment_row, scores_alone, train_both
from nowgraph.errors import NowgraphError
from stream.dead_letters import DeadLetters
from stream.decode import Decoder
from stream.embedded_broker import EmbeddedBroker
from stream.file_rows import FileTable
from stream.file_source import FileSource
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer, PacedProducer
from stream.settings import StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema

# A score that takes longer than this on a loopback has failed; the live figures show how far off it is.
_SCORE_TIMEOUT_S = 10.0
_APPLIED_TIMEOUT_S = 60.0


@dataclass(slots=True)
class _Phases:
    """How long each part took."""

    seconds: dict[str, float] = field(default_factory=dict)
    _start_s: float = field(default_factory=time.monotonic)

    def end(self, name: str) -> None:
        now_s = time.monotonic()
        self.seconds[name] = now_s - self._start_s
        self._start_s = now_s


class Demo:
    """One run. ``run`` starts everything, and nothing is left running when it returns or raises."""

    def __init__(
        self, schema: Schema, task: Task, settings: DemoSettings, picture: Picture, *, real_data: bool = True
    ) -> None:
        self._schema = schema
        self._task = task
        self._settings = settings
        self._picture = picture
        self._real_data = real_data
        self._phases = _Phases()

    def run(self) -> DemoResult:
        """Plays the demo and returns its figures.

        Raises what the parts raise: PaymentsError, StreamError, GraphTransformerError, ClientError, OSError.
        """
        share_one_process()
        settings = self._settings
        settings.output.mkdir(parents=True, exist_ok=True)
        data = demo_data(settings, real=self._real_data)
        self._picture.say(f"Payments: {data.name}")
        self._phases.end("data")
        topics = dict.fromkeys((TRANSACTIONS, FRAUD_REPORTS), settings.partitions)
        with ExitStack() as stack:
            defaults = StreamSettings()
            extra = {defaults.dead_letter_topic: 1, defaults.predictions_topic: settings.partitions}
            broker = stack.enter_context(EmbeddedBroker(topics | extra))
            stream = StreamSettings(kafka_bootstrap=broker.bootstrap)
            self._picture.say(f"Broker: embedded, on {broker.bootstrap}")
            graph = stack.enter_context(TemporalGraph.create(self._schema, arena_bytes=settings.arena_bytes))
            producer = stack.enter_context(EventProducer(stream))
            history_events, history_s = self._bootstrap(graph, data, stream, producer)
            model, model_alone = self._train(graph)
            alone = scores_alone(graph, model_alone, data.live)
            self._phases.end("scores without the graph")
            source = KafkaSource(tuple(topics), positions=graph.positions, gaps="error", settings=stream)
            updater = Updater(graph, [source], Decoder(self._schema), DeadLetters(producer, settings=stream))
            thread = stack.enter_context(UpdaterThread(updater))
            server = stack.enter_context(
                BackgroundServer(
                    lambda: embedded_server(graph, model, _server_settings(), stream=stream, producer=producer)
                )
            )
            play = _Play(
                settings=settings,
                data=data,
                alone=alone,
                updater=thread,
                producer=producer,
                stream=stream,
                target=server.target,
                picture=self._picture,
            )
            rates = asyncio.run(play.run(self._phases))
        return self._result(
            data=data,
            score=play.player.score,
            alone=alone,
            rates=rates,
            history_events=history_events,
            history_s=history_s,
            model=model,
        )

    def _bootstrap(
        self, graph: TemporalGraph, data: DemoData, stream: StreamSettings, producer: EventProducer
    ) -> tuple[int, float]:
        """Loads history from files; returns its events and the seconds they took."""
        with TemporaryDirectory() as made:
            files = data.write_history(Path(made), live_us=self._settings.live_us)
            source = FileSource(self._schema, [FileTable.of(self._schema, path) for path in files])
            updater = Updater(graph, [source], Decoder(self._schema), DeadLetters(producer, settings=stream))
            count = source.lag_records()
            start_s = time.monotonic()
            with phase(self._picture, f"Loading {count:,} events of history", lambda: _loaded(graph, count, start_s)):
                updater.run()
            updater.close()
        self._phases.end("history")
        return count, time.monotonic() - start_s

    def _train(self, graph: TemporalGraph) -> tuple[Path, Path]:
        settings, picture = self._settings, self._picture
        last = _LastStep()

        def on_step(done: int, total: int, loss: float) -> None:
            if last.due(done):
                picture.say(f"  step {done} of {total}, loss {loss:.3f}")

        text = f"Training on labels known by {np.datetime64(settings.live_us, 'us').astype('datetime64[D]')}"
        with phase(picture, text, lambda: "two models, with the graph and without,"):
            folders = train_both(graph, self._task, settings, on_step)
        self._phases.end("training")
        return folders

    def _result(
        self,
        *,
        data: DemoData,
        score: npt.NDArray[np.float64],
        alone: npt.NDArray[np.float64],
        rates: Rates,
        history_events: int,
        history_s: float,
        model: Path,
    ) -> DemoResult:
        settings = self._settings
        scored = ~np.isnan(score)
        live, score, alone = data.live.where(scored), score[scored], alone[scored]
        keep = not_yet_compromised(data.past, live, known_from_us=settings.on_record_us)
        kept, cards = live.where(keep), settings.cards_a_day
        picture = settings.output / "precision_recall.png"
        curves = {"with the graph": (_logit(score), live.tx_fraud), "without": (_logit(alone), live.tx_fraud)}
        plot_precision_recall(picture, curves)
        return DemoResult(
            data=data.name,
            history_events=history_events,
            history_events_per_s=history_events / max(history_s, 1e-9),
            rates=rates,
            measures={
                GRAPH: measure(live, score, cards_a_day=cards),
                ALONE: measure(live, alone, cards_a_day=cards),
            },
            handbook={
                GRAPH: measure(kept, score[keep], cards_a_day=cards),
                ALONE: measure(kept, alone[keep], cards_a_day=cards),
            },
            seconds=self._phases.seconds,
            model=model,
            picture=picture,
        )


class _Play:
    """The live part: a client that scores, a producer that publishes, and the picture of both."""

    def __init__(
        self,
        *,
        settings: DemoSettings,
        data: DemoData,
        alone: npt.NDArray[np.float64],
        updater: UpdaterThread,
        producer: EventProducer,
        stream: StreamSettings,
        target: str,
        picture: Picture,
    ) -> None:
        self._settings = settings
        self._alone = alone
        self._updater = updater
        self._picture = picture
        self._target = target
        self._client: AsyncClient | None = None
        self._paced = PacedProducer(producer, updater.updater.applied, settings=stream)
        self.player = Player(
            data.live, data.reported, score_one=self._score, publish=self._publish, in_flight=settings.in_flight
        )
        self._start_s = self._last_s = time.monotonic()
        self._last_counts = (0, 0)

    async def run(self, phases: _Phases) -> Rates:
        """Scores the payments, then plays the reports that follow; returns the rates while payments were scored."""
        settings, player, picture = self._settings, self.player, self._picture
        async with AsyncClient(self._target, timeout_s=_SCORE_TIMEOUT_S) as self._client:
            with picture.running():
                painter = asyncio.create_task(self._paint())
                self._start_s = self._last_s = time.monotonic()
                await player.play_payments(until_s=self._start_s + settings.live_budget_s)
                rates = self._rates(time.monotonic() - self._start_s)
                phases.end("live payments")
                await player.play_reports(until_us=settings.known_us, pause_s=settings.report_pause_s)
                in_time = await asyncio.to_thread(self._paced.wait_applied, _APPLIED_TIMEOUT_S)
                painter.cancel()
                self._updater.check()
                if not in_time:
                    raise NowgraphError(f"the graph did not apply every event within {_APPLIED_TIMEOUT_S:.0f} s")
                picture.draw(self._moment())
        phases.end("reports")
        return rates

    async def _score(self, index: int) -> float:
        assert self._client is not None
        row = payment_row(self.player.live, index)
        answer = await self._client.score(row.table, row.key, row.cells, event_time=row.event_time)
        assert answer.probability is not None  # the demo's task is yes or no
        return answer.probability

    def _publish(self, topic: str, key: bytes, value: bytes) -> None:
        self._paced.publish(topic, key=key, value=value)

    async def _paint(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            self._updater.check()
            if self._picture.due():
                self._picture.draw(self._moment())

    def _applied(self) -> int:
        registry = self._updater.updater.metrics.registry
        return int(registry.get_sample_value("nowgraph_events_applied_total") or 0)

    def _moment(self) -> Moment:
        player = self.player
        now_s, counts = time.monotonic(), (player.scored, self._applied())
        passed_s = max(now_s - self._last_s, 1e-9)
        scores, events = (now - before for now, before in zip(counts, self._last_counts, strict=True))
        self._last_s, self._last_counts = now_s, counts
        known = player.known()
        visible = self._updater.updater.metrics.visible_seconds
        p50, p99 = _quantiles(player.latency_ms)
        return Moment(
            clock_us=player.clock_us,
            scored=counts[0],
            applied=counts[1],
            scores_per_s=scores / passed_s,
            events_per_s=events / passed_s,
            visible_ms_p50=visible.quantile(0.5) * 1e3,
            visible_ms_p99=visible.quantile(0.99) * 1e3,
            score_ms_p50=p50,
            score_ms_p99=p99,
            labels_known=int(known.sum()),
            frauds_known=int(player.live.tx_fraud[known].sum()),
            graph_ap=player.average_precision_of(player.score),
            alone_ap=player.average_precision_of(self._alone),
        )

    def _rates(self, seconds: float) -> Rates:
        visible = self._updater.updater.metrics.visible_seconds
        p50, p99 = _quantiles(self.player.latency_ms)
        applied = self._applied()
        return Rates(
            scored=self.player.scored,
            scores_per_s=self.player.scored / max(seconds, 1e-9),
            events_applied=applied,
            events_per_s=applied / max(seconds, 1e-9),
            visible_ms_p50=visible.quantile(0.5) * 1e3,
            visible_ms_p99=visible.quantile(0.99) * 1e3,
            score_ms_p50=p50,
            score_ms_p99=p99,
            in_flight=self._settings.in_flight,
        )


class _LastStep:
    """Lets a line about training through every few seconds."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._next_s = time.monotonic() + every_s

    def due(self, step: int) -> bool:
        del step
        if time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + self._every_s
        return True


def _server_settings() -> ServerSettings:
    return ServerSettings(port=0, metrics_port=0, deadline_default_ms=int(_SCORE_TIMEOUT_S * 1e3))


def _quantiles(latency_ms: list[float]) -> tuple[float, float]:
    if not latency_ms:
        return float("nan"), float("nan")
    p50, p99 = np.percentile(np.asarray(latency_ms), [50, 99])
    return float(p50), float(p99)


def _loaded(graph: TemporalGraph, count: int, start_s: float) -> str:
    rate = count / max(time.monotonic() - start_s, 1e-9)
    used_mb = graph.memory().used_bytes / 1e6
    return f"{graph.view().row_count('transactions'):,} payments, {rate:,.0f} events/s, {used_mb:,.0f} MB of graph"


def _logit(probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    clipped = np.clip(probability, 1e-12, 1 - 1e-12)
    logit: npt.NDArray[np.float64] = np.log(clipped / (1 - clipped))
    return logit
