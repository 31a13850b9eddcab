"""The ``nowgraph`` command: one module of ``nowgraph.commands`` per subcommand, imported when it runs.

Every command prints a table for people and, with ``--json``, one JSON document for machines on standard output;
progress goes to standard error. What the user can mend is one line on standard error and exit code 2; a defect is a
traceback.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from nowgraph.errors import UsageError, explain

# The first paragraph of each command's own help, which the list of all shows without importing one.
SHORT_HELP: Final = {
    "serve": "Serve answers over gRPC until stopped.",
    "token": "Make a bearer token. It is shown once: give it to the caller, and its entry to the access file.",
    "doctor": "Exit with 1 if anything fails. NOWGRAPH_SERVER_* are read as a server reads them; nothing is changed.",
    "update": "Keep the live graph: history from files, then every event of the schema's topics, until stopped.",
    "erase": (
        "Erase a row and every row that is its own, until a time: versions, links, keys and strings, byte by byte."
    ),
    "verify": "Rebuild the graph from history and log up to where the newest snapshot stands, and compare the two.",
    "audit": "Compute recorded answers again, on the graph as it was then, by the same model, and compare every bit.",
    "health": (
        "Exit with 0 when it serves, else with 1: for health checks of containers, and exec probes of servers with TLS."
    ),
    "capacity": (
        "Say how much memory a graph takes, and how many cores read and answer: a model, checked in docs/SCALING.md."
    ),
    "plan": "Propose a plan from the schema, degree statistics and labels; edit it, then `nowgraph train --plan`.",
    "query": "Check a query against a schema and say how it is understood: what is asked, of whom, over which windows.",
    "labels": (
        "Make the training table of a query or a task: who is asked when, the answer, and from when on it was known."
    ),
    "pretrain": "Learn the rows of a graph without labels: hidden cells, and when an entity's next event comes.",
    "train": "Fine-tune a model on a query or a task, through the same updater, sampler and collate that serve.",
    "evaluate": "Measure a checkpoint on questions whose answers are known by now, each asked at its own cut-off.",
    "predict": "Answer every row of a Parquet file, through the request check, sampler, collate and model that serve.",
    "quality": "Join predictions with late outcomes and report rolling figures, until stopped.",
    "replay": "Replay files as a stream, merged by event time.",
    "demo": "Score card payments live, each over gRPC before its event is applied, and see what the graph is worth.",
    "demo-rank": "Rank items for a visitor of a shop over gRPC, and see how each click changes the next list.",
    "schema": "Draft, check and show schemas.",
    "models": "Versions of models, and which of them answer.",
    "dead-letters": "List records that could not enter the graph, and send them again.",
    "snapshots": "List the snapshots of a graph, and check that they are whole.",
    "config": "Check configuration files.",
}
# A command's module has its name, but for these.
_MODULES: Final = {"query": "labels"}


class _Commands(Mapping[str, Any]):
    """The commands by name: each is imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        if name not in SHORT_HELP:
            raise KeyError(name)
        word = name.replace("-", "_")
        module = import_module(f"nowgraph.commands.{_MODULES.get(name, word)}")
        only = typer.Typer()
        if hasattr(module, "app"):
            only.add_typer(module.app, name=name)
        else:
            only.command(name)(getattr(module, word))
        return typer.main.get_group(only).commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(SHORT_HELP)

    def __len__(self) -> int:
        return len(SHORT_HELP)


class _Later(TyperCommand):
    """A command as the list of all shows it; its module is imported when it is called."""

    def make_context(self, *given: Any, **named: Any) -> Any:
        return _Commands()[str(self.name)].make_context(*given, **named)


class _Group(TyperGroup):
    """Imports a command when it is called; turns the errors that a user can mend into one line and exit code 2."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given | {"commands": _Commands()})

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the form of groups
        return list(SHORT_HELP)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - the form of groups
        return _Later(name=cmd_name, help=SHORT_HELP[cmd_name]) if cmd_name in SHORT_HELP else None

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
