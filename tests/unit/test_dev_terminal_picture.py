"""Pictures of what a command draws on a terminal."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.command_line import REPOSITORY, environment

BAR = """
import sys, time
from xray_cli.standing import Standing
from xray_cli.waiting import display_on
print("job created", flush=True)
with display_on(sys.stdout, 3) as display:
    for share in range(100):
        display.show(Standing("cxr", "Training", "", share, "4m", "0.39", "0.56", "0.10 USD", None))
        time.sleep(0.01)
"""


def take(picture: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dev.terminal_picture", *words, str(picture), sys.executable, "-c", BAR]
    return subprocess.run(
        command,
        check=False,
        cwd=REPOSITORY,
        env=environment(None, NO_COLOR=""),
        timeout=60,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def test_a_bar_that_moves_is_drawn_as_it_stands(tmp_path: Path) -> None:
    taken = take(tmp_path / "bar.svg", "--until", r"[4-9]\d%")
    assert taken.returncode == 0, taken.stderr
    drawn = (tmp_path / "bar.svg").read_text()
    assert drawn.count("%</text>") == 1, "one bar, and none of those before"
    assert re.search(r"[4-9]\d%", drawn)
    assert "job&#160;created" in drawn
    assert "AUROC&#160;0.56" in drawn


def test_what_is_never_shown_makes_no_picture(tmp_path: Path) -> None:
    taken = take(tmp_path / "bar.svg", "--until", "101%")
    assert taken.returncode == 1
    assert "never showed '101%'" in taken.stderr
    assert not (tmp_path / "bar.svg").exists()
