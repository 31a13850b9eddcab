"""``nowgraph doctor``: looks at machine, files and services that a server needs, and says how to mend them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nowgraph.commands.options import AsJson
from nowgraph.errors import UsageError
from nowgraph.report import emit

if TYPE_CHECKING:
    from nowgraph.doctor import Patient


def doctor(
    *,
    config: Annotated[
        Path | None, typer.Option("--config", envvar="NOWGRAPH_SERVER_CONFIG", help="serving.yaml.")
    ] = None,
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", help="Folder that `nowgraph train` made.")] = None,
    schema: Annotated[Path | None, typer.Option("--schema", help="Default: schema.yaml of the checkpoint.")] = None,
    arena: Annotated[Path | None, typer.Option("--arena", help="Folder of the live graph.")] = None,
    bootstrap_servers: Annotated[str, typer.Option(envvar="KAFKA_BOOTSTRAP", help="Kafka; empty: none.")] = "",
    as_json: AsJson = False,
) -> None:
    """Exit with 1 if anything fails. NOWGRAPH_SERVER_* are read as a server reads them; nothing is changed."""
    from nowgraph.doctor import Status, examine, worst

    patient = _patient(config, checkpoint, schema, arena, bootstrap_servers)
    findings = list(examine(patient))
    status = worst(findings)
    rows = [
        {"check": one.check, "status": str(one.status), "found": one.found, "mend": one.mend or None}
        for one in findings
    ]
    emit(rows, title=f"nowgraph doctor: {status}", as_json=as_json, document={"status": status, "findings": rows})
    if status is Status.FAIL:
        raise typer.Exit(1)


def _patient(
    config: Path | None, checkpoint: Path | None, schema: Path | None, arena: Path | None, bootstrap: str
) -> Patient:
    from model_server.config import load_serving
    from model_server.settings import ServerSettings
    from nowgraph.assembly import schema_of
    from nowgraph.doctor import Graph, Patient
    from stream.settings import StreamSettings

    stream = StreamSettings(kafka_bootstrap=bootstrap) if bootstrap else None
    if config is not None:
        if checkpoint or schema or arena:
            raise UsageError("--config says which schemas, arenas and checkpoints there are")
        serving = load_serving(config)
        graphs = tuple(
            Graph(
                f"{tenant.name}: " if tenant.name else "",
                tenant.schema_path,
                tenant.arena,
                tenant.store,
                tuple(task.checkpoint for task in tenant.tasks if task.checkpoint is not None),
            )
            for tenant in serving.tenants
        )
        return Patient(serving.settings(), stream, graphs)
    settings = ServerSettings()
    checkpoint, arena = checkpoint or settings.checkpoint_path, arena or settings.arena_path
    schema = schema or settings.schema_path
    if checkpoint is not None:
        schema = schema_of(checkpoint, schema)
    store = None if arena is not None else settings.store_url
    graph = Graph(schema=schema, arena=arena, store=store, checkpoints=() if checkpoint is None else (checkpoint,))
    return Patient(settings, stream, (graph,))
