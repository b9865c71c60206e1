"""The folder of a trained model: what transformers' Auto classes and `predict` make of a file is what training made of it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from tests.contract.test_trainer_run import run
from tests.unit.trainer.build import run_document
from xray_trainer.dataset import open_part
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.model import normalise
from xray_trainer.predict.model import load_predictor
from xray_trainer.prepare.cache import open_prepared
from xray_trainer.synthetic import synthesize

pytestmark = pytest.mark.usefixtures("environment_as_before")

SIZE, STORED, SEEN = 144, 36, 32
"""Of the files, of the cache and of what the model sees: a quarter and an eighth less, as 1024, 256 and 224 are."""
SAME = 1e-4
"""How far logits of the same pixels may lie apart, computed in other batches."""
SCALED_OTHERWISE = 0.2
"""How far those of pixels that were scaled bicubically may lie apart, their root mean square in parts of how much logits
differ from image to image. By the mean of 4 x 4 pixels, as preparation does it, no image processor can scale; see
model.preprocessor_config."""


class Trained(NamedTuple):
    folder: Path
    """Of the model."""
    output: Path
    images: list[Path]
    """Held-out ones, as files."""
    logits: NDArray[np.float32]
    """What the trainer's own data set and model make of them."""


def save_lively_vit(folder: Path) -> Path:
    """Random weights ten times as large as usual, to which images look more different than to any that few steps make."""
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = ViTConfig(**size, patch_size=8, image_size=SEEN, initializer_range=0.2)
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("run")
    synthesize(folder / "nih", images=48, seed=1, size=SIZE)
    document = run_document(
        folder, dataset={"image_size": SEEN, "stored_size": STORED}, training={"learning_rate": 1e-9}
    )
    document["model"] = {
        "path": str(save_lively_vit(folder / "vit")),
        "hub_name": None,
        "revision": None,
        "config": None,
    }
    assert run(folder, "prepare", document)[0] == run(folder, "train", document)[0] == 0
    output = folder / "out"
    cache, manifest = open_prepared(output, "seed")
    held_out = open_part(cache.cache, manifest, "test", SEEN)
    pixels = held_out.__getitems__(range(len(held_out)))["pixel_values"]
    model = AutoModelForImageClassification.from_pretrained(output / "model")
    with torch.no_grad():
        logits = model(pixel_values=normalise(pixels)).logits.numpy()
    return Trained(output / "model", output, unpack(folder / "nih", ordinals(cache.cache), folder / "films"), logits)


def ordinals(cache: Path) -> list[int]:
    """Places in the archive of the held-out images."""
    import pyarrow as pa

    (name,) = cache.glob("test-*.arrow")
    return list(pa.ipc.open_stream(pa.memory_map(str(name))).read_all().column("ordinal").to_pylist())


def unpack(source: Path, chosen: list[int], folder: Path) -> list[Path]:
    folder.mkdir()
    with tarfile.open(source / "images_001.tar.gz") as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        for place, ordinal in enumerate(chosen):
            file = archive.extractfile(members[ordinal])
            assert file is not None
            (folder / f"{place:03d}.png").write_bytes(file.read())
    return sorted(folder.iterdir())


def compute(trained: Trained, films: list[Image.Image]) -> NDArray[np.float32]:
    """Logits, the way the card tells."""
    model = AutoModelForImageClassification.from_pretrained(trained.folder)
    processor = AutoImageProcessor.from_pretrained(trained.folder)  # type: ignore[no-untyped-call]  # transformers' own
    with torch.no_grad():
        logits: NDArray[np.float32] = model(**processor(films, return_tensors="pt")).logits.numpy()
    return logits


def difference(logits: NDArray[np.float32], trained: Trained) -> float:
    """Root mean square, in parts of the standard deviation from image to image."""
    spread = trained.logits.std(axis=0).mean()
    assert spread > 0.5, "or any image would do"
    return float(np.sqrt(np.mean((logits - trained.logits) ** 2)) / spread)


def test_auto_classes_see_the_greys_that_training_saw(trained: Trained) -> None:
    """Of files that need no scaling: same crop, same normalisation, same channels."""
    films = [Image.open(path).reduce(SIZE // STORED) for path in trained.images]
    np.testing.assert_allclose(compute(trained, films), trained.logits, atol=SAME, rtol=0)
    assert difference(trained.logits, trained) < SAME


def test_auto_classes_scale_nearly_as_preparation_did(trained: Trained) -> None:
    logits = compute(trained, [Image.open(path) for path in trained.images])
    assert difference(logits, trained) < SCALED_OTHERWISE
    shifted = [
        Image.open(path).transform((SIZE, SIZE), Image.Transform.AFFINE, (1, 0, 4, 0, 1, 0)) for path in trained.images
    ]
    assert difference(compute(trained, shifted), trained) > SCALED_OTHERWISE, "one pixel of those that the model sees"


def test_predict_computes_it_to_the_last_digits(trained: Trained) -> None:
    from xray_trainer.predict.images import read_image

    predictor = load_predictor(trained.folder)
    scores = predictor.scores([read_image(path, predictor.stored_size) for path in trained.images])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-trained.logits.astype(np.float64))), atol=1e-6)


def test_the_image_processor_scales_in_a_way_that_torchvision_can_too(trained: Trained) -> None:
    """torchvision scales by this function; 'box', which preparation's scaling would be, it refuses (seen in 0.29)."""
    names = {2: "bilinear", 3: "bicubic"}
    settings = json.loads((trained.folder / "preprocessor_config.json").read_text())
    grey = Image.open(trained.images[0])
    by_pillow = np.asarray(grey.resize((STORED, STORED), Image.Resampling(settings["resample"])), dtype=np.int16)
    tensor = torch.from_numpy(np.array(grey))[None, None]
    by_torch = functional.interpolate(tensor, (STORED, STORED), mode=names[settings["resample"]], antialias=True)
    assert np.abs(by_torch[0, 0].numpy().astype(np.int16) - by_pillow).max() <= 1


def test_the_configuration_names_the_findings_and_that_there_may_be_several(trained: Trained) -> None:
    config = json.loads((trained.folder / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    assert [config["id2label"][str(index)] for index in range(14)] == list(NIH_FINDINGS)
    assert config["label2id"] == {name: index for index, name in enumerate(NIH_FINDINGS)}


def test_the_card_is_one_that_the_hub_reads(trained: Trained) -> None:
    card = ModelCard.load(trained.folder / "README.md")
    result: dict[str, Any] = json.loads((trained.output / "result.json").read_text())
    measured = {finding["name"]: finding["auroc"] for finding in result["findings"] if finding["auroc"] is not None}
    assert card.data.license == "other"
    told = {each.metric_name: each.metric_value for each in card.data.eval_results}
    assert told == {
        "AUROC, mean of the findings": result["auroc_macro"],
        **{f"AUROC {name}": value for name, value in measured.items()},
    }
    assert "no substitute for a doctor" in card.text
    assert str(trained.output) not in card.content
