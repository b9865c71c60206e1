"""Which part of an image the model sees, and when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.trainer.build import make_run_file, write_data_set
from xray_trainer.dataset import Augmentation, XrayDataset, collate, open_part
from xray_trainer.prepare.cache import open_prepared
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress

IMAGE_SIZE, STORED_SIZE = 32, 36


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    write_data_set(folder / "nih")
    prepare(make_run_file(folder), Progress("Preparing"))
    return folder / "out"


def part(output: Path, name: str, seed: int = 0, size: int = IMAGE_SIZE, flips: bool = False) -> XrayDataset:
    prepared, manifest = open_prepared(output, "seed")
    return open_part(prepared.cache, manifest, name, size, Augmentation(seed, flips))


def images(dataset: XrayDataset, epoch: int = 0) -> torch.Tensor:
    dataset.epoch = epoch
    return torch.stack([dataset[index]["pixel_values"] for index in range(len(dataset))])


def test_a_crop_depends_on_seed_epoch_and_image_and_on_nothing_else(output: Path) -> None:
    dataset = part(output, "train")
    first = images(dataset)
    torch.manual_seed(99)
    assert torch.equal(dataset[7]["pixel_values"], first[7])
    assert torch.equal(images(part(output, "train")), first)
    assert not torch.equal(images(dataset, epoch=1), first)
    assert torch.equal(images(dataset, epoch=0), first)
    assert not torch.equal(images(part(output, "train", seed=1)), first)


def test_every_corner_of_an_image_is_reached(output: Path) -> None:
    dataset, whole = part(output, "train"), images(part(output, "train", size=STORED_SIZE))[0, 0]
    reached = set()
    for epoch in range(400):
        dataset.epoch = epoch
        reached.add(corner_of(dataset[0]["pixel_values"][0], whole))
    room = range(STORED_SIZE - IMAGE_SIZE + 1)
    assert reached == {(top, left) for top in room for left in room}


def corner_of(crop: torch.Tensor, whole: torch.Tensor) -> tuple[int, int]:
    room = range(STORED_SIZE - IMAGE_SIZE + 1)
    (corner,) = [
        (top, left)
        for top in room
        for left in room
        if torch.equal(crop, whole[top : top + IMAGE_SIZE, left : left + IMAGE_SIZE])
    ]
    return corner


def test_half_of_the_training_images_are_mirrored_where_that_is_asked_for(output: Path) -> None:
    plain, mirrored = (images(part(output, "train", size=STORED_SIZE, flips=flips)) for flips in (False, True))
    seen = [
        "mirrored" if torch.equal(theirs, ours.flip(-1)) else "plain" if torch.equal(theirs, ours) else "other"
        for ours, theirs in zip(plain, mirrored, strict=True)
    ]
    assert set(seen) == {"mirrored", "plain"}
    tests = [images(part(output, "test", flips=flips)) for flips in (False, True)]
    assert torch.equal(*tests)


def test_a_loader_gives_the_batches_that_its_images_make(output: Path) -> None:
    dataset = part(output, "train", flips=True)
    loader = torch.utils.data.DataLoader(dataset, batch_size=4, collate_fn=collate)
    batches = list(loader)
    assert batches[0]["pixel_values"].shape == (4, 1, IMAGE_SIZE, IMAGE_SIZE)
    assert batches[0]["pixel_values"].dtype == torch.uint8
    for name in ("pixel_values", "labels"):
        joined = torch.cat([batch[name] for batch in batches])
        assert torch.equal(joined, torch.stack([dataset[index][name] for index in range(len(dataset))]))


def test_only_training_images_are_cropped_at_random(output: Path) -> None:
    for name in ("validation", "test"):
        whole = images(part(output, name, size=STORED_SIZE))
        middle = whole[:, :, 2:-2, 2:-2]
        assert torch.equal(images(part(output, name), epoch=1), middle)
