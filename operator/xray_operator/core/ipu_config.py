"""What spec.ipu.overrides may set: fields of optimum-graphcore's IPUConfig, in its own words, as texts that are parsed.

Source: optimum-graphcore 0.7.1, class IPUConfig. Called by core/spec.py and core/run_file.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

Proportion = Annotated[float, Field(ge=0, le=1)]
_SWITCH: Final[tuple[TypeAdapter[Any], str]] = (TypeAdapter(bool), "true or false")
_COUNT: Final[tuple[TypeAdapter[Any], str]] = (
    TypeAdapter(Annotated[int, Field(ge=1, le=1024)]),
    "a whole number from 1 to 1024",
)
_PROPORTION: Final[tuple[TypeAdapter[Any], str]] = (
    TypeAdapter(Proportion | Annotated[list[Proportion], Field(min_length=1)]),
    "a number from 0 to 1, or a list of them such as [0.2, 0.3]",
)
PER_IPU: Final = ("matmul_proportion", "inference_matmul_proportion")
"""Fields that may have a list, with an entry for each IPU of a replica."""
FIELDS: Final = {
    "auto_loss_scaling": _SWITCH,
    "enable_half_partials": _SWITCH,
    "explicit_ir_inference": _SWITCH,
    "inference_device_iterations": _COUNT,
    **dict.fromkeys(PER_IPU, _PROPORTION),
    "optimizer_state_offchip": _SWITCH,
    # with "sum" the loss that is told would be as many times too large as there are micro-batches
    "output_mode": (TypeAdapter(Literal["all", "final", "default"]), "all, final or default"),
    "recompute_checkpoint_every_layer": _SWITCH,
    "replicated_tensor_sharding": _SWITCH,
}
"""Name -> what it takes, for programs and for people."""
DERIVED: Final = {
    "device_iterations": "spec.training.globalBatchSize",
    "executable_cache_dir": "spec.dataset.cache",
    "gradient_accumulation_steps": "spec.training.globalBatchSize",
    "inference_ipus_per_replica": "spec.ipu.ipusPerReplica",
    "inference_layers_per_ipu": "spec.ipu.layersPerIpu",
    "inference_replication_factor": "spec.ipu.ipusPerReplica",
    "ipus_per_replica": "spec.ipu.ipusPerReplica",
    "layers_per_ipu": "spec.ipu.layersPerIpu",
    "replication_factor": "spec.ipu.ipusPerReplica",
    "seed": "spec.training.seed",
}
"""Name of what the operator derives -> the field to use instead."""

Value = bool | int | float | str | list[float]


def parse_overrides(texts: Mapping[str, str]) -> dict[str, Value]:
    """The values by name. Raises: ValueError with a sentence on each that is wrong."""
    parsed, wrong = {}, []
    for name, text in texts.items():
        try:
            parsed[name] = _parse(name, text)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return parsed


def _parse(name: str, text: str) -> Value:
    if name in DERIVED:
        raise ValueError(f"{name} is derived by the operator: use {DERIVED[name]}")
    if name not in FIELDS:
        shown = name[:64]  # keys have no bound, and similarity takes long on a megabyte
        near = get_close_matches(shown, FIELDS, n=1, cutoff=0)[0]
        raise ValueError(f"{shown} is no field of IPUConfig that a Vision Transformer uses; nearest is {near}")
    adapter, words = FIELDS[name]
    try:
        value: Value = adapter.validate_python(_value(text), strict=True)
    except ValidationError as error:
        raise ValueError(f'{name}: "{text}" is not {words}') from error
    return value


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
