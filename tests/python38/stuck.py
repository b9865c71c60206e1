"""`train` in which SIGTERM meets one long call, as PopTorch's is while it compiles.

    python stuck.py RUN_FILE RESULT_FILE    # writes a line as soon as it may be told to end

Python 3.8 runs it too.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, NamedTuple

from xray_trainer import __main__ as command
from xray_trainer.config import RunFile
from xray_trainer.interruption import StopSignal
from xray_trainer.progress import Progress

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLE = REPOSITORY / "tests" / "contract" / "examples" / "run-ipu.json"
CHECKPOINT = {"step": 40, "time": "2026-11-22T10:00:30Z"}
SECONDS = 1
"""In which SIGTERM is to be taken up."""
DEADLINE_SECONDS = 300
"""For the end of the process on a busy machine."""


class Ended(NamedTuple):
    code: int
    message: Dict[str, Any]
    log: str


def end_while_stuck(folder: Path) -> Ended:
    """Start it by the Python that runs this, and tell it to end once it is stuck."""
    run_file, message = folder / "run.json", folder / "message.json"
    output = folder / "out"
    output.mkdir()
    example = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    document = {**example, "output_dir": str(output), "progress_port": 0}
    run_file.write_text(json.dumps(document), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, __file__, str(run_file), str(message)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "trainer-image")},
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"compiling\n"
            process.send_signal(signal.SIGTERM)
            code = process.wait(DEADLINE_SECONDS)
        finally:
            process.kill()
    told = json.loads(message.read_text(encoding="utf-8"))
    return Ended(code, told, (output / "train.log").read_text(encoding="utf-8"))


def train(_: RunFile, progress: Progress, stop: StopSignal) -> None:
    progress.saved(CHECKPOINT)
    progress.begin("Compiling")
    stop.defer()
    print("compiling", flush=True)
    get_stuck()


def get_stuck() -> None:
    """In a call that lets go of Python's lock and comes back for no signal."""
    mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    for _ in range(2):
        libc.pthread_mutex_lock(mutex)


if __name__ == "__main__":
    sys.modules["xray_trainer.train"] = SimpleNamespace(train=train)  # type: ignore[assignment]
    command.TAKEN_UP_SECONDS = SECONDS
    sys.exit(command.main(["train", "--run-file", sys.argv[1], "--result-file", sys.argv[2]]))
