"""A Prometheus server on this machine, for tests and for the dashboard's pictures."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.state import ClusterError

READY_SECONDS = 60


@contextlib.contextmanager
def running_server(config: Mapping[str, Any], folder: Path, programs: Path, *options: str) -> Iterator[str]:
    """Its URL, for as long as the block lasts.

    Args:
        config: what prometheus.yml holds.
        folder: for its data and its log.
        programs: the folder with the program prometheus.
        options: more of them, such as --query.lookback-delta=59s.
    Raises: ClusterError with the end of its log if it is not ready in a minute.
    """
    path, log = folder / "prometheus.yml", folder / "prometheus.log"
    path.write_text(yaml.safe_dump(dict(config)))
    address = f"127.0.0.1:{free_port()}"
    place = (f"--config.file={path}", f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={address}")
    with log.open("wb") as output:
        server = subprocess.Popen(
            [programs / "prometheus", *place, *options], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait_for(f"http://{address}/-/ready", server, log)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(url):
        if server.poll() is not None or time.monotonic() > deadline:
            raise ClusterError(f"prometheus is not ready:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
