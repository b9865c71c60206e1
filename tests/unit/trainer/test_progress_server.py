"""Progress over HTTP: right while the container works, there while it hangs, and harmless when it isn't."""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from xray_trainer.prepare.meter import Meter
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


def ask(port: int, run_until: str) -> None:
    """As the operator does."""
    question = urllib.request.Request(f"http://127.0.0.1:{port}/progress", headers={RUN_UNTIL: run_until})
    with urllib.request.urlopen(question, timeout=20) as answer:
        assert answer.status == 200


def until(told: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not told():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def children() -> set[int]:
    """The numbers of this process' children."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found |= set(map(int, (task / "children").read_text().split()))
    return found


def test_whoever_asks_for_progress_is_noticed_and_a_scrape_is_not() -> None:
    progress = Asked("Training")
    port = start(progress)
    get(port, "/metrics")
    ask(port, "never")
    until(lambda: progress.run_until() is not None)
    assert progress.questions == 1


def test_whoever_tells_more_than_a_time_is_heard_as_anybody() -> None:
    progress = Asked("Training")
    port = start(progress)
    ask(port, "\xe9" * 60_000)
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
    until(lambda: json.loads(get(port, "/progress"))["step"] == 4999)


def test_a_server_that_was_killed_is_told_of_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("Training")
    before = children()
    start(progress)
    (answerer,) = children() - before
    with caplog.at_level(logging.WARNING):
        os.kill(answerer, signal.SIGKILL)
        until(lambda: "ended with code -9" in caplog.text)
    progress.advance(3, 10)
    assert progress.state.step == 3


CONTAINER = """
import ctypes, os, pathlib, sys, time
from xray_trainer.progress import Progress
from xray_trainer.progress_server import serve
port = serve(Progress("Training"), 0, "127.0.0.1")
if os.fork() == 0:  # as a loader of images does
    time.sleep(60)
pathlib.Path(sys.argv[1]).write_text(str(port))
ctypes.PyDLL(None).sleep(60)  # with the lock: no question is heard
"""


def test_it_ends_with_a_killed_container_without_a_word_and_leaves_the_port(tmp_path: Path) -> None:
    told = tmp_path / "port"
    place = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CONTAINER, str(told)]
    with subprocess.Popen(command, env=place, stderr=subprocess.PIPE, text=True, start_new_session=True) as container:
        until(lambda: told.is_file() and told.read_text())
        port = int(told.read_text())
        get(port, "/progress")
        container.kill()
        container.wait()
        until(lambda: is_free(port))
        os.killpg(container.pid, signal.SIGKILL)
        assert container.stderr is not None
        assert container.stderr.read() == ""


def is_free(port: int) -> bool:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return True
    except OSError:
        return False


def test_what_can_not_be_told_ends_no_run(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress("Training")
    port = start(progress)
    progress.record(loss=np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(get(port, "/progress"))["metrics"] == [{"name": "loss", "value": "0.5"}]
    progress.saved({"step": object()})
    assert "progress could not be told" in caplog.text
    progress.saved(None)
    assert json.loads(get(port, "/progress"))["checkpoint"] is None


def test_the_last_count_of_data_is_told_without_a_question() -> None:
    progress = Progress("Preparing")
    port = start(progress)
    with Meter(progress, 1000, 40, 1, time.monotonic) as meter:
        for image in range(1, 41):
            meter.on_image(image, rejected=0)
    assert "xray_trainer_images_prepared 40.0" in get(port, "/metrics")


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
