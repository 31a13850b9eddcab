"""From the settings to what stands before the service: credentials of the port, and the interceptor that finds callers.

settings ─► TLS files ─► credentials        access file, client CA ─► Authentication
        └─► neither, and not on loopback: refused, unless `insecure` says that something else protects it
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from model_server.caller import NamedCallers
from model_server.errors import NotConfiguredError
from model_server.security.access import load_access
from model_server.security.authentication import Authentication
from model_server.security.metrics import SecurityMetrics
from model_server.security.tls import TlsFiles, tls_credentials
from model_server.security.watched import Watched
from model_server.settings import ServerSettings

# How soon a token that was revoked is refused: the disk is asked at most this often.
ACCESS_CHECK_S = 1.0


@dataclass(frozen=True, slots=True)
class Guard:
    """What a server is built with; without credentials its port speaks plain text."""

    credentials: grpc.ServerCredentials | None
    interceptors: tuple[grpc.aio.ServerInterceptor[Any, Any], ...]


def guard_of(settings: ServerSettings, registry: CollectorRegistry) -> Guard:
    """What the settings ask for.

    Raises NotConfiguredError for files that are no good, and for plain text where others than this machine hear it.
    """
    metrics = SecurityMetrics(registry)
    files = tls_files(settings)
    credentials = None if files is None else tls_credentials(files, metrics)
    if credentials is None:
        refuse_plain_text(settings)
    access = None
    path = settings.access_path
    if path is not None:
        access = Watched("access", [path], lambda: load_access(path), metrics, check_s=ACCESS_CHECK_S)
    if access is None and settings.tls_client_ca_path is None:
        return Guard(credentials, (NamedCallers(),))
    certificates = settings.tls_client_ca_path is not None
    return Guard(credentials, (Authentication(access, metrics, certificates=certificates),))


def tls_files(settings: ServerSettings) -> TlsFiles | None:
    """The files of TLS; None without it. Raises NotConfiguredError when one of them is missing."""
    certificate, key, client_ca = settings.tls_certificate_path, settings.tls_key_path, settings.tls_client_ca_path
    if certificate is not None and key is not None:
        return TlsFiles(certificate, key, client_ca)
    if certificate is None and key is None and client_ca is None:
        return None
    missing = "tls_key_path" if certificate is not None else "tls_certificate_path"
    raise NotConfiguredError(f"TLS needs {missing} (NOWGRAPH_SERVER_{missing.upper()}) too")


def refuse_plain_text(settings: ServerSettings) -> None:
    """Raises NotConfiguredError for a host that others can reach, unless the settings say that this is meant."""
    if settings.insecure or is_loopback(settings.host):
        return
    raise NotConfiguredError(
        f"host {settings.host}: others can reach it, and without TLS they read and forge what is asked: set "
        "tls_certificate_path and tls_key_path, or insecure=true where a mesh, a proxy or a private network protects "
        "it (NOWGRAPH_SERVER_TLS_CERTIFICATE_PATH, ..._TLS_KEY_PATH, ..._INSECURE)"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it: an address of loopback, `localhost`, or a Unix socket."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
