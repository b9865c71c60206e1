"""A picture of what a command prints on a terminal, for the pages: python -m dev.terminal_picture OUT.svg COMMAND ...

The command runs on a terminal of its own, so it has its colours; the picture names no font that has to be fetched.
"""

from __future__ import annotations

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


def main() -> int:
    out, command = Path(sys.argv[1]), sys.argv[2:]
    printed = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 1 << 16)
        printed.extend(data)
        return data

    os.environ.update(COLUMNS=str(WIDTH), LINES="50", TERM="xterm-256color")
    code = os.waitstatus_to_exitcode(pty.spawn(command, read))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(printed.decode().replace("\r\n", "\n")), soft_wrap=True)
    shown = shlex.join([*Path(command[0]).name.replace("kubectl-xray", "kubectl xray").split(), *command[1:]])
    out.write_text(
        console.export_svg(title=f"$ {shown}", theme=DEFAULT_TERMINAL_THEME, code_format=WITHOUT_FETCHED_FONTS)
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
