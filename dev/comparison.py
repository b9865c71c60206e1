"""Prints docs/cost.md with tables that `kubectl xray compare` makes. Run by `make generate`; `make lint` compares."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from pathlib import Path

from xray_cli.__main__ import PROGRAM, run

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "docs" / "cost.md"
BEGIN, END = "<!-- made by dev/comparison.py -->\n", "<!-- end of what is made -->\n"
COMMAND = (
    *("compare", "-f", "examples/nih-vit-base.yaml", "--flavors", "vpod4-vm,vpod4-bm,vpod16-bm"),
    *("--simulate", "--from", "examples/compare/flavors.yaml", "--images", "112120", "--dataset-scale", "500"),
)


def main() -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    print(before + BEGIN + tables() + END + rest.split(END)[1], end="")


def tables() -> str:
    """The command and what it prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.chdir(REPOSITORY):
        code = run(list(COMMAND))
    if code:
        sys.exit(code)
    return f"```\n$ {PROGRAM} {shlex.join(COMMAND)}\n{printed.getvalue()}```\n"


if __name__ == "__main__":
    main()
