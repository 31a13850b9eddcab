"""The server's certificate, its key and the CA of its clients, read anew for the next handshake after they changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from model_server.errors import NotConfiguredError
from model_server.security.metrics import SecurityMetrics
from model_server.security.watched import Watched

if TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files are; with `client_ca` only clients with a certificate of it get through the handshake."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All that there are."""
        return (self.certificate, self.key) if self.client_ca is None else (self.certificate, self.key, self.client_ca)


@dataclass(frozen=True, slots=True)
class Identity:
    """What the files hold, checked: a key that is the certificate's, and dates. `expires_s` is since the epoch."""

    configuration: grpc.ServerCertificateConfiguration
    expires_s: float
    names: tuple[str, ...]


def load_identity(files: TlsFiles, *, now: datetime | None = None) -> Identity:
    """Reads and checks the files. Raises NotConfiguredError, which names the file and says what is wrong with it."""
    try:
        from cryptography import x509  # noqa: F401
    except ImportError:
        raise NotConfiguredError("TLS needs the extra `tls`: pip install 'nowgraph[tls]'") from None
    moment = datetime.now(UTC) if now is None else now
    chain_pem, key_pem = _read(files.certificate), _read(files.key)
    leaf = _certificates(files.certificate, chain_pem)[0]
    _check_key(files, leaf, key_pem)
    _check_dates(files.certificate, leaf, moment)
    ca_pem = None
    if files.client_ca is not None:
        ca_pem = _read(files.client_ca)
        for certificate in _certificates(files.client_ca, ca_pem):
            _check_dates(files.client_ca, certificate, moment)
    configuration = grpc.ssl_server_certificate_configuration([(key_pem, chain_pem)], root_certificates=ca_pem)
    return Identity(configuration, leaf.not_valid_after_utc.timestamp(), _names(leaf))


def tls_credentials(files: TlsFiles, metrics: SecurityMetrics) -> grpc.ServerCredentials:
    """Credentials that follow the files: a new connection is shown what they hold then, if it is any good.

    Raises NotConfiguredError when they are not at the start.
    """
    watched = Watched("tls", files.paths, lambda: load_identity(files), metrics)
    metrics.certificate_expiry.set(watched.value.expires_s)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC before every handshake, on a thread of its own; None changes nothing."""
        if not watched.refresh():
            return None
        metrics.certificate_expiry.set(watched.value.expires_s)
        return watched.value.configuration

    return grpc.dynamic_ssl_server_credentials(
        watched.value.configuration,
        fetch,  # type: ignore[arg-type]  # the stubs forget that None changes nothing
        require_client_authentication=files.client_ca is not None,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotConfiguredError(f"{path}: {error.strerror}") from None


def _certificates(path: Path, pem: bytes) -> Sequence[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise NotConfiguredError(f"{path}: no PEM certificate in it") from None


def _check_key(files: TlsFiles, leaf: x509.Certificate, key_pem: bytes) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        public = load_pem_private_key(key_pem, password=None).public_key().public_bytes(*form)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # whose words might quote the key
        raise NotConfiguredError(f"{files.key}: no PEM private key without a password in it") from None
    try:
        certified = leaf.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm):
        raise NotConfiguredError(f"{files.certificate}: a key of an unknown kind") from None
    if public != certified:
        raise NotConfiguredError(f"{files.key}: not the key of the first certificate in {files.certificate}")


def _check_dates(path: Path, certificate: x509.Certificate, moment: datetime) -> None:
    if moment > certificate.not_valid_after_utc:
        raise NotConfiguredError(f"{path}: expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if moment < certificate.not_valid_before_utc:
        raise NotConfiguredError(f"{path}: valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in found)


def days_left(identity: Identity) -> float:
    """How long the certificate is still valid, in days."""
    return (identity.expires_s - time.time()) / 86_400
