"""The ``nowgraph`` command: one module of ``nowgraph.commands`` per subcommand, imported when it runs.

Every command prints a table for people and, with ``--json``, one JSON document for machines on standard output;
progress goes to standard error. What the user can mend is one line on standard error and exit code 2; a defect is a
traceback.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nowgraph.commands import (
    audit,
    capacity,
    config,
    dead_letters,
    demo,
    demo_rank,
    doctor,
    erase,
    evaluate,
    health,
    labels,
    models,
    plan,
    predict,
    pretrain,
    quality,
    replay,
    schema,
    serve,
    snapshots,
    token,
    train,
    update,
    verify,
)
from nowgraph.errors import UsageError, explain


class _Group(TyperGroup):
    """Turns the errors that a user can mend into one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            typer.echo(f"nowgraph: {line}", err=True)
            raise typer.Exit(2) from error


app = typer.Typer(
    name="nowgraph",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A live temporal graph of your tables, and a graph transformer that answers on it.",
)
app.add_typer(schema.app, name="schema")
app.add_typer(models.app, name="models")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(snapshots.app, name="snapshots")
app.add_typer(config.app, name="config")
app.command("serve")(serve.serve)
app.command("token")(token.token)
app.command("doctor")(doctor.doctor)
app.command("update")(update.update)
app.command("erase")(erase.erase)
app.command("verify")(verify.verify)
app.command("audit")(audit.audit)
app.command("health")(health.health)
app.command("capacity")(capacity.capacity)
app.command("plan")(plan.plan)
app.command("query")(labels.query)
app.command("labels")(labels.labels)
app.command("pretrain")(pretrain.pretrain)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("quality")(quality.quality)
app.command("replay")(replay.replay)
app.command("demo")(demo.demo)
app.command("demo-rank")(demo_rank.demo_rank)


def _version(wanted: bool) -> None:
    if wanted:
        from nowgraph import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001  # its callback has acted already
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    log_level: Annotated[
        str, typer.Option(envvar="NOWGRAPH_LOG_LEVEL", help="debug, info, warning or error.")
    ] = "warning",
) -> None:
    """A live temporal graph of your tables, and a graph transformer that answers on it."""
    from nowgraph.logs import configure_logs

    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise UsageError(f"--log-level {log_level}: expected debug, info, warning or error")
    configure_logs(log_level)


def main() -> None:
    """The entry point of the installed command."""
    app()


if __name__ == "__main__":
    main()
