"""Which part of an image the model sees, and when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.unit.trainer.build import make_run_file, write_data_set
from xray_trainer.dataset import XrayDataset, open_part
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


def part(output: Path, name: str, seed: int = 0, size: int = IMAGE_SIZE) -> XrayDataset:
    prepared, manifest = open_prepared(output, "seed")
    return open_part(prepared.cache, manifest, name, size, seed)


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
    dataset = part(output, "train")
    room = STORED_SIZE - IMAGE_SIZE
    corners = {dataset._corner(index, room) for index in range(1000)}
    assert corners == {(top, left) for top in range(room + 1) for left in range(room + 1)}


def test_only_training_images_are_cropped_at_random(output: Path) -> None:
    for name in ("validation", "test"):
        whole = images(part(output, name, size=STORED_SIZE))
        middle = whole[:, :, 2:-2, 2:-2]
        assert torch.equal(images(part(output, name), epoch=1), middle)
