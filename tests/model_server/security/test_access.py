from __future__ import annotations

from pathlib import Path

import pytest

from model_server.caller import Role
from model_server.errors import NotConfiguredError
from model_server.security.access import hash_of, load_access, new_token

TOKEN = f"{{name: a, sha256: {'f' * 64}, roles: []}}"


def written(folder: Path, text: str) -> Path:
    """An access file."""
    path = folder / "access.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_name_may_have_several_tokens_and_each_caller_its_roles(tmp_path: Path) -> None:
    """The old and the new token are both good while one is replaced; nobody else's is."""
    old, new, other = new_token(), new_token(), new_token()
    lines = [f"  - {{name: checkout, sha256: {hash_of(token).hex()}, roles: [score]}}" for token in (old, new)]
    access = load_access(written(tmp_path, "\n".join(["version: 1", "tokens:", *lines])))
    for token in (old, new):
        caller = access.by_token(token)
        assert caller is not None
        assert (caller.name, caller.roles) == ("checkout", frozenset({Role.SCORE}))
    assert access.by_token(other) is None
    assert access.by_token("") is None
    assert access.by_token(hash_of(old).hex()) is None  # what the file holds opens nothing


def test_certificates_are_found_by_any_of_their_names(tmp_path: Path) -> None:
    """The first of the certificate's names that the file knows."""
    access = load_access(
        written(tmp_path, "{version: 1, certificates: [{name: shop.internal, roles: [rank, ingest]}]}")
    )
    caller = access.by_certificate(["other.internal", "shop.internal"])
    assert caller is not None
    assert caller.roles == {Role.RANK, Role.INGEST}
    assert access.by_certificate(["other.internal"]) is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "not YAML, line 1"),
        ("{}", "version: Field required"),
        ("version: 2", "version: Input should be 1"),
        ("{version: 1, tokens: [{name: a, token: hushhush, roles: []}]}", "tokens.0.sha256: Field required"),
        ("{version: 1, tokens: [{name: a, sha256: hushhush, roles: []}]}", "tokens.0.sha256: String should match"),
        (f"{{version: 1, tokens: [{{name: a, sha256: {'f' * 64}, roles: [rule]}}]}}", "tokens.0.roles.0: Input should"),
        (f"{{version: 1, tokens: [{{name: a b, sha256: {'f' * 64}, roles: []}}]}}", "tokens.0.name"),
        (
            "{version: 1, tokens: [" + TOKEN + ", " + TOKEN + "]}",
            "tokens.1.sha256: the same as tokens.0.sha256",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_key_and_never_quoted(tmp_path: Path, text: str, says: str) -> None:
    """A token that somebody wrote into the file in place of its hash does not get into logs."""
    with pytest.raises(NotConfiguredError) as error:
        load_access(written(tmp_path, text))
    assert says in str(error.value)
    assert "hushhush" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(NotConfiguredError, match=r"none\.yaml: No such file"):
        load_access(tmp_path / "none.yaml")


def test_tokens_are_not_guessed() -> None:
    """256 bits each, no two alike."""
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 43 for token in tokens)
