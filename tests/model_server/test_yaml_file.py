from __future__ import annotations

from pathlib import Path

import pytest

from model_server.errors import NotConfiguredError
from model_server.yaml_file import read_yaml


def test_a_file_is_its_values(tmp_path: Path) -> None:
    """Plain ones: nothing is built by its tag."""
    path = tmp_path / "file.yaml"
    path.write_text("{a: [1, b]}")
    assert read_yaml(path) == {"a": [1, "b"]}
    path.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(NotConfiguredError, match="not YAML"):
        read_yaml(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"\xff\xfe secret", "not UTF-8"), (b"a: 1\nsecret: {", "not YAML, line 2")],
)
def test_what_is_wrong_is_told_by_place_and_never_quoted(tmp_path: Path, content: bytes | None, says: str) -> None:
    """The path, the reason, the line; not the file's own words."""
    path = tmp_path / "file.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotConfiguredError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}: {says}")
    assert "secret" not in str(caught.value)
