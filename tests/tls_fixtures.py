"""Certificates as a company's own CA would give them out, made on the spot; loaded as a plugin by conftest.py.

`cryptography` is imported where it is used: this file is loaded for every test run.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest


class Pem:
    """A certificate and its key."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        self.certificate = certificate
        self.key = key

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Writes both, as a deployment would: the new file is moved into place."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in zip(paths, (self.certificate, self.key), strict=True):
            new = path.with_suffix(".new")
            new.write_bytes(content)
            new.replace(path)
        return paths


class Authority:
    """A CA that signs what it is asked to."""

    def __init__(self, name: str = "tests") -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding

        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _subject(name)
        builder = _builder(self._name, self._name, self._key.public_key(), timedelta(days=10))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.pem: bytes = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self, common_name: str, *, names: Sequence[str] = (), uris: Sequence[str] = (), lasts: timedelta | None = None
    ) -> Pem:
        """A certificate for DNS names, addresses or URIs; a negative span is one that has passed."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = ec.generate_private_key(ec.SECP256R1())
        span = timedelta(days=5) if lasts is None else lasts
        builder = _builder(_subject(common_name), self._name, key.public_key(), span)
        others = [x509.UniformResourceIdentifier(uri) for uri in uris]
        if alternative := [*map(_general_name, names), *others]:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Pem(
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )


def _subject(name: str) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: Any, issuer: Any, public_key: Any, lasts: timedelta) -> Any:
    from cryptography import x509

    end = datetime.now(UTC) + lasts
    start = min(datetime.now(UTC), end) - timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _general_name(name: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The CA that the tests' servers and clients trust."""
    return Authority()


@pytest.fixture(scope="session")
def stranger() -> Authority:
    """A CA that they do not."""
    return Authority("strangers")
