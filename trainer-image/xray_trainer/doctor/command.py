"""The command: a table on standard output, JSON and a picture where they are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Optional, Sequence

from xray_trainer.config import LabelsFile
from xray_trainer.doctor.document import make_document
from xray_trainer.doctor.examine import count, measure
from xray_trainer.doctor.picture import make_picture
from xray_trainer.doctor.text import make_text
from xray_trainer.errors import ConfigurationError, DataError
from xray_trainer.files import write_json, write_text


def doctor(
    path: Path,
    columns: LabelsFile,
    findings: Sequence[str],
    seed: int,
    json_file: Optional[Path],
    picture_file: Optional[Path],
) -> int:
    """Examine a data set and tell what was found.

    Returns: 0, or DataError's exit code if preparation would fail on these data.
    Raises: DataError if nothing can be told; ConfigurationError if a file can't be written.
    """
    document = make_document(measure(count(path, columns, findings, seed)))
    print(make_text(document), end="")
    try:
        if json_file is not None:
            write_json(json_file, document)
        if picture_file is not None:
            write_text(picture_file, make_picture(document))
    except OSError as error:
        raise ConfigurationError(
            f"--json, --picture: {error.strerror}; expected files in a folder to write to"
        ) from error
    return DataError.exit_code if document["problems"] else 0
