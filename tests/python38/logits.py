"""What a saved model computes of given pixels, by the transformers that is here.

    python logits.py MODEL PIXELS LOGITS    # with the stand-in for PopTorch

PIXELS: .npy of (n, 3, H, W) float32; LOGITS: .npz that is written, with (n, findings) float32 in 32 bits as `host`, and as the
emulated IPUs compute it in half precision, by optimum-graphcore's own pipeline, as `device`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import ViTForImageClassification


def compute(folder: str | Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """In 32 bits."""
    model = ViTForImageClassification.from_pretrained(folder, use_safetensors=True).eval()
    with torch.no_grad():
        return model(pixel_values=torch.from_numpy(pixels)).logits.numpy()


def compute_on_device(folder: str | Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """On one IPU for each layer."""
    import poptorch
    from optimum.graphcore import IPUConfig
    from optimum.graphcore.modeling_utils import to_pipelined

    model = ViTForImageClassification.from_pretrained(folder, use_safetensors=True)
    config = IPUConfig(layers_per_ipu=[1] * model.config.num_hidden_layers).eval()
    pipelined = to_pipelined(model, config).parallelize().half().eval()
    executor = poptorch.inferenceModel(pipelined, config.to_options(for_inference=True))
    return executor(pixel_values=torch.from_numpy(pixels).half()).logits.float().numpy()


if __name__ == "__main__":
    given = np.load(sys.argv[2])
    np.savez(sys.argv[3], host=compute(sys.argv[1], given), device=compute_on_device(sys.argv[1], given))
