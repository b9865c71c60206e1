"""A training that was interrupted ends as one that never was: same weights, same curves, nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import ViTConfig, ViTForImageClassification

from tests.contract.test_trainer_run import run
from tests.curves import require_same_curves
from tests.unit.trainer.build import run_document, write_data_set
from xray_trainer.config import parse_run_file
from xray_trainer.errors import DivergedError, LimitReachedError, StoppedError
from xray_trainer.interruption import StopSignal
from xray_trainer.progress import Progress
from xray_trainer.train import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment_as_before", "one_core")]

EPOCHS, STEPS = 3, 15


def resumable(folder: Path, model: Path, **sections: dict[str, Any]) -> dict[str, Any]:
    """A run file of three epochs of five steps, the last on fewer images, with everything random that can be."""
    document = run_document(folder, training={"epochs": EPOCHS}, **sections)
    document["model"] = {"path": str(model), "hub_name": None, "revision": None, "config": None}
    return document


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT with dropout: it draws random numbers in each step."""
    folder = tmp_path_factory.mktemp("model")
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        patch_size=16,
        image_size=32,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.2,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def prepared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prepared data, for a run file whose output lies elsewhere."""
    folder = tmp_path_factory.mktemp("prepared")
    write_data_set(folder / "nih", films=[3] * 16)
    code, result = run(folder, "prepare", resumable(folder, model))
    assert code == 0
    assert result["train_images"] in (33, 34, 35)  # the last step of an epoch is on one small micro-batch
    return folder


class Attempts:
    """Attempts at one run, all on the same output folder."""

    def __init__(self, folder: Path, prepared: Path, document: dict[str, Any]) -> None:
        self.output = folder / "out"
        self.output.mkdir()
        shutil.copy(prepared / "out" / "prepared.json", self.output)
        self.document = {**document, "output_dir": str(self.output)}

    def train(self, signal: StopSignal | None = None, progress: Progress | None = None) -> dict[str, Any]:
        return train(parse_run_file(self.document), progress or Progress("Training"), signal)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def attempts(tmp_path: Path, prepared: Path, model: Path) -> Attempts:
    return Attempts(tmp_path, prepared, resumable(prepared, model))


@pytest.fixture(scope="module")
def uninterrupted(prepared: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Attempts:
    attempts = Attempts(tmp_path_factory.mktemp("uninterrupted"), prepared, resumable(prepared, model))
    result = attempts.train()
    assert (result["steps"], result["resumed_from_step"], result["adopted"]) == (STEPS, None, False)
    return attempts


def result_of(attempts: Attempts) -> dict[str, Any]:
    """What the result says of the model; not when and in how many attempts."""
    report = json.loads((attempts.output / "result.json").read_text())
    return {key: report[key] for key in ("model_digest", "auroc_macro", "loss", "loss_floor", "findings", "steps")}


class StopAtLook(StopSignal):
    """SIGTERM that comes right before the n-th time somebody looks for it: at a step, in validation, in evaluation."""

    def __init__(self, look: int) -> None:
        self._looks_left = look
        super().__init__()

    @property
    def requested(self) -> bool:
        if self._deferred:
            self._looks_left -= 1
        return self._looks_left < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        assert not value


def test_a_training_that_is_stopped_again_and_again_ends_as_one_that_never_was(
    attempts: Attempts, uninterrupted: Attempts
) -> None:
    stopped_at: list[int] = []
    for attempt in range(30):
        try:
            attempts.train(StopAtLook(2 + attempt % 5))
            break
        except StoppedError as error:
            words = str(error).split()
            stopped_at.append(int(words[words.index("step") + 1]))
    assert stopped_at == sorted(stopped_at)
    assert {5, 15} < set(stopped_at)  # in validation and evaluation too
    assert len(set(stopped_at)) >= 5
    assert result_of(attempts) == result_of(uninterrupted)
    assert attempts.rows() == uninterrupted.rows()
    require_same_curves(attempts.output)
    assert len(list((attempts.output / "tensorboard").iterdir())) == len(stopped_at) + 1
    assert json.loads((attempts.output / "result.json").read_text())["resumed_from_step"] == stopped_at[-1]


class Crash(Exception):
    """In place of SIGKILL, which this process would not survive; test_trainer_process.py sends a real one."""


class CrashAt(Progress):
    def __init__(self, step: int) -> None:
        super().__init__("Training")
        self._crash_at = step

    def advance(self, step: int, total_steps: int, fraction: float | None = None) -> None:
        super().advance(step, total_steps, fraction)
        if step == self._crash_at:
            raise Crash


@pytest.mark.parametrize("damaged", [False, True])
def test_what_was_done_after_the_last_whole_checkpoint_is_done_anew(
    attempts: Attempts, uninterrupted: Attempts, damaged: bool
) -> None:
    attempts.document["checkpoint"] = {"every_steps": 3, "keep": 2}
    with pytest.raises(Crash):
        attempts.train(progress=CrashAt(11))
    kept = sorted(path.name for path in (attempts.output / "checkpoints").iterdir())
    assert kept == ["step-00000006", "step-00000009"]
    assert len([row for row in attempts.rows() if "loss" in row]) == 10
    if damaged:
        (attempts.output / "checkpoints" / "step-00000009" / "optimizer.pt").write_bytes(b"PK")
    assert attempts.train()["resumed_from_step"] == (6 if damaged else 9)
    assert result_of(attempts) == result_of(uninterrupted)
    assert attempts.rows() == uninterrupted.rows()
    require_same_curves(attempts.output)


def test_a_finished_run_leaves_no_checkpoint_and_no_pickle(uninterrupted: Attempts) -> None:
    assert not (uninterrupted.output / "checkpoints").exists()
    assert not [path for path in uninterrupted.output.rglob("*") if path.suffix in (".pt", ".pth", ".bin")]


def test_a_checkpoint_holds_what_transformers_needs_and_no_pickled_arguments(attempts: Attempts) -> None:
    with pytest.raises(StoppedError):
        attempts.train(StopAtLook(2))
    (checkpoint,) = (attempts.output / "checkpoints").iterdir()
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    assert set(manifest["files"]) == {
        "config.json",
        "model.safetensors",
        "optimizer.pt",
        "rng_state.pth",
        "scheduler.pt",
        "trainer_state.json",
    }
    assert manifest["versions"].keys() >= {"torch", "transformers"}


class Clock:
    """A second later at each look."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1
        return self._now


def test_the_limit_ends_a_run_that_nobody_watches_with_a_checkpoint(
    attempts: Attempts, uninterrupted: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xray_trainer.interruption.SILENCE_SECONDS", 8)
    attempts.document["max_seconds"] = 10
    progress = Progress("Training", seconds=Clock())
    with pytest.raises(LimitReachedError, match=f"^max_seconds: 10 .* of {STEPS}, of which a checkpoint is saved$"):
        attempts.train(progress=progress)
    assert progress.state.checkpoint is not None
    attempts.document["max_seconds"] = None
    assert attempts.train()["resumed_from_step"] == progress.state.checkpoint["step"] < STEPS
    assert result_of(attempts) == result_of(uninterrupted)


@pytest.mark.parametrize(
    ("learning_rate", "expected"),
    [
        (1e30, "step 3: loss nan; "),  # the weights after step 2 are numbers, and useless
        (1e39, "step 2: weights that are no numbers; "),
    ],
)
def test_a_run_that_diverges_keeps_its_last_good_checkpoint_and_tells_its_step(
    attempts: Attempts, learning_rate: float, expected: str
) -> None:
    attempts.document["checkpoint"] = {"every_steps": 1, "keep": 2}
    attempts.document["training"].update(
        learning_rate=learning_rate, warmup_ratio=0.3
    )  # the first step changes nothing
    progress = Progress("Training")
    with pytest.raises(DivergedError, match=f"^{expected}.* the checkpoint of step 1 is kept$"):
        attempts.train(progress=progress)
    assert [path.name for path in (attempts.output / "checkpoints").iterdir()] == ["step-00000001"]
    assert progress.state.checkpoint is not None
    assert progress.state.checkpoint["step"] == 1
