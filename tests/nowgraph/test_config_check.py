from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from model_server.errors import NotConfiguredError
from nowgraph.config_check import FileKind, Finding, check_file, kind_of
from nowgraph.errors import UsageError
from temporal_graph.schema import Schema, dump_schema

EXAMPLE = Path("examples") / "payments"


def written(folder: Path, text: str, name: str = "file.yaml") -> Path:
    """A file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{version: 1, tenants: []}", FileKind.SERVING),
        ("{version: 1, name: shop, tables: {}}", FileKind.SCHEMA),
        ("{version: 1, name: fraud, query: PREDICT, sampling_plan: {}}", FileKind.TASK),
        ("{version: 1, sampling_plan: {}, model: {}}", FileKind.PLAN),
        ("{version: 1, tokens: []}", FileKind.ACCESS),
        ("{rules: []}", FileKind.DEGRADED),
    ],
)
def test_a_file_is_known_by_its_keys(tmp_path: Path, text: str, kind: FileKind) -> None:
    """Nobody has to say which of the files it is."""
    assert kind_of(written(tmp_path, text)) is kind


@pytest.mark.parametrize(
    ("text", "says"), [("{a: 1}", "give --kind"), ("[", "not YAML, line 1"), ("[1]", "give --kind")]
)
def test_a_file_that_could_be_anything_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """With what to say."""
    with pytest.raises((UsageError, NotConfiguredError), match=says):
        kind_of(written(tmp_path, text))
    with pytest.raises(NotConfiguredError, match="No such file"):
        kind_of(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["schema.yaml", "task.yaml", "months.yaml"])
def test_the_examples_are_right(repository: Path, name: str) -> None:
    """Each by its own reader, tasks against their schema."""
    path = repository / EXAMPLE / name
    schema = None if name == "schema.yaml" else repository / EXAMPLE / "schema.yaml"
    assert check_file(path, kind_of(path), schema) == []


def test_what_is_wrong_is_named_by_its_key(repository: Path, tmp_path: Path) -> None:
    """A link's table in a schema, a column in a task's query, a link of a plan, a token, a rule."""
    schema = repository / EXAMPLE / "schema.yaml"
    wrong = written(tmp_path, schema.read_text().replace("customer_id: customers", "customer_id: custommers"))
    (found,) = check_file(wrong, FileKind.SCHEMA)
    assert found.path.startswith("tables.transactions.links.customer_id")
    assert "custommers" in found.message
    task = (repository / EXAMPLE / "task.yaml").read_text()
    (found,) = check_file(written(tmp_path, task.replace("tx_fraud", "fraud")), FileKind.TASK, schema)
    assert "fraud" in found.message
    (found,) = check_file(written(tmp_path, task.replace("steps: 600", "steps: many")), FileKind.TASK)
    assert found == Finding("training.steps", "expected a number, found 'many'")
    (found,) = check_file(
        written(tmp_path, task.replace("{default: 64}", "{default: 64, links: 1}")), FileKind.TASK, schema
    )
    assert found.path.startswith("sampling_plan.num_neighbors.hop2")
    (found,) = check_file(written(tmp_path, "{version: 1, tokens: [{name: a}]}"), FileKind.ACCESS)
    assert "tokens.0.sha256" in found.message
    (found,) = check_file(written(tmp_path, "{rules: [{name: a}]}"), FileKind.DEGRADED)
    assert "rules[0].decision" in found.message
    (found,) = check_file(written(tmp_path, "{}"), FileKind.TASK, tmp_path / "none.yaml")
    assert "none.yaml" in f"{found.path} {found.message}"


@pytest.fixture
def serving(tmp_path: Path, served_schema: Schema, served_checkpoints: Callable[[str], Path]) -> Callable[..., Path]:
    """Writes a serving.yaml of one tenant over the world's model."""
    written(tmp_path, dump_schema(served_schema), "schema.yaml")

    def write(task: str = "", server: str = "{}") -> Path:
        checkpoint = served_checkpoints("fraud")
        text = (
            f"version: 1\nserver: {server}\ntenants:\n  - schema: schema.yaml\n    arena: /dev/shm/none\n"
            f"    tasks: [{{checkpoint: {checkpoint}{task}}}]\n"
        )
        return written(tmp_path, text, "serving.yaml")

    return write


def test_what_a_serving_file_names_is_looked_at(serving: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint against the schema, the policy against the task, files of the server, the tenant's secret."""
    monkeypatch.setenv("NOWGRAPH_PRIVACY_SECRET", "a secret of the tests, long enough")
    assert check_file(serving(), FileKind.SERVING) == []
    policy = ", degraded: {rules: [{name: a, when: {column: amount, above: 1}, decision: review}]}"
    (found,) = check_file(serving(policy), FileKind.SERVING)
    assert found.path == "tenants[0].tasks[0].degraded.rules[0].when.column"
    assert "no column 'amount'" in found.message
    (found,) = check_file(serving(", name: other"), FileKind.SERVING)
    assert found == Finding("tenants[0].tasks[0].name", "expected 'fraud', which the checkpoint answers, found 'other'")
    server = "{host: 0.0.0.0, access_path: /none.yaml, idempotency_window_s: 60}"
    assert [found.path for found in check_file(serving(server=server), FileKind.SERVING)] == [
        "server",
        "server.access_path",
        "server.redis_url",
    ]
    (found,) = check_file(serving(server="{device: 'cuda:97'}"), FileKind.SERVING)
    assert found.path == "server.device"
    assert "cuda:97" in found.message
    monkeypatch.delenv("NOWGRAPH_PRIVACY_SECRET")
    (found,) = check_file(serving(), FileKind.SERVING)
    assert found.path == "tenants[0].secret_env"
    path = serving()
    (path.parent / "schema.yaml").unlink()
    (found,) = check_file(path, FileKind.SERVING)
    assert found.path == "tenants[0].schema"


def test_every_problem_of_a_serving_file_is_shown(tmp_path: Path) -> None:
    """Not the first one alone."""
    path = written(tmp_path, "{version: 2, tenants: [{schema: a, arena: b, tasks: [{share: 1}]}]}")
    assert {found.path for found in check_file(path, FileKind.SERVING)} >= {"version", "tenants[0].tasks[0].share"}
