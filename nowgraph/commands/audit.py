"""``nowgraph audit``: recorded answers, computed again at their graph positions and compared bit by bit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from google.protobuf import json_format

from nowgraph.commands.options import AsJson, Bootstrap, CheckpointSchemaPath, History, Quiet
from nowgraph.errors import UsageError
from nowgraph.report import emit, time_text
from temporal_graph.graph import ARENA_BYTES, TemporalGraph

if TYPE_CHECKING:
    from nowgraph.audit import Audited
    from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
    from stream.batch import Positions
    from stream.settings import StreamSettings
    from temporal_graph.schema import Schema


def audit(
    *,
    bootstrap_servers: Bootstrap,
    request_id: Annotated[
        list[str] | None, typer.Option("--request-id", help="Each answer to it that the predictions topic holds.")
    ] = None,
    prediction: Annotated[
        Path | None, typer.Option("--prediction", help="A file of answers: one Prediction a line, as protobuf's JSON.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="The folder of the model that answered.")
    ] = None,
    registry: Annotated[
        str | None, typer.Option(help="In its place a registry (with --schema): the version that each answer names.")
    ] = None,
    schema: CheckpointSchemaPath = None,
    snapshots: Annotated[
        str | None, typer.Option("--snapshots", help="Where snapshots are: then less of the log is read.")
    ] = None,
    history: History = None,
    arena_bytes: Annotated[int, typer.Option(help="Size of the graph.")] = ARENA_BYTES,
    timeout: Annotated[float, typer.Option(help="Seconds without a record until the log counts as incomplete.")] = 30.0,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Compute recorded answers again, on the graph as it was then, by the same model, and compare every bit.

    What a server with --fixed-shape answered comes out the same; of another one the last digits may differ. Exit code
    1 where they do. Nothing is written.
    """
    from nowgraph.audit import answers_in, recorded_answers, refuse_lists_and_rules
    from stream.settings import StreamSettings
    from temporal_graph.schema import load_schema

    if (prediction is None) == (not request_id):
        raise UsageError("either --request-id or --prediction says which answers")
    models = _Models(checkpoint, registry)
    loaded, stream = load_schema(models.schema(schema)), StreamSettings(kafka_bootstrap=bootstrap_servers)
    answers = recorded_answers(stream, request_id or ()) if prediction is None else answers_in(prediction)
    refuse_lists_and_rules(answers)
    log = _Log(loaded, stream, snapshots, history or [], arena_bytes, timeout, quiet)
    audited = [_audited(one, log, models) for one in answers]
    rows = [_row(one) for one in audited]
    same = all(one.equal for one in audited)
    title = "The same again" if same else "Answers differ"
    emit(rows, title=title, as_json=as_json, document={"equal": same, "answers": [_document(one) for one in audited]})
    if not same:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Models:
    """Where the models lie that answered: one folder, or a registry."""

    checkpoint: Path | None
    registry: str | None

    def schema(self, given: Path | None) -> Path:
        from nowgraph.assembly import schema_of

        if (self.checkpoint is None) == (self.registry is None):
            raise UsageError("either --checkpoint or --registry says where the models are")
        if self.checkpoint is not None:
            return schema_of(self.checkpoint, given)
        if given is None:
            raise UsageError("--registry needs --schema: which tables there are")
        return given

    def folder(self, response: service_pb2.ScoreResponse) -> Path:
        """The folder of the version that an answer names."""
        from model_server.models.registry import Registry

        if self.checkpoint is not None:
            return self.checkpoint
        assert self.registry is not None
        return Registry(self.registry).fetch(response.task, response.model_version)[0]


@dataclass(frozen=True)
class _Log:
    """What the graph is made of: history, log, and snapshots of both."""

    schema: Schema
    stream: StreamSettings
    snapshots: str | None
    history: list[Path]
    arena_bytes: int
    timeout_s: float
    quiet: bool

    @contextmanager
    def graph_at(self, position: Positions) -> Iterator[TemporalGraph]:
        """The graph that holds exactly what lies before these offsets."""
        from graph_updater.dead_letter_file import DeadLetterFile
        from nowgraph.assembly import updater_of
        from nowgraph.commands.verify import bounded_log, rebuild
        from nowgraph.loading import restored_graph
        from temporal_graph.snapshots import Snapshots

        store = None if self.snapshots is None else Snapshots(self.snapshots)
        made = restored_graph(self.schema, store, arena_bytes=self.arena_bytes, until=position, quiet=True)
        with made as graph, tempfile.TemporaryDirectory() as folder, DeadLetterFile(Path(folder) / "dead") as dead:
            bounded = bounded_log(graph, self.history, self.stream, position)
            rebuild(updater_of(graph, bounded, dead, self.stream), bounded, self.timeout_s, quiet=self.quiet)
            yield graph


def _audited(recorded: service_pb2.Prediction, log: _Log, models: _Models) -> Audited:
    from graph_transformer.checkpoint import Checkpoint
    from graph_transformer.predictor import Predictor
    from nowgraph.audit import answer_again, position_of, refuse_draws

    response = recorded.response
    checkpoint = Checkpoint.load(models.folder(response), log.schema)
    if checkpoint.version != response.model_version:
        answered = f"{response.request_id!r} was answered by model {response.model_version}"
        raise UsageError(f"{answered}, the checkpoint is of {checkpoint.version}")
    with log.graph_at(position_of(recorded)) as graph:
        view = graph.view()
        predictor = Predictor(checkpoint, view, fixed_shape=True)
        refuse_draws(predictor)
        return answer_again(recorded, predictor, view)


def _row(one: Audited) -> dict[str, Any]:
    recorded = one.recorded
    return {
        "request": recorded.response.request_id,
        "answered": time_text(recorded.answered_time_us),
        "model": recorded.response.model_version,
        "recorded": _said(recorded.response),
        "again": _said(one.again),
        "equal": one.equal,
    }


def _document(one: Audited) -> dict[str, Any]:
    again, recorded = (json_format.MessageToDict(message) for message in (one.again, one.recorded))
    return _row(one) | {"prediction": recorded, "answer_again": again}


def _said(response: service_pb2.ScoreResponse) -> str:
    """What was answered, to the last digit."""
    if response.steps:
        return ", ".join(repr(step.value) for step in response.steps)
    if response.classes:
        return ", ".join(f"{one.name} {one.probability!r}" for one in response.classes)
    return repr(response.value if response.HasField("value") else response.probability)
