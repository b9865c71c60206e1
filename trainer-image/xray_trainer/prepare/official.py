"""The official split of ChestX-ray14: two lists of image names that NIH publishes beside the labels file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import FrozenSet, Iterable

from xray_trainer.errors import DataError
from xray_trainer.files import unreadable

TRAIN_VAL_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"
MAX_LIST_BYTES = 64 << 20
"""26 times the original train_val_list.txt."""


@dataclass(frozen=True)
class OfficialLists:
    """Names of images, one a line in the files."""

    train_val: FrozenSet[str]
    test: FrozenSet[str]

    @property
    def sha256(self) -> str:
        """Digest in hex of what the lists say, whatever the order of their lines."""
        lines = (f"{part}\t{name}\n" for part in ("test", "train_val") for name in sorted(getattr(self, part)))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def require_all(self, images: Iterable[str]) -> None:
        """Raises: DataError if an image is in neither list; a list may name images that aren't there."""
        unlisted = sum(image not in self.train_val and image not in self.test for image in images)
        if unlisted:
            raise DataError(
                f"{TRAIN_VAL_LIST}, {TEST_LIST}: images of the set in neither: {unlisted}; expected each in one"
            )


def has_official_lists(folder: Path) -> bool:
    """Whether both files are there."""
    return all((folder / name).is_file() for name in (TRAIN_VAL_LIST, TEST_LIST))


def read_official_lists(folder: Path) -> OfficialLists:
    """Read both lists.

    Raises: DataError if one is missing, empty or unreadable, or if they overlap; names of images are never told.
    """
    train_val, test = (_read_list(folder / name) for name in (TRAIN_VAL_LIST, TEST_LIST))
    both = len(train_val & test)
    if both:
        raise DataError(f"{TEST_LIST}: images that are in {TRAIN_VAL_LIST} too: {both}; expected each in one list")
    return OfficialLists(train_val, test)


def _read_list(path: Path) -> FrozenSet[str]:
    if not path.is_file():
        raise DataError(f"{path.name}: no such file; expected NIH's list beside the labels file for split by Official")
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8-sig") if size <= MAX_LIST_BYTES else None
    except OSError as error:
        raise unreadable(path.name, error) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name}: not a text in UTF-8; expected one image name a line") from error
    if text is None:
        raise DataError(f"{path.name}: {size} bytes; expected at most {MAX_LIST_BYTES}")
    names = frozenset(line.strip() for line in text.splitlines()) - {""}
    if not names:
        raise DataError(f"{path.name}: empty; expected one image name a line")
    return names
