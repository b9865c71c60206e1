"""A picture of what a command prints on a terminal, for the pages: python -m dev.terminal_picture OUT.svg COMMAND ...

The command runs on a terminal of its own, so it has its colours; the picture names no font that has to be fetched. With
`--until PATTERN` before OUT.svg it is taken, and the command ended, as soon as that is on the screen: a live bar on its way.
"""

from __future__ import annotations

import argparse
import io
import os
import pty
import re
import shlex
import sys
from pathlib import Path
from typing import Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

WIDTH: Final = 110
WITHOUT_FETCHED_FONTS: Final = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
UP: Final = "\x1b[1A"
ERASE: Final = "\x1b[2K"
MOVES: Final = re.compile(rf"(\r*\n|\r|{re.escape(UP)}|{re.escape(ERASE)})")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.terminal_picture")
    parser.add_argument("--until", metavar="PATTERN")
    parser.add_argument("picture", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    printed = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 1 << 16)
        printed.extend(data)
        # what looks like the end makes pty close the terminal, and that ends the command
        return b"" if given.until and re.search(given.until, on_screen(printed).plain) else data

    os.environ.update(COLUMNS=str(WIDTH), LINES="50", TERM="xterm-256color")
    code = os.waitstatus_to_exitcode(pty.spawn(given.command, read))
    screen = on_screen(printed)
    if given.until and not re.search(given.until, screen.plain):
        sys.exit(f"the command ended with exit code {code} and never showed {given.until!r}")
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(screen, soft_wrap=True)
    name = Path(given.command[0]).name.replace("kubectl-xray", "kubectl xray")
    shown = shlex.join([*name.split(), *given.command[1:]])
    given.picture.write_text(
        console.export_svg(title=f"$ {shown}", theme=DEFAULT_TERMINAL_THEME, code_format=WITHOUT_FETCHED_FONTS)
    )
    return 0 if given.until else code


def on_screen(printed: bytes | bytearray) -> Text:
    """What is left to be seen: rich moves a bar by going up over its lines, erasing each."""
    lines = [""]
    for part in MOVES.split(printed.decode(errors="ignore")):
        if part.endswith("\n"):
            lines.append("")
        elif part == UP:
            lines.pop()
        elif part in ("\r", ERASE):
            lines[-1] = ""
        else:
            lines[-1] += part
    return Text.from_ansi("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
