"""A run on IPUs as its containers run it: this side prepares, Python 3.8 trains with the stand-in for PopTorch.

What it saves, this side loads; what this side saves, it loads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoImageProcessor

from tests.contract.test_trainer_config import example, shape_of
from tests.contract.test_trainer_process import GRACE_SECONDS, Container, beside, last_step
from tests.contract.test_trainer_run import run
from tests.curves import require_same_curves
from tests.python38.logits import compute
from tests.unit.trainer.build import WITH_STANDIN, ipu_run_document, run_document, write_data_set
from xray_trainer.findings import NIH_FINDINGS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment_as_before", "one_core")]

LOGITS = Path(__file__).parents[1] / "python38" / "logits.py"
MODEL_FILES = ("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "thresholds.json")
STEPS = 12
IN_32_BITS, IN_HALF = 1e-3, 2e-2
"""How far logits of the same weights may lie apart."""

Finished = tuple[Path, dict[str, Any]]
"""Output folder and result of a run that nobody stopped."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run file of an epoch for each step, with prepared data."""
    folder = tmp_path_factory.mktemp("ipu")
    write_data_set(folder / "nih")
    document = ipu_run_document(folder, training={"epochs": STEPS}, checkpoint={"every_steps": 5})
    assert run(folder, "prepare", document)[0] == 0
    return document


class IpuSide:
    """Starts what runs in the IPU's image."""

    def __init__(self, python: Path) -> None:
        self.python = python

    def train(self, folder: Path, document: dict[str, Any], **environment: str) -> Container:
        return Container(folder, document, python=self.python, **WITH_STANDIN, **environment)


@pytest.fixture(scope="module")
def ipu_side(python38: Path) -> IpuSide:
    return IpuSide(python38)


@pytest.fixture(scope="module")
def finished(document: dict[str, Any], ipu_side: IpuSide, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    code, result = ipu_side.train(folder, beside(document, folder / "out")).end()
    assert code == 0, result
    return folder / "out", result


def test_training_answers_in_the_agreed_shape(finished: Finished) -> None:
    _, result = finished
    agreed = example("result.json")
    lists = {"findings": [], "auroc_interval": []}
    assert shape_of({**result, **lists}) == shape_of({**agreed, **lists})
    assert result["auroc_interval"] is None, "four held-out images are of too few patients"
    assert (result["backend"], result["device"], result["steps"]) == ("ipu", "emulated IPU", STEPS)
    assert [finding["name"] for finding in result["findings"]] == list(NIH_FINDINGS)
    phases = [phase["name"] for phase in result["phases"]]
    assert set(phases) == {"Compiling", "Training", "Evaluating"}
    assert phases.count("Compiling") == 2, "training and evaluation"


def test_log_and_report_say_that_it_is_emulated(finished: Finished) -> None:
    output, _ = finished
    assert "ipu backend on 4 EMULATED IPUs" in (output / "train.log").read_text()
    assert "No IPU has computed this" in (output / "report.html").read_text()
    report = json.loads((output / "result.json").read_text())
    assert report["device"] == "emulated IPU"
    assert report["versions"]["poptorch"].endswith("+emulated")
    assert report["versions"].keys() >= {"optimum-graphcore", "transformers", "torch"}
    assert report["versions"]["python"].startswith("3.8.")
    assert report["run_file"]["ipu"]["overrides"] == example("run-ipu.json")["ipu"]["overrides"]


def test_the_output_folder_holds_what_the_other_backend_leaves(finished: Finished) -> None:
    output, _ = finished
    files = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    written = {"evaluation.json", "metrics.jsonl", "predictions.csv", "prepared.json", "result.json", "train.log"}
    written |= {"report.html", "report.json"}
    written |= {f"{name}.png" for name in ("auroc", "labels", "learning_rate", "loss", "roc_reliability")}
    written.add("tensorboard/events.out.tfevents.0000000000")
    model = {f"model/{name}" for name in MODEL_FILES}
    assert files == written | model
    config = json.loads((output / "model" / "config.json").read_text())
    assert (config["architectures"], config["torch_dtype"]) == (["ViTForImageClassification"], "float32")
    AutoImageProcessor.from_pretrained(output / "model")  # type: ignore[no-untyped-call]  # transformers' own


def test_tensorboard_shows_the_curves_of_metrics_jsonl(finished: Finished) -> None:
    require_same_curves(finished[0])


def test_what_was_compiled_is_kept_below_the_folder_of_the_run_file(
    document: dict[str, Any],
    finished: Finished,  # noqa: ARG001 (that it ran)
) -> None:
    (folder,) = Path(document["ipu"]["executables_dir"]).iterdir()
    assert len(list(folder.glob("*.popef"))) == 2


def require_same_logits(model: Path, folder: Path, python38: Path) -> None:
    """Here and there in 32 bits, and on the device in half precision."""
    pixels = np.random.default_rng(1).uniform(-1, 1, (16, 3, 32, 32)).astype(np.float32)
    here, source, target = compute(model, pixels), folder / "pixels.npy", folder / "logits.npz"
    np.save(source, pixels)
    program = [python38, LOGITS, model, source, target]
    done = subprocess.run(program, env={**os.environ, **WITH_STANDIN}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there = np.load(target)
    np.testing.assert_allclose(there["host"], here, atol=IN_32_BITS, rtol=0)
    np.testing.assert_allclose(there["device"], here, atol=IN_HALF, rtol=0)
    assert np.ptp(here) > 10 * IN_HALF, "or any model would do"


def test_this_side_computes_what_a_model_of_the_ipus_computes(
    finished: Finished, python38: Path, tmp_path: Path
) -> None:
    require_same_logits(finished[0] / "model", tmp_path, python38)


def test_the_ipus_compute_what_a_model_of_this_side_computes_and_train_it_further(
    document: dict[str, Any], ipu_side: IpuSide, tmp_path: Path
) -> None:
    here = run_document(tmp_path, dataset=document["dataset"], training={"epochs": 8})
    here["model"] = document["model"]
    assert run(tmp_path, "prepare", here)[0] == run(tmp_path, "train", here)[0] == 0
    model = tmp_path / "out" / "model"
    require_same_logits(model, tmp_path, ipu_side.python)

    tuned = {**document, "model": {"path": str(model), "hub_name": None, "revision": None, "config": None}}
    tuned["output_dir"] = str(tmp_path / "tuned")
    assert run(tmp_path, "prepare", tuned)[0] == 0
    code, result = ipu_side.train(tmp_path, tuned).end()
    assert (code, result["steps"]) == (0, STEPS)


def test_a_run_that_is_stopped_is_continued_by_another_process_to_the_same_weights(
    document: dict[str, Any], finished: Finished, ipu_side: IpuSide, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    stopped = beside(document, output)
    first = ipu_side.train(tmp_path, stopped)
    first.signal_when(lambda: last_step(output) >= 3, signal.SIGTERM)
    code, message = first.end(GRACE_SECONDS)
    assert code == 143
    assert message.keys() == example("stopped-result.json").keys()
    assert not (output / "result.json").exists()

    code, result = ipu_side.train(tmp_path, stopped).end()
    assert code == 0
    assert result["resumed_from_step"] == message["checkpoint"]["step"]
    assert result["model_digest"] == finished[1]["model_digest"]
    assert result["findings"] == finished[1]["findings"]
    require_same_curves(output)


@pytest.mark.parametrize(
    ("failure", "training", "code", "reason", "told"),
    [
        ("acquire", {}, 21, "AcceleratorNotAcquired", "Failed to acquire 4 IPU(s)"),
        ("recoverable:PARTITION_RESET@2", {}, 21, "AcceleratorNotAcquired", "PARTITION_RESET"),
        ("out_of_memory", {}, 15, "OutOfMemory", "training.micro_batch_size: 1"),
        ("", {"learning_rate": 1e8, "warmup_ratio": 0.0}, 12, "Diverged", "learning rate below"),
    ],
)
def test_each_failure_has_its_exit_code(
    failure: str,
    training: dict[str, Any],
    code: int,
    reason: str,
    told: str,
    document: dict[str, Any],
    ipu_side: IpuSide,
    tmp_path: Path,
) -> None:
    failing = {**beside(document, tmp_path / "out"), "training": {**document["training"], **training}}
    ended, message = ipu_side.train(tmp_path, failing, POPTORCH_EMULATED_FAILURE=failure).end()
    assert (ended, message["reason"]) == (code, reason)
    assert told in message["message"]


def test_an_image_without_poptorch_tells_that_it_is_the_wrong_one(document: dict[str, Any], tmp_path: Path) -> None:
    code, message = run(tmp_path, "train", beside(document, tmp_path / "out"))
    assert (code, message["reason"]) == (10, "ConfigurationInvalid")
    assert "expected the image of target ipu" in message["message"]
