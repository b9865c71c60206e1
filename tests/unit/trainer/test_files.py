"""Folders that appear whole under their name or not at all."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from xray_trainer.files import TEMPORARY_PREFIX, discard, published_folder


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


@pytest.mark.parametrize(("brought_in", "stays"), [(1, []), (3, []), (1000, [True])])
def test_a_folder_into_which_another_process_still_writes_is_discarded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brought_in: int, stays: list[bool]
) -> None:
    remove, files = os.rmdir, iter(range(brought_in))

    def remove_late(path: str, **options: Any) -> None:
        for _ in islice(files, 1):
            (Path(path) / "late").touch()
        remove(path, **options)

    (tmp_path / "shards").mkdir()
    monkeypatch.setattr(os, "rmdir", remove_late)
    discard(tmp_path / "shards")
    assert [path.name.startswith(TEMPORARY_PREFIX) for path in tmp_path.iterdir()] == stays
