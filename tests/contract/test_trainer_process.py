"""`train` as a process that gets signals: what it has learnt survives them, and what it says is whole."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_trainer_config import example
from tests.contract.test_trainer_run import run
from tests.unit.trainer.build import TRAINER, run_document, write_data_set

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment_as_before", "one_core")]

DEADLINE_SECONDS = 600
"""For importing torch on a busy machine."""
GRACE_SECONDS = 120
"""What a pod has between SIGTERM and SIGKILL."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run file of 40 steps, with prepared data."""
    folder = tmp_path_factory.mktemp("process")
    write_data_set(folder / "nih")
    document = run_document(folder, training={"epochs": 20}, checkpoint={"every_steps": 5})
    assert run(folder, "prepare", document)[0] == 0
    return document


def beside(document: dict[str, Any], output: Path) -> dict[str, Any]:
    """The same run with another output folder."""
    output.mkdir()
    shutil.copy(Path(document["output_dir"]) / "prepared.json", output)
    return {**document, "output_dir": str(output)}


class Container:
    """`train` as a pod runs it, with its termination message in a file."""

    def __init__(
        self,
        folder: Path,
        document: dict[str, Any],
        *wrapper: str,
        python: str | Path = sys.executable,
        **environment: str,
    ) -> None:
        self.message_file = folder / "message.json"
        self.message_file.write_text("")
        run_file = folder / "run.json"
        run_file.write_text(json.dumps(document))
        trainer = [str(python), "-m", "xray_trainer", "train", "--run-file", str(run_file)]
        self.process = subprocess.Popen(
            [*wrapper, *trainer, "--result-file", str(self.message_file)],
            env={**os.environ, "PYTHONPATH": str(TRAINER), **environment},
            stderr=subprocess.DEVNULL,
        )

    def signal_when(self, condition: Callable[[], bool], number: signal.Signals) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not condition():
            assert self.process.poll() is None, f"ended with {self.process.returncode} before it got its signal"
            assert time.monotonic() < deadline
            time.sleep(0.01)  # between two looks
        self.process.send_signal(number)

    def end(self, seconds: float = DEADLINE_SECONDS) -> tuple[int, Any]:
        """Exit code and termination message."""
        code = self.process.wait(seconds)
        text = self.message_file.read_text()
        return code, json.loads(text) if text else None


def last_step(output: Path) -> int:
    """The last step in metrics.jsonl."""
    metrics = output / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True) if metrics.exists() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("\n")), default=0)


def test_a_run_that_is_stopped_then_killed_ends_as_one_that_never_was(document: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "out"
    interrupted = beside(document, output)

    first = Container(tmp_path, interrupted)
    first.signal_when(lambda: last_step(output) >= 7, signal.SIGTERM)
    code, message = first.end(GRACE_SECONDS)
    assert code == 143
    assert message.keys() == example("stopped-result.json").keys()
    stopped_at = message["checkpoint"]["step"]
    assert message["message"] == f"stopped by SIGTERM after step {stopped_at} of 40, of which a checkpoint is saved"

    second = Container(tmp_path, interrupted)
    second.signal_when(lambda: last_step(output) >= stopped_at + 12, signal.SIGKILL)
    assert second.end() == (-signal.SIGKILL, None)

    code, result = Container(tmp_path, interrupted).end()
    assert code == 0
    assert result["resumed_from_step"] >= stopped_at + 5

    (tmp_path / "once").mkdir()
    code, once = run(tmp_path / "once", "train", beside(document, tmp_path / "once" / "out"))
    assert code == 0
    assert result["model_digest"] == once["model_digest"]
    assert result["findings"] == once["findings"]
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert rows == [json.loads(line) for line in (tmp_path / "once/out/metrics.jsonl").read_text().splitlines()]
    log = (output / "train.log").read_text()
    assert log.count("torch backend on the CPU") == 3
    assert log.count("going on from the checkpoint of step") == 2


def test_a_run_that_has_not_begun_stops_at_once(document: dict[str, Any], tmp_path: Path) -> None:
    output = tmp_path / "out"
    container = Container(tmp_path, beside(document, output))
    container.signal_when(lambda: (output / "train.log").exists(), signal.SIGTERM)  # torch is being imported
    code, message = container.end(GRACE_SECONDS)
    assert (code, message["reason"]) == (143, "Stopped")
    assert "before there was anything to save" in message["message"]
    assert "checkpoint" not in message
    assert not (output / "checkpoints").exists()


def test_13_a_disk_that_is_full_keeps_the_checkpoints_that_it_holds(document: dict[str, Any], tmp_path: Path) -> None:
    """On a file system with room for two checkpoints of about 280 kB, in a mount namespace of its own."""
    kept = tmp_path / "kept"
    prepared = Path(document["output_dir"]) / "prepared.json"
    output = tmp_path / "out"
    output.mkdir()
    script = (
        f'mount -t tmpfs -o size=700k tmpfs "{output}" && cp "{prepared}" "{output}" && "$@"; code=$?; '
        f'ls "{output}/checkpoints" > "{kept}"; exit $code'
    )
    wrapper = ("unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh")
    code, message = Container(tmp_path, {**document, "output_dir": str(output)}, *wrapper).end()
    assert (code, message["reason"]) == (13, "DiskFull")
    assert message["checkpoint"]["step"] == 10
    assert kept.read_text().split() == ["step-00000005", "step-00000010"]


def test_a_machine_without_a_network_makes_no_difference(document: dict[str, Any], tmp_path: Path) -> None:
    """Not even loopback answers there."""
    container = Container(tmp_path, beside(document, tmp_path / "out"), "unshare", "--map-root-user", "--net")
    code, result = container.end()
    assert (code, result["steps"]) == (0, 40)
