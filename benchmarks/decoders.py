"""What decodes a radiograph, measured side by side: milliseconds of one core for a 1024 x 1024 PNG file of 8-bit grey.

Generated films of about the size of ChestX-ray14's; the row filters and the compression of the real files are not known, so
trust the order more than the ratios. Every decoder must give the same pixels. `make bench` runs it, in an environment of
its own (decoders.in); build/bench/decoders.json has the figures.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parents[1]
RESULT: Final = REPOSITORY / "build" / "bench" / "decoders.json"
PYTHON: Final = REPOSITORY / "build" / "decoders" / "bin" / "python"
RUNS: Final = 5
IMAGES: Final = 60
SIDE: Final = 1024
STORED: Final = 256

Work = Callable[[bytes], Any]


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(measure(Path(sys.argv[1]))))
        return 0
    from xray_trainer.synthetic import synthesize

    with tempfile.TemporaryDirectory() as folder:
        synthesize(Path(folder), images=IMAGES, seed=1, size=SIDE, archives=1)
        done = subprocess.run([PYTHON, __file__, folder], stdout=subprocess.PIPE, check=True)
    document = json.loads(done.stdout)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    for table in ("decode", "decodeAndShrink", "inflate", "gunzip"):
        print(f"\n{table}: milliseconds of a core per image")
        for name, figure in sorted(document[table].items(), key=lambda item: item[1]["median"]):
            print(
                "  {:<24} {median:6.2f} ({least:.2f} to {most:.2f})".format(name, **figure),
                figure.get("twoThreads", ""),
            )
    return 0


def measure(folder: Path) -> dict[str, Any]:
    """All tables."""
    (archive,) = folder.glob("images_*.tar.gz")
    with tarfile.open(archive) as file:
        pngs = [file.extractfile(info).read() for info in file if info.isfile()]  # type: ignore[union-attr]
    require_same_pixels(pngs)
    packages = (
        "deflate",
        "imagecodecs",
        "isal",
        "kornia-rs",
        "opencv-python-headless",
        "pillow",
        "pyspng",
        "pyvips",
        "zlib-ng",
    )
    return {
        "images": IMAGES,
        "runs": RUNS,
        "bytesPerImage": sum(map(len, pngs)) // len(pngs),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "decode": {
            name: {**clock(work, pngs), "twoThreads": two_threads(work, pngs)} for name, work in decoders().items()
        },
        "decodeAndShrink": {name: clock(work, pngs) for name, work in chains().items()},
        "inflate": {name: clock(work, [idat_of(png) for png in pngs]) for name, work in inflaters().items()},
        "gunzip": {name: clock_gunzip(work, archive) for name, work in gunzippers().items()},
    }


def decoders() -> dict[str, Work]:
    """From the bytes of a PNG file to an array of grey."""
    import cv2
    import imagecodecs
    import kornia_rs
    import numpy as np
    import pyspng
    import pyvips
    from PIL import Image

    cv2.setNumThreads(1)
    pyvips.cache_set_max(0)
    return {
        "pillow": lambda png: np.asarray(Image.open(io.BytesIO(png))),
        "opencv": lambda png: cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED),
        "imagecodecs png": imagecodecs.png_decode,
        "imagecodecs spng": imagecodecs.spng_decode,
        "kornia-rs": lambda png: kornia_rs.io.decode_image_png_u8(png, (SIDE, SIDE), "mono")[:, :, 0],
        "pyspng": pyspng.load,
        "pyvips": lambda png: pyvips.Image.new_from_buffer(png, "").numpy(),
    }


def chains() -> dict[str, Work]:
    """From the bytes of a PNG file to a square of 256 x 256, by each library's own way of taking the mean."""
    import cv2
    import kornia_rs
    import numpy as np
    import pyvips
    from PIL import Image

    def of_the_article(png: bytes) -> Any:
        scaled = Image.open(io.BytesIO(png)).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        return ((np.asarray(scaled, dtype=np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float16)

    def of_kornia(png: bytes) -> Any:
        grey = kornia_rs.io.decode_image_png_u8(png, (SIDE, SIDE), "mono")[:, :, 0]
        return np.asarray(Image.fromarray(grey).reduce(SIDE // STORED))

    def of_opencv(png: bytes) -> Any:
        grey = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
        return cv2.resize(grey, (STORED, STORED), interpolation=cv2.INTER_AREA)

    return {
        "the article's, to 224": of_the_article,
        "pillow": lambda png: np.asarray(Image.open(io.BytesIO(png)).reduce(SIDE // STORED)),
        "kornia-rs, pillow": of_kornia,
        "opencv": of_opencv,
        "pyvips": lambda png: pyvips.Image.thumbnail_buffer(png, STORED).numpy(),
    }


def inflaters() -> dict[str, Work]:
    """What a decoder of our own could build on: the pixels before their filters are undone."""
    import deflate
    from isal import isal_zlib
    from zlib_ng import zlib_ng

    size = SIDE * (SIDE + 1)
    return {
        "zlib": zlib.decompress,
        "zlib-ng": zlib_ng.decompress,
        "isal": isal_zlib.decompress,
        "deflate": lambda data: deflate.zlib_decompress(data, size),
    }


def gunzippers() -> dict[str, Callable[..., Any]]:
    """Of the archive itself, whose PNG files don't shrink."""
    from isal import igzip
    from zlib_ng import gzip_ng

    return {"gzip": gzip.open, "zlib-ng": gzip_ng.open, "isal": igzip.open}


def clock(work: Work, pngs: Sequence[bytes]) -> dict[str, float]:
    work(pngs[0])
    return spread([cpu_seconds(lambda: [work(png) for png in pngs]) / len(pngs) for _ in range(RUNS)])


def clock_gunzip(opened: Callable[..., Any], archive: Path) -> dict[str, float]:
    def read() -> None:
        with opened(archive, "rb") as file:
            while file.read(1 << 20):
                pass

    return spread([cpu_seconds(read) / IMAGES for _ in range(RUNS)])


def spread(seconds: list[float]) -> dict[str, float]:
    milliseconds = sorted(1000 * each for each in seconds)
    figures = {"median": statistics.median(milliseconds), "least": milliseconds[0], "most": milliseconds[-1]}
    return {name: round(value, 3) for name, value in figures.items()}


def cpu_seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def two_threads(work: Work, pngs: Sequence[bytes]) -> float:
    """How much more two threads do than one: 2 where Python's lock is let go, 1 where it is held; fewer on one core."""

    def seconds(threads: int) -> float:
        begin = time.perf_counter()
        running = [threading.Thread(target=lambda: [work(png) for png in pngs]) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
        return time.perf_counter() - begin

    return round(statistics.median(2 * seconds(1) / seconds(min(2, os.cpu_count() or 1)) for _ in range(RUNS)), 2)


def idat_of(png: bytes) -> bytes:
    """The compressed pixels."""
    place, pieces = 8, []
    while place < len(png):
        size, kind = int.from_bytes(png[place : place + 4], "big"), png[place + 4 : place + 8]
        if kind == b"IDAT":
            pieces.append(png[place + 8 : place + 8 + size])
        place += 12 + size
    return b"".join(pieces)


def require_same_pixels(pngs: Sequence[bytes]) -> None:
    """Raises: AssertionError if a decoder is fast and wrong."""
    import numpy as np

    works = decoders()
    for png in pngs:
        expected = works["pillow"](png)
        for name, work in works.items():
            assert np.array_equal(np.asarray(work(png)).squeeze(), expected), name


if __name__ == "__main__":
    sys.exit(main())
