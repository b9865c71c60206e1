"""Processes of pods, as they are seen on the node: on this machine, where dev/cluster runs it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from dev.demo.stack import Manifest


def process_of(pod: Manifest, argument: str) -> int | None:
    """The number of the pod's process that was started with this argument."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            ours = pod["metadata"]["uid"] in (process / "cgroup").read_text().replace("_", "-")
            if ours and argument.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return int(process.name)
    return None
