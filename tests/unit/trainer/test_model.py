"""The Vision Transformer from weights of another head or image size, and what can't be taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification, ViTModel

from xray_trainer.config import Model
from xray_trainer.errors import ConfigurationError
from xray_trainer.model import interpolate_positions, make_model, normalise, preprocessor_config
from xray_trainer.prepare.decode import decode_png

FINDINGS = ["Effusion", "Mass", "Nodule"]


def save_weights(folder: Path, labels: int = 5, image_size: int = 32, channels: int = 3) -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=16,
        image_size=image_size,
        id2label={index: f"finding {index}" for index in range(labels)},
        num_channels=channels,
    )
    model = ViTForImageClassification(config)
    model.save_pretrained(folder)
    return model


def test_weights_are_taken_and_the_head_is_new(tmp_path: Path) -> None:
    before = save_weights(tmp_path)
    after = make_model(Model(path=tmp_path), FINDINGS, 32)
    assert after.config.id2label == dict(enumerate(FINDINGS))
    assert after.config.problem_type == "multi_label_classification"
    assert after.classifier.out_features == 3
    for name, weight in before.vit.state_dict().items():
        assert torch.equal(weight, after.vit.state_dict()[name]), name


def test_weights_of_another_image_size_are_interpolated(tmp_path: Path) -> None:
    before = save_weights(tmp_path)
    after = make_model(Model(path=tmp_path), FINDINGS, 64)
    assert after(pixel_values=torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)
    assert after.config.image_size == 64
    old, new = before.vit.embeddings.position_embeddings, after.vit.embeddings.position_embeddings
    assert new.shape == (1, 17, 16)
    assert torch.equal(old[:, 0], new[:, 0])


def test_interpolation_to_the_same_grid_changes_nothing() -> None:
    positions = torch.randn(1, 10, 4)
    torch.testing.assert_close(interpolate_positions(positions, 3), positions)


def test_what_is_no_vit_in_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no config\.json"):
        make_model(Model(path=tmp_path), FINDINGS, 32)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ConfigurationError, match="model_type 'bert'; expected 'vit'"):
        make_model(Model(path=tmp_path), FINDINGS, 32)
    save_weights(tmp_path, channels=1)
    with pytest.raises(ConfigurationError, match="1 channels; expected 3"):
        make_model(Model(path=tmp_path), FINDINGS, 32)
    save_weights(tmp_path)
    with pytest.raises(ConfigurationError, match="patches of 16 pixels don't tile an image of 40"):
        make_model(Model(path=tmp_path), FINDINGS, 40)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigurationError, match="expected ViT weights in safetensors"):
        make_model(Model(path=tmp_path), FINDINGS, 32)


OLD_NAMES = {
    "layers.": "encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""How the weights on the hub name what transformers 5 calls otherwise."""


def published_name(name: str) -> str:
    for new, old in OLD_NAMES.items():
        name = name.replace(new, old)
    return name


@pytest.mark.parametrize("rename", [str, published_name])
def test_weights_without_a_head_are_taken_with_or_without_a_pooler(
    tmp_path: Path, rename: Callable[[str], str]
) -> None:
    body = save_weights(tmp_path).vit
    before = ViTModel(body.config, add_pooling_layer=True)
    before.load_state_dict(body.state_dict(), strict=False)
    before.save_pretrained(tmp_path)
    tensors = {rename(name): tensor for name, tensor in before.state_dict().items()}
    assert "pooler.dense.weight" in tensors
    assert not any(name.startswith(("vit.", "classifier.")) for name in tensors)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    after = make_model(Model(path=tmp_path), FINDINGS, 32)
    for name, weight in body.state_dict().items():
        assert torch.equal(weight, after.vit.state_dict()[name]), name


def change_config(folder: Path, **settings: int) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_weights_that_do_not_fit_are_refused_and_not_replaced_by_random_numbers(tmp_path: Path) -> None:
    save_weights(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)

    save_file({"something.else": torch.zeros(1)}, weights, metadata={"format": "pt"})
    with pytest.raises(
        ConfigurationError, match=r"tensors 22 missing \(vit\.embeddings\.cls_token, .*, \.\.\.\); expect"
    ) as all_:
        make_model(Model(path=tmp_path), FINDINGS, 32)
    assert str(tmp_path) in str(all_.value)

    one = next(name for name in tensors if name.endswith("layernorm.bias"))
    save_file({name: tensor for name, tensor in tensors.items() if name != one}, weights, metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"tensors 1 missing \(vit\.layernorm\.bias\); expect"):
        make_model(Model(path=tmp_path), FINDINGS, 32)

    save_file(tensors, weights, metadata={"format": "pt"})
    change_config(tmp_path, intermediate_size=48)
    with pytest.raises(ConfigurationError, match=r"tensors 3 of another shape \(vit\.layers\.0\.mlp\.fc1\.bias, "):
        make_model(Model(path=tmp_path), FINDINGS, 32)
    change_config(tmp_path, num_hidden_layers=2)
    with pytest.raises(ConfigurationError, match=r"tensors 16 missing \(.*\) and 3 of another shape \("):
        make_model(Model(path=tmp_path), FINDINGS, 32)


def test_a_damaged_weights_file_is_a_configuration_error(tmp_path: Path) -> None:
    save_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(ConfigurationError, match="expected ViT weights in safetensors"):
        make_model(Model(path=tmp_path), FINDINGS, 32)


def processed(folder: Path, image: Image.Image) -> tuple[torch.Tensor, torch.Tensor]:
    """What the saved processor makes of an image, and what preparation and training do."""
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor_config(72, 64)))
    save_weights(folder)
    image.save(folder / "radiograph.png")
    stored = np.frombuffer(decode_png((folder / "radiograph.png").read_bytes(), 72).pixels, np.uint8).reshape(72, 72)
    (ours,) = normalise(torch.from_numpy(stored[None, None, 4:68, 4:68].copy()))
    processor = AutoImageProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]  # transformers' own
    theirs: torch.Tensor = processor(Image.open(folder / "radiograph.png"), return_tensors="pt")["pixel_values"][0]
    assert theirs.shape == ours.shape
    return theirs, ours


def test_the_saved_processor_does_what_training_does(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (72, 72), dtype=np.uint8)
    theirs, ours = processed(tmp_path, Image.fromarray(noise))
    torch.testing.assert_close(theirs, ours, atol=0.01 / 127.5, rtol=0)


def test_the_saved_processor_scales_nearly_as_preparation_does(tmp_path: Path) -> None:
    """Its libraries have no scaling in common that is preparation's own, the mean of what falls into a pixel."""
    soft = np.random.default_rng(0).integers(0, 256, (18, 18), dtype=np.uint8)
    theirs, ours = processed(tmp_path, Image.fromarray(soft).resize((288, 288), Image.Resampling.BICUBIC))
    assert (theirs - ours).square().mean().sqrt() < 2 / 127.5
    shifted = ours.roll(1, dims=2)
    assert (shifted - ours).square().mean().sqrt() > 20 / 127.5, "what a pixel's shift would make"
