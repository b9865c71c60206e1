"""`kubectl xray` as people start it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def environment(kubeconfig: Path | None, **more: str) -> dict[str, str]:
    """What the process sees; without a kubeconfig there is none to be found."""
    return os.environ | {
        "PYTHONPATH": str(REPOSITORY / "operator"),
        "KUBECONFIG": str(kubeconfig or os.devnull),
        **more,
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "xray_cli", *arguments]


def xray(
    kubeconfig: Path | None,
    *arguments: str,
    stdin: str = "",
    more: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; who calls judges the exit code."""
    return subprocess.run(
        command(*arguments),
        input=stdin,
        env=environment(kubeconfig, **(more or {})),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
