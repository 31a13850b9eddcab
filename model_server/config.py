"""serving.yaml: what one process serves, whose graphs, which tasks and by which models.

    serving.yaml ─► ServingConfig: settings of the server, tenants (a schema and an arena each), tasks of each tenant

Whatever is wrong is found before anything is started, and named by its path: `tenants[0].tasks[1].canary.share`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from model_server.degraded import DegradedPolicy
from model_server.settings import ServerSettings

# A name that stands in health checks, metrics and folders: as in Kubernetes, with underscores.
NAME = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
# The channel that is served unless another is named.
LIVE = "live"
# Where the secret stands that private values are hashed with, unless a tenant has its own.
SECRET_ENV = "NOWGRAPH_PRIVACY_SECRET"  # noqa: S105 - its name
# Where the folder that paths are relative to stands among the validation's context.
_FOLDER = "folder"
# More shadows than this and the machine serves mostly them.
SHADOWS_LIMIT = 4

Name = Annotated[str, Field(pattern=NAME)]
Version = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


def _from_folder(path: Path, info: ValidationInfo) -> Path:
    folder: Path | None = (info.context or {}).get(_FOLDER)
    return path if folder is None else folder / path


def _redis_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(("redis://", "rediss://")):
        raise ValueError("expected redis://host:port or rediss://host:port")
    return url


Beside = Annotated[Path, AfterValidator(_from_folder)]
"""A path; a relative one starts at the folder of serving.yaml."""


Place = Path | SecretStr
"""Where a graph is: an arena's folder, or a store's URL."""


class ServingConfigError(Exception):
    """serving.yaml cannot be used; `problems` are all that is wrong with it, the first of them in the message."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{source}: {problems[0]}{more}")
        self.source = source
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the path of its key, empty for the file as a whole, and what was expected there."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CanaryConfig(_Part):
    """A second model that answers a share of the keys, the same ones each time."""

    version: Version
    share: float = Field(gt=0, lt=1)


class TaskConfig(_Part):
    """A task and where its models come from: a checkpoint's folder, or a registry's channel that is watched."""

    # The task's name in requests; must be that of its models. Needed with a registry, where it names the folder.
    name: Name | None = None
    checkpoint: Beside | None = None
    # A folder, or a URL that fsspec knows.
    registry: str | None = None
    channel: Name = LIVE
    # In place of what the registry's channel says; `nowgraph models canary` and `shadow` then change nothing here.
    canary: CanaryConfig | None = None
    shadow: tuple[Version, ...] | None = Field(default=None, max_length=SHADOWS_LIMIT)
    # What is answered when the model cannot, or the graph is stale (docs/SERVING.md).
    degraded: DegradedPolicy | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.checkpoint is None) == (self.registry is None):
            raise ValueError("expected either checkpoint (a folder) or registry (a folder or URL)")
        if self.registry is None:
            for key in ("canary", "shadow", "channel"):
                if key in self.model_fields_set:
                    raise ValueError(f"{key} needs a registry: a checkpoint's folder holds one model")
        elif self.name is None:
            raise ValueError("name is missing: with a registry it names the folder of the task's models")
        return self


class TenantConfig(_Part):
    """One graph with its schema, in an arena or in Redis, and the tasks that are answered on it."""

    # In requests, metrics and the audit trail; may be left out where there is only one tenant.
    name: Name | Literal[""] = ""
    schema_path: Beside = Field(alias="schema")
    arena: Beside | None = None
    # redis://host:port or rediss://, of one Redis or any node of a cluster; may hold a password.
    store: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    # The environment variable with the secret that this tenant's private values are hashed with.
    secret_env: str = Field(default=SECRET_ENV, min_length=1)
    # Rows a second that all its callers may ask together; 0 for no quota. A burst may be as large as a second of it.
    quota_rows_per_s: float = Field(default=0.0, ge=0)
    # Topics of this tenant's answers and events; by default the process's.
    predictions_topic: str | None = None
    ingest_topic: str | None = None
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names(self) -> Self:
        _refuse_twice("tasks", [task.name for task in self.tasks if task.name is not None])
        return self

    @model_validator(mode="after")
    def _one_graph(self) -> Self:
        if (self.arena is None) == (self.store is None):
            raise ValueError("expected either arena (a folder) or store (redis://host:port)")
        for index, task in enumerate(self.tasks):
            if self.store is not None and task.shadow:
                raise ValueError(f"tasks[{index}].shadow: a graph in Redis has no shadows")
        return self

    @property
    def place(self) -> Place:
        """Where the graph is."""
        place = self.store if self.arena is None else self.arena
        assert place is not None  # or it would not be a configuration
        return place


class ServingConfig(_Part):
    """All of serving.yaml."""

    version: Literal[1]
    # Any of NOWGRAPH_SERVER_*; a variable of the environment goes before what stands here.
    server: Mapping[str, Any] = Field(default_factory=dict)
    tenants: tuple[TenantConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names(self) -> Self:
        _refuse_twice("tenants", [tenant.name for tenant in self.tenants])
        if len(self.tenants) > 1 and any(not tenant.name for tenant in self.tenants):
            raise ValueError("tenants: each needs a name where there are several")
        return self

    def settings(self) -> ServerSettings:
        """The server's settings: the environment's, then the file's, then the defaults."""
        environment = ServerSettings()
        given = {name: getattr(environment, name) for name in environment.model_fields_set}
        return ServerSettings(**{**self.server, **given})


def load_serving(path: Path) -> ServingConfig:
    """Reads serving.yaml; relative paths start at its folder. Raises ServingConfigError with all that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ServingConfigError(str(path), [Problem("", error.strerror or "cannot be read")]) from None
    return parse_serving(text, source=str(path), folder=path.parent)


def parse_serving(text: str, *, source: str = "serving.yaml", folder: Path | None = None) -> ServingConfig:
    """As `load_serving`, from a text; `folder` is where relative paths start."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
        raise ServingConfigError(source, [Problem(where, "this is no YAML")]) from None
    if not isinstance(document, dict):
        raise ServingConfigError(source, [Problem("", "expected a mapping with version and tenants")])
    try:
        config = ServingConfig.model_validate(document, context={_FOLDER: folder})
    except ValidationError as error:
        raise ServingConfigError(source, _problems(error)) from None
    try:
        config.settings()
    except ValidationError as error:
        raise ServingConfigError(source, _problems(error, "server")) from None
    return config


def _problems(error: ValidationError, prefix: str = "") -> list[Problem]:
    return [Problem(_path(one["loc"], prefix), _message(one)) for one in error.errors()]


def _path(places: Sequence[int | str], prefix: str) -> str:
    path = prefix
    for place in places:
        path += f"[{place}]" if isinstance(place, int) else f".{place}" if path else place
    return path


def _message(one: Mapping[str, Any]) -> str:
    """Pydantic's words in ours, with what was found where that is a plain value."""
    match one["type"]:
        case "extra_forbidden":
            return "there is no such key"
        case "missing":
            return "missing"
        case "value_error":
            return str(one["ctx"]["error"])
    expected = str(one["msg"]).replace("Input should be", "expected").replace("String should", "expected to")
    found = one["input"]
    return f"{expected}, found {found!r}" if isinstance(found, str | int | float | bool) else expected


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{what}: {name!r} stands there twice")
