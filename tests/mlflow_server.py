"""A real MLflow server on loopback, in the environment of tests/mlflow: its pyarrow is older than ours."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "mlflow" / "requirements.txt"
DEADLINE_SECONDS = 300
"""For fetching its packages, once, and starting on a busy machine."""


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Its address. What it knows lies in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    uv = [
        str(Path(sys.executable).parent / "uv"),
        "run",
        "-q",
        "--no-project",
        "--isolated",
        "--python",
        sys.executable,
    ]
    places = [
        "--backend-store-uri",
        f"sqlite:///{folder}/runs.db",
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    process = subprocess.Popen(
        [
            *uv,
            "--with-requirements",
            str(REQUIREMENTS),
            "mlflow",
            "server",
            "--port",
            str(port),
            "--workers",
            "1",
            *places,
        ],
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "server.log").open("wb"),
        start_new_session=True,
    )
    try:
        wait_for(address, process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        assert process.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server doesn't answer"
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
            return
        time.sleep(0.2)  # between two looks
