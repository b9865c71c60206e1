"""docs/runs.md names every state, exit code and reason against a start, with the truths that the code gives them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.operator.builders import condition_table
from xray_operator import names

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "runs.md").read_text()
AGAINST_A_START = {
    names.SPEC_INVALID,
    names.FLAVOR_NOT_FOUND,
    names.FLAVOR_INVALID,
    names.FLAVOR_NOT_ALLOWED,
    names.CLAIM_NOT_FOUND,
    names.VOLUME_IMPOSSIBLE,
    names.SIZING_IMPOSSIBLE,
    names.FLAVOR_UNFIT,
    names.IMAGE_NOT_CONFIGURED,
    names.BACKEND_NOT_INSTALLED,
    names.NAME_TAKEN,
    names.CREATION_REFUSED,
    names.FORMER_POD_RUNS,
    names.RECORD_UNREADABLE,
    names.BUDGET_TOO_LOW,
    names.BUDGET_CURRENCY,
    names.BUDGET_UNPRICED,
}


def first_column(heading: str) -> set[str]:
    """Words in code style in the first column of the table under a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = (line.split("|")[1] for line in section.splitlines() if line.startswith("| "))
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_every_state_is_told() -> None:
    assert first_column("States") == set(names.STATES)


@pytest.mark.parametrize("state", names.STATES)
def test_a_state_is_told_with_its_conditions(state: str) -> None:
    wanted = next(row for title, row in condition_table().items() if title.split(" ")[0] == state)
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{state}` |"))
    ready, stalled = (cell.strip() for cell in line.split("|")[3:5])
    assert ready.partition(",")[0] == wanted["Ready"].strip("*")
    assert stalled == wanted["Stalled"] or state == names.PENDING


def test_every_reason_against_a_start_is_told() -> None:
    assert first_column("What keeps a job from starting") == AGAINST_A_START


@pytest.mark.parametrize("code", sorted(names.EXIT_REASONS))
def test_every_exit_code_is_told(code: int) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {code} |"))
    assert f"`{names.EXIT_REASONS[code]}`" in row
    assert row.split("|")[3].strip().startswith("no") == (code in names.FATAL_EXIT_CODES)
