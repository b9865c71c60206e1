"""Our IPU backend on the unmodified optimum-graphcore and the stand-in for PopTorch."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Optional, Tuple

import numpy as np
import pytest
import torch
from poptorch import _hardware
from tiny import FINDINGS, IMAGE_SIZE, IMAGES, STORED_SIZE, VIT, open_parts, write_cache
from transformers import ViTForImageClassification

from xray_trainer.backends.callbacks import MetricsFile
from xray_trainer.backends.common import Outcome
from xray_trainer.backends.ipu import Layout, _Shuffled, lay_out, run
from xray_trainer.checkpoints import Checkpoints
from xray_trainer.config import Checkpoint, RunFile, parse_run_file
from xray_trainer.errors import (
    AcceleratorError,
    ConfigurationError,
    DivergedError,
    OutOfMemoryError,
    StoppedError,
    TrainerError,
)
from xray_trainer.interruption import Interruption, StopSignal
from xray_trainer.metrics import auroc, macro
from xray_trainer.model import normalise
from xray_trainer.prepare.cache import Manifest
from xray_trainer.progress import Progress

EXAMPLE = Path(__file__).parents[1] / "contract" / "examples" / "run.json"
EPOCHS, GLOBAL_BATCH = 6, 16
PER_EPOCH = IMAGES["train"] // GLOBAL_BATCH
STEPS = EPOCHS * PER_EPOCH
HALF = 2e-2
"""How far outputs of half precision may lie from those of the same weights in 32 bits."""

Prepared = Tuple[Path, Manifest]


class StopAt(StopSignal):
    """SIGTERM, once a step of a phase is done."""

    def __init__(self, progress: Progress, step: int, phase: str) -> None:
        super().__init__()
        self._progress, self._step, self._phase = progress, step, phase

    @property
    def requested(self) -> bool:
        state = self._progress.state
        return state.phases[-1].name == self._phase and state.step >= self._step

    @requested.setter
    def requested(self, value: bool) -> None:
        """It is asked for by the step."""


class Ran(NamedTuple):
    outcome: Outcome
    progress: Progress
    metrics: MetricsFile


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Sums of several threads differ in their last digits from those of one."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(autouse=True)
def four_ipus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POPTORCH_EMULATED_IPUS", "POPTORCH_EMULATED_FAILURE", "POPTORCH_IPU_MODEL"):
        monkeypatch.delenv(name, raising=False)
    _hardware._held.clear()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return write_cache(tmp_path_factory.mktemp("cache"))


def make_run_file(folder: Path, count: int = 4, **training: Any) -> RunFile:
    document: Dict[str, Any] = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    document["model"] = {"config": VIT}
    document["accelerator"]["count"] = count
    document["dataset"].update(findings=FINDINGS, image_size=IMAGE_SIZE, stored_size=STORED_SIZE)
    settings = {"global_batch_size": GLOBAL_BATCH, "micro_batch_size": 2, "gradient_accumulation_steps": 8}
    document["training"].update(settings, epochs=EPOCHS, learning_rate=3e-3, seed=1, **training)
    document["checkpoint"] = {"every_steps": 4, "keep": 2}
    document["output_dir"] = str(folder)
    return parse_run_file(document)


def train(run_file: RunFile, prepared: Prepared, stop_at: Optional[int] = None, phase: str = "Training") -> Ran:
    output, progress = run_file.output_dir, Progress("Training")
    output.mkdir(parents=True, exist_ok=True)
    metrics = MetricsFile(output / "metrics.jsonl")
    checkpoints = Checkpoints(output / "checkpoints", run_file.checkpoint.keep, "sha256:0", {})
    signal = StopSignal() if stop_at is None else StopAt(progress, stop_at, phase)
    interruption = Interruption(progress, None, signal)
    return Ran(run(run_file, *prepared, progress, metrics, checkpoints, interruption), progress, metrics)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prepared: Prepared) -> Ran:
    _hardware._held.clear()
    return train(make_run_file(tmp_path_factory.mktemp("ran")), prepared)


def test_it_learns_and_predicts_each_held_out_image_once(ran: Ran, prepared: Prepared) -> None:
    outcome = ran.outcome
    assert (outcome.steps, outcome.resumed_from_step, outcome.device) == (STEPS, None, "emulated IPU")
    assert outcome.test_logits.shape == (IMAGES["test"], len(FINDINGS))
    assert np.array_equal(outcome.test_labels, open_parts(*prepared)["test"].labels)
    assert macro(auroc(outcome.test_logits, outcome.test_labels)) > 0.9


def test_the_model_computes_in_32_bits_what_the_device_computed(ran: Ran, prepared: Prepared, tmp_path: Path) -> None:
    ran.outcome.model.save_pretrained(str(tmp_path), safe_serialization=True)
    model = ViTForImageClassification.from_pretrained(str(tmp_path), use_safetensors=True).eval()
    assert model.dtype == torch.float32
    pixels = open_parts(*prepared)["test"].__getitems__(list(range(IMAGES["test"])))["pixel_values"]
    with torch.no_grad():
        logits = model(pixel_values=normalise(pixels)).logits.numpy()
    np.testing.assert_allclose(ran.outcome.test_logits, logits, atol=HALF, rtol=HALF)


def test_compiling_is_a_phase_of_its_own(ran: Ran) -> None:
    names = [phase.name for phase in ran.progress.finish()]
    assert names == ["Training", "Compiling", "Training", "Compiling", "Training", "Evaluating"]


def test_losses_and_validation_are_told(ran: Ran) -> None:
    losses = [row["loss"] for row in ran.metrics.rows if "loss" in row]
    validated = [row for row in ran.metrics.rows if "validation_loss" in row]
    assert len(losses) == STEPS
    assert np.mean(losses[-PER_EPOCH:]) < 0.7 * np.mean(losses[:PER_EPOCH])
    assert [row["step"] for row in validated] == [PER_EPOCH * (epoch + 1) for epoch in range(EPOCHS)]
    assert validated[-1]["validation_auroc_macro"] > 0.9
    assert validated[-1]["validation_loss"] < validated[0]["validation_loss"]


def test_executables_lie_in_the_output_folder(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(make_run_file(tmp_path), prepared, stop_at=PER_EPOCH + 1)
    assert len(list((tmp_path / "executables").glob("*.popef"))) == 2


@pytest.mark.parametrize("stop_at", [3, PER_EPOCH, PER_EPOCH + 3, STEPS])
def test_a_run_that_was_stopped_ends_with_the_weights_of_one_that_was_not(
    stop_at: int, ran: Ran, prepared: Prepared, tmp_path: Path
) -> None:
    run_file = make_run_file(tmp_path)
    with pytest.raises(StoppedError, match=f"after step {stop_at} of {STEPS}, of which a checkpoint is saved"):
        train(run_file, prepared, stop_at=stop_at)
    _hardware._held.clear()  # the process is another one
    resumed = train(run_file, prepared)
    assert resumed.outcome.resumed_from_step == stop_at
    for name, weight in ran.outcome.model.state_dict().items():
        assert torch.equal(resumed.outcome.model.state_dict()[name], weight), name
    assert [row["step"] for row in resumed.metrics.rows] == [row["step"] for row in ran.metrics.rows]
    assert np.array_equal(resumed.outcome.test_logits, ran.outcome.test_logits)


def test_a_run_that_was_stopped_in_evaluation_needs_no_step_more(ran: Ran, prepared: Prepared, tmp_path: Path) -> None:
    run_file = make_run_file(tmp_path).model_copy(update={"checkpoint": Checkpoint(every_steps=1000, keep=1)})
    with pytest.raises(StoppedError, match=f"after step {STEPS} of {STEPS}"):
        train(run_file, prepared, stop_at=0, phase="Evaluating")
    _hardware._held.clear()  # the process is another one
    resumed = train(run_file, prepared)
    assert resumed.outcome.resumed_from_step == STEPS
    assert np.array_equal(resumed.outcome.test_logits, ran.outcome.test_logits)


def test_a_loss_that_is_no_number_ends_the_run(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(
        DivergedError, match=r"step \d: loss \w+; expected finite numbers, try a learning rate below 1e\+08"
    ):
        train(make_run_file(tmp_path).model_copy(update={"training": _with_rate(tmp_path, 1e8)}), prepared)


def _with_rate(folder: Path, rate: float) -> Any:
    return make_run_file(folder).training.model_copy(update={"learning_rate": rate, "warmup_ratio": 0.0})


@pytest.mark.parametrize(
    ("variable", "value", "error", "message"),
    [
        ("POPTORCH_EMULATED_IPUS", "2", AcceleratorError, r"Failed to acquire 4 IPU\(s\); the pod holds 4"),
        ("POPTORCH_EMULATED_FAILURE", "acquire", AcceleratorError, "Failed to acquire"),
        ("POPTORCH_EMULATED_FAILURE", "recoverable:PARTITION_RESET@3", AcceleratorError, "needs PARTITION_RESET"),
        ("POPTORCH_EMULATED_FAILURE", "unrecoverable@3", AcceleratorError, "taken out of service"),
        ("POPTORCH_EMULATED_FAILURE", "out_of_memory", OutOfMemoryError, "training.micro_batch_size: 2"),
        ("POPTORCH_IPU_MODEL", "1", AcceleratorError, "hardware version 0"),
    ],
)
def test_a_failure_of_the_hardware_is_told_with_its_exit_code(
    variable: str,
    value: str,
    error: type,
    message: str,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(error, match=message) as raised:
        train(make_run_file(tmp_path), prepared)
    assert isinstance(raised.value, TrainerError)


def test_an_epochs_order_follows_from_seed_and_epoch(prepared: Prepared) -> None:
    dataset = open_parts(*prepared)["train"]
    first, again = list(_Shuffled(dataset, 1)), list(_Shuffled(dataset, 1))
    dataset.epoch = 1
    assert first == again
    assert sorted(first) == list(range(IMAGES["train"]))
    assert len({tuple(first), tuple(_Shuffled(dataset, 1)), tuple(_Shuffled(dataset, 2))}) == 3


@pytest.mark.parametrize(
    ("count", "accumulation", "layout"),
    [
        (1, 8, Layout(1, 1, 8)),
        (2, 8, Layout(2, 1, 8)),
        (4, 7, Layout(4, 1, 7)),
        (4, 128, Layout(4, 1, 128)),
        (16, 128, Layout(4, 4, 32)),
        (64, 128, Layout(4, 16, 8)),
    ],
)
def test_the_global_batch_is_shared_out_among_the_ipus(
    count: int, accumulation: int, layout: Layout, tmp_path: Path
) -> None:
    assert lay_out(_accumulating(tmp_path, count, accumulation), layers=12) == layout
    assert layout.ipus == count
    assert layout.replication_factor * layout.gradient_accumulation_steps == accumulation


@pytest.mark.parametrize(
    ("count", "accumulation", "layers", "told"),
    [
        (0, 8, 12, "accelerator.count: 0 IPUs are held; expected at least 1"),
        (6, 14, 12, "accelerator.count: 6 IPUs; expected a multiple of 4"),
        (4, 8, 3, "3 layers on 4 IPUs"),
        (4, 6, 12, "gradient_accumulation_steps: 6; expected a multiple of 1 of at least 7"),
        (8, 15, 12, "gradient_accumulation_steps: 15; expected a multiple of 2 of at least 14"),
        (16, 24, 12, "gradient_accumulation_steps: 24; expected a multiple of 4 of at least 28"),
    ],
)
def test_a_layout_that_does_not_work_is_refused(
    count: int, accumulation: int, layers: int, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        lay_out(_accumulating(tmp_path, count, accumulation), layers)


def _accumulating(folder: Path, count: int, accumulation: int) -> RunFile:
    batches = {"gradient_accumulation_steps": accumulation, "micro_batch_size": 1, "global_batch_size": accumulation}
    run_file = make_run_file(folder, count)
    return run_file.model_copy(update={"training": run_file.training.model_copy(update=batches)})


def test_a_global_batch_larger_than_the_training_part_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    run_file = _accumulating(tmp_path, 4, IMAGES["train"] + 1)
    with pytest.raises(ConfigurationError, match=f"expected at most the {IMAGES['train']} training images"):
        train(run_file, prepared)
