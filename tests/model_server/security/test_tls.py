from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from model_server.errors import NotConfiguredError
from model_server.security.tls import TlsFiles, days_left, load_identity


def files_of(folder: Path, pem: Any, client_ca: bytes | None = None) -> TlsFiles:
    """The files of a server, written."""
    certificate, key = pem.write(folder, "server")
    if client_ca is None:
        return TlsFiles(certificate, key)
    (folder / "ca.pem").write_bytes(client_ca)
    return TlsFiles(certificate, key, folder / "ca.pem")


def test_good_files_are_an_identity(tmp_path: Path, authority: Any) -> None:
    """Names and expiry are the certificate's; the CA of clients may be there or not."""
    pem = authority.issue("server", names=["localhost", "127.0.0.1"], lasts=timedelta(days=3))
    identity = load_identity(files_of(tmp_path, pem, authority.pem))
    assert identity.names == ("localhost", "127.0.0.1")
    assert 2.9 < days_left(identity) < 3.1
    assert load_identity(files_of(tmp_path, authority.issue("no names"))).names == ()


def test_a_certificate_is_refused_outside_its_time(tmp_path: Path, authority: Any) -> None:
    """Expired is refused with the day; one second of validity is enough."""
    with pytest.raises(NotConfiguredError, match=r"server\.pem: expired on 20"):
        load_identity(files_of(tmp_path, authority.issue("old", lasts=timedelta(seconds=-1))))
    assert load_identity(files_of(tmp_path, authority.issue("short", lasts=timedelta(minutes=1))))


def test_the_key_must_be_the_certificates(tmp_path: Path, authority: Any) -> None:
    """Another key is refused, as is a file that is none, and the message quotes nothing of either."""
    one, other = authority.issue("one"), authority.issue("other")
    files = files_of(tmp_path, one)
    files.key.write_bytes(other.key)
    with pytest.raises(NotConfiguredError, match=r"server\.key: not the key of the first certificate"):
        load_identity(files)
    files.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nsecretsecret\n-----END PRIVATE KEY-----\n")
    with pytest.raises(NotConfiguredError, match="no PEM private key") as error:
        load_identity(files)
    assert "secretsecret" not in str(error.value)


def test_missing_and_empty_files_are_named(tmp_path: Path, authority: Any) -> None:
    """Who reads the message knows which file to look at."""
    files = files_of(tmp_path, authority.issue("one"), b"")
    with pytest.raises(NotConfiguredError, match=r"ca\.pem: no PEM certificate"):
        load_identity(files)
    files.certificate.unlink()
    with pytest.raises(NotConfiguredError, match=r"server\.pem: No such file"):
        load_identity(files)
