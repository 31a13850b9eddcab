"""``nowgraph config check``: what is wrong with a file, before anything is started with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nowgraph.commands.options import AsJson
from nowgraph.errors import UsageError
from nowgraph.report import emit

app = typer.Typer(no_args_is_help=True, help="Check configuration files.")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="serving.yaml, a schema, a task, a plan, an access or a degraded file.")],
    *,
    kind: Annotated[str, typer.Option(help="What it is, where its keys do not say.")] = "",
    schema: Annotated[
        Path | None, typer.Option("--schema", help="Check a task or a plan against this schema too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Exit with 0 for a file that can be used; else with 1, and every problem by the path of its key."""
    from nowgraph.config_check import FileKind, check_file, document_of, kind_of

    if kind and kind not in list(FileKind):
        raise UsageError(f"--kind {kind}: expected one of {', '.join(FileKind)}")
    found_kind = FileKind(kind) if kind else kind_of(file)
    findings = check_file(file, found_kind, schema)
    document = document_of(file, found_kind, findings)
    if not findings and not as_json:
        typer.echo(f"{file} is a valid {found_kind} file")
        return
    rows = [{"key": finding.path or "-", "problem": finding.message} for finding in findings]
    emit(rows, title=f"{file}: not a usable {found_kind} file", as_json=as_json, document=document)
    if findings:
        raise typer.Exit(1)


@app.callback()
def _group() -> None:
    """A group of its own, though it has one command so far."""
