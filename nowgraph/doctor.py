"""What keeps a machine from serving well, and how to mend it: one line for each thing that was looked at.

    what is to run here ─► machine ─► files and services ─► findings: ok, warn, fail

Nothing is changed; Kafka and Redis are asked, not written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from nowgraph.errors import explain

if TYPE_CHECKING:
    from pydantic import SecretStr

    from model_server.settings import ServerSettings
    from stream.settings import StreamSettings


class Status(StrEnum):
    """How a thing is."""

    OK = "ok"
    # It works, and will not always.
    WARN = "warn"
    # It does not.
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: how it is, what was found, and what to do about it."""

    check: str
    status: Status
    found: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """One graph and its models, by their paths; what is None is not looked at. `label` stands before its checks."""

    label: str = ""
    schema: Path | None = None
    arena: Path | None = None
    store: SecretStr | None = None
    checkpoints: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Patient:
    """What is to run here. Without `stream` there is no Kafka."""

    settings: ServerSettings
    stream: StreamSettings | None = None
    graphs: tuple[Graph, ...] = field(default=())


def examine(patient: Patient) -> Iterator[Finding]:
    """Looks at everything, one after the other; what cannot even be looked at is a failure and stops nothing."""
    from nowgraph import doctor_machine, doctor_services

    yield from doctor_machine.examine(patient)
    yield from doctor_services.examine(patient)


def guarded(check: str, look: Callable[[], Iterator[Finding]], mend: str = "") -> Iterator[Finding]:
    """What `look` finds; an error is a finding too."""
    try:
        yield from look()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it is what was asked
        line = explain(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"
        yield Finding(check, Status.FAIL, line, mend)


def worst(findings: list[Finding]) -> Status:
    """The worst status among them."""
    statuses = {finding.status for finding in findings}
    return next((status for status in (Status.FAIL, Status.WARN) if status in statuses), Status.OK)
