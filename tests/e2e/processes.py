"""Processes of pods, as they are seen on the node: on this machine, where dev/cluster runs it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dev.demo.stack import Manifest
from tests.e2e.waiting import until


def process_of(pod: Manifest, argument: str) -> int | None:
    """The number of the pod's process that was started with this argument."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            ours = pod["metadata"]["uid"] in (process / "cgroup").read_text().replace("_", "-")
            if ours and argument.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return int(process.name)
    return None


PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL: Final = 0x40000000
"""waitpid also for what is no child. Source: sys/ptrace.h, sys/wait.h."""


def progress_of(pod: Manifest) -> Manifest:
    """What the pod's trainer tells; nothing where it doesn't answer."""
    try:
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9400/progress", timeout=1) as answer:
            return dict(json.load(answer))
    except OSError:
        return {}


@contextlib.contextmanager
def standing_still(pod: Manifest) -> Iterator[None]:
    """The main thread of the pod's trainer gets no further, whatever it holds, as in a step on IPUs that never ends."""
    process = until("the trainer runs", lambda: process_of(pod, "train") or 0)
    _ptrace(PTRACE_SEIZE, process)
    _ptrace(PTRACE_INTERRUPT, process)
    os.waitpid(process, WALL)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            _ptrace(PTRACE_DETACH, process)


def _ptrace(request: int, process: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long
    if library.ptrace(request, process, None, None) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {process}")
