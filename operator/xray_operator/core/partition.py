"""How a run's batches and its model are shared out over the accelerators that it holds.

A partition of IPUs holds as many replicas of the model as fit into it, each a pipeline over ipusPerReplica of them. One
weight update takes a global batch: micro-batch x replicas x gradient accumulation. Called by admission and plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Context, Decimal
from typing import Final

from xray_operator import names
from xray_operator.core.backends.base import PARTITION_SIZES
from xray_operator.core.ipu_config import PER_IPU, parse_overrides
from xray_operator.core.parts import Part
from xray_operator.core.spec import MOST_LAYERS, Ipu, Model, Problem, Training

LARGEST_DEFAULT_MICRO_BATCH: Final = 32
"""On processor cores and GPUs: fits ViT-base at 224 pixels into 16 GB of memory; more gains little."""
DEFAULT_IPUS_PER_REPLICA: Final = 4
"""Of the public tutorial: ViT-base with its optimizer lies on four IPUs."""
DEFAULT_IPU_MICRO_BATCH: Final = 1
"""Of the public tutorial: an IPU's memory is small, and accumulation makes up for it."""
MOST_IPUS_OF_ONE_HOST: Final = 16
"""Larger partitions usually have several hosts, and poprun to start a process on each; a run is one process."""
LARGEST_GLOBAL_BATCH: Final = 16384
LARGEST_MICRO_BATCH: Final = 1024
LAYERS: Final = {
    **dict.fromkeys(
        (
            "WinKawaks/vit-small-patch16-224",
            "WinKawaks/vit-tiny-patch16-224",
            "facebook/deit-base-patch16-224",
            "facebook/deit-base-patch16-384",
            "facebook/deit-small-patch16-224",
            "facebook/deit-tiny-patch16-224",
            "facebook/dino-vitb16",
            "facebook/dino-vitb8",
            "facebook/dino-vits16",
            "facebook/dino-vits8",
            "google/vit-base-patch16-224",
            "google/vit-base-patch16-224-in21k",
            "google/vit-base-patch16-384",
            "google/vit-base-patch32-224-in21k",
            "google/vit-base-patch32-384",
        ),
        12,
    ),
    **dict.fromkeys(
        (
            "google/vit-large-patch16-224",
            "google/vit-large-patch16-224-in21k",
            "google/vit-large-patch16-384",
            "google/vit-large-patch32-224-in21k",
            "google/vit-large-patch32-384",
        ),
        24,
    ),
    "google/vit-huge-patch14-224-in21k": 32,
}
"""Encoder layers of well-known models of the hub."""


class Sizing(Part):
    """The effective values of a run, fixed when it starts."""

    micro_batch_size: int
    replication_factor: int = 1
    gradient_accumulation_steps: int
    """Micro-batches of each replica per weight update."""
    learning_rate: Decimal
    ipus_per_replica: int | None = None
    """None where no IPU trains."""
    layers_per_ipu: tuple[int, ...] | None = None
    """None where the model's depth is not known: the trainer then spreads its layers."""

    @property
    def global_batch_size(self) -> int:
        return self.micro_batch_size * self.replication_factor * self.gradient_accumulation_steps

    @property
    def ipus(self) -> int:
        return (self.ipus_per_replica or 0) * self.replication_factor

    def steps(self, images: int, epochs: int) -> tuple[int, int]:
        """Weight updates of an epoch of so many training images, and of all epochs.

        On IPUs, images that fill no global batch are left out of an epoch; elsewhere the last update is on fewer.
        """
        if self.ipus_per_replica:
            per_epoch = images // self.global_batch_size
        else:
            per_epoch = math.ceil(math.ceil(images / self.micro_batch_size) / self.gradient_accumulation_steps)
        return per_epoch, per_epoch * epochs


def warmup_steps(ratio: Decimal, total_steps: int) -> int:
    """Weight updates in which the learning rate rises; rounded as the trainer does, which reads the ratio as a float."""
    return math.ceil(float(ratio) * total_steps)


def tell_beyond_one_host(ipus: int) -> str:
    """A warning of a partition of so many IPUs; empty if there is none."""
    if ipus <= MOST_IPUS_OF_ONE_HOST:
        return ""
    return (
        f"a run is one process on one host: whether it reaches all of the {ipus} IPUs was not tried, for partitions above "
        f"{MOST_IPUS_OF_ONE_HOST} usually have several hosts under poprun"
    )


def model_layers(model: Model) -> int | None:
    """Encoder layers of the model, where they are known before it is read."""
    if model.config:
        return model.config.layers
    return LAYERS.get(model.name or "") if model.is_of_hub else None


def size_off_ipus(training: Training) -> Sizing:
    """On processor cores or one GPU."""
    batch = training.global_batch_size
    micro = training.micro_batch_size or largest_divisor(batch, LARGEST_DEFAULT_MICRO_BATCH)
    return Sizing(
        micro_batch_size=micro, gradient_accumulation_steps=batch // micro, learning_rate=training.learning_rate
    )


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of number that is at most limit (both at least 1)."""
    return next(d for d in range(min(number, limit), 0, -1) if number % d == 0)


def size_on_ipus(training: Training, ipu: Ipu, layers: int | None, accelerators: int) -> Sizing | list[Problem]:
    """On a partition of so many IPUs, a power of two.

    Args:
        layers: encoder layers of the model; None if not known.

    Returns: the sizing; or every problem, each with the nearest value that is possible once all of them are taken.
    """
    stages, problems = _stages(ipu, layers, accelerators)
    placed, misplaced = _place(ipu, layers, stages)
    replicas = accelerators // stages
    sharing = replicas if ipu.scaling == "Keep" else 1
    micro, batch, unshared = _share(training, sharing, stages)
    problems += [*misplaced, *_wrong_lists(ipu, stages), *unshared]
    if problems:
        return problems
    return Sizing(
        micro_batch_size=micro,
        replication_factor=replicas,
        gradient_accumulation_steps=batch // (micro * sharing),
        learning_rate=_learning_rate(training.learning_rate, ipu, replicas),
        ipus_per_replica=stages,
        layers_per_ipu=placed,
    )


def too_few_images(sizing: Sizing, training: Training, images: int) -> Problem | None:
    """Where so many training images don't fill a global batch on IPUs: the nearest that they would fill."""
    if sizing.ipus_per_replica is None or images >= sizing.global_batch_size:
        return None
    scaled = sizing.global_batch_size // training.global_batch_size
    unit = sizing.micro_batch_size * sizing.replication_factor // scaled
    least = unit * (2 * sizing.ipus_per_replica - 1)
    path, batch = "spec.training.globalBatchSize", training.global_batch_size
    why = f"takes {sizing.global_batch_size} images per update, and there are {images} to train on"
    if (nearest := images // scaled // unit * unit) >= least:
        return _problem(path, batch, why, nearest)
    return Problem(
        names.SIZING_IMPOSSIBLE, path, batch, f"{why}; this layout's pipelines take {least * scaled} at least"
    )


def spread(layers: int, ipus: int) -> tuple[int, ...]:
    """As evenly as can be; the last have one more, for the first keep the activations of more micro-batches."""
    each, more = divmod(layers, ipus)
    return (each,) * (ipus - more) + (each + 1,) * more


def _stages(ipu: Ipu, layers: int | None, accelerators: int) -> tuple[int, list[Problem]]:
    """IPUs of a replica. What only layersPerIpu asks for is _place's to refuse."""
    most = min(accelerators, layers or accelerators)
    possible = [count for count in PARTITION_SIZES if count <= most]
    if ipu.ipus_per_replica is None:
        wanted = len(ipu.layers_per_ipu or ()) or DEFAULT_IPUS_PER_REPLICA
        return max((count for count in possible if count <= wanted), default=1), []
    if ipu.ipus_per_replica in possible:
        return ipu.ipus_per_replica, []
    nearest = possible[-1]
    why = (
        f"does not divide the flavor's {names.counted(accelerators, 'IPU')}"
        if ipu.ipus_per_replica > accelerators
        else ""
    )
    why = why or f"is more than the {layers} layers of the model"
    return nearest, [_problem("spec.ipu.ipusPerReplica", ipu.ipus_per_replica, why, nearest)]


def _place(ipu: Ipu, layers: int | None, stages: int) -> tuple[tuple[int, ...] | None, list[Problem]]:
    """Layers of each IPU of a replica."""
    wanted = ipu.layers_per_ipu
    if wanted is None:
        return (spread(layers, stages) if layers else None), []
    if len(wanted) == stages and sum(wanted) == (layers or sum(wanted)):
        return wanted, []
    total = layers or min(max(sum(wanted), stages), stages * MOST_LAYERS)
    nearest = _moved(wanted, total) if len(wanted) == stages else spread(total, stages)
    expected = f"one for each IPU of a replica{f', that add up to the {layers} layers of the model' if layers else ''}"
    why = f"has {len(wanted)} entries that add up to {sum(wanted)}; expected {stages}, {expected}"
    return nearest, [_problem("spec.ipu.layersPerIpu", list(wanted), why, list(nearest))]


def _moved(counts: Sequence[int], total: int) -> tuple[int, ...]:
    """The counts, each at least 1, with as few changes as make them add up to the total."""
    moved = list(counts)
    while sum(moved) != total:
        if sum(moved) < total:
            moved[moved.index(min(moved))] += 1
        else:
            moved[moved.index(max(moved))] -= 1
    return tuple(moved)


def _share(training: Training, sharing: int, stages: int) -> tuple[int, int, list[Problem]]:
    """Micro-batch, and the batch that so many replicas share: as asked for, or what is nearest, with the problems."""
    batch, micro = training.global_batch_size, training.micro_batch_size or DEFAULT_IPU_MICRO_BATCH
    fill = 2 * stages - 1
    if _fits(batch, micro * sharing, fill):
        return micro, batch, []
    ipus = names.counted(stages, "IPU")
    whose = f"{sharing} replicas of {ipus} share it" if sharing > 1 else f"a replica of {ipus} takes it"
    problems = []
    if training.micro_batch_size:
        why = f"is impossible with globalBatchSize {batch}: {whose}, and fill their pipelines with {fill} micro-batches"
        fitting = [size for size in range(1, LARGEST_MICRO_BATCH + 1) if _fits(batch, size * sharing, fill)]
        if fitting:
            micro = min(fitting, key=lambda size: abs(size - micro))
            return micro, batch, [_problem("spec.training.microBatchSize", training.micro_batch_size, why, micro)]
        micro = min(micro, LARGEST_GLOBAL_BATCH // (sharing * fill))
        if micro < training.micro_batch_size:
            problems = [_problem("spec.training.microBatchSize", training.micro_batch_size, why, micro)]
    unit = micro * sharing
    why = f"is no multiple of {unit} of at least {unit * fill}: {whose}, in micro-batches of {micro}, at least {fill} each"
    nearest = _near(batch, unit, unit * fill)
    problems.append(_problem("spec.training.globalBatchSize", batch, why, *nearest))
    return micro, nearest[0], problems


def _fits(batch: int, unit: int, fill: int) -> bool:
    """Whether the pipelines are filled: PopTorch refuses an accumulation below 2 x stages - 1."""
    return batch % unit == 0 and batch // unit >= fill


def _near(batch: int, unit: int, least: int) -> list[int]:
    """The possible batches next to this one."""
    below = batch // unit * unit
    return [size for size in (below, max(below + unit, least)) if least <= size <= LARGEST_GLOBAL_BATCH]


def _wrong_lists(ipu: Ipu, stages: int) -> list[Problem]:
    """Overrides with an entry for each IPU of a replica."""
    overrides = parse_overrides(ipu.overrides)
    lists = {name: value for name in PER_IPU if isinstance(value := overrides.get(name), list)}
    why = f"has not {stages} entries, one for each IPU of a replica"
    return [
        _problem(f"spec.ipu.overrides.{name}", value, why, value[:stages] if len(value) > stages else max(value))
        for name, value in lists.items()
        if len(value) != stages
    ]


def _learning_rate(rate: Decimal, ipu: Ipu, replicas: int) -> Decimal:
    """By the rule that the job picks. Source of Linear: Goyal et al. 2017, arXiv:1706.02677."""
    if ipu.scaling == "Linear":
        return rate * replicas
    if ipu.scaling == "SquareRoot":
        return Context(prec=9).create_decimal(rate * Decimal(replicas).sqrt())
    return rate


def _problem(path: str, value: object, why: str, *nearest: object) -> Problem:
    verb = "is" if len(nearest) == 1 else "are"
    return Problem(names.SIZING_IMPOSSIBLE, path, value, f"{why}; nearest {verb} {' and '.join(map(str, nearest))}")
