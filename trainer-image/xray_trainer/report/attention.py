"""Where a Vision Transformer looked: attention rollout, on the CPU, for the few images of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ViTForImageClassification

from xray_trainer.model import normalise

MOST_BYTES = 256 << 20
"""Of the attention weights of one image: a page is not worth running out of memory for. ViT-B/16 has 22 MB at 224 pixels,
and 192 MB at 384."""


def attention_maps(model_folder: Path, grey: torch.Tensor) -> Optional[NDArray[np.float32]]:
    """Attention rollout of a saved model.

    Args:
        grey: (n, 1, side, side) uint8.
    Returns: (n, patches, patches), each from 0 to 1; None if they would take more than MOST_BYTES.
    """
    model = ViTForImageClassification.from_pretrained(model_folder)
    model.eval()  # type: ignore[no-untyped-call]  # transformers' own
    if _attention_bytes(model.config) > MOST_BYTES:
        return None
    if hasattr(model, "set_attn_implementation"):  # transformers 5: its faster ways tell no weights
        model.set_attn_implementation("eager")
    maps = []
    with torch.inference_mode():
        for image in grey:
            layers = model(pixel_values=normalise(image[None]), output_attentions=True).attentions
            maps.append(_scaled(roll_out([layer[0].mean(dim=0) for layer in layers])))
    return np.stack(maps)


def _attention_bytes(config: Any) -> int:
    tokens = (config.image_size // config.patch_size) ** 2 + 1
    return int(4 * config.num_hidden_layers * config.num_attention_heads * tokens**2)


def roll_out(layers: Sequence[torch.Tensor]) -> NDArray[np.float32]:
    """How much of each patch arrives at the class token, which the findings are read from.

    Each layer passes on half of what it was given and half of what its attention mixes, as its residual path does.

    Args:
        layers: (tokens, tokens) of each layer, mean over heads; the class token is the first.
    Returns: (patches, patches), sums up to at most 1.
    Source: Abnar & Zuidema 2020, Quantifying Attention Flow in Transformers, section 3.
    """
    flow = torch.eye(layers[0].shape[0])
    for attention in layers:
        mixed = (attention + torch.eye(attention.shape[0])) / 2
        flow = mixed @ flow
    patches = flow[0, 1:].numpy()
    side = round(patches.size**0.5)
    return np.asarray(patches.reshape(side, side), dtype=np.float32)


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """From 0 to 1; all 0 where nothing differs."""
    spread = float(values.max() - values.min())
    return (values - values.min()) / spread if spread else np.zeros_like(values)
