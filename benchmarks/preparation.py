"""Preparation and loading against the article's chain, on the same generated 1024 x 1024 PNG files.

The article unpacks the archives to disk and then, in every epoch, opens each file with PIL, turns it to RGB, scales it to 224
and normalises it. Here archives become a cache once, and an epoch cuts its images out of that.

Each pass is a process of its own, bound to one core where nothing else is said; neither side counts its start and imports.
`make bench` runs it; build/bench/preparation.json has the figures.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil

REPOSITORY: Final = Path(__file__).parents[1]
RESULT: Final = REPOSITORY / "build" / "bench" / "preparation.json"
RUNS: Final = 5
IMAGES: Final = 600
EPOCHS: Final = 3
MANY_IMAGES: Final = 10_000
"""For what is measured on a cache, whose images may be of any source."""
BATCH: Final = 128
IMAGE_SIZE: Final = 224
GOALS: Final = {
    "cpuSecondsOfTheArticle": ("most", 0.25),
    "passOfTheArticle": ("least", 1.5),
    "linearOnTwoCores": ("least", 0.9),
    "loaderImagesPerSecond": ("least", 5000),
    "loaderOfTheArticle": ("least", 60),
    "secondRunSeconds": ("most", 3),
    "verificationSeconds": ("most", 5),
    "cacheOfThePngBytes": ("most", 0.2),
    "mostMemoryMebibytes": ("most", 1024),
}


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(PASSES[sys.argv[1]](*map(Path, sys.argv[2:]))))
        return 0
    with tempfile.TemporaryDirectory(dir=REPOSITORY / "build") as scratch:
        folder = Path(scratch)
        figures = measure(folder)
    missed = [
        name
        for name, (bound, goal) in GOALS.items()
        if (figures[name]["median"] > goal if bound == "most" else figures[name]["median"] < goal)
    ]
    document = {"images": IMAGES, "imagesOfTheCache": MANY_IMAGES, "runs": RUNS, "missed": missed, **figures}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document, indent=2))
    return int(bool(missed))


def measure(folder: Path) -> dict[str, Any]:
    """All figures: each the median of RUNS, with the least and the most."""
    generate(folder / "nih", IMAGES)
    generate(folder / "few", 12)
    write_many(folder / "many")
    runs = [measure_once(folder) for _ in range(RUNS)]
    figures: dict[str, Any] = {}
    for name in runs[0]:
        values = sorted(run[name] for run in runs)
        figures[name] = {"median": statistics.median(values), "least": values[0], "most": values[-1]}
    for name, (bound, goal) in GOALS.items():
        figures[name][bound + "Allowed"] = goal
    return {name: {key: round(value, 3) for key, value in figure.items()} for name, figure in figures.items()}


def measure_once(folder: Path) -> dict[str, float]:
    article = run_pass("article", folder / "nih", folder / "unpacked")
    one = run_pass("prepare", folder / "nih", folder / "one", folder / "few")
    two = run_pass("prepare", folder / "nih", folder / "two", folder / "few", cores={0, 1})
    memory = run_pass("prepare-watched", folder / "nih", folder / "watched", cores={0, 1})
    loaded = run_pass("load", folder / "one")
    many = folder / "many-cache"
    if not many.exists():
        run_pass("again", folder / "many", many, cores={0, 1})
    again, verified, loader = (run_pass(name, folder / "many", many) for name in ("again", "verify", "load-many"))
    png_bytes = sum(path.stat().st_size for path in (folder / "nih").glob("images_*.tar.gz"))
    cache_bytes = sum(path.stat().st_size for path in (folder / "one").rglob("*.arrow"))
    for name in ("unpacked", "one", "two", "watched"):
        shutil.rmtree(folder / name)
    ours = one["cpuSeconds"] + EPOCHS * loaded["cpuSeconds"]
    return {
        "articleImagesPerSecond": IMAGES / article["epochSeconds"],
        "imagesPerSecond": IMAGES / one["seconds"],
        "imagesPerSecondOnTwoCores": IMAGES / two["seconds"],
        "articleCpuSeconds": article["cpuSeconds"],
        "cpuSeconds": ours,
        "cpuSecondsOfTheArticle": ours / article["cpuSeconds"],
        "passOfTheArticle": article["epochSeconds"] / one["seconds"],
        "linearOnTwoCores": one["seconds"] / two["seconds"] / 2,
        "loaderImagesPerSecond": loader["bytesPerSecond"],
        "loaderToFloatsImagesPerSecond": loader["floatsPerSecond"],
        "loaderOfTheArticle": loader["floatsPerSecond"] / (IMAGES / article["epochSeconds"]),
        "secondRunSeconds": again["processSeconds"],
        "verificationSeconds": verified["processSeconds"],
        "cacheOfThePngBytes": cache_bytes / png_bytes,
        "mostMemoryMebibytes": memory["mostMemoryMebibytes"],
    }


def run_pass(name: str, *paths: Path, cores: frozenset[int] | set[int] = frozenset({0})) -> dict[str, float]:
    """One pass in a process of its own."""
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, name, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'trainer-image'}", "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "processSeconds": time.perf_counter() - begin}


def generate(root: Path, images: int) -> None:
    from xray_trainer.synthetic import synthesize

    synthesize(root, images=images, seed=1, size=1024, archives=2)


def write_many(root: Path) -> None:
    """Small PNG files, of which the cache is as large as of others."""
    from tests.unit.trainer.build import image_name, label_line, make_png, write_archive, write_labels

    write_labels(root, [label_line(patient) for patient in range(1, MANY_IMAGES + 1)])
    pngs = [make_png(seed) for seed in range(100)]
    write_archive(root / "images_001.tar.gz", ((image_name(n), pngs[n % 100]) for n in range(1, MANY_IMAGES + 1)))


def unpack_and_decode(root: Path, target: Path) -> dict[str, float]:
    """The article's chain. CPU seconds of all epochs, seconds of the last."""
    import numpy  # noqa: F401  # here, so that its seconds don't count: nor do those of our own imports
    from PIL import PngImagePlugin  # noqa: F401

    before = cpu_seconds()
    target.mkdir()
    for archive in sorted(root.glob("images_*.tar.gz")):
        with tarfile.open(archive) as file:
            file.extractall(target, filter="data")
    paths = sorted(target.rglob("*.png"))
    seconds = [clocked(lambda: list(map(decode_as_the_article, paths))) for _ in range(EPOCHS)]
    return {"epochSeconds": statistics.median(seconds), "cpuSeconds": cpu_seconds() - before}


def decode_as_the_article(path: Path) -> Any:
    """(3, 224, 224) float32 in [-1, 1]."""
    import numpy as np
    from PIL import Image

    scaled = Image.open(path).convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    return ((np.asarray(scaled, dtype=np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1).copy()


def prepare(root: Path, folder: Path, few: Path) -> dict[str, float]:
    """From archives to the cache, by processes that have prepared a few images before."""
    prepare_again(few, folder / "few")
    shutil.rmtree(folder / "few")
    before = cpu_seconds()
    seconds = prepare_again(root, folder)["seconds"]
    return {"seconds": seconds, "cpuSeconds": cpu_seconds() - before}


def prepare_again(root: Path, folder: Path) -> dict[str, float]:
    """From archives to the cache, or until it is known that it is there."""
    from xray_trainer.prepare.run import prepare as run
    from xray_trainer.progress import Progress

    run_file = run_file_of(root, folder)
    return {"seconds": clocked(lambda: run(run_file, Progress("Preparing")))}


def prepare_watched(root: Path, folder: Path) -> dict[str, float]:
    """Memory of all processes together while they prepare; what they share is counted once."""
    most = 0

    def watch() -> None:
        nonlocal most
        while not done.wait(0.1):
            most = max(most, sum(process.memory_full_info().pss for process in processes()))

    done = threading.Event()
    watching = threading.Thread(target=watch)
    watching.start()
    prepare_again(root, folder)
    done.set()
    watching.join()
    return {"mostMemoryMebibytes": most / (1 << 20)}


def verify(root: Path, folder: Path) -> dict[str, float]:
    """What the init container does where a Job has prepared."""
    from xray_trainer.prepare.cache import open_prepared

    run_file = run_file_of(root, folder)
    return {"seconds": clocked(lambda: open_prepared(run_file.output_dir, "seed"))}


def load(folder: Path) -> dict[str, float]:
    """An epoch from the cache, to what the model takes."""
    from xray_trainer.model import normalise

    epoch = batches(folder)
    before = cpu_seconds()
    for batch in epoch:
        normalise(batch)
    return {"cpuSeconds": cpu_seconds() - before}


def load_many(_: Path, folder: Path) -> dict[str, float]:
    """Images a second as bytes, and as the floats that the model takes."""
    from xray_trainer.model import normalise

    images = sum(len(batch) for batch in batches(folder))
    as_bytes = clocked(lambda: sum(len(batch) for batch in batches(folder)))
    as_floats = clocked(lambda: sum(len(normalise(batch)) for batch in batches(folder)))
    return {"bytesPerSecond": images / as_bytes, "floatsPerSecond": images / as_floats}


def batches(folder: Path) -> Iterator[Any]:
    """(BATCH, 1, 224, 224) uint8 of the training part, shuffled, cropped and flipped at random."""
    import torch
    from torch.utils.data import DataLoader

    from xray_trainer.dataset import Augmentation, collate, open_part
    from xray_trainer.prepare.cache import open_prepared

    torch.set_num_threads(1)
    prepared, manifest = open_prepared(folder / "out", "seed")
    dataset = open_part(prepared.cache, manifest, "train", IMAGE_SIZE, Augmentation(seed=1, flips=True))
    return (batch["pixel_values"] for batch in DataLoader(dataset, BATCH, shuffle=True, collate_fn=collate))


def run_file_of(root: Path, folder: Path) -> Any:
    from tests.unit.trainer.build import make_run_file
    from xray_trainer.findings import NIH_FINDINGS

    dataset = {"root": str(root), "image_size": IMAGE_SIZE, "stored_size": 256, "findings": list(NIH_FINDINGS)}
    return make_run_file(folder, dataset=dataset)


def clocked(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def cpu_seconds() -> float:
    """Of this process and those it has started, which run on."""
    return sum(process.cpu_times().user + process.cpu_times().system for process in processes())


def processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


PASSES: Final[dict[str, Callable[..., dict[str, float]]]] = {
    "article": unpack_and_decode,
    "prepare": prepare,
    "prepare-watched": prepare_watched,
    "again": prepare_again,
    "verify": verify,
    "load": load,
    "load-many": load_many,
}

if __name__ == "__main__":
    sys.exit(main())
