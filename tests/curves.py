"""What TensorBoard shows of a run, by its own reader, and what metrics.jsonl says that it has to show."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

ALL = {"scalars": 0}

Curves = dict[str, list[tuple[int, float]]]
"""Name -> step and value, in the order of the files."""


def shown(output: Path) -> Curves:
    events = EventAccumulator(str(output / "tensorboard"), size_guidance=ALL).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def expected(output: Path) -> Curves:
    curves: Curves = defaultdict(list)
    for line in (output / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in ("step", "epoch"):
                curves[name].append((row["step"], pytest.approx(value, rel=1e-6)))  # they hold 32 bits
    return dict(curves)


def require_same_curves(output: Path) -> None:
    """Those of metrics.jsonl, no step twice; and how fast it went, of which a stopped run misses some steps."""
    curves = shown(output)
    speeds = curves.pop("images_per_second")
    assert curves == expected(output)
    steps = [step for step, _ in speeds]
    assert steps == sorted(set(steps))
    assert all(speed > 0 for _, speed in speeds)
