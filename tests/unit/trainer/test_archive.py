"""Archives: read to the end or refused, and hostile members get nowhere."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import FAILS_ON_READ, make_png, refuse, write_archive
from xray_trainer.errors import DataError
from xray_trainer.prepare.archive import Limits, find_sources, read_archive

NAME = "00012345_001.png"


def read(path: Path, limits: Limits | None = None) -> list[tuple[int, str]]:
    members = read_archive(path, lambda _: None, limits or Limits())
    return [(member.ordinal, member.name) for member in members]


def pack(path: Path, *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for info in infos:
            archive.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


@pytest.mark.usefixtures("pythons")
def test_folders_count_as_members_and_give_no_image(tmp_path: Path) -> None:
    path = pack(tmp_path / "images_001.tar.gz", member("images", tarfile.DIRTYPE), member(f"images/{NAME}", size=9))
    assert read(path) == [(2, NAME)]


def test_archives_come_before_loose_files_in_order_of_names(tmp_path: Path) -> None:
    for number in (2, 1):
        write_archive(tmp_path / f"images_00{number}.tar.gz", [(f"{number}.png", b"x")])
    (tmp_path / "images").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "images" / name).write_bytes(b"y")
    read_bytes: list[int] = []
    sources = find_sources(tmp_path)
    members = [member for bundle in sources.bundles() for member in bundle.read(read_bytes.append)]
    places = [(found.place, found.ordinal, found.name) for found in members]
    assert places == [
        ("images_001.tar.gz", 1, "1.png"),
        ("images_002.tar.gz", 1, "2.png"),
        ("images/", 1, "a.png"),
        ("images/", 2, "b.png"),
    ]
    assert sum(read_bytes) == sources.total_bytes()


def test_an_empty_root_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^no images_\*\.tar\.gz"):
        find_sources(tmp_path)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (member(f"../{NAME}"), "leads out of the archive"),
        (member(f"/etc/{NAME}"), "leads out of the archive"),
        (member(f"images/../../{NAME}"), "leads out of the archive"),
        (member(NAME, tarfile.SYMTYPE, link="/etc/passwd"), "regular files and folders only"),
        (member(NAME, tarfile.LNKTYPE, link="other"), "regular files and folders only"),
        (member(NAME, tarfile.FIFOTYPE), "regular files and folders only"),
        (member(NAME, tarfile.CHRTYPE), "regular files and folders only"),
        (member(NAME * 20), "name of 320 characters"),
        (member(NAME, size=2000), "2000 bytes; expected 0 to 1000"),
        (member(NAME * 6000), "more than 65536 bytes of headers"),
    ],
)
def test_hostile_members_end_the_preparation_by_ordinal(tmp_path: Path, info: tarfile.TarInfo, expected: str) -> None:
    path = pack(tmp_path / "images_001.tar.gz", member("images/first.png", size=5), info)
    with pytest.raises(DataError, match=expected) as caught:
        read(path, Limits(member_bytes=1000))
    assert str(caught.value).startswith("images_001.tar.gz: ")
    assert "00012345" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"GNU.sparse.size": NAME},
        {"GNU.sparse.map": f"0,{NAME}"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
        {"GNU.sparse.realsize": "9" * 5000},
    ],
)
def test_extended_fields_that_tarfile_can_not_read_are_damage(tmp_path: Path, fields: dict[str, str]) -> None:
    hostile = member("images/second.png")
    hostile.pax_headers = fields
    path = pack(tmp_path / "images_001.tar.gz", member("images/first.png", size=5), hostile)
    with pytest.raises(DataError) as caught:
        read(path)
    expected = "images_001.tar.gz: after member 1: a header without meaning; expected a whole .tar.gz archive"
    assert str(caught.value) == expected


def test_an_extended_header_that_is_no_text_is_damage(tmp_path: Path) -> None:
    path, tar = plain_tar(tmp_path)
    record = b"16 hdrcharset=\xa5\n"
    header = member("PaxHeaders", tarfile.XHDTYPE, len(record)).tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(gzip.compress(header + record.ljust(512, b"\0") + tar))
    with pytest.raises(DataError, match=r"^images_001.tar.gz: after member 0: a header without meaning; expected"):
        read(path)


def test_extended_headers_without_end_are_damage(tmp_path: Path) -> None:
    """tarfile calls itself for each one that follows another."""
    path, tar = plain_tar(tmp_path)
    header = member("PaxHeaders", tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(gzip.compress(header * 2000 + tar))
    with pytest.raises(DataError, match=r"^images_001.tar.gz: member 1: more than 65536 bytes of headers; expected"):
        read(path)


def test_more_members_than_the_limit_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "images_001.tar.gz", *(member(f"{number}.png") for number in range(4)))
    with pytest.raises(DataError, match="more than 3 members"):
        read(path, Limits(members=3))


def test_endless_padding_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "images_001.tar.gz", member(NAME))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(1 << 20)))
    with pytest.raises(DataError, match="more than 65536 bytes of padding"):
        read(path, Limits(trailing_bytes=1 << 16))


def test_an_archive_that_may_not_be_read_is_a_data_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "images_001.tar.gz", member(NAME))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError) as caught:
        read(path)
    reason = f"Permission denied; expected a file that uid {os.getuid()} may read"
    assert str(caught.value) == f"images_001.tar.gz: {reason}"


def test_an_archive_that_fails_while_it_is_read_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "images_001.tar.gz").symlink_to(FAILS_ON_READ)
    with pytest.raises(DataError, match=r"^images_001.tar.gz: Input/output error; expected a file that uid"):
        read(tmp_path / "images_001.tar.gz")


def test_a_folder_that_may_not_be_listed_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(tmp_path / "images_001.tar.gz", member(NAME))
    (tmp_path / "images").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"^images/: Permission denied; expected") as caught:
        find_sources(tmp_path)
    assert "00012345" not in str(caught.value)


def test_a_folder_that_vanishes_meanwhile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images would be left out without a word."""
    (tmp_path / "images" / "patient1").mkdir(parents=True)
    scan = os.scandir

    def scanning(path: Path) -> Any:
        if path.name == "patient1":
            path.rmdir()
        return scan(path)

    pack(tmp_path / "images_001.tar.gz", member(NAME))
    monkeypatch.setattr(os, "scandir", scanning)
    with pytest.raises(DataError, match=r"^images/: No such file or directory") as caught:
        find_sources(tmp_path)
    assert "patient1" not in str(caught.value)


@pytest.fixture(params=["as here", "as fixed in 2025"])
def pythons(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile as it is, and as Pythons are whose headers come through `_frombuf`, like Debian's 3.13.5."""
    if request.param == "as here":
        return
    frombuf = tarfile.TarInfo.frombuf.__func__

    def _frombuf(cls: type[tarfile.TarInfo], *arguments: object, dircheck: bool = True) -> tarfile.TarInfo:
        assert dircheck
        return frombuf(cls, *arguments)

    def fromtarfile(cls: type[tarfile.TarInfo], archive: tarfile.TarFile) -> tarfile.TarInfo:
        buffer = archive.fileobj.read(tarfile.BLOCKSIZE)
        info = cls._frombuf(buffer, archive.encoding, archive.errors)
        info.offset = archive.fileobj.tell() - tarfile.BLOCKSIZE
        return info._proc_member(archive)

    monkeypatch.setattr(tarfile.TarInfo, "_frombuf", classmethod(_frombuf), raising=False)
    monkeypatch.setattr(tarfile.TarInfo, "fromtarfile", classmethod(fromtarfile))


def plain_tar(tmp_path: Path) -> tuple[Path, bytes]:
    path = tmp_path / "images_001.tar.gz"
    write_archive(path, [(f"{number}.png", make_png(number)) for number in range(4)])
    return path, gzip.decompress(path.read_bytes())


def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    path, tar = plain_tar(tmp_path)
    whole = path.read_bytes()
    second_member = 512 + (len(make_png(0)) + 511) // 512 * 512
    cuts = [whole[:-1], whole[:-9], whole[: len(whole) // 2], whole[:20], b"", gzip.compress(tar[:second_member])]
    cuts += [gzip.compress(tar[: second_member + 100]), gzip.compress(tar[: second_member + 700])]
    for cut in cuts:
        path.write_bytes(cut)
        with pytest.raises(DataError, match=r"^images_001.tar.gz: "):
            read(path)


@pytest.mark.usefixtures("pythons")
def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path, tar = plain_tar(tmp_path)
    second_member = 512 + (len(make_png(0)) + 511) // 512 * 512
    path.write_bytes(gzip.compress(tar[:second_member] + b"?" * 512 + tar[second_member + 512 :]))
    with pytest.raises(DataError, match="member 2: header: "):
        read(path)


def test_damage_that_a_newer_tarfile_takes_for_the_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13.6 answers a negative offset (CVE-2025-8194) with an error that its own loop takes for the end."""

    def block(_: tarfile.TarInfo, count: int) -> int:
        if count < 0:
            raise tarfile.InvalidHeaderError("invalid offset")  # type: ignore[attr-defined]
        return (count + 511) // 512 * 512

    hostile = member("images/second.png")
    hostile.pax_headers = {"size": "-1024"}
    path = pack(tmp_path / "images_001.tar.gz", member("images/first.png", size=5), hostile)
    monkeypatch.setattr(tarfile.TarInfo, "_block", block)
    with pytest.raises(DataError, match=r"^images_001.tar.gz: member 2: header: without meaning; expected"):
        read(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html>", b"PK\x03\x04", gzip.compress(b"<html>" * 200, mtime=0)])
def test_something_else_under_the_archive_s_name_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images_001.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^images_001.tar.gz: "):
        read(path)
