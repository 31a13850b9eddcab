from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from model_server.settings import ServerSettings
from nowgraph.doctor import Finding, Graph, Patient, Status
from nowgraph.doctor_services import examine
from stream.embedded_broker import EmbeddedBroker
from stream.settings import EVENTS_TOPIC, StreamSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.schema import Schema, dump_schema

ARENA_BYTES = 64 << 20


def found(patient: Patient) -> dict[str, Finding]:
    """What was found, by what was looked at."""
    return {finding.check: finding for finding in examine(patient)}


def settings(**options: Any) -> ServerSettings:
    """Settings of a server on loopback."""
    return ServerSettings(port=0, metrics_port=0, **options)


@pytest.fixture
def graph(tmp_path: Path, served_schema: Schema, served_checkpoints: Callable[[str], Path]) -> Graph:
    """The world's model, and a folder for a graph that is not there yet."""
    path = tmp_path / "schema.yaml"
    path.write_text(dump_schema(served_schema))
    return Graph("", path, tmp_path / "arena", None, (served_checkpoints("fraud"),))


def test_a_graph_and_its_model(graph: Graph, served_schema: Schema) -> None:
    """Not there, there and up to date, behind; its size, its room; a model of this schema and of none."""
    assert graph.arena is not None
    findings = found(Patient(settings(), graphs=(graph,)))
    assert findings["schema"].status is Status.OK
    assert findings["arena"].status is Status.FAIL
    assert "nowgraph update" in findings["arena"].mend
    assert "fraud, binary, version" in findings["checkpoint"].found
    with TemporalGraph.create(served_schema, arena=graph.arena, arena_bytes=ARENA_BYTES) as written:
        findings = found(Patient(settings(), graphs=(graph,)))
        assert "generation 1, 0 events" in findings["arena"].found
        assert "of 64 MiB" in findings["arena"].found
        assert findings["arena's room"].status is Status.OK
        assert "has not said" in findings["arena's updater"].found
        written.set_complete_time(time.time_ns() // 1_000)
        assert found(Patient(settings(), graphs=(graph,)))["arena's updater"].status is Status.OK
        written.set_complete_time(time.time_ns() // 1_000 - 90_000_000)
        late = found(Patient(settings(), graphs=(graph,)))["arena's updater"]
        assert (late.status, late.found) == (Status.WARN, "the graph held all of its log 90 s ago")
    assert graph.schema is not None
    graph.schema.write_text(graph.schema.read_text().replace("tx_amount: numerical", "tx_amount: text"))
    findings = found(Patient(settings(), graphs=(graph,)))
    assert (findings["arena"].status, findings["checkpoint"].status) == (Status.FAIL, Status.FAIL)


def test_kafka_and_its_topics(graph: Graph) -> None:
    """Topics that are read must be there, those that are written to may be made; without Kafka one line says so."""
    topics = {"transactions": 2, "nowgraph.predictions": 1, EVENTS_TOPIC: 1}
    with EmbeddedBroker(topics) as broker:
        stream = StreamSettings(kafka_bootstrap=broker.bootstrap)
        findings = found(Patient(settings(), stream, (graph,)))
        assert findings["topic transactions"].found == "2 partitions, 0 offsets, the end at 0=0, 1=0"
        assert findings["topic transaction_events"].status is Status.FAIL
        assert "--create --topic transaction_events" in findings["topic transaction_events"].mend
        assert findings["topic nowgraph.predictions"].status is Status.OK
        assert findings["topic nowgraph.dead-letters"].status is Status.WARN
    gone = found(Patient(settings(), stream))["kafka"]
    assert gone.status is Status.FAIL
    assert "--bootstrap-servers" in gone.mend


@pytest.mark.integration
def test_redis(redis_server: Any) -> None:
    """Where the settings name one: it answers, or it does not."""
    patient = Patient(settings(redis_url=SecretStr(redis_server.url)))
    assert found(patient)["redis"].status is Status.OK
    redis_server.kill()
    assert found(patient)["redis"].status is Status.FAIL
    assert "redis" not in found(Patient(settings()))
    assert "needs redis_url" in found(Patient(settings(idempotency_window_s=1)))["redis"].found


@pytest.mark.parametrize(("days", "status"), [(30, "ok"), (3, "warn"), (-1, "fail")])
def test_a_certificate_that_ends_soon_is_a_warning(tmp_path: Path, authority: Any, days: int, status: str) -> None:
    """Two weeks are enough to renew it; one that has ended keeps a server from starting."""
    pem = authority.issue("server", names=["scores.internal"], lasts=timedelta(days=days))
    certificate, key = pem.write(tmp_path, "server")
    tls = found(Patient(settings(host="0.0.0.0", tls_certificate_path=certificate, tls_key_path=key)))["tls"]
    assert tls.status == status
    if status != "fail":
        assert tls.found == f"scores.internal, {days} days left"


def test_what_protects_the_port(tmp_path: Path) -> None:
    """Loopback needs nothing; elsewhere plain text fails, or is a warning where it is meant; a bad file fails."""
    assert found(Patient(settings()))["tls"].status is Status.OK
    assert found(Patient(settings(host="0.0.0.0")))["tls"].status is Status.FAIL
    assert found(Patient(settings(host="0.0.0.0", insecure=True)))["tls"].status is Status.WARN
    missing = settings(tls_certificate_path=tmp_path / "a.pem", tls_key_path=tmp_path / "a.key")
    assert "a.pem: No such file" in found(Patient(missing))["tls"].found
    access = tmp_path / "access.yaml"
    access.write_text(f"{{version: 1, tokens: [{{name: a, sha256: {'f' * 64}, roles: [score]}}]}}")
    assert found(Patient(settings(access_path=access)))["access"].found == "1 tokens, 0 certificates"
    access.write_text("{version: 1, tokens: 1}")
    assert found(Patient(settings(access_path=access)))["access"].status is Status.FAIL


def test_a_graph_in_redis(graph: Graph, served_schema: Schema, redis_server: Any) -> None:
    """No Redis, no graph, one that serves, one that is behind."""
    stored = Patient(settings(), graphs=(replace(graph, arena=None, store=SecretStr(redis_server.url)),))
    assert found(stored)["store"].status is Status.FAIL
    assert "nowgraph update --store" in found(stored)["store"].mend
    with RedisGraph.open(redis_server.url, served_schema) as written:
        written.claim([("events", 0)])
        written.expect({("events", 0): 0})
        findings = found(stored)
        assert f"graph {written.graph} serves" in findings["store"].found
        assert "not all said" in findings["store's updaters"].found
        written.set_complete_time(time.time_ns() // 1_000 - 90_000_000)
        late = found(stored)["store's updaters"]
        assert (late.status, late.found) == (Status.WARN, "the graph held all of its log 90 s ago")
    redis_server.kill()
    assert "does not answer" in found(stored)["store"].found
