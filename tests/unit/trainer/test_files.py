"""Folders that appear whole under their name or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from xray_trainer.files import published_folder


def write_old_and_new(folder: Path, ends_with: BaseException | None) -> None:
    for content in ("old", "new"):
        with published_folder(folder, "model") as temporary:
            (temporary / content).write_text(content)
            if ends_with is not None and content == "new":
                raise ends_with


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_folder_is_replaced_by_what_was_written_last(tmp_path: Path) -> None:
    write_old_and_new(tmp_path / "model", ends_with=None)
    assert contents(tmp_path) == ["model", "model/new"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt()])
def test_what_interrupts_the_writing_leaves_the_former_folder_and_nothing_else(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)):
        write_old_and_new(tmp_path / "model", error)
    assert contents(tmp_path) == ["model", "model/old"]
