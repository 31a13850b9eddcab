"""The access file: who may call which methods, by bearer token or by the name in a client certificate.

    version: 1
    tokens:
      - {name: checkout, sha256: 9f86d0..., roles: [score]}
    certificates:
      - {name: spiffe://shop/recommendations, roles: [rank]}

Tokens are 256 random bits (`nowgraph token` makes them), so that a plain SHA-256 of one tells nobody the token: there
are no guesses to slow down. A name may have several tokens, which is how one is replaced by another.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from model_server.caller import NAME_LENGTH_MAX, Caller, Role
from model_server.errors import NotConfiguredError
from model_server.yaml_file import read_yaml

# Every token is compared with each of them, and names are labels: more callers than this want an identity provider.
CALLERS_MAX = 256

_Name = Annotated[str, StringConstraints(min_length=1, max_length=NAME_LENGTH_MAX, pattern=r"^[\x21-\x7e]+$")]


class TokenEntry(BaseModel):
    """One token, by its hash."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: _Name
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
    roles: frozenset[Role]


class CertificateEntry(BaseModel):
    """One client certificate, by a subject alternative name of it (DNS or URI), or by its common name."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    roles: frozenset[Role]


class AccessFile(BaseModel):
    """The file as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    version: Literal[1]
    tokens: tuple[TokenEntry, ...] = Field(default=(), max_length=CALLERS_MAX)
    certificates: tuple[CertificateEntry, ...] = Field(default=(), max_length=CALLERS_MAX)


class Access:
    """Finds callers. Immutable."""

    def __init__(self, file: AccessFile) -> None:
        self._tokens = [(bytes.fromhex(entry.sha256), Caller(entry.name, entry.roles)) for entry in file.tokens]
        self._certificates = {entry.name: Caller(entry.name, entry.roles) for entry in file.certificates}

    @property
    def tokens(self) -> int:
        """How many there are."""
        return len(self._tokens)

    @property
    def certificates(self) -> int:
        """How many there are."""
        return len(self._certificates)

    def by_token(self, token: str) -> Caller | None:
        """Whose token this is. Compares with all of them in constant time: how long it takes says nothing."""
        asked = hash_of(token)
        found: Caller | None = None
        for digest, caller in self._tokens:
            if hmac.compare_digest(asked, digest):
                found = caller
        return found

    def by_certificate(self, names: Iterable[str]) -> Caller | None:
        """Whose certificate has one of these names."""
        return next((self._certificates[name] for name in names if name in self._certificates), None)


def load_access(path: Path) -> Access:
    """Reads an access file. Raises NotConfiguredError, which names the key and quotes no value."""
    try:
        file = AccessFile.model_validate(read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise NotConfiguredError(f"{path}: {place or 'the file'}: {first['msg']}") from None
    _refuse_twice(path, "tokens", "sha256", [entry.sha256 for entry in file.tokens])
    _refuse_twice(path, "certificates", "name", [entry.name for entry in file.certificates])
    return Access(file)


def _refuse_twice(path: Path, part: str, key: str, values: list[str]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise NotConfiguredError(f"{path}: {part}.{index}.{key}: the same as {part}.{values.index(value)}.{key}")


def new_token() -> str:
    """A token that nobody can guess: 256 random bits."""
    return secrets.token_urlsafe(32)


def hash_of(token: str) -> bytes:
    """What the access file keeps of a token, as bytes; there it is written in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
