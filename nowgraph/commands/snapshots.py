"""``nowgraph snapshots``: which there are, and whether each is whole."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from nowgraph.commands.options import AsJson
from nowgraph.errors import UsageError
from nowgraph.report import emit, positions_text, time_text
from temporal_graph.snapshots import Snapshot, SnapshotError, Snapshots

app = typer.Typer(no_args_is_help=True, help="List the snapshots of a graph, and check that they are whole.")

_Url = Annotated[str, typer.Argument(help="Where they are: a folder, or a URL such as s3://bucket/graph.")]


@app.command("list")
def list_(url: _Url, *, as_json: AsJson = False) -> None:
    """List snapshots, the newest first, and those that can't be read with the reason."""
    found, refused = Snapshots(url).inventory()
    rows = [_row(each) | {"unusable": ""} for each in found]
    empty: dict[str, Any] = dict.fromkeys(rows[0], None) if rows else {}
    rows += [empty | {"snapshot": each.name, "unusable": each.reason} for each in refused]
    emit(rows, title=f"Snapshots of {url}", as_json=as_json)


@app.command("verify")
def verify(
    url: _Url,
    *,
    name: Annotated[str | None, typer.Option("--name", help="Only this one; default: all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check every byte of snapshots; exit code 1 where one is damaged."""
    snapshots = Snapshots(url)
    found, refused = snapshots.inventory()
    if name is not None:
        found = [each for each in found if each.name == name]
        refused = [each for each in refused if each.name == name]
    if not found and not refused:
        raise UsageError(f"{url}: it has no snapshot{'' if name is None else f' {name}'}")
    rows = [{"snapshot": each.name, "bytes": each.bytes, "unusable": _damage(snapshots, each)} for each in found]
    rows += [{"snapshot": each.name, "bytes": None, "unusable": each.reason} for each in refused]
    emit(rows, title="Checked", as_json=as_json)
    if any(row["unusable"] for row in rows):
        raise typer.Exit(1)


def _damage(snapshots: Snapshots, snapshot: Snapshot) -> str:
    try:
        snapshots.verify(snapshot)
    except SnapshotError as error:
        return str(error)
    return ""


def _row(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot": snapshot.name,
        "made": time_text(snapshot.made_time_us),
        "bytes": snapshot.bytes,
        "events": snapshot.sequence,
        "offsets": positions_text(snapshot.offsets),
    }
