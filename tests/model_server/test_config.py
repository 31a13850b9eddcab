from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from model_server.config import ServingConfigError, load_serving, parse_serving

TEXT = """
version: 1
server: {port: 0, queue_limit: 64}
tenants:
  - name: north
    schema: north/schema.yaml
    arena: /var/lib/nowgraph/north
    tasks:
      - checkpoint: models/fraud
      - name: next_basket
        registry: s3://models/prod
        canary: {version: 0123456789abcdef, share: 0.05}
        shadow: [fedcba9876543210]
        degraded: {stale_graph: {bound: 30s, answer: flag}}
  - name: south
    schema: south.yaml
    arena: south-arena
    secret_env: SOUTH_SECRET
    tasks: [{checkpoint: models/churn}]
"""


def problems(text: str) -> list[str]:
    """What is wrong with a text, path and message of each."""
    with pytest.raises(ServingConfigError) as caught:
        parse_serving(text)
    return [str(problem) for problem in caught.value.problems]


def test_tenants_and_tasks_are_read(tmp_path: Path) -> None:
    """Relative paths start at the file's folder, absolute ones stay; what is not said has its default."""
    (tmp_path / "serving.yaml").write_text(TEXT)
    config = load_serving(tmp_path / "serving.yaml")
    north, south = config.tenants
    assert north.schema_path == tmp_path / "north" / "schema.yaml"
    assert north.arena == Path("/var/lib/nowgraph/north")
    fraud, basket = north.tasks
    assert (fraud.checkpoint, fraud.canary, fraud.shadow) == (tmp_path / "models" / "fraud", None, None)
    assert (basket.registry, basket.channel, basket.shadow) == ("s3://models/prod", "live", ("fedcba9876543210",))
    assert basket.canary is not None
    assert basket.canary.share == pytest.approx(0.05)
    assert (north.secret_env, south.secret_env) == ("NOWGRAPH_PRIVACY_SECRET", "SOUTH_SECRET")


def test_a_graph_is_in_an_arena_or_in_a_store() -> None:
    """One of the two; a store is a Redis, has no shadows, and its URL, which may hold a password, is never shown."""
    text = TEXT.replace("arena: south-arena", "store: redis://:secret@redis:6379")
    south = parse_serving(text).tenants[1]
    assert isinstance(south.place, SecretStr)
    assert south.place.get_secret_value() == "redis://:secret@redis:6379"
    assert "secret@" not in repr(south)
    assert problems(text.replace("redis://:secret", "http://:secret")) == [
        "tenants[1].store: expected redis://host:port or rediss://host:port"
    ]
    either = "expected either arena (a folder) or store (redis://host:port)"
    assert problems(text.replace("store:", "arena: south\n    store:")) == [f"tenants[1]: {either}"]
    assert problems(TEXT.replace("    arena: south-arena\n", "")) == [f"tenants[1]: {either}"]
    shadowed = TEXT.replace("arena: /var/lib/nowgraph/north", "store: rediss://redis:6379")
    assert problems(shadowed) == ["tenants[0]: tasks[1].shadow: a graph in Redis has no shadows"]


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's settings hold until a variable says otherwise; what neither says is the default."""
    assert (parse_serving(TEXT).settings().queue_limit, parse_serving(TEXT).settings().batch_limit) == (64, 64)
    monkeypatch.setenv("NOWGRAPH_SERVER_QUEUE_LIMIT", "7")
    settings = parse_serving(TEXT).settings()
    assert (settings.queue_limit, settings.port) == (7, 0)


WRONG: dict[str, tuple[Callable[[str], str], str]] = {
    "a share above 1": (lambda t: t.replace("0.05", "1.5"), "tenants[0].tasks[1].canary.share: expected"),
    "an unknown key": (lambda t: t.replace("secret_env", "secrets"), "tenants[1].secrets: there is no such key"),
    "a key of the server's": (lambda t: t.replace("queue_limit", "queue"), "server.queue: there is no such key"),
    "a value of the server's": (lambda t: t.replace("64", "no"), "server.queue_limit: expected"),
    "no schema": (lambda t: t.replace("    schema: south.yaml\n", ""), "tenants[1].schema: missing"),
    "one tenant twice": (lambda t: t.replace("south\n", "north\n", 1), "tenants: 'north' stands there twice"),
    "no name": (lambda t: t.replace("name: south", "name: ''"), "tenants: each needs a name"),
    "another format": (lambda t: t.replace("version: 1", "version: 2", 1), "version: expected 1"),
    "a channel of a checkpoint": (
        lambda t: t.replace("{checkpoint: models/churn}", "{checkpoint: models/churn, channel: live}"),
        "tenants[1].tasks[0]: channel needs a registry",
    ),
    "two places": (
        lambda t: t.replace("checkpoint: models/fraud", "{checkpoint: a, registry: b, name: c}"),
        "tenants[0].tasks[0]: expected either checkpoint",
    ),
    "a registry without name": (
        lambda t: t.replace("name: next_basket\n        registry", "registry"),
        "tenants[0].tasks[1]: name is missing",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_by_its_path(case: str) -> None:
    """Every mistake names the key and what belongs there."""
    spoil, expected = WRONG[case]
    assert any(problem.startswith(expected) for problem in problems(spoil(TEXT))), problems(spoil(TEXT))


def test_all_mistakes_are_named_at_once() -> None:
    """Who mends a file should not have to start the server once for each mistake."""
    found = problems(TEXT.replace("0.05", "0").replace("version: 1", "version: 3"))
    assert {problem.split(":")[0] for problem in found} == {"version", "tenants[0].tasks[1].canary.share"}


def test_what_is_no_mapping_is_refused(tmp_path: Path) -> None:
    """A text that is no YAML, one that is a list, and a file that is not there: each says so."""
    assert problems("tenants: [")[0].endswith("this is no YAML")
    assert problems("- 1")[0].startswith("expected a mapping")
    with pytest.raises(ServingConfigError, match=r"serving.yaml: No such file"):
        load_serving(tmp_path / "serving.yaml")


def test_the_documented_example_is_valid(repository: Path) -> None:
    """What docs/MODELS.md shows can be copied."""
    page = (repository / "docs" / "MODELS.md").read_text(encoding="utf-8")
    text = page.split("```yaml\n")[1].split("```")[0]
    config = parse_serving(text)
    assert [tenant.name for tenant in config.tenants] == ["north", "south"]
    assert config.tenants[1].tasks[0].degraded is not None
    assert config.settings().queue_limit == 2048
