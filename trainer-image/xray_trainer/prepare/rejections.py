"""The list of files that a preparation left out: rejected.csv, on the data's own volume, the only place that names them."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Dict, List, Optional, Type

from typing_extensions import Self

from xray_trainer.errors import MemberError

LOG = logging.getLogger(__name__)

REFUSED = "refused"
"""Reason of the one member that ended the preparation."""
LOGGED_REJECTIONS = 5
"""All are in the list."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for the begin of a formula. Source: OWASP, CSV injection."""


@dataclass(frozen=True)
class Rejection:
    """One file that was left out."""

    place: str
    ordinal: int
    path: str
    """Its name would tell the patient: it is for the list only."""
    reason: str
    detail: str = ""

    def sentence(self) -> str:
        return f"{self.place}: member {self.ordinal}: {self.detail or self.reason}"


class Rejections:
    """Writes the list as it grows, for a hostile archive may fill memory with it, and counts."""

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        """Reason -> files."""
        self._shown: List[Rejection] = []
        self._first: Dict[str, Rejection] = {}
        # names that are no UTF-8 stay readable, and the list writable
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(["source", "member", "name", "reason", "detail"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        """Close the list; the member that ended the preparation is its last."""
        if isinstance(error, MemberError):
            self.add(Rejection(error.place, error.ordinal, error.path, REFUSED, error.problem))
        self._file.close()

    def add(self, rejection: Rejection) -> None:
        cells = (rejection.place, rejection.ordinal, rejection.path, rejection.reason, rejection.detail)
        self._writer.writerow([defuse(str(cell)) for cell in cells])
        self._first.setdefault(rejection.reason, rejection)
        if len(self._shown) < LOGGED_REJECTIONS:
            self._shown.append(rejection)
        self.counts[rejection.reason] += 1

    def count(self) -> int:
        return sum(self.counts.values())

    def first(self, reason: Optional[str] = None) -> Optional[Rejection]:
        """The first of all, or for a reason."""
        if reason is not None:
            return self._first.get(reason)
        return self._shown[0] if self._shown else None

    def log(self) -> None:
        for rejection in self._shown:
            LOG.warning("left out: %s", rejection.sentence())


def defuse(cell: str) -> str:
    """The cell so that no spreadsheet computes it."""
    return f"'{cell}" if cell.startswith(FORMULA_STARTS) else cell
