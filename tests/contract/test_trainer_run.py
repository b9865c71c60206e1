"""Both commands as the containers run them, from generated X-rays to a model that transformers' Auto classes load."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]  # ships no types
from transformers import AutoImageProcessor, AutoModelForImageClassification

from tests.contract.test_examples import example_run_file
from tests.contract.test_trainer_config import example, shape_of
from tests.curves import require_same_curves, shown
from tests.unit.trainer.build import TRAINER, run_document
from tests.unit.trainer.chexpert import write_set as write_chexpert
from xray_trainer.__main__ import main
from xray_trainer.config import read_run_file
from xray_trainer.files import make_temporary_folder
from xray_trainer.findings import NIH_FINDINGS
from xray_trainer.prepare.cache import open_prepared
from xray_trainer.progress import Progress
from xray_trainer.result import MAX_BYTES
from xray_trainer.synthetic import synthesize
from xray_trainer.train import train

pytestmark = pytest.mark.usefixtures("environment_as_before")


def run(folder: Path, command: str, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Exit code and termination message of one container, run in this process: importing torch takes long."""
    folder.mkdir(parents=True, exist_ok=True)
    run_file, result = folder / "run.json", folder / f"{command}-result.json"
    run_file.write_text(json.dumps(document))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        code = main([command, "--run-file", str(run_file), "--result-file", str(result)])
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert result.stat().st_size <= MAX_BYTES
    return code, json.loads(result.read_text())


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nih")
    synthesize(root, images=48, seed=1, size=128)
    return root


def leave_half_a_model(output: Path) -> None:
    """As a process that was killed long ago does."""
    half = make_temporary_folder(output)
    (half / "model.safetensors").write_bytes(b"half")
    for path in (half / "model.safetensors", half):
        os.utime(path, (0, 0))


@pytest.fixture(scope="module")
def finished(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder in which both commands have run, and the training's result."""
    folder = tmp_path_factory.mktemp("run")
    document = run_document(folder, dataset={"root": str(data_set)})
    code, prepared = run(folder, "prepare", document)
    assert (code, prepared["images"]) == (0, 48)
    leave_half_a_model(folder / "out")
    code, result = run(folder, "train", document)
    assert code == 0
    return folder, result


def test_training_answers_in_the_agreed_shape(finished: tuple[Path, dict[str, Any]]) -> None:
    _, result = finished
    agreed = example("result.json")
    assert shape_of({**result, "findings": []}) == shape_of({**agreed, "findings": []})
    assert [finding["name"] for finding in result["findings"]] == list(NIH_FINDINGS)
    for finding in result["findings"]:
        assert finding.keys() == agreed["findings"][0].keys()
    measured = [finding["auroc"] for finding in result["findings"] if finding["auroc"] is not None]
    assert result["findings_evaluated"] == len(measured)
    assert result["auroc_macro"] == pytest.approx(sum(measured) / len(measured), abs=1e-5)
    assert [phase["name"] for phase in result["phases"]] == ["Training", "Evaluating"]


def test_the_output_folder_holds_what_is_promised_and_no_pickle(finished: tuple[Path, dict[str, Any]]) -> None:
    output = finished[0] / "out"
    files = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert files == {
        "auroc.png",
        "evaluation.json",
        "labels.png",
        "learning_rate.png",
        "loss.png",
        "metrics.jsonl",
        "model/README.md",
        "model/config.json",
        "model/model.safetensors",
        "model/preprocessor_config.json",
        "model/thresholds.json",
        "predictions.csv",
        "prepared.json",
        "report.html",
        "report.json",
        "result.json",
        "roc_reliability.png",
        "tensorboard/events.out.tfevents.0000000000",
        "train.log",
    }
    report = json.loads((output / "report.json").read_text())
    assert report["evaluation"] == json.loads((output / "evaluation.json").read_text())
    assert report["model"]["digest"] == finished[1]["model_digest"]
    assert "this pod holds 4 graphcore.ai/ipu for nothing" in (output / "train.log").read_text()


def test_the_report_tells_how_to_repeat_the_run(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    report = json.loads((folder / "out" / "result.json").read_text())
    assert {key: report[key] for key in result} == result
    assert report["data"]["split"]["by"] == "Patient"
    assert report["run_file"]["training"]["seed"] == 1337
    assert report["versions"]["torch"] == metadata.version("torch")


def test_the_evaluation_is_that_of_the_predictions(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    evaluation = json.loads((folder / "out" / "evaluation.json").read_text())
    with (folder / "out" / "predictions.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert evaluation["images"] == result["test_images"] == len(rows)
    assert evaluation["macro"]["auroc_interval"] == result["auroc_interval"]
    assert len({row["ordinal"] for row in rows}) == len(rows)
    for finding in evaluation["findings"]:
        labels = [int(row[f"label_{finding['name']}"]) for row in rows]
        scores = [float(row[f"score_{finding['name']}"]) for row in rows]
        assert sum(labels) == finding["positives"]
        if finding["auroc"] is not None:
            assert roc_auc_score(labels, scores) == pytest.approx(finding["auroc"], abs=1e-3)


def test_metrics_have_a_line_per_step_and_epoch(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, result = finished
    rows = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == list(range(1, result["steps"] + 1))
    assert len([row for row in rows if "validation_loss" in row]) == 1
    assert rows[-1]["test_loss"] == result["loss"]
    assert rows[-1]["test_auroc_macro"] == result["auroc_macro"]
    assert [row["step"] for row in rows if "validation_auroc_macro" in row] == [result["steps"]]


def test_tensorboard_shows_the_same_curves(finished: tuple[Path, dict[str, Any]]) -> None:
    require_same_curves(finished[0] / "out")
    assert {"loss", "validation_loss", "learning_rate", "validation_auroc_macro"} <= set(shown(finished[0] / "out"))


def test_auto_classes_load_what_was_saved(finished: tuple[Path, dict[str, Any]]) -> None:
    model_folder = finished[0] / "out" / "model"
    model = AutoModelForImageClassification.from_pretrained(model_folder)
    processor = AutoImageProcessor.from_pretrained(model_folder)  # type: ignore[no-untyped-call]  # transformers' own
    pixels = processor(Image.new("L", (1024, 1024), 128), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 32, 32)
    assert model(pixel_values=pixels).logits.shape == (1, 14)
    assert model.config.id2label[0] == "Atelectasis"


def test_the_same_seed_gives_the_same_weights_and_a_saved_model_is_fine_tuned(
    finished: tuple[Path, dict[str, Any]], data_set: Path, tmp_path: Path
) -> None:
    folder, first = finished
    document = json.loads((folder / "run.json").read_text())
    document["output_dir"] = str(tmp_path / "again")
    assert run(tmp_path, "prepare", document)[0] == 0
    second = run(tmp_path, "train", document)[1]
    assert second["model_digest"] == first["model_digest"]
    assert second["findings"] == first["findings"]

    tuned = run_document(tmp_path, dataset={"root": str(data_set)})
    tuned["model"] = {"path": str(folder / "out" / "model"), "hub_name": None, "revision": None, "config": None}
    assert run(tmp_path, "prepare", tuned)[0] == 0
    code, third = run(tmp_path, "train", tuned)
    assert code == 0
    assert third["model_digest"] != first["model_digest"]


def elsewhere(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same run for a resource that was created again, where neither data nor cache are any more."""
    gone = {**document["dataset"], "root": str(folder / "gone"), "cache_dir": str(folder / "gone")}
    return {**document, "run": {**document["run"], "uid": "another"}, "dataset": gone}


def test_a_finished_run_is_answered_again_without_its_data(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, result = finished
    document = elsewhere(json.loads((folder / "run.json").read_text()), tmp_path)
    prepared = json.loads((folder / "prepare-result.json").read_text())
    assert run(tmp_path, "prepare", document) == (0, {**prepared, "adopted": True})
    assert run(tmp_path, "train", document) == (0, {**result, "adopted": True, "phases": []})
    assert "answered again" in (folder / "out" / "train.log").read_text()


@pytest.mark.slow
def test_answering_again_imports_no_torch(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run_file = finished[0] / "run.json"
    for command in ("prepare", "train"):
        program = [sys.executable, "-X", "importtime", "-m", "xray_trainer", command, "--run-file", str(run_file)]
        ended = subprocess.run(
            [*program, "--result-file", str(tmp_path / "result.json")],
            env={**os.environ, "PYTHONPATH": str(TRAINER)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads((tmp_path / "result.json").read_text())["adopted"] is True
        imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if "import time:" in line}
        assert "xray_trainer.finished" in imported
        assert not imported & {"torch", "transformers", "pyarrow", "PIL", "xray_trainer.train", "xray_trainer.prepare"}


class Recorded(Progress):
    """Keeps what an operator would have read after each change."""

    def __init__(self) -> None:
        super().__init__("Training")
        self.seen: list[dict[str, Any]] = []
        self.lived = 0

    def lives(self) -> None:
        super().lives()
        self.lived += 1

    def advance(self, step: int, total_steps: int, fraction: float | None = None) -> None:
        super().advance(step, total_steps, fraction)
        self.seen.append(self.state.as_json())

    def advance_share(self, fraction: float) -> None:
        super().advance_share(fraction)
        self.seen.append(self.state.as_json())


def test_training_advances_by_steps_and_evaluation_by_batches(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, result = finished
    _, manifest = open_prepared(folder / "out", "seed")
    (tmp_path / "out").mkdir()
    shutil.copy(folder / "out" / "prepared.json", tmp_path / "out")
    run_file = read_run_file(folder / "run.json").model_copy(update={"output_dir": tmp_path / "out"})
    progress = Recorded()
    train(run_file, progress)
    steps, batches = result["steps"], math.ceil(manifest.parts["test"].images / run_file.training.micro_batch_size)
    assert steps > 1
    assert batches > 1
    assert progress.lived > batches, "validation between the epochs tells that it goes on"
    training = [(seen["step"], seen["progress_percentage"]) for seen in progress.seen if seen["phase"] == "Training"]
    assert training == [(step, int(100 * step / steps)) for step in range(1, steps + 1)]
    evaluating = [seen for seen in progress.seen if seen["phase"] == "Evaluating"]
    assert [seen["progress_percentage"] for seen in evaluating] == [
        int(100 * batch / batches) for batch in range(1, batches + 1)
    ]
    assert evaluating[0]["estimated_remaining_seconds"] is not None


def test_a_wrong_run_file_ends_with_exit_code_10(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, result = run(tmp_path, "train", {"version": 1})
    assert (code, result["exit_code"], result["reason"]) == (10, 10, "ConfigurationInvalid")
    assert result.keys() == example("error-result.json").keys()
    assert "training: field required" in result["message"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_diverging_run_ends_with_exit_code_12(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    document = json.loads((finished[0] / "run.json").read_text())
    document["output_dir"] = str(tmp_path / "out")
    document["training"].update(learning_rate=1e30, warmup_ratio=0)
    assert run(tmp_path, "prepare", document)[0] == 0
    code, result = run(tmp_path, "train", document)
    assert (code, result["reason"]) == (12, "Diverged")
    assert result["message"].startswith("step ")


def test_preparation_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None, matplotlib=None);"
        "import xray_trainer.prepare.run, xray_trainer.synthetic, xray_trainer.__main__"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(TRAINER)}, check=True)


def test_the_example_of_another_layout_is_prepared_and_trained(tmp_path: Path) -> None:
    """Its labels as the operator hands them on."""
    dataset = example_run_file("chexpert.yaml")["dataset"]
    write_chexpert(tmp_path / "cxp", patients=20)
    chosen = {key: dataset[key] for key in ("labels", "findings")}
    document = run_document(tmp_path, dataset=chosen | {"root": str(tmp_path / "cxp")})
    code, prepared = run(tmp_path, "prepare", document)
    assert (code, prepared["images"], prepared["patients"]) == (0, 60, 20)
    code, result = run(tmp_path, "train", document)
    assert code == 0
    assert [finding["name"] for finding in result["findings"]] == chosen["findings"]
    assert result["findings_evaluated"] >= 1


def test_the_article_s_example_tells_its_metric_apart_from_ours(data_set: Path, tmp_path: Path) -> None:
    chosen = {key: example_run_file("article.yaml")["dataset"][key] for key in ("labels", "findings")}
    split = {"by": "Image", "seed": 1, "train": 0.6, "validation": 0.2, "test": 0.2}
    document = run_document(tmp_path, dataset=chosen | {"root": str(data_set), "split": split})
    assert run(tmp_path, "prepare", document)[0] == 0
    code, result = run(tmp_path, "train", document)
    assert code == 0
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [finding["name"] for finding in result["findings"]] == list(NIH_FINDINGS)
    assert 0 < evaluation["article"]["auroc_macro_softmax_15"] < 1
    assert evaluation["article"]["loss_15"] != evaluation["loss"]
    header = (tmp_path / "out" / "predictions.csv").read_text().partition("\n")[0]
    assert "score_No Finding" in header
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "out" / "model")
    assert len(model.config.id2label) == 15
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    validated = next(row for row in rows if "validation_loss" in row)
    assert validated["validation_auroc_macro"] is not None


@pytest.mark.nih_sample
def test_all_real_radiographs_are_accounted_for(pack_nih_sample: Callable[[Path], list[str]], tmp_path: Path) -> None:
    names = pack_nih_sample(tmp_path / "nih")
    code, result = run(tmp_path, "prepare", run_document(tmp_path))
    assert code == 0
    assert result["images"] + result["rejected"] == len(names) == 750
    assert result["images"] == 750
    assert result["patients"] == 220
    assert result["train_images"] + result["validation_images"] + result["test_images"] == 750
