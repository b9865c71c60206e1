"""Prints docs/sizing.md with its table as the operator sizes runs. Run by `make generate`; `make lint` compares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dev.reference import table
from xray_operator.core.backends.base import PARTITION_SIZES
from xray_operator.core.partition import Sizing, model_layers, size_on_ipus
from xray_operator.core.spec import Ipu, Model, Training

PAGE = Path(__file__).resolve().parents[1] / "docs" / "sizing.md"
BEGIN, END = "<!-- made by dev/sizing.py -->\n", "<!-- end of what is made -->\n"
MODELS = {
    "tiny": "WinKawaks/vit-tiny-patch16-224",
    "small": "WinKawaks/vit-small-patch16-224",
    "base": "google/vit-base-patch16-224-in21k",
}
IMAGES = 106_514
"""To train on, in the public tutorial's split."""
HEAD = (
    *("ViT", "IPUs", "replicas of IPUs", "layers on each IPU", "smallest batch"),
    *("Keep: accumulation", "batch", "updates per epoch"),
    *("Linear: accumulation", "batch", "updates per epoch", "learning rate", "SquareRoot: learning rate"),
)


def main() -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    print(before + BEGIN + table(HEAD, list(rows())) + END + rest.split(END)[1], end="")


def rows() -> Iterator[tuple[str, ...]]:
    """One for each partition, and for each kind of model that is laid out otherwise than the others."""
    for ipus in PARTITION_SIZES:
        alike: dict[tuple[str, ...], list[str]] = {}
        for name, hub_name in MODELS.items():
            alike.setdefault(row(hub_name, ipus), []).append(name)
        yield from ((", ".join(names), *cells) for cells, names in alike.items())


def row(hub_name: str, ipus: int) -> tuple[str, ...]:
    keep, linear, square_root = (size(hub_name, ipus, rule) for rule in ("Keep", "Linear", "SquareRoot"))
    stages = keep.ipus_per_replica or 0
    return (
        str(ipus),
        f"{keep.replication_factor} of {stages}",
        ", ".join(map(str, keep.layers_per_ipu or ())),
        str(keep.replication_factor * (2 * stages - 1)),
        *shared_out(keep),
        *shared_out(linear),
        f"{float(linear.learning_rate):.3g}",
        f"{float(square_root.learning_rate):.3g}",
    )


def shared_out(sizing: Sizing) -> tuple[str, ...]:
    per_epoch, _ = sizing.steps(IMAGES, epochs=1)
    return str(sizing.gradient_accumulation_steps), str(sizing.global_batch_size), str(per_epoch)


def size(hub_name: str, ipus: int, rule: Literal["Keep", "Linear", "SquareRoot"]) -> Sizing:
    """Of a job that says nothing else."""
    sizing = size_on_ipus(Training(), Ipu(scaling=rule), model_layers(Model(name=hub_name)), ipus)
    assert isinstance(sizing, Sizing), sizing
    return sizing


if __name__ == "__main__":
    main()
