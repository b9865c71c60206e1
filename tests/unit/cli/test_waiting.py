"""What a terminal shows of jobs that are waited for."""

from __future__ import annotations

import io
import re

import pytest
from rich.text import Text

from xray_cli.standing import Standing
from xray_cli.waiting import display_on

COLOUR = r"\x1b\[[\d;]+m"
LONG = "chest-xray-vit-base-lr-2e-4-seed-17"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bar in the middle of a training, as a terminal is sent it."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    with display_on(terminal, len(name)) as display:
        display.show(Standing(name, "Training", "", 42, "12m34s", "0.3940", "0.5587", "17.23 USD", None))
    return terminal.getvalue()


def last_lines(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    sent = drawn(name, columns, monkeypatch)
    shown = [Text.from_ansi(line).plain.rstrip() for line in sent.replace("\r", "\n").split("\n")]
    return [line for line in shown if line][-2:]


@pytest.mark.parametrize(("name", "columns"), [("vit", 80), (LONG, 80), (LONG, 120)])
def test_a_narrow_terminal_cuts_nothing(name: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bar, figures = last_lines(name, columns, monkeypatch)
    assert bar.startswith(f"{name} Training")
    assert bar.endswith("42%")
    assert "\u2501\u2501" in bar
    assert figures.strip() == "loss 0.3940  AUROC 0.5587  17.23 USD  12m34s left"


def test_a_wide_terminal_has_all_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    line = last_lines(LONG, 140, monkeypatch)[-1]
    assert line.startswith(LONG)
    assert line.endswith("42% loss 0.3940  AUROC 0.5587  17.23 USD  12m34s left")


def test_a_cost_that_rises_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    terminal = Terminal()
    with display_on(terminal, 3) as display:
        for number in range(3):
            display.show(
                Standing("vit", "Preparing", f"{number} of 9", None, None, None, None, f"0.0{number} USD", None)
            )
    assert len(re.findall("vit: Preparing", terminal.getvalue())) == 1


def test_a_bar_has_colours_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert re.search(COLOUR, drawn("vit", 80, monkeypatch))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(COLOUR, drawn("vit", 80, monkeypatch))
