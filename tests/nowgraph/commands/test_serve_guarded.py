"""`nowgraph serve` behind TLS, with callers, request ids and a degraded policy: all of it by environment variables."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from model_server.security.access import hash_of, new_token
from nowgraph.client import Client, InvalidRequestError, PermissionDeniedError, Tls, UnauthenticatedError

pytestmark = pytest.mark.integration


@contextmanager
def serving(checkpoint: Path, environment: dict[str, str]) -> Iterator[str]:
    """Where a server of its own process answers; it ends on SIGTERM, with 0."""
    command = [sys.executable, "-m", "nowgraph.cli", "--log-level", "info", "serve", "--checkpoint", str(checkpoint)]
    command += ["--history", str(checkpoint / "history"), "--port", "0", "--metrics-port", "0", "--json"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        yield str(json.loads("".join(lines))["grpc"])
        process.send_signal(signal.SIGTERM)
        _, written = process.communicate(timeout=30)
        assert process.returncode == 0, written
        for secret in ("Bearer", "BEGIN", environment["TOKEN_OF_THE_TEST"]):
            assert secret not in written
    finally:
        process.kill()
        process.communicate()


def test_a_guarded_server_answers_whom_it_knows(
    trained: Callable[[str], Path],
    run_command: Callable[..., Any],
    authority: Any,
    shared_redis: Callable[[], str],
    tmp_path: Path,
) -> None:
    """Health over TLS, a token with its role, the same id twice; strangers and others are refused, nothing leaks."""
    certificate, key = authority.issue("server", names=["127.0.0.1"]).write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    token = new_token()
    (tmp_path / "access.yaml").write_text(
        f"version: 1\ntokens:\n  - {{name: shop, sha256: {hash_of(token).hex()}, roles: [score]}}\n"
    )
    (tmp_path / "degraded.yaml").write_text("rules: [{name: all, decision: review}]")
    environment = {
        "NOWGRAPH_SERVER_TLS_CERTIFICATE_PATH": str(certificate),
        "NOWGRAPH_SERVER_TLS_KEY_PATH": str(key),
        "NOWGRAPH_SERVER_ACCESS_PATH": str(tmp_path / "access.yaml"),
        "NOWGRAPH_SERVER_DEGRADED_PATH": str(tmp_path / "degraded.yaml"),
        "NOWGRAPH_SERVER_REDIS_URL": shared_redis(),
        "NOWGRAPH_SERVER_IDEMPOTENCY_WINDOW_S": "60",
        "TOKEN_OF_THE_TEST": token,
    }
    tls = Tls(ca=tmp_path / "ca.pem")
    with serving(trained("fraud"), environment) as target:
        assert run_command("health", target, "--tls-ca", tmp_path / "ca.pem").stdout == "SERVING\n"
        run_command("health", target, exit_code=1)
        with Client(target, tls=tls, token=token, timeout_s=20) as client:
            request_id = f"serve-{time.time_ns()}"
            first = client.score("transactions", 1, {"tx_amount": 1.0}, request_id=request_id)
            assert client.score("transactions", 1, {"tx_amount": 1.0}, request_id=request_id) == first
            with pytest.raises(InvalidRequestError, match="request_id"):
                client.score("transactions", 1, {"tx_amount": 2.0}, request_id=request_id)
            with pytest.raises(PermissionDeniedError, match="'inspect'"):
                client.neighborhood("transactions", 1)
        with Client(target, tls=tls, timeout_s=20) as client, pytest.raises(UnauthenticatedError):
            client.score("transactions", 1)
