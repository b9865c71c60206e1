"""Progress over HTTP: right while the container works, there while it hangs, and harmless when it isn't."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from xray_trainer.progress import Progress
from xray_trainer.progress_server import RUN_UNTIL, serve


class Asked(Progress):
    """Counts the questions that it hears of."""

    def __init__(self, phase: str) -> None:
        super().__init__(phase)
        self.heard = threading.Event()
        self.questions = 0

    def asked(self, run_until: str | None = None) -> None:
        super().asked(run_until)
        self.questions += 1
        self.heard.set()


def start(progress: Progress) -> int:
    """Serve it. Returns: the port."""
    port = serve(progress, 0, "127.0.0.1")
    assert port is not None
    return port


def get(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return str(answer.read().decode())


def children() -> set[int]:
    """The numbers of this process' children."""
    return {
        int(child) for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()
    }


def test_whoever_asks_for_progress_is_noticed_and_a_scrape_is_not() -> None:
    progress = Asked("Training")
    port = start(progress)
    get(port, "/metrics")
    get(port, "/progress")
    assert progress.heard.wait(20)
    assert progress.questions == 1


def test_whoever_tells_more_than_a_time_is_heard_as_anybody() -> None:
    progress = Asked("Training")
    port = start(progress)
    long = urllib.request.Request(f"http://127.0.0.1:{port}/progress", headers={RUN_UNTIL: "\xe9" * 60_000})
    with urllib.request.urlopen(long, timeout=20) as answer:
        assert answer.status == 200
    assert progress.heard.wait(20)
    assert progress.run_until() is None


def test_both_pages_are_served() -> None:
    progress = Progress("Training")
    port = start(progress)
    progress.device = "cpu"
    progress.advance(3, 10)
    progress.record(loss=0.25, images_per_second=12.5)
    told = json.loads(get(port, "/progress"))
    assert told["metrics"][0] == {"name": "loss", "value": "0.25"}
    assert told.keys() == progress.as_json().keys()
    assert told["device"] == "cpu"
    metrics = get(port, "/metrics")
    assert "xray_trainer_steps 3.0" in metrics
    assert "xray_trainer_images_per_second 12.5" in metrics
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(port, "/")


ASK = """
import os, sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())
finally:
    os.write(int(sys.argv[2]), b"x")
"""


def test_a_step_that_hangs_with_pythons_lock_is_told_of() -> None:
    """As PopTorch does in a step on IPUs."""
    progress = Progress("Training")
    port = start(progress)
    progress.advance(3, 10)
    answered, ended = os.pipe()
    command = [sys.executable, "-c", ASK, f"http://127.0.0.1:{port}/progress", str(ended)]
    with subprocess.Popen(command, pass_fds=(ended,), stdout=subprocess.PIPE, text=True) as asking:
        holding_the_lock = ctypes.PyDLL(None)
        holding_the_lock.read(answered, ctypes.create_string_buffer(1), 1)  # until the question is over
        assert asking.stdout is not None
        assert json.loads(asking.stdout.read())["step"] == 3


def test_more_changes_than_anybody_could_read_hold_nobody_up_and_the_last_is_told() -> None:
    progress = Asked("Preparing")
    before = children()
    port = start(progress)
    (answerer,) = children() - before
    os.kill(answerer, signal.SIGSTOP)
    for step in range(5000):
        progress.advance(step, 5000)
    os.kill(answerer, signal.SIGCONT)
    get(port, "/progress")
    assert progress.heard.wait(20)
    deadline = time.monotonic() + 20
    while json.loads(get(port, "/progress"))["step"] != 4999:
        assert time.monotonic() < deadline


def test_a_server_that_was_killed_is_told_of_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("Training")
    before = children()
    start(progress)
    (answerer,) = children() - before
    with caplog.at_level(logging.WARNING):
        os.kill(answerer, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while "ended with code -9" not in caplog.text:
            assert time.monotonic() < deadline
    progress.advance(3, 10)
    assert progress.state.step == 3


def test_it_ends_with_the_container_even_a_killed_one(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from xray_trainer.progress import Progress\n"
        "from xray_trainer.progress_server import serve\n"
        "pathlib.Path(sys.argv[1]).write_text(str(serve(Progress('Training'), 0, '127.0.0.1')))\n"
        "time.sleep(60)\n"
    )
    told = tmp_path / "port"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program, str(told)], env=os.environ | path) as container:
        deadline = time.monotonic() + 20
        while not (told.is_file() and told.read_text()):
            assert time.monotonic() < deadline
        port = int(told.read_text())
        get(port, "/progress")
        container.kill()
    while True:
        try:
            get(port, "/progress")
        except OSError:
            break
        assert time.monotonic() < deadline


def test_a_taken_port_is_no_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve(Progress("Training"), taken.getsockname()[1], "127.0.0.1") is None


def test_a_client_that_hangs_up_leaves_the_server_running() -> None:
    port = start(Progress("Training"))
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /progress HTTP/1.1\r\n\r\n")
    assert "Training" in get(port, "/progress")
