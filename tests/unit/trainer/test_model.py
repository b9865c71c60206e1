"""The Vision Transformer from weights of another head or image size, and what can't be taken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification

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


def test_the_saved_processor_does_what_preparation_and_training_do(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor_config(72, 64)))
    save_weights(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (288, 288), dtype=np.uint8)
    image = tmp_path / "radiograph.png"
    Image.fromarray(noise).save(image)
    stored = np.frombuffer(decode_png(image.read_bytes(), 72).pixels, np.uint8).reshape(72, 72)
    ours = normalise(torch.from_numpy(stored[4:68, 4:68].copy()))
    processor = AutoImageProcessor.from_pretrained(tmp_path)  # type: ignore[no-untyped-call]  # transformers' own
    theirs = processor(Image.open(image), return_tensors="pt")["pixel_values"][0]
    assert theirs.shape == ours.shape
    torch.testing.assert_close(theirs, ours, atol=1.5 / 127.5, rtol=0)
