"""A CSV file as Arrow batches: one way to open it, for drafts of schemas and for the rows of a graph."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

BLOCK_BYTES = 16 << 20
"""Where types are guessed, they are taken from the first block."""
DELIMITERS = ",;\t|"
_HEADER_CHARACTERS_MAX = 1 << 16


def open_csv(path: Path, *, texts: bool = False, block_bytes: int = BLOCK_BYTES) -> Any:
    """Return a `pyarrow.csv.CSVStreamingReader`: a header, then rows; empty cells and NA are null.

    The delimiter is the one of `, ; tab |` that the header has most of. `texts` reads every column as text.

    Raises:
        OSError: the file cannot be read.
        pyarrow.ArrowInvalid: it is empty, no UTF-8, or its rows have different numbers of cells.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names, delimiter = _header(path)
    return arrow_csv.open_csv(
        path,
        read_options=arrow_csv.ReadOptions(block_size=block_bytes),
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            strings_can_be_null=True, column_types=dict.fromkeys(names, pa.string()) if texts else None
        ),
    )


def _header(path: Path) -> tuple[list[str], str]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        line = file.readline(_HEADER_CHARACTERS_MAX)
    delimiter = max(DELIMITERS, key=line.count)
    return next(csv.reader([line], delimiter=delimiter), []), delimiter
