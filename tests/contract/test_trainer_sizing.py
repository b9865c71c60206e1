"""What status tells of steps and warm-up is what the trainer does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from xray_operator.core.partition import size_off_ipus
from xray_operator.core.spec import Training
from xray_trainer.backends.torch import steps_per_epoch


@given(st.integers(1, 16384), st.integers(0, 200_000), st.integers(1, 1000))
def test_the_torch_backend_makes_as_many_steps_as_status_tells(batch: int, images: int, epochs: int) -> None:
    sizing = size_off_ipus(Training(global_batch_size=batch))
    per_epoch = steps_per_epoch(images, sizing.micro_batch_size, sizing.gradient_accumulation_steps)
    assert sizing.steps(images, epochs) == (per_epoch, per_epoch * epochs)
