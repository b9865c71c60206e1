"""Hostile and damaged data sets, all generated: each a good set with one thing in it that is not.

A member that identifies a patient is called NAME, of the patient CANARY: neither may be told outside of the data's volume.
"""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

from tests.unit.trainer.build import HEADER, LABELS_FILE, image_name, label_line, make_png

CANARY = 87654321
NAME = image_name(CANARY)
JPEG_NAME = NAME.replace(".png", ".jpg")
GOOD = 12
"""Images that are as they should be, of as many patients; members 1 to 12 of the archive."""
ARCHIVE = "images_001.tar.gz"
MEBIBYTE = 1 << 20
END = bytes(10240)
Make = Callable[[Path], None]


def member(name: str = f"images/{NAME}", data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    """Header and content as they stand in an archive. `fields` are those of tarfile.TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.PAX_FORMAT) + data.ljust((len(data) + 511) // 512 * 512, b"\0")


def good_members() -> bytes:
    return b"".join(member(f"images/{image_name(patient)}", make_png(patient)) for patient in range(1, GOOD + 1))


def good_lines() -> list[str]:
    return [*(label_line(patient) for patient in range(1, GOOD + 1)), label_line(CANARY)]


def write_set(root: Path, archive: bytes, lines: list[str] | None = None) -> None:
    root.mkdir(parents=True)
    (root / ARCHIVE).write_bytes(archive)
    (root / LABELS_FILE).write_text("\n".join([HEADER, *(lines or good_lines())]) + "\n")


def write_good_set(root: Path) -> None:
    write_set(root, gzip.compress(good_members() + END))


def with_member(extra: Callable[[], bytes]) -> Make:
    """A set whose archive has `extra` after the good members."""
    return lambda root: write_set(root, gzip.compress(good_members() + extra() + END, 1))


def with_image(data: Callable[[], bytes], name: str = NAME) -> Make:
    """A set whose last image, of a patient's that has a row, is these bytes."""

    def make(root: Path) -> None:
        with_member(lambda: member(f"images/{name}", data()))(root)
        (root / LABELS_FILE).write_text((root / LABELS_FILE).read_text().replace(NAME, name))

    return make


def with_jpeg(data: Callable[[], bytes]) -> Make:
    return with_image(data, JPEG_NAME)


def with_labels(content: Callable[[], bytes]) -> Make:
    """A good archive and a labels file of these bytes."""

    def make(root: Path) -> None:
        write_good_set(root)
        (root / LABELS_FILE).write_bytes(content())

    return make


def with_line(line: Callable[[], str]) -> Make:
    return with_labels(lambda: "\n".join([HEADER, *good_lines(), line(), ""]).encode())


# archives


def zeros(count_mebibytes: int) -> bytes:
    """gzip of zeros, itself made of many: unpacks a thousandfold."""
    return gzip.compress(bytes(MEBIBYTE)) * count_mebibytes


def gzip_bomb(root: Path) -> None:
    """12 GB of members of a size that is allowed."""
    bomb = gzip.compress(member(size=60 * MEBIBYTE)) + zeros(60)
    write_set(root, gzip.compress(good_members()) + bomb * 200)


def endless_padding(root: Path) -> None:
    write_set(root, gzip.compress(good_members() + END) + zeros(4000))


def million_members(root: Path) -> None:
    write_set(root, gzip.compress(good_members()) + gzip.compress(member() * 1000) * 1000)


def truncated(root: Path) -> None:
    write_good_set(root)
    (root / ARCHIVE).write_bytes((root / ARCHIVE).read_bytes()[:-3000])


def flipped(root: Path) -> None:
    write_good_set(root)
    whole = bytearray((root / ARCHIVE).read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    (root / ARCHIVE).write_bytes(whole)


def pax(fields: dict[str, str], data: bytes = b"") -> bytes:
    """A member with extended fields."""
    return member(data=data, pax_headers=fields)


def hidden_size() -> bytes:
    """A header that claims 2^80 bytes, and an extended one before it that says 0: tarfile looks for the next at the end."""
    extended = pax({"GNU.sparse.realsize": "0"})[:-512]
    info = tarfile.TarInfo(f"images/{NAME}")
    info.size = 1 << 80
    return extended + info.tobuf(tarfile.GNU_FORMAT)


def negative_size() -> bytes:
    """A header that claims -1024 bytes, in the binary form of large numbers."""
    header = bytearray(member())
    header[124:136] = b"\xff" + (-1024).to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def endless_sparse_header(root: Path) -> None:
    """An old GNU sparse file, whose map goes on in block after block."""
    head = bytearray(member(kind=tarfile.GNUTYPE_SPARSE))
    head[257:265] = b"ustar  \0"
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    block = (b"00000000001\0" * 42 + b"\1").ljust(512, b"\0")
    write_set(root, gzip.compress(good_members() + bytes(head)) + gzip.compress(block * 2000) * 1000)


def endless_sparse_map(root: Path) -> None:
    """A sparse file of the newer form that claims a billion pieces."""
    head = pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
    start = gzip.compress(good_members() + head + b"1000000000\n".ljust(512, b"1"))
    write_set(root, start + gzip.compress(b"1\n" * MEBIBYTE) * 500)


def two_archives_in_one(root: Path) -> None:
    """What follows the end would be left out without a word."""
    write_set(root, gzip.compress(good_members() + END + member(data=make_png()) + END))


def device_in_place_of_an_archive(root: Path) -> None:
    write_good_set(root)
    (root / "images_002.tar.gz").symlink_to("/proc/self/mem")


# images


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A black PNG with more chunks before its image."""
    samples = {0: 1, 2: 3, 6: 4}[colour]
    row = bytes(1 + width * samples * depth // 8)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")])


def text_bomb(kind: bytes, before: bytes, count: int = 1) -> bytes:
    bomb = zlib.compress(bytes(100 * MEBIBYTE // count), 1)
    return png(40, 40, *[chunk(kind, before + bomb)] * count)


def two_sizes() -> bytes:
    small, large = png(40, 40), png(6000, 5000)
    return small[:33] + large[8:]


def other_format(kind: str, mode: str = "L", side: int = 40, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, format=kind, **options)
    return file.getvalue()


def frame_of(*, height: int = 40, width: int = 40, bits: int = 8, kind: int = 0xC0) -> bytes:
    """A JPEG's first header, in front of another image."""
    header = struct.pack(">BBHBHHB", 0xFF, kind, 11, bits, height, width, 1) + b"\1\x11\0"
    return b"\xff\xd8" + header + other_format("JPEG")[2:]


def many_scans() -> bytes:
    """A progressive JPEG that goes over its pixels again and again."""
    image = other_format("JPEG", "RGB", side=4096, progressive=True)
    last = image[image.rindex(b"\xff\xda") : -2]
    return image[:-2] + last * 10_000 + image[-2:]


# labels


def rows(count: int) -> Iterator[bytes]:
    yield HEADER.encode() + b"\n"
    for first in range(0, count, 1000):
        yield "".join(f"{image_name(n)},Mass|Edema,0,{n},58,F,PA\n" for n in range(first, first + 1000)).encode()


def too_many_rows(root: Path) -> None:
    with_labels(lambda: b"".join(rows(501_000)))(root)


# all that is allowed at once


def largest(root: Path) -> None:
    """Half a million rows, images of the most pixels and bytes, and many members that nobody has asked for."""
    image = png(8192, 4096, depth=16, colour=6)
    padded = image + bytes(64 * MEBIBYTE - len(image))
    members = [member(f"images/{image_name(patient)}", image) for patient in range(12)]
    members += [member(f"images/{image_name(patient)}", padded) for patient in range(12, 14)]
    write_set(root, gzip.compress(b"".join(members) + END, 1))
    for number in range(2, 22):
        (root / f"images_{number:03d}.tar.gz").write_bytes(gzip.compress(member() * 1000 + END))
    (root / LABELS_FILE).write_bytes(b"".join(rows(499_000)))


REFUSED_MEMBERS: dict[str, tuple[Make, str]] = {
    "traversal": (with_member(lambda: member(f"../../{NAME}")), "its name leads out of the archive"),
    "inner traversal": (with_member(lambda: member(f"images/../../{NAME}")), "its name leads out of the archive"),
    "backslashes": (with_member(lambda: member(f"..\\..\\{NAME}")), "its name leads out of the archive"),
    "absolute name": (with_member(lambda: member(f"/etc/{NAME}")), "its name leads out of the archive"),
    "long name": (with_member(lambda: member(f"images/{'x' * 400}{NAME}")), "name of 423 characters"),
    "path of many folders": (with_member(lambda: member("a/" * 3000 + NAME)), "name of 6016 characters"),
    "symlink": (
        with_member(lambda: member(kind=tarfile.SYMTYPE, linkname="/etc/passwd")),
        "regular files and folders only",
    ),
    "hard link": (
        with_member(lambda: member(kind=tarfile.LNKTYPE, linkname="/etc/passwd")),
        "regular files and folders only",
    ),
    "character device": (
        with_member(lambda: member(kind=tarfile.CHRTYPE, devmajor=1)),
        "regular files and folders only",
    ),
    "block device": (with_member(lambda: member(kind=tarfile.BLKTYPE, devmajor=8)), "regular files and folders only"),
    "fifo": (with_member(lambda: member(kind=tarfile.FIFOTYPE)), "regular files and folders only"),
    "unknown type": (with_member(lambda: member(kind=b"!")), "regular files and folders only"),
    "huge size": (with_member(lambda: member(size=8 << 40)), "8796093022208 bytes; expected 0 to 67108864"),
    "huge extended size": (with_member(lambda: pax({"size": "9" * 100})), "bytes; expected 0 to 67108864"),
    "negative size": (with_member(lambda: negative_size()), "-1024 bytes; expected 0 or more"),
}
"""Refused by code 11 as member 13, whose name the list on the volume tells. Name -> how it is made, what is said."""

REFUSED: dict[str, tuple[Make, str]] = {
    "negative extended size": (
        with_member(lambda: pax({"size": "-1024"})),
        f"^{ARCHIVE}: member 13: (-1024 bytes|header: )",
    ),
    "hidden size": (with_member(hidden_size), f"^{ARCHIVE}: after member 13: it ends too early"),
    "gzip bomb": (gzip_bomb, f"^{ARCHIVE}: member [0-9]+: the archive unpacks to many times its size"),
    "endless padding": (endless_padding, f"^{ARCHIVE}: member 13: more than 16777216 bytes of padding"),
    "million members": (million_members, f"^{ARCHIVE}: more than 100000 members"),
    "truncated": (truncated, f"^{ARCHIVE}: after member [0-9]+: Compressed file ended"),
    "flipped byte": (flipped, f"^{ARCHIVE}: "),
    "damaged header": (with_member(lambda: b"?" * 512), f"^{ARCHIVE}: member 13: header: "),
    "endless sparse header": (endless_sparse_header, f"^{ARCHIVE}: member 13: more than 65536 bytes of headers"),
    "endless sparse map": (endless_sparse_map, f"^{ARCHIVE}: member 13: more than 65536 bytes of headers"),
    "large extended header": (
        with_member(lambda: pax({"comment": "x" * 50_000_000})),
        f"^{ARCHIVE}: member 13: more than 65536 bytes of headers",
    ),
    "two archives in one": (two_archives_in_one, f"^{ARCHIVE}: after member 12: more than padding"),
    "device in place of an archive": (device_in_place_of_an_archive, "^images_002.tar.gz: "),
    "10 MB field": (
        with_line(lambda: label_line(1, 1) + "x" * 10_000_000),
        f"^{LABELS_FILE}: line 15: more than 1048576 characters",
    ),
    "10 MB quoted field": (
        with_line(lambda: label_line(1, 1) + ',"' + "x\n" * 5_000_000),
        f"^{LABELS_FILE}: not a CSV file",
    ),
    "record of endless lines": (
        with_line(lambda: '"x\n",' * 2_000_000),
        f"^{LABELS_FILE}: line [0-9]+: more than 1048576 characters",
    ),
    "million columns": (with_line(lambda: "x," * 1_000_000), f"^{LABELS_FILE}: line 15: more than 1048576 characters"),
    "million headings": (
        with_labels(lambda: ("x," * 1_000_000 + HEADER).encode()),
        f"^{LABELS_FILE}: line 1: more than 1048576 characters",
    ),
    "NUL": (with_line(lambda: label_line(1, 1).replace("Mass", "Ma\0ss")), f"^{LABELS_FILE}: line 15: a NUL character"),
    "bad UTF-8": (
        with_labels(lambda: f"{HEADER}\nM\xfcller.png\n".encode("latin-1")),
        f"^{LABELS_FILE}: not a CSV file in UTF-8",
    ),
    "UTF-16": (
        with_labels(lambda: "\n".join([HEADER, *good_lines()]).encode("utf-16")),
        f"^{LABELS_FILE}: not a CSV file",
    ),
    "formula in place of an image": (
        with_line(lambda: f"=cmd|' /C calc'!A0{NAME}" + label_line(1)[16:]),
        f"^{LABELS_FILE}: line 15: column Image Index: a formula",
    ),
    "formula in place of a patient": (
        with_line(lambda: f"{image_name(1, 1)},Mass,0,+cmd|{CANARY}"),
        f"^{LABELS_FILE}: line 15: column Patient ID: a formula",
    ),
    "formula in place of a finding": (
        with_line(lambda: f"{image_name(1, 1)},@SUM({CANARY}),0,{CANARY}"),
        f"^{LABELS_FILE}: line 15: column Finding Labels: a formula",
    ),
    "too many rows": (too_many_rows, f"^{LABELS_FILE}: more than 500000 lines"),
}
"""Refused by code 11. Name -> how it is made, what is said."""

LEFT_OUT: dict[str, tuple[Make, str]] = {
    "17000 x 17000": (with_image(lambda: png(17000, 17000)), "more than 33554432 pixels"),
    "text bomb": (with_image(lambda: text_bomb(b"zTXt", b"a\0\0")), "damaged PNG"),
    "international text bomb": (with_image(lambda: text_bomb(b"iTXt", b"a\0\1\0\0\0")), "damaged PNG"),
    "many text bombs": (with_image(lambda: text_bomb(b"zTXt", b"a\0\0", 200)), "damaged PNG"),
    "profile bomb": (with_image(lambda: text_bomb(b"iCCP", b"a\0\0")), "damaged PNG"),
    "no pixels": (with_image(lambda: png(0, 0)), "damaged PNG"),
    "no height": (with_image(lambda: png(40, 0)), "damaged PNG"),
    "two sizes": (with_image(lambda: two_sizes()), "a PNG file that tells two sizes"),
    "truncated image": (with_image(lambda: make_png()[:-60]), "damaged PNG"),
    "JPEG": (with_image(lambda: other_format("JPEG")), "not a PNG file but JPEG"),
    "TIFF": (with_image(lambda: other_format("TIFF")), "not a PNG file but TIFF"),
    "FITS": (with_image(lambda: b"SIMPLE  =                    T".ljust(2880)), "not a PNG file"),
    "patient's report": (with_image(lambda: f"{CANARY} has a cough".encode()), "not a PNG file"),
    "no image": (with_image(lambda: b""), "not a PNG file"),
    "PNG named JPEG": (with_jpeg(make_png), "not a JPEG file of 8 bits but PNG"),
    "no JPEG": (with_jpeg(lambda: f"{CANARY} has a cough".encode()), "not a JPEG file of 8 bits"),
    "65535 x 65535 JPEG": (with_jpeg(lambda: frame_of(height=65535, width=65535)), "a JPEG file that tells two sizes"),
    "JPEG of too many pixels": (with_jpeg(lambda: other_format("JPEG", side=6000)), "more than 33554432 pixels"),
    "JPEG without pixels": (with_jpeg(lambda: frame_of(height=0, width=0)), "a JPEG file that tells two sizes"),
    "JPEG of 12 bits": (with_jpeg(lambda: frame_of(bits=12)), "not a JPEG file of 8 bits"),
    "lossless JPEG": (with_jpeg(lambda: frame_of(kind=0xC3)), "not a JPEG file of 8 bits"),
    "JPEG of 4 channels": (with_jpeg(lambda: other_format("JPEG", "CMYK")), "a JPEG file of 4 channels"),
    "JPEG of many scans": (with_jpeg(many_scans), "a JPEG file of more than 64 scans"),
    "truncated JPEG": (with_jpeg(lambda: other_format("JPEG")[:-60]), "damaged JPEG"),
    "JPEG of headers only": (with_jpeg(lambda: frame_of()[:20]), "damaged JPEG"),
    "JPEG with an endless header": (
        with_jpeg(lambda: b"\xff\xd8" + b"\xff\xe1\0\0" * 10_000_000),
        "not a JPEG file of 8 bits",
    ),
}
"""An image that is counted as rejected, and the good rest is kept. Name -> how it is made, what the list says of it."""
