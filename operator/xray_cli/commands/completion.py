"""`completion`: what a shell needs to complete kubectl-xray, and kubectl's own completion to complete `kubectl xray`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def print_script(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.", show_default=False)],
) -> None:
    """Print a shell's completion script.

    For kubectl-xray. kubectl's own completion completes `kubectl xray` by kubectl_complete-xray, which is installed beside
    it.
    """
    from typer._completion_shared import get_completion_script

    print(get_completion_script(prog_name="kubectl-xray", complete_var="_KUBECTL_XRAY_COMPLETE", shell=shell.value))
