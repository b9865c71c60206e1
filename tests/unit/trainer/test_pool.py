"""The processes that decode end with the one they work for, and their end is told."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import (
    TRAINER,
    image_name,
    label_line,
    make_png,
    make_run_file,
    write_archive,
    write_labels,
)
from xray_trainer.errors import TrainerError
from xray_trainer.prepare import images
from xray_trainer.prepare.pool import decoding_pool
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress

READER = """
import os, sys, time
from xray_trainer.prepare.pool import decoding_pool
print(decoding_pool(1).submit(os.getpid).result(), flush=True)
time.sleep(600)
"""


def test_a_process_does_not_outlive_the_one_that_it_decodes_for() -> None:
    environment = {**os.environ, "PYTHONPATH": str(TRAINER)}
    with subprocess.Popen([sys.executable, "-c", READER], stdout=subprocess.PIPE, env=environment) as reader:
        assert reader.stdout is not None
        decoding = int(reader.stdout.readline())
        os.kill(decoding, 0)
        reader.kill()
    deadline = time.monotonic() + 30
    while _runs(decoding):
        assert time.monotonic() < deadline, "the decoding process is still there"
        time.sleep(0.05)


def test_a_film_fits_into_the_pipe_to_a_decoder() -> None:
    """In the usual 64 KiB it goes in pieces, and cores wait for each."""
    pool: Any = decoding_pool(1)
    sizes = [fcntl.fcntl(queue._writer.fileno(), F_GETPIPE_SZ) for queue in (pool._call_queue, pool._result_queue)]
    assert min(sizes) >= 1 << 20


F_GETPIPE_SZ = 1032


def test_the_death_of_a_decoder_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_labels(tmp_path / "nih", map(label_line, range(1, 4)))
    write_archive(tmp_path / "nih" / "images_001.tar.gz", ((image_name(n), make_png(n)) for n in range(1, 4)))
    monkeypatch.setattr(images, "DECODERS", {".png": _die})
    with pytest.raises(TrainerError, match=r"^images_001\.tar\.gz: a process that decodes images died near member \d"):
        prepare(make_run_file(tmp_path), Progress("Preparing"))
    decoding_pool.cache_clear()  # the next test needs a whole one


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
