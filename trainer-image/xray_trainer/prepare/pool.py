"""Processes that decode images for the one that reads them."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import lru_cache
from multiprocessing.process import parent_process
from threading import Thread
from typing import Any

from xray_trainer.prepare.decode import limit_pillow

MOST_PROCESSES = 8
"""So many keep up with the one that reads for them (about 0.7 ms an image to their 4 to 6); more would only take memory."""
PIPE_BYTES = 1 << 20
"""What Linux lets anybody have. Of its usual 64 KiB a film takes six and a grey square one and a bit: each was handed over in
pieces, for each of which both sides had to be awake, and a core waited meanwhile (a tenth of two cores' time)."""
F_SETPIPE_SZ = 1031
"""In `fcntl` only from Python 3.10 on. Source: linux/fcntl.h."""
DECODERS_PACKAGES = ["kornia_rs", "numpy", "PIL.JpegImagePlugin", "PIL.PngImagePlugin"]


@lru_cache(maxsize=None)
def decoding_pool(cores: int) -> ProcessPoolExecutor:
    """A process for each core, and one more where there are several, until this one ends: while one of them gets its
    next image, the others keep the cores busy. Not threads: the fastest decoder holds Python's lock (docs/performance.md).

    They start when they are needed, each as a copy of one that has the decoders loaded.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(DECODERS_PACKAGES)
    pool = ProcessPoolExecutor(cores + (cores > 1), mp_context=context, initializer=_begin)
    _widen_pipes(pool)
    return pool


def _widen_pipes(pool: Any) -> None:
    """Nothing public leads to them; where there is nothing to widen, or no more to be had, decoding is slower and goes on."""
    with suppress(AttributeError, OSError):
        for queue in (pool._call_queue, pool._result_queue):
            fcntl.fcntl(queue._writer.fileno(), F_SETPIPE_SZ, PIPE_BYTES)


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal's processes; the reading one acts
    limit_pillow()
    Thread(target=_end_with_the_reader, daemon=True).start()


def _end_with_the_reader() -> None:
    """A process of a pool doesn't see that the one it works for was killed."""
    reader = parent_process()
    assert reader is not None
    reader.join()
    os._exit(1)
