"""Makes the sets of test_bad_data.py from a generated one. Runs in a pod of the prepare image, where the claim is."""

from __future__ import annotations

import gzip
import io
import sys
import tarfile
from pathlib import Path

from xray_trainer.synthetic import synthesize

IMAGES = 60
LABELS_FILE = "Data_Entry_2017_v2020.csv"
ARCHIVE = "images_001.tar.gz"
WEB_PAGE = b"<!DOCTYPE html><html>not found</html>"

Members = list[tuple[str, bytes]]


def main(root: Path) -> None:
    """Write one folder per set below `root`."""
    synthesize(root / "good", images=IMAGES, seed=3, size=64)
    members, lines = read_members(root / "good" / ARCHIVE), (root / "good" / LABELS_FILE).read_text().splitlines()
    (first, _), (second, png), *others, last = members
    few = [(first, WEB_PAGE), (second, png[: len(png) // 2]), *others, ("images/99999999_000.png", last[1])]
    write(root / "few-bad", few, lines)
    write(root / "many-bad", [*members[:10], *((name, WEB_PAGE) for name, _ in members[10:20]), *members[20:]], lines)
    write(root / "absent", [(name.replace("images/", "images/x"), data) for name, data in members], lines)
    write(root / "empty", [], lines)
    write(root / "no-archive", None, lines)
    write(root / "no-labels", members, None)
    write(root / "no-patients", members, [without_patient(line) for line in lines])
    write(root / "cut", members, lines)
    cut_in_half(root / "cut" / ARCHIVE)


def read_members(archive: Path) -> Members:
    with tarfile.open(archive) as opened:
        return [(info.name, extract(opened, info)) for info in opened]


def extract(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    assert file is not None
    return file.read()


def write(folder: Path, members: Members | None, lines: list[str] | None) -> None:
    """One set; None leaves the file out."""
    folder.mkdir()
    if members is not None:
        with gzip.open(folder / ARCHIVE, "wb") as zipped, tarfile.open(fileobj=zipped, mode="w|") as archive:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    if lines is not None:
        (folder / LABELS_FILE).write_text("\n".join(lines) + "\n")


def without_patient(line: str) -> str:
    fields = line.split(",")
    return ",".join(fields[:3] + fields[4:])


def cut_in_half(archive: Path) -> None:
    """What a broken download leaves."""
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
