"""`predict` as a user runs it: answers for all images that can be read, and the path of each that can't."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import ViTForImageClassification

from tests.unit.trainer.build import TRAINER, make_png
from xray_trainer.__main__ import main
from xray_trainer.config import Model, VitConfig
from xray_trainer.files import write_json
from xray_trainer.model import make_model, preprocessor_config

pytestmark = pytest.mark.usefixtures("environment_as_before")

FINDINGS = ["Mass", "Effusion", "Hernia"]
Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `train` leaves it; every image has a mass, none an effusion, of hernias nobody knows."""
    folder = tmp_path_factory.mktemp("run") / "model"
    config = VitConfig(hidden_size=16, layers=1, heads=2, patch_size=16)
    make_model(Model(config=config), FINDINGS, 32).save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", preprocessor_config(36, 32))
    thresholds = {"Mass": 0.001, "Effusion": 0.999, "Hernia": None}
    write_json(folder / "thresholds.json", {"version": 1, "fixed_on": "validation", "thresholds": thresholds})
    return folder


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """All that is decoded, in folders, and what is none of ours."""
    folder = tmp_path / "films"
    (folder / "more").mkdir(parents=True)
    for name, mode in (("a.png", "L"), ("b.PNG", "I;16"), ("more/c.png", "RGB")):
        (folder / name).write_bytes(make_png(seed=1, mode=mode))
    Image.open(io.BytesIO(make_png(seed=2))).save(folder / "more" / "d.jpg")
    (folder / "readme.txt").write_text("hello")
    return folder


def predict(model: Path, *arguments: str | Path) -> int:
    return main(["predict", "--model", str(model), *map(str, arguments)])


def read_json(path: Path) -> dict[str, list[dict[str, object]]]:
    return dict(json.loads(path.read_text()))


def test_a_table_marks_what_is_above_its_threshold(model: Path, films: Path, capsys: Captured) -> None:
    assert predict(model, films / "a.png") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(films / "a.png"), "  finding   score  threshold"]
    rows = {line.split()[0]: line.split() for line in lines[2:5]}
    assert rows["Mass"][2:] == ["0.001", "*"]
    assert rows["Effusion"][2:] == ["0.999"]
    assert rows["Hernia"][2:] == ["-"]
    scores = [float(line.split()[1]) for line in lines[2:5]]
    assert scores == sorted(scores, reverse=True)
    assert "no substitute for a doctor" in lines[-1]


def test_json_has_every_image_below_a_folder(model: Path, films: Path, tmp_path: Path) -> None:
    assert predict(model, films, "--json", tmp_path / "answers.json") == 0
    found = read_json(tmp_path / "answers.json")
    names = ["a.png", "b.PNG", "more/c.png", "more/d.jpg"]
    assert [each["image"] for each in found["images"]] == [str(films / name) for name in names]
    assert found["unreadable"] == []
    findings = found["images"][0]["findings"]
    assert isinstance(findings, list)
    assert [(each["name"], each["marked"]) for each in findings] == [
        ("Mass", True),
        ("Effusion", False),
        ("Hernia", None),
    ]
    assert found["images"][0]["findings"] == found["images"][1]["findings"], "the same film in 8 and 16 bits"


def test_csv_says_the_same(model: Path, films: Path, tmp_path: Path, capsys: Captured) -> None:
    assert predict(model, films, "--csv", "-") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert predict(model, films, "--json", tmp_path / "answers.json") == 0
    images = read_json(tmp_path / "answers.json")["images"]
    assert [(row["image"], row["finding"]) for row in rows] == [
        (str(each["image"]), finding) for each in images for finding in FINDINGS
    ]
    assert [row["marked"] for row in rows[:3]] == ["1", "0", ""]
    assert 0 < float(rows[0]["score"]) < 1


def test_a_model_that_has_diverged_gives_no_answer(films: Path, model: Path, tmp_path: Path, capsys: Captured) -> None:
    broken = ViTForImageClassification.from_pretrained(shutil.copytree(model, tmp_path / "broken"))
    torch.nn.init.constant_(broken.classifier.bias, float("nan"))
    broken.save_pretrained(tmp_path / "broken")
    assert predict(tmp_path / "broken", films, "--json", tmp_path / "answers.json") == 12
    assert "no finite numbers" in capsys.readouterr().err
    assert not (tmp_path / "answers.json").exists()


def test_what_cannot_be_read_is_named_and_the_rest_goes_on(
    model: Path, films: Path, tmp_path: Path, capsys: Captured
) -> None:
    (films / "broken.png").write_bytes(make_png()[:100])
    (films / "text.jpg").write_text("no picture")
    assert predict(model, films, films / "readme.txt", "--json", tmp_path / "answers.json") == 11
    found = read_json(tmp_path / "answers.json")
    assert len(found["images"]) == 4
    problems = {str(each["image"]): str(each["problem"]) for each in found["unreadable"]}
    assert problems == {
        str(films / "broken.png"): "damaged PNG of 100 bytes",
        str(films / "text.jpg"): "not a JPEG file of 8 bits",
        str(films / "readme.txt"): "not named .png, .jpg, .jpeg",
    }
    told = capsys.readouterr().err
    assert all(f"{image}: {problem}" in told for image, problem in problems.items())
    assert "Traceback" not in told


def test_more_images_than_a_batch_are_answered_in_their_order(model: Path, tmp_path: Path) -> None:
    films = tmp_path / "many"
    films.mkdir()
    for number in range(40):
        (films / f"{number:02d}.png").write_bytes(b"" if number % 7 == 3 else make_png(seed=number))
    assert predict(model, films, "--json", tmp_path / "all.json") == 11
    together = read_json(tmp_path / "all.json")["images"]
    assert [Path(str(each["image"])).name for each in together] == [f"{n:02d}.png" for n in range(40) if n % 7 != 3]
    assert predict(model, films / "39.png", "--json", tmp_path / "one.json") == 0
    alone = read_json(tmp_path / "one.json")["images"][0]["findings"]
    assert isinstance(alone, list)
    for one, other in zip(alone, together[-1]["findings"], strict=True):  # type: ignore[call-overload]
        assert one["score"] == pytest.approx(other["score"], abs=1e-6)


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("model.safetensors", "no model.safetensors; expected the folder model of a run's output"),
        ("preprocessor_config.json", "no preprocessor_config.json; expected the folder model of a run's output"),
        ("config.json", "expected what `train` has written"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(
    missing: str, told: str, model: Path, films: Path, tmp_path: Path, capsys: Captured
) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    assert predict(tmp_path / "model", films) == 10
    assert told in capsys.readouterr().err


def test_a_model_that_wants_other_pixels_is_refused(model: Path, films: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(model, tmp_path / "model")
    settings = json.loads((model / "preprocessor_config.json").read_text())
    write_json(tmp_path / "model" / "preprocessor_config.json", {**settings, "image_mean": [0.48, 0.46, 0.41]})
    assert predict(tmp_path / "model", films) == 10
    assert "preprocessor_config.json: image_mean: not as `train` writes it" in capsys.readouterr().err


def test_without_thresholds_nothing_is_marked(model: Path, films: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "thresholds.json").unlink()
    assert predict(tmp_path / "model", films / "a.png", "--csv", "-") == 0
    told = capsys.readouterr()
    assert {row["marked"] for row in csv.DictReader(io.StringIO(told.out))} == {""}
    assert "no thresholds; nothing is marked" in told.err


def test_paths_without_images_are_told(model: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "empty").mkdir()
    assert predict(model, tmp_path / "empty") == 10
    assert predict(model, tmp_path / "gone.png") == 10
    told = capsys.readouterr().err
    assert f"{tmp_path / 'empty'}: no image in it; expected files named .png, .jpg, .jpeg" in told
    assert f"{tmp_path / 'gone.png'}: no such file or folder" in told


def test_a_file_that_cannot_be_written_is_told(model: Path, films: Path, tmp_path: Path, capsys: Captured) -> None:
    target = tmp_path / "gone" / "answers.csv"
    assert predict(model, films, "--csv", target) == 10
    assert f"{target}: No such file or directory" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_gets_no_traceback(model: Path, films: Path) -> None:
    program = [sys.executable, "-m", "xray_trainer", "predict", "--model", str(model), str(films)]
    with subprocess.Popen(
        program,
        env={**os.environ, "PYTHONPATH": str(TRAINER)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `head` does
        told = process.stderr.read()
    assert "Traceback" not in told
    assert "BrokenPipe" not in told


@pytest.mark.slow
def test_an_image_without_the_decoder_tells_which_one_has_it(model: Path, films: Path) -> None:
    code = (
        "import sys; sys.modules['kornia_rs'] = None;"
        f"from xray_trainer.__main__ import main; sys.exit(main(['predict', '--model', {str(model)!r}, {str(films)!r}]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(TRAINER)}, capture_output=True, text=True
    )
    assert ended.returncode == 10
    assert "predict needs kornia_rs, which is not here; expected the image of target torch" in ended.stderr
