"""A process that is told to end while it compiles for IPUs, on the Python that does so."""

from __future__ import annotations

from pathlib import Path

from stuck import end_while_stuck


def test_it_ends_as_stopped_before_it_would_be_killed(tmp_path: Path) -> None:
    ended = end_while_stuck(tmp_path)
    assert (ended.code, ended.message["reason"]) == (143, "Stopped")
