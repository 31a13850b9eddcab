"""``nowgraph token``: a new bearer token, and the entry of the access file that lets it in."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from nowgraph.commands.options import AsJson
from nowgraph.errors import UsageError
from nowgraph.report import emit_json


def token(
    name: Annotated[str, typer.Option(help="Who will use it: the caller's name in quotas and logs.")],
    role: Annotated[list[str], typer.Option(help="What it may do: score, rank, ingest, inspect or admin.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Make a bearer token. It is shown once: give it to the caller, and its entry to the access file."""
    from model_server.caller import Role
    from model_server.security.access import hash_of, new_token

    roles = [str(known) for known in Role]
    for given in role:
        if given not in roles:
            raise UsageError(f"--role {given}: expected one of {', '.join(roles)}")
    made = new_token()
    entry = {"name": name, "sha256": hash_of(made).hex(), "roles": role}
    if as_json:
        emit_json({"token": made, "entry": entry})
        return
    typer.echo(made)
    typer.echo(f"  - {{name: {json.dumps(name)}, sha256: {entry['sha256']}, roles: [{', '.join(role)}]}}", err=True)
