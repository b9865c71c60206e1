"""examples/predict.ipynb as a user runs it says what the trainer says of the same images."""

from __future__ import annotations

import csv
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pyarrow as pa
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.contract.schemas import REPOSITORY
from tests.contract.test_trainer_run import run
from tests.unit.trainer.build import run_document
from xray_trainer.__main__ import main
from xray_trainer.synthetic import synthesize

NOTEBOOK = REPOSITORY / "examples" / "predict.ipynb"
MAX_BYTES = 400_000
LINE = re.compile(r"^(.+): predicted (.+); real (.+)$", re.MULTILINE)
NOTHING = "nothing"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run on generated films, which says where the prepared data are."""
    folder = tmp_path_factory.mktemp("run")
    synthesize(folder / "nih", images=60, seed=1, size=128)
    document = run_document(folder, training={"epochs": 3, "learning_rate": 0.01})
    for command in ("prepare", "train"):
        assert run(folder, command, document)[0] == 0
    return folder / "out"


@pytest.fixture(scope="module")
def prepared(trained: Path) -> Path:
    (manifest,) = (trained.parent / "cache").rglob("manifest.json")
    return manifest.parent


def execute(model: Path, films: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XRAY_MODEL", str(model))
    monkeypatch.setenv("XRAY_FILMS", str(films))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return notebook


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def figures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def told(notebook: Any) -> dict[str, tuple[str, str]]:
    """Image -> what was predicted and what is real, of those that the notebook prints."""
    text = "".join(output["text"] for output in outputs(notebook) if output.output_type == "stream")
    return {image: (predicted, real) for image, predicted, real in LINE.findall(text)}


def joined(findings: list[str]) -> str:
    return ", ".join(findings) or NOTHING


def of_predictions(output: Path) -> dict[str, tuple[str, str]]:
    """The same of all held-out images, by what the trainer wrote after training."""
    thresholds = json.loads((output / "model" / "thresholds.json").read_text())["thresholds"]
    fixed = {name: value for name, value in thresholds.items() if value is not None}
    with (output / "predictions.csv").open(newline="") as file:
        return {
            f"image {row['ordinal']}": (
                joined([name for name, threshold in fixed.items() if float(row[f"score_{name}"]) >= threshold]),
                joined([name for name in thresholds if row[f"label_{name}"] == "1"]),
            )
            for row in csv.DictReader(file)
        }


def write_films(prepared: Path, folder: Path) -> None:
    """Held-out images as files of 8 and 16 bits, of a size that is not scaled: the notebook's scaling is bicubic."""
    folder.mkdir()
    manifest = json.loads((prepared / "manifest.json").read_text())
    side = manifest["settings"]["stored_size"]
    (name,) = (file["name"] for file in manifest["files"] if file["part"] == "test")
    for number, row in enumerate(pa.ipc.open_stream(prepared / name).read_all().to_pylist()):
        grey = np.frombuffer(row["image"], dtype=np.uint8).reshape(side, side)
        image = grey.astype(np.uint16) * 257 if number % 2 else grey
        Image.fromarray(image).save(folder / f"{number:02d}.png")


@pytest.mark.slow
@pytest.mark.usefixtures("environment_as_before", "one_core")
def test_held_out_images_are_shown_with_what_the_trainer_said_of_them(
    trained: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = execute(trained / "model", prepared, monkeypatch)
    assert figures(notebook) == 1
    shown, expected = told(notebook), of_predictions(trained)
    assert len(shown) == 9
    assert shown == {image: expected[image] for image in shown}
    for kind in zip(*shown.values(), strict=True):
        assert len(set(kind)) > 1, "or it would not matter which image is which"


@pytest.mark.slow
@pytest.mark.usefixtures("environment_as_before", "one_core")
def test_files_are_shown_with_what_predict_says_of_them(
    trained: Path, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, answers = tmp_path / "films", tmp_path / "answers.json"
    write_films(prepared, films)
    notebook = execute(trained / "model", films, monkeypatch)
    assert main(["predict", "--model", str(trained / "model"), str(films), "--json", str(answers)]) == 0
    expected = {
        Path(each["image"]).name: (joined([it["name"] for it in each["findings"] if it["marked"]]), "not known")
        for each in json.loads(answers.read_text())["images"][:9]
    }
    assert figures(notebook) == 1
    assert told(notebook) == expected
    assert len(set(expected.values())) > 1, "or it would not matter which image is which"


def test_the_outputs_that_are_shown_are_whole_small_and_of_nobody_s_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert len(text.encode()) < MAX_BYTES
    (figure,) = [output["data"]["image/png"] for output in outputs(notebook) if output.output_type == "display_data"]
    assert b64decode(figure) == (REPOSITORY / "docs" / "images" / "notebook.png").read_bytes(), "of the gallery"
    assert len(told(notebook)) == 9
    assert {output.output_type for output in outputs(notebook)} == {"stream", "display_data"}
    assert {output["name"] for output in outputs(notebook) if output.output_type == "stream"} == {"stdout"}
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    printed = "".join(output["text"] for output in outputs(notebook) if output.output_type == "stream")
    assert "/" not in printed, "paths"
    assert "not a medical device" in text
