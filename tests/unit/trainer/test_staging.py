"""A preparation that was ended goes on at its last whole shard, and comes to the same bytes as one that wasn't."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.trainer.build import image_name, label_line, make_png, make_run_file, write_archive, write_labels
from xray_trainer.errors import DataError, TransportError
from xray_trainer.files import discard
from xray_trainer.prepare import build as prepare_build
from xray_trainer.prepare import images as prepare_images
from xray_trainer.prepare import staging
from xray_trainer.prepare.archive import Member, OnBytes, PackedFiles
from xray_trainer.prepare.meter import Meter
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress

PATIENTS = range(1, 25)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SHARD_FILES", 4)


def write_two_archives(folder: Path) -> None:
    """12 images each; one that is twice present, one damaged and one without a row in the second."""
    root = folder / "nih"
    write_labels(root, [label_line(patient) for patient in PATIENTS])
    members = [(image_name(patient), make_png(patient)) for patient in PATIENTS]
    members[13:13] = [(image_name(2), make_png(2)), (image_name(99), make_png(3))]
    members[18] = (members[18][0], b"<!DOCTYPE html>")
    for number, part in enumerate((members[:12], members[12:]), start=1):
        write_archive(root / f"images_00{number}.tar.gz", part)


def prepare_in(folder: Path) -> dict[str, Any]:
    return prepare(make_run_file(folder), Progress("Preparing"))


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder / "cache")): path.read_bytes()
        for path in (folder / "cache").rglob("*")
        if path.is_file()
    }


def failing_at(ordinal: int, error: BaseException) -> Callable[..., Iterator[Member]]:
    """In place of reading: the second archive breaks off at a file."""
    read = PackedFiles.read

    def reading(bundle: PackedFiles, on_bytes: OnBytes, after: int = 0) -> Iterator[Member]:
        for member in read(bundle, on_bytes, after):
            if bundle.path.name == "images_002.tar.gz" and member.ordinal == ordinal:
                raise error
            yield member

    return reading


@pytest.mark.parametrize("ordinal", [1, 4, 5, 9, 14])
@pytest.mark.parametrize("error", [TransportError("away"), KeyboardInterrupt()], ids=["away", "stopped"])
def test_what_goes_on_comes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ordinal: int, error: BaseException
) -> None:
    for run in ("whole", "broken"):
        write_two_archives(tmp_path / run)
    expected = prepare_in(tmp_path / "whole")
    with monkeypatch.context() as broken:
        broken.setattr(PackedFiles, "read", failing_at(ordinal, error))
        with pytest.raises(type(error)):
            prepare_in(tmp_path / "broken")
    assert any(".staged-" in name for name in content_of(tmp_path / "broken"))
    assert prepare_in(tmp_path / "broken") == expected
    assert content_of(tmp_path / "broken") == content_of(tmp_path / "whole")


def test_nothing_is_read_or_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two_archives(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(PackedFiles, "read", failing_at(9, TransportError("away")))
        with pytest.raises(TransportError):
            prepare_in(tmp_path)
    decoded, opened = [], []
    read = PackedFiles.read

    class Counting(dict[str, object]):
        def __getitem__(self, ending: str) -> object:
            decoded.append(ending)
            return super().__getitem__(ending)

    monkeypatch.setattr(prepare_images, "DECODERS", Counting(prepare_images.DECODERS))

    def reading(bundle: PackedFiles, on_bytes: OnBytes, after: int = 0) -> Iterator[Member]:
        for member in read(bundle, on_bytes, after):
            opened.append((bundle.path.name, member.ordinal))
            yield member

    monkeypatch.setattr(PackedFiles, "read", reading)
    prepare_in(tmp_path)
    assert opened == [("images_002.tar.gz", ordinal) for ordinal in range(9, 15)]
    assert len(decoded) == 6


def test_a_shard_that_is_not_whole_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in ("whole", "broken"):
        write_two_archives(tmp_path / run)
    expected = prepare_in(tmp_path / "whole")
    with monkeypatch.context() as broken:
        broken.setattr(PackedFiles, "read", failing_at(9, TransportError("away")))
        with pytest.raises(TransportError):
            prepare_in(tmp_path / "broken")
    (folder,) = (tmp_path / "broken" / "cache").glob(".staged-*")
    shard = folder / "000000-00001.arrow"
    content = shard.read_bytes()
    staged = staging.Staging(folder.parent, folder.name.partition("-")[2], 36)
    whole = staged.find((0, 1))
    assert whole is not None
    pixels = whole.pixels.copy()
    for spoilt in damaged(content):
        shard.write_bytes(spoilt)
        found = staged.find((0, 1))
        assert found is None or np.array_equal(found.pixels, pixels), "unless padding was hit"
    shard.write_bytes(content[:-100])
    assert staged.find((0, 1)) is None
    assert prepare_in(tmp_path / "broken") == expected


def damaged(content: bytes) -> Iterator[bytes]:
    """Cut off, without its begin or its end, and with a bit flipped somewhere."""
    yield content[:-100]
    for place in (0, len(content) - 64):
        yield content[:place] + bytes(64) + content[place + 64 :]
    for place in range(512, len(content), 997):
        yield content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


def test_what_a_damaged_archive_gave_is_not_kept_and_the_others_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest that comes out wrong at an archive's end speaks against all that was read of it."""
    write_two_archives(tmp_path)
    monkeypatch.setattr(PackedFiles, "read", failing_at(14, DataError("another digest than listed")))
    with pytest.raises(DataError):
        prepare_in(tmp_path)
    kept = {Path(name).name for name in content_of(tmp_path) if name.endswith(".arrow")}
    assert kept == {f"000000-{number:05d}.arrow" for number in range(4)}


def test_a_run_that_takes_no_bad_image_leaves_the_shards_to_one_that_does(tmp_path: Path) -> None:
    write_two_archives(tmp_path)
    strict = {"on_bad_image": {"mode": "Fail", "max_share": 0}}
    with pytest.raises(DataError, match="for onBadImage is Fail"):
        prepare(make_run_file(tmp_path, dataset=strict), Progress("Preparing"))
    assert len(list((tmp_path / "cache").glob(".staged-*/*.arrow"))) == 5
    assert prepare_in(tmp_path)["rejected"] == 3


def test_leftovers_of_a_kill_while_the_parts_were_written_take_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies there already is not asked for once more."""
    write_two_archives(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(prepare_build, "publish", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            prepare_in(tmp_path)
    (staged,) = (tmp_path / "cache").glob(".staged-*")
    written = sum(path.stat().st_size for path in staged.rglob("*.arrow"))
    asked = []
    monkeypatch.setattr(prepare_build, "require_free", lambda _, needed, __: asked.append(needed))
    prepare_in(tmp_path)
    assert asked == [2 * 24 * 36 * 36 - written]


def test_what_is_found_done_tells_nothing_of_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two_archives(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(PackedFiles, "read", failing_at(9, TransportError("away")))
        with pytest.raises(TransportError):
            prepare_in(tmp_path)
    calls: list[tuple[str, int]] = []
    for name in ("on_bytes", "on_found"):
        monkeypatch.setattr(Meter, name, lambda _, count, name=name: calls.append((name, count)))
    prepare_in(tmp_path)
    first, second = ((tmp_path / "nih" / f"images_00{number}.tar.gz").stat().st_size for number in (1, 2))
    assert calls[:2] == [("on_bytes", first), ("on_found", 12)], "an archive that isn't opened"
    found = [count for name, count in calls if name == "on_found"]
    assert found == [12, 17], "and what is passed over in one that was half read"
    assert sum(count for name, count in calls[2:] if name == "on_bytes") == second


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_shards_that_vanish_have_it_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two_archives(tmp_path)
    read = PackedFiles.read

    def reading(bundle: PackedFiles, on_bytes: OnBytes, after: int = 0) -> Iterator[Member]:
        for member in read(bundle, on_bytes, after):
            if bundle.path.name == "images_002.tar.gz" and member.ordinal == 9:
                (folder,) = (tmp_path / "cache").glob(".staged-*")
                discard(folder)
            yield member

    with monkeypatch.context() as disturbed:
        disturbed.setattr(PackedFiles, "read", reading)
        with pytest.raises(TransportError, match=r"^files of \.staged-[0-9a-f]{16} have vanished"):
            prepare_in(tmp_path)
    assert prepare_in(tmp_path)["images"] == 23


def test_shards_that_a_kill_has_left_go_with_the_next_look(tmp_path: Path) -> None:
    write_two_archives(tmp_path)
    first = prepare_in(tmp_path)
    left = tmp_path / "cache" / f".staged-{json.loads((tmp_path / 'out' / 'prepared.json').read_text())['cache'][-16:]}"
    left.mkdir()
    (left / "000000-00000.arrow").write_bytes(b"x")
    assert prepare_in(tmp_path) == first
    assert not left.exists()


def test_the_list_of_what_is_left_out_is_the_same_on_any_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = []
    for cores in (1, 3):
        monkeypatch.setattr("xray_trainer.prepare.build.available_cores", lambda cores=cores: cores)
        write_two_archives(tmp_path / str(cores))
        prepare_in(tmp_path / str(cores))
        contents.append(content_of(tmp_path / str(cores)))
    assert contents[0] == contents[1]


def test_shards_that_nobody_took_up_for_a_day_go(tmp_path: Path) -> None:
    folder = tmp_path / ".staged-0123"
    folder.mkdir()
    (folder / "000000-00000.arrow").write_bytes(b"x")
    now = (folder / "000000-00000.arrow").stat().st_mtime
    assert staging.delete_abandoned_staging(tmp_path, now + staging.ABANDONED_SECONDS - 60) == 0
    assert staging.delete_abandoned_staging(tmp_path, now + staging.ABANDONED_SECONDS + 60) == 1
