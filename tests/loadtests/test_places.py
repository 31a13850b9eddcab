from __future__ import annotations

from pathlib import Path

from loadtests.load.places import forget_pages, memory_folder


def test_a_file_that_leaves_the_page_cache_keeps_its_bytes(tmp_path: Path) -> None:
    """Also what was only just written."""
    file = tmp_path / "file"
    file.write_bytes(b"a page" * 10_000)
    forget_pages(file)
    assert file.read_bytes() == b"a page" * 10_000


def test_the_folder_in_memory_is_one_or_none() -> None:
    """Never a path that is not there."""
    folder = memory_folder()
    assert folder is None or folder.is_dir()
