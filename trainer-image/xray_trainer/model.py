"""The Vision Transformer: from pre-trained weights or from a small configuration, and what goes into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Mapping, Tuple

import torch
from safetensors import SafetensorError
from torch.nn import functional
from transformers import ViTConfig, ViTForImageClassification

from xray_trainer.config import Model, VitConfig
from xray_trainer.errors import ConfigurationError

PIXEL_MEAN = 0.5
PIXEL_STD = 0.5
"""Normalisation of the ViT that the tutorial starts from, of pixels scaled to [0, 1].
Source: preprocessor_config.json of google/vit-base-patch16-224-in21k."""
CHANNELS = 3
MLP_RATIO = 4
"""Width of the MLP over that of the encoder, as in all published ViTs."""
HEAD = "classifier."
"""Prefix of the tensors that fit one set of findings; all others come from the weights."""
NAMED_TENSORS = 3
"""Tensors that a message names of those that don't fit; the others are counted."""


def normalise(grey: torch.Tensor) -> torch.Tensor:
    """(n, 1, H, W) uint8 -> (n, 3, H, W) float32 in [-1, 1], the grey value in all three channels, which are one memory."""
    scaled = grey.to(torch.float32).mul_(1 / (255 * PIXEL_STD)).sub_(PIXEL_MEAN / PIXEL_STD)
    return scaled.expand(-1, CHANNELS, -1, -1)


def preprocessor_config(stored_size: int, image_size: int) -> Dict[str, Any]:
    """preprocessor_config.json that does to a radiograph what preparation and `normalise` do, but for how it scales.

    The class is CLIP's because it is the one that scales, then crops the middle: ViT's own doesn't crop. Preparation takes
    the mean of the covered area, which image processors refuse to do with torchvision; of what they and
    those with Pillow can alike, bicubic comes closest to it.
    """
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": stored_size, "width": stored_size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": image_size, "width": image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [PIXEL_MEAN] * CHANNELS,
        "image_std": [PIXEL_STD] * CHANNELS,
    }


def make_model(model: Model, findings: List[str], image_size: int) -> ViTForImageClassification:
    """A ViT with one output per finding, for multi-label classification.

    Args:
        model: a folder or a configuration.
    Raises: ConfigurationError if the weights are missing, are no ViT, don't fit or can't take the image size.
    """
    if model.config is not None:
        return ViTForImageClassification(_small_config(model.config, findings, image_size))
    assert model.path is not None
    return _pretrained(model.path, findings, image_size)


def _label_settings(findings: List[str]) -> Dict[str, Any]:
    return {
        "problem_type": "multi_label_classification",
        "num_labels": len(findings),
        "id2label": dict(enumerate(findings)),
        "label2id": {finding: index for index, finding in enumerate(findings)},
    }


def _small_config(size: VitConfig, findings: List[str], image_size: int) -> ViTConfig:
    return ViTConfig(
        hidden_size=size.hidden_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=MLP_RATIO * size.hidden_size,
        patch_size=size.patch_size,
        image_size=image_size,
        **_label_settings(findings),
    )


def _pretrained(folder: Path, findings: List[str], image_size: int) -> ViTForImageClassification:
    patch_size, trained_size = _read_config(folder)
    if image_size % patch_size:
        raise ConfigurationError(
            f"model {folder}: patches of {patch_size} pixels don't tile an image of {image_size}; expected a multiple"
        )
    load: Callable[..., Tuple[ViTForImageClassification, Dict[str, Any]]]
    load = ViTForImageClassification.from_pretrained  # type: ignore[assignment]  # its type forgets output_loading_info
    try:
        model, loaded = load(
            folder,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # another head is the rule; `_require_fit` refuses all else
            output_loading_info=True,
            **_label_settings(findings),
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ConfigurationError(
            f"model {folder}: {_first_line(error)}; expected ViT weights in safetensors"
        ) from error
    _require_fit(folder, loaded)
    return model if trained_size == image_size else _at_image_size(model, image_size, image_size // patch_size)


def _require_fit(folder: Path, loaded: Mapping[str, Any]) -> None:
    """Transformers fills what the weights lack with random numbers: right for the head, and only there.

    Args:
        loaded: what from_pretrained tells with `output_loading_info`; mismatched keys come with both shapes.
    Raises: ConfigurationError.
    """
    missing = _outside_head(loaded["missing_keys"])
    mismatched = _outside_head(key for key, *_ in loaded["mismatched_keys"])
    misfits = [
        f"{len(keys)} {what} ({', '.join(keys[:NAMED_TENSORS])}{', ...' if len(keys) > NAMED_TENSORS else ''})"
        for what, keys in (("missing", missing), ("of another shape", mismatched))
        if keys
    ]
    if misfits:
        raise ConfigurationError(
            f"model {folder}: tensors {' and '.join(misfits)}; "
            "expected all tensors but the classification head's, in the shapes that config.json tells"
        )


def _outside_head(keys: Iterable[str]) -> List[str]:
    return sorted(key for key in keys if not key.startswith(HEAD))


def _read_config(folder: Path) -> Tuple[int, int]:
    """Side of a patch and of the image that the weights were trained for."""
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"model {folder}: no config.json; expected a folder as save_pretrained writes it")
    settings, _ = ViTConfig.get_config_dict(folder)
    if settings.get("model_type") != "vit":
        raise ConfigurationError(f"model {folder}: model_type {settings.get('model_type')!r}; expected 'vit'")
    config = ViTConfig.from_dict(settings)
    if not isinstance(config.patch_size, int) or not isinstance(config.image_size, int):
        raise ConfigurationError(f"model {folder}: oblong patches or images; expected square ones")
    if config.num_channels != CHANNELS:
        raise ConfigurationError(f"model {folder}: {config.num_channels} channels; expected {CHANNELS}")
    return config.patch_size, config.image_size


def _at_image_size(model: ViTForImageClassification, image_size: int, side: int) -> ViTForImageClassification:
    """The same weights for another image size: position embeddings are interpolated, the rest is copied."""
    config = ViTConfig.from_dict({**model.config.to_dict(), "image_size": image_size})
    resized = ViTForImageClassification(config)
    weights = model.state_dict()
    key = next(name for name in weights if name.endswith("position_embeddings"))
    weights[key] = interpolate_positions(weights[key], side)
    resized.load_state_dict(weights)
    return resized


def interpolate_positions(positions: torch.Tensor, side: int) -> torch.Tensor:
    """Position embeddings for another grid of patches.

    Args:
        positions: (1, 1 + n * n, width), the first for the class token.
        side: patches along the new image's side.
    Returns: (1, 1 + side * side, width).
    Source: Dosovitskiy et al. 2021, section 3.2.
    """
    class_token, grid = positions[:, :1], positions[:, 1:]
    old_side = round(grid.shape[1] ** 0.5)
    grid = grid.reshape(1, old_side, old_side, -1).permute(0, 3, 1, 2)  # (1, width, n, n)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([class_token, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
