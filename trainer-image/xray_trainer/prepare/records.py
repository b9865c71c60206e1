"""Records of a CSV file that somebody else has written: as many and as long as memory has room for, and text."""

from __future__ import annotations

import csv
from typing import Iterator, List, TextIO, Tuple

from xray_trainer.errors import DataError

MAX_RECORDS = 500_000
"""Four times ChestX-ray14; their rows take about 350 MB."""
MAX_RECORD_CHARACTERS = 1 << 20
"""The original's have less than 200. Bounds fields, columns, and quotes that never close."""


def read_records(file: TextIO, name: str) -> Iterator[Tuple[int, List[str]]]:
    """Number of the last line and fields of each record, the heading's first.

    Raises: DataError naming file and line for a record that is too long or one too many, or that holds a NUL;
        csv.Error and UnicodeDecodeError.
    """
    lines = _Lines(file, name)
    reader = csv.reader(lines)
    for number, fields in enumerate(reader, start=1):
        if number > MAX_RECORDS:
            raise DataError(f"{name}: more than {MAX_RECORDS} lines; expected at most that")
        lines.end_record()
        yield reader.line_num, fields


class _Lines:
    """The file's lines, of which csv takes as many as a record has."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file = file
        self._name = name
        self._line = 0
        self._left = MAX_RECORD_CHARACTERS

    def end_record(self) -> None:
        self._left = MAX_RECORD_CHARACTERS

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = self._file.readline(self._left + 1)
        self._line += 1
        self._left -= len(text)
        if self._left < 0:
            raise DataError(
                f"{self._name}: line {self._line}: more than {MAX_RECORD_CHARACTERS} characters; expected at most that"
            )
        if "\0" in text:
            raise DataError(f"{self._name}: line {self._line}: a NUL character; expected text")
        if not text:
            raise StopIteration
        return text
