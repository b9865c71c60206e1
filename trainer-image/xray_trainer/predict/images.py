"""X-rays of somebody's own, by the paths that they were given: nobody else reads what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, List

import numpy as np
from numpy.typing import NDArray

from xray_trainer.errors import ConfigurationError
from xray_trainer.prepare.decode import DECODERS, UnreadableImageError

MAX_FILE_BYTES = 256 << 20
"""Larger than any X-ray of the pixels that are decoded."""


def find_images(paths: Iterable[Path]) -> List[Path]:
    """The files that are named, and all images below the folders that are, each in the order of names.

    Raises: ConfigurationError if something isn't there, or a folder has none.
    """
    return [image for path in paths for image in ([path] if path.is_file() else _in_folder(path))]


def _in_folder(folder: Path) -> List[Path]:
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such file or folder; expected X-rays")
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in DECODERS and path.is_file())
    if not images:
        raise ConfigurationError(f"{folder}: no image in it; expected files named {_endings()}")
    return images


def _endings() -> str:
    return ", ".join(DECODERS)


def read_image(path: Path, stored_size: int) -> NDArray[np.uint8]:
    """(stored_size, stored_size) grey values, as preparation makes them.

    Raises: UnreadableImageError.
    """
    decode = DECODERS.get(path.suffix.lower())
    if decode is None:
        raise UnreadableImageError(f"not named {_endings()}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"more than {MAX_FILE_BYTES >> 20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(error.strerror or type(error).__name__) from error
    return np.frombuffer(decode(data, stored_size).pixels, dtype=np.uint8).reshape(stored_size, stored_size)
