"""The command: from paths to answers on stdout or in files."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional, Sequence, TextIO, Union

import numpy as np
from numpy.typing import NDArray

from xray_trainer.errors import ConfigurationError, DataError
from xray_trainer.predict.answers import LEGEND, Answer, Read, Unread, document, table, write_csv
from xray_trainer.train import set_environment

if TYPE_CHECKING:
    from xray_trainer.predict.model import Predictor

LOG = logging.getLogger(__name__)

BATCH = 16
"""Images that go through the model at once."""
STDOUT = "-"


def predict(model: Path, paths: Sequence[Path], json_file: Optional[str], csv_file: Optional[str]) -> int:
    """Tell what the model says of these images, and of folders of them.

    Args:
        json_file, csv_file: where to write to, or "-" for stdout; without both a table goes there.
    Returns: exit code: 0, or DataError's if some images could not be read; those are named on stderr.
    Raises: ConfigurationError.
    """
    set_environment(os.environ)
    try:
        from xray_trainer.predict.images import find_images
        from xray_trainer.predict.model import load_predictor
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"predict needs {error.name}, which is not here; expected the image of target torch, or what it holds"
        ) from error

    images, predictor = find_images(paths), load_predictor(model)
    if not predictor.thresholds:
        LOG.warning("%s: no thresholds; nothing is marked", model)
    read: List[Read] = []
    unread: List[Unread] = []
    with_table = json_file is None and csv_file is None
    for each in answers(predictor, images):
        if isinstance(each, Unread):
            LOG.error("%s: %s", each.image, each.problem)
            unread.append(each)
            continue
        read.append(each)
        if with_table:
            print(table(each))
    if with_table and read:
        print(LEGEND)
    if json_file is not None:
        text = json.dumps(document(str(model), read, unread), indent=2, allow_nan=False)
        _write(json_file, lambda file: print(text, file=file))
    if csv_file is not None:
        _write(csv_file, lambda file: write_csv(file, read))
    return DataError.exit_code if unread else 0


def answers(predictor: Predictor, images: Sequence[Path]) -> Iterator[Union[Read, Unread]]:
    """In the order of the images, a batch at a time."""
    for begin in range(0, len(images), BATCH):
        yield from _answer_batch(predictor, images[begin : begin + BATCH])


def _answer_batch(predictor: Predictor, images: Sequence[Path]) -> List[Union[Read, Unread]]:
    decoded = [_decode(image, predictor.stored_size) for image in images]
    pixels = [each for each in decoded if not isinstance(each, str)]
    scores = iter(predictor.scores(pixels) if pixels else ())
    return [
        Unread(str(image), each) if isinstance(each, str) else Read(str(image), _answers(predictor, next(scores)))
        for image, each in zip(images, decoded)
    ]


def _decode(image: Path, stored_size: int) -> Union[NDArray[np.uint8], str]:
    """Grey values, or what is wrong."""
    from xray_trainer.predict.images import read_image
    from xray_trainer.prepare.decode import UnreadableImageError

    try:
        return read_image(image, stored_size)
    except UnreadableImageError as error:
        return str(error)


def _answers(predictor: Predictor, scores: NDArray[np.float64]) -> List[Answer]:
    return [
        Answer(finding, float(score), predictor.thresholds.get(finding))
        for finding, score in zip(predictor.findings, scores)
    ]


def _write(target: str, write: Callable[[TextIO], None]) -> None:
    """Raises: ConfigurationError if the file can't be written."""
    if target == STDOUT:
        write(sys.stdout)
        return
    try:
        with Path(target).open("w", encoding="utf-8", newline="") as file:
            write(file)
    except OSError as error:
        raise ConfigurationError(f"{target}: {error.strerror}; expected a file that can be written") from error
