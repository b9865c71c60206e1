"""Marks in a model that say on which IPU its parts run."""

from __future__ import annotations

from typing import Any, List, Optional

import torch

from poptorch._errors import Error

_HANDLE = "_poptorch_block"

_visited: Optional[List[int]] = None
"""The IPUs of the blocks that are entered, while somebody watches."""


def BeginBlock(
    layer_to_call: torch.nn.Module, user_id: Optional[str] = None, ipu_id: Optional[int] = None
) -> torch.nn.Module:
    """From this layer on the model runs on IPU `ipu_id`.

    Returns: the layer. Raises: Error if it is no module or begins a block already.
    """
    if not isinstance(layer_to_call, torch.nn.Module):
        raise Error(f"module is not an instance of torch.nn.Module or function: {type(layer_to_call)}")
    if _HANDLE in layer_to_call.__dict__:
        raise Error("BeginBlock has already been applied to this module.")

    def enter(module: torch.nn.Module, inputs: Any) -> None:
        if _visited is not None:
            _visited.append(ipu_id if ipu_id is not None else 0)

    layer_to_call.__dict__[_HANDLE] = layer_to_call.register_forward_pre_hook(enter)
    return layer_to_call


def removeBlocks(module: torch.nn.Module) -> None:
    """Take the marks of a module and all that it contains away."""
    for part in module.modules():
        handle = part.__dict__.pop(_HANDLE, None)
        if handle is not None:
            handle.remove()


def recomputationCheckpoint(*tensors: torch.Tensor) -> Any:
    """Keep these in memory rather than compute them again; values are the same either way."""
    return tensors[0] if len(tensors) == 1 else tensors


class StagesWatch:
    """With it around a forward pass: `stages`, the IPUs in the order of the pass, one for each change."""

    def __init__(self) -> None:
        self.stages: List[int] = []

    def __enter__(self) -> StagesWatch:
        global _visited  # hooks know nothing else of who watches
        _visited = []
        return self

    def __exit__(self, *error: object) -> None:
        global _visited
        visited, _visited = _visited or [0], None
        self.stages = [ipu for index, ipu in enumerate(visited) if index == 0 or visited[index - 1] != ipu]
