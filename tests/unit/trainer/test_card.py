"""What the card of a model says, and that names can't say anything else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from tests.unit.trainer.build import make_run_file, run_document
from xray_trainer.card import Facts, make_card
from xray_trainer.config import parse_run_file
from xray_trainer.errors import ConfigurationError
from xray_trainer.files import write_json
from xray_trainer.prepare.cache import Manifest, Part
from xray_trainer.thresholds import THRESHOLDS, read_thresholds, thresholds_document

ODD = "Mass | *pipe* <script>\n# x"
RESULT = {
    "device": "cpu",
    "auroc_macro": 0.75,
    "findings_evaluated": 1,
    "loss": 0.2,
    "loss_floor": 0.25,
    "findings": [{"name": "Mass", "auroc": 0.75, "positives": 1234}, {"name": ODD, "auroc": None, "positives": 0}],
}
EVALUATION: dict[str, Any] = {
    "macro": {"auroc_interval": [0.7, 0.8]},
    "floors": {"metadata_auroc": 0.625, "memory_auroc": None},
    "findings": [
        {"name": "Mass", "auroc_interval": [0.71, 0.79], "threshold": 0.125},
        {"name": ODD, "auroc_interval": None, "threshold": None},
    ],
}


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    part = Part.model_construct(images=1000, patients=300)
    manifest = Manifest.model_construct(parts={"train": part, "test": part})
    return Facts(make_run_file(tmp_path), manifest, None, RESULT, EVALUATION, {"torch": "2.0"})


def test_the_card_has_figures_intervals_and_thresholds(facts: Facts) -> None:
    card = make_card(facts)
    assert "**0.750** (95 % interval, patients resampled: 0.700 to 0.800)" in card
    assert "| Mass | 1,234 | 0.750 | 0.710 to 0.790 | 0.125 |" in card
    assert "| train | 1,000 | 300 |" in card
    assert "a guess by prevalence alone, which sees no pixel, has 0.250" in card
    assert "age, sex and view reach 0.625, and the labels of the same patient's other films –" in card


def test_what_could_not_be_measured_has_no_number_and_a_name_is_no_markup(facts: Facts) -> None:
    assert "| Mass \\| \\*pipe\\* \\<script\\> \\# x | 0 | – | – | – |" in make_card(facts)


def test_the_head_names_the_base_model_whatever_its_letters(facts: Facts, tmp_path: Path) -> None:
    document = run_document(tmp_path)
    document["model"] = {"path": None, "hub_name": "example/no", "revision": None, "config": None}
    document["run"]["name"] = "'on': [1"
    card = ModelCard(make_card(replace(facts, run_file=parse_run_file(document))))
    assert card.data.base_model == "example/no"
    assert card.data.model_name == "'on': [1"
    assert [each.metric_value for each in card.data.eval_results] == [0.75, 0.75]


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("dataset", {"synthetic": {"images": 60, "seed": 0, "size": 64}, "root": None}, "knows nothing of real ones"),
        ("dataset", {"http": {"list": None}, "root": None}, "\nNIH ChestX-ray14, divided by patient"),
        (
            "dataset",
            {"split": {"by": "Image", "seed": 1, "train": 0.8, "validation": 0.1, "test": 0.1}},
            "several parts",
        ),
    ],
)
def test_it_tells_what_the_data_were(
    section: str, values: dict[str, Any], told: str, facts: Facts, tmp_path: Path
) -> None:
    assert told not in make_card(facts)
    assert told in make_card(replace(facts, run_file=make_run_file(tmp_path, **{section: values})))


def test_an_emulated_run_is_called_so(facts: Facts) -> None:
    assert "emulated IPUs" in make_card(replace(facts, result={**RESULT, "device": "emulated IPU"}))


def test_thresholds_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_thresholds(tmp_path) == {}
    write_json(tmp_path / THRESHOLDS, thresholds_document(EVALUATION))
    assert read_thresholds(tmp_path) == {"Mass": 0.125, ODD: None}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"thresholds": {"Mass": "high"}}', '{"thresholds": 3}'])
def test_thresholds_of_another_shape_are_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / THRESHOLDS).write_text(text)
    with pytest.raises(ConfigurationError, match=r"thresholds\.json: .*; expected 'thresholds'"):
        read_thresholds(tmp_path)
