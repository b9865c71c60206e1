"""What the image for IPUs tells of itself, by the Dockerfile's own commands on another tree."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dev.cluster.dockerfile import parse
from dev.cluster.state import REPOSITORY

CONTENTS = "/etc/image-contents"
CODE, LIBRARY = "opt/trainer/xray_trainer/train.py", "usr/lib/python3.8/poptorch.py"


def contents_of(root: Path) -> str:
    """The list of a tree that stands for an image's."""
    stages = parse(REPOSITORY / "trainer-image" / "Dockerfile").needed("ipu")
    commands = [line.partition(" ")[2] for stage in stages for line in stage.instructions if CONTENTS in line]
    for command in commands:
        subprocess.run(["sh", "-c", re.sub("/(opt|usr|etc)", rf"{root}/\1", command)], check=True)
    return (root / CONTENTS[1:]).read_text()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    for name in (CODE, LIBRARY, "etc/hostname"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


def rebuild(root: Path) -> None:
    """The same files at another time, compiled anew."""
    os.utime(root / CODE, (0, 0))
    (root / CODE).with_suffix(".pyc").write_bytes(b"of another time")


def change_code(root: Path) -> None:
    (root / CODE).write_text("other code")


def change_library(root: Path) -> None:
    (root / LIBRARY).write_text("another SDK")


def rename_library(root: Path) -> None:
    (root / LIBRARY).rename((root / LIBRARY).with_name("popart.py"))


@pytest.mark.parametrize(
    ("change", "same"), [(rebuild, True), (change_code, False), (change_library, False), (rename_library, False)]
)
def test_images_are_told_apart_by_what_is_in_them(image: Path, change: Callable[[Path], None], same: bool) -> None:
    before = contents_of(image)
    change(image)
    assert (contents_of(image) == before) is same
