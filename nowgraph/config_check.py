"""What is wrong with a file that somebody wrote: the key's path, and what was expected there.

    file ─► its kind, by its keys ─► the package that reads it ─► findings
    serving.yaml ─► also what it names: schemas, checkpoints, degraded policies, TLS and access files

Nothing is started and nothing is changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nowgraph.errors import UsageError, explain
from temporal_graph.schema import Schema, load_schema

if TYPE_CHECKING:
    from graph_transformer.checkpoint import Checkpoint
    from model_server.config import TaskConfig, TenantConfig
    from model_server.settings import ServerSettings


class FileKind(StrEnum):
    """The files that are written by hand."""

    SERVING = "serving"
    SCHEMA = "schema"
    PLAN = "plan"
    TASK = "task"
    ACCESS = "access"
    DEGRADED = "degraded"


# The first kind of which a file has one of these keys; a plan has no key of its own beside those of a task.
_KEYS: Mapping[FileKind, frozenset[str]] = {
    FileKind.SERVING: frozenset({"tenants", "server"}),
    FileKind.SCHEMA: frozenset({"tables", "sources"}),
    FileKind.ACCESS: frozenset({"tokens", "certificates"}),
    FileKind.DEGRADED: frozenset({"rules", "rules_on", "stale_graph"}),
    FileKind.TASK: frozenset({"query", "splits", "target", "table", "outcome", "name"}),
    FileKind.PLAN: frozenset({"sampling_plan", "model", "training", "ranking"}),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the path of its key, empty for the file as a whole, and what is wrong there."""

    path: str
    message: str


def kind_of(path: Path) -> FileKind:
    """What a file is, by its keys. Raises UsageError where they do not tell, NotConfiguredError for what is no YAML."""
    from model_server.yaml_file import read_yaml

    found = read_yaml(path)
    keys = set(found) if isinstance(found, dict) else set()
    for kind, own in _KEYS.items():
        if keys & own:
            return kind
    kinds = ", ".join(FileKind)
    raise UsageError(f"{path}: its keys do not say what it is: give --kind, one of {kinds}")


def check_file(path: Path, kind: FileKind, schema: Path | None = None) -> list[Finding]:
    """Everything found wrong; a task, a plan and a policy are checked against `schema` where one is given."""
    known = None
    if schema is not None:
        try:
            known = load_schema(schema)
        except Exception as error:  # noqa: BLE001 - as the commands do: what the user can mend is a finding
            return [_finding(error, str(schema))]
    checks: Mapping[FileKind, Callable[[], Iterator[Finding]]] = {
        FileKind.SERVING: lambda: _serving(path),
        FileKind.SCHEMA: lambda: _loads(lambda: load_schema(path)),
        FileKind.PLAN: lambda: _loads(lambda: _plan(path, known)),
        FileKind.TASK: lambda: _loads(lambda: _task(path, known)),
        FileKind.ACCESS: lambda: _loads(lambda: _access(path)),
        FileKind.DEGRADED: lambda: _loads(lambda: _degraded(path)),
    }
    return list(checks[kind]())


def _loads(load: Callable[[], object], prefix: str = "") -> Iterator[Finding]:
    try:
        load()
    except Exception as error:  # noqa: BLE001 - `_finding` raises what is no finding
        yield _finding(error, prefix)


def _finding(error: Exception, prefix: str = "") -> Finding:
    """What the user can mend; a defect is raised again."""
    line = explain(error)
    if line is None:
        raise error
    path = getattr(error, "path", "")
    if not isinstance(path, str) or not line.startswith(f"{path}: "):
        path = ""
    return Finding(".".join(part for part in (prefix, path) if part), line.removeprefix(f"{path}: ") if path else line)


def _plan(path: Path, schema: Schema | None) -> None:
    from graph_transformer.plan import load_plan

    plan = load_plan(path)
    if schema is not None:
        plan.check(schema)


def _task(path: Path, schema: Schema | None) -> None:
    """The file by itself, the parts of a plan that it has, and with a schema all that it names there."""
    from graph_transformer.finetune.question import question_of
    from graph_transformer.finetune.task_file import load_task_file
    from graph_transformer.plan import ModelPlan
    from online_sampler.plan import ALONE

    file = load_task_file(path)
    plan = ModelPlan.from_dict({"sampling_plan": ALONE, **file.plan})
    if schema is not None:
        question = question_of(schema, task=path)
        if question.has_plan:
            plan.check(question.schema)


def _access(path: Path) -> None:
    from model_server.security.access import load_access

    load_access(path)


def _degraded(path: Path) -> None:
    from model_server.degraded import load_policy

    load_policy(path)


def _serving(path: Path) -> Iterator[Finding]:
    from model_server.config import ServingConfigError, load_serving

    try:
        config = load_serving(path)
    except ServingConfigError as error:
        yield from (Finding(problem.path, problem.message) for problem in error.problems)
        return
    settings = config.settings()
    yield from _server(settings)
    for index, tenant in enumerate(config.tenants):
        yield from _tenant(tenant, f"tenants[{index}]", settings)


def _server(settings: ServerSettings) -> Iterator[Finding]:
    from model_server.degraded import load_policy
    from model_server.loading import check_device
    from model_server.security.access import load_access

    yield from _loads(lambda: _transport(settings), "server")
    yield from _loads(lambda: check_device(settings), "server.device")
    if settings.access_path is not None:
        access = settings.access_path
        yield from _loads(lambda: load_access(access), "server.access_path")
    if settings.degraded_path is not None:
        degraded = settings.degraded_path
        yield from _loads(lambda: load_policy(degraded), "server.degraded_path")
    if settings.idempotency_window_s is not None and settings.redis_url is None:
        yield Finding("server.redis_url", "missing: idempotency_window_s needs a Redis")


def _transport(settings: ServerSettings) -> None:
    from model_server.security.guard import refuse_plain_text, tls_files
    from model_server.security.tls import load_identity

    files = tls_files(settings)
    if files is None:
        refuse_plain_text(settings)
    else:
        load_identity(files)


def _tenant(tenant: TenantConfig, path: str, settings: ServerSettings) -> Iterator[Finding]:
    from stream.privacy import is_private

    try:
        schema = load_schema(tenant.schema_path)
    except Exception as error:  # noqa: BLE001 - `_finding` raises what is no finding
        yield _finding(error, f"{path}.schema")
        return
    if any(is_private(table) for table in schema.tables) and not os.environ.get(tenant.secret_env):
        yield Finding(f"{path}.secret_env", f"the schema has private values, and {tenant.secret_env} is not set")
    for index, task in enumerate(tenant.tasks):
        yield from _tenants_task(task, schema, f"{path}.tasks[{index}]", settings)


def _tenants_task(task: TaskConfig, schema: Schema, path: str, settings: ServerSettings) -> Iterator[Finding]:
    from graph_transformer.checkpoint import Checkpoint
    from model_server.degraded import misfits

    folder = task.checkpoint
    if folder is None:
        if task.registry is not None and "://" not in task.registry and not Path(task.registry).is_dir():
            yield Finding(f"{path}.registry", f"{task.registry}: no such folder")
        return
    found: list[Checkpoint] = []
    yield from _loads(lambda: found.append(Checkpoint.load(folder, schema)), f"{path}.checkpoint")
    for checkpoint in found:
        name = checkpoint.task.name
        if task.name is not None and task.name != name:
            yield Finding(f"{path}.name", f"expected {name!r}, which the checkpoint answers, found {task.name!r}")
        if task.degraded is not None:
            target, interval_s = checkpoint.task.target, settings.lag_interval_s
            for misfit in misfits(task.degraded, target, schema, lag_interval_s=interval_s):
                yield Finding(f"{path}.degraded.{misfit.path}", misfit.message)


def document_of(path: Path, kind: FileKind, findings: list[Finding]) -> dict[str, Any]:
    """What a machine reads."""
    return {
        "file": str(path),
        "kind": str(kind),
        "ok": not findings,
        "problems": [{"path": finding.path, "message": finding.message} for finding in findings],
    }
