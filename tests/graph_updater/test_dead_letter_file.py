"""Dead letters in a file keep their exact bytes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from graph_updater.dead_letter_file import DeadLetterFile
from stream.batch import DeadLetter

LETTER = DeadLetter("payments", 1, 7, 1_600_000_000_000_000, None, b"\xff\x00", "invalid_json", "no JSON")


def test_every_letter_is_a_line_with_its_bytes_and_its_reason(tmp_path: Path) -> None:
    """What is read back is what was refused; a second run adds to the file."""
    path = tmp_path / "letters.jsonl"
    for _ in range(2):
        with DeadLetterFile(path) as letters:
            letters.append([LETTER])
            letters.flush(1.0)
            assert letters.count == 1
            assert path.read_bytes().endswith(b"\n")
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == second
    assert base64.b64decode(first["value"]) == b"\xff\x00"
    assert first["key"] is None
    assert (first["topic"], first["partition"], first["offset"]) == ("payments", 1, 7)
    assert first["reason"] == "invalid_json"


def test_letters_are_counted_by_what_was_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal details are one reason with a number; beyond the limit further ones are letters without a count."""
    monkeypatch.setattr("graph_updater.dead_letter_file.REASONS_MAX", 2)
    with DeadLetterFile(tmp_path / "letters.jsonl") as letters:
        letters.append([replace(LETTER, detail=detail) for detail in "abacb"])
        assert letters.reasons == {"a": 2, "b": 2}
        assert letters.count == 5


def test_without_letters_there_is_no_file(tmp_path: Path) -> None:
    """Nothing refused, nothing left behind."""
    with DeadLetterFile(tmp_path / "letters.jsonl") as letters:
        letters.append([])
        letters.flush(1.0)
    assert list(tmp_path.iterdir()) == []
