"""`nowgraph health` says by its exit code whether a server or an updater is well."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from prometheus_client import start_http_server

from graph_updater.metrics import UpdaterMetrics
from model_server.background import BackgroundServer
from model_server.server import SERVICE_NAME
from model_server.settings import ServerSettings


@pytest.mark.integration
def test_a_server_is_well_until_it_drains(world: Any, run_command: Callable) -> None:
    """0 while it serves, under both of its names; 1 for a name it does not have, and once nobody answers."""
    settings = ServerSettings(port=0, metrics_port=0, drain_grace_s=1.0)
    with BackgroundServer(lambda: world.server(settings)) as server:
        target = server.target
        assert run_command("health", target).stdout == "SERVING\n"
        assert run_command("health", target, "--service", SERVICE_NAME, "--quiet").stdout == ""
        found = run_command("health", target, "--service", "nobody", "--json", exit_code=1).stdout
        assert json.loads(found) == {"target": target, "status": "SERVICE_UNKNOWN"}
    assert run_command("health", target, exit_code=1).stdout == "UNREACHABLE\n"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that signs itself, for the name `nowgraph`, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nowgraph")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("nowgraph")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "tls.crt", folder / "tls.key"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.mark.integration
def test_a_server_with_tls_is_asked_by_tls(world: Any, tmp_path: Path, run_command: Callable) -> None:
    """As exec probes ask, by the CA and the name in its certificate; without them nobody answers."""
    crt, key = certificate(tmp_path)
    settings = ServerSettings(port=0, metrics_port=0, drain_grace_s=1.0, tls_certificate_path=crt, tls_key_path=key)
    with BackgroundServer(lambda: world.server(settings)) as server:
        command = ("health", server.target, "--quiet", "--tls-ca", crt)
        run_command(*command, "--server-name", "nowgraph", "--service", SERVICE_NAME)
        run_command(*command, "--server-name", "somebody-else", exit_code=1)
        run_command("health", server.target, "--quiet", exit_code=1)


def test_an_updater_is_well_while_it_is_not_behind(run_command: Callable) -> None:
    """Before it knows how long its log is, and while it is behind, it is not; nor when nobody answers."""
    metrics = UpdaterMetrics()
    server, thread = start_http_server(0, addr="127.0.0.1", registry=metrics.registry)
    target = f"127.0.0.1:{server.server_port}"
    try:
        assert run_command("health", "--updater", target, exit_code=1).stdout == "NOT_SERVING\n"
        metrics.lag.labels(topic="transactions", partition="0").set(3)
        assert run_command("health", "--updater", target).stdout == "SERVING\n"
        metrics.behind.set(1)
        assert run_command("health", "--updater", target, exit_code=1).stdout == "NOT_SERVING\n"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert run_command("health", "--updater", target, exit_code=1).stdout == "UNREACHABLE\n"


def test_what_does_not_go_together_is_refused(run_command: Callable) -> None:
    """A name or TLS of an updater, and a certificate without its key, are errors of usage: exit code 2."""
    assert "a server's" in run_command("health", "--updater", "--service", "x", exit_code=2).stderr
    assert "go together" in run_command("health", "--tls-certificate", "x.pem", exit_code=2).stderr
