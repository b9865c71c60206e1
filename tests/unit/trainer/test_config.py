"""The run file: what is refused, and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.build import ipu_run_document, run_document
from xray_trainer.config import parse_run_file, read_run_file
from xray_trainer.errors import ConfigurationError

LABELS = {
    "file": "labels.csv",
    "image_column": "image",
    "patient_column": "patient",
    "label_column": "findings",
    "separator": ";",
}


def test_every_wrong_field_is_named_at_once_with_its_value(tmp_path: Path) -> None:
    document = run_document(tmp_path, training={"epochs": 0, "learning_rate": -1})
    document["surprise"] = True
    with pytest.raises(ConfigurationError) as caught:
        parse_run_file(document)
    message = str(caught.value)
    assert "training.epochs: 0: " in message
    assert "training.learning_rate: -1: " in message
    assert "surprise: true: " in message


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("model", {"path": "/weights"}, "exactly one of path, hub_name, config"),
        ("model", {"config": None}, "found none"),
        ("model", {"revision": "abc"}, "revision needs hub_name"),
        ("dataset", {"stored_size": 32, "image_size": 64}, "stored_size 32 is below image_size 64"),
        ("dataset", {"labels": {**LABELS, "file": "../x.csv"}}, "plain file name"),
        ("dataset", {"labels": {**LABELS, "separator": ""}}, "dataset.labels.separator"),
        ("dataset", {"findings": ["Mass", "Mass"]}, "twice"),
        ("dataset", {"image_size": 40, "stored_size": 45}, "patch_size 16 must divide dataset.image_size 40"),
        (
            "dataset",
            {"split": {"by": "Patient", "seed": 1, "train": 0.7, "validation": 0.2, "test": 0.2}},
            "add up to 1.1",
        ),
        (
            "dataset",
            {"split": {"by": "View", "seed": 1, "train": 0.7, "validation": 0.1, "test": 0.2}},
            "'Patient', 'Official' or 'Image'",
        ),
        ("checkpoint", {"every_steps": 0}, "checkpoint.every_steps: 0"),
        ("checkpoint", {"keep": 11}, "checkpoint.keep: 11"),
        ("run", {"rerun": -1}, "run.rerun: -1"),
        ("training", {"micro_batch_size": 3}, "expected global_batch_size 8"),
        ("training", {"learning_rate": float("nan")}, "finite"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, section: str, values: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        parse_run_file(run_document(tmp_path, **{section: values}))


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("ipu", {"replication_factor": 2}, "2 replicas of 4 are 8 IPUs; expected accelerator.count 4"),
        ("accelerator", {"count": 16}, "1 replicas of 4 are 4 IPUs; expected accelerator.count 16"),
        ("ipu", {"gradient_accumulation_steps": 16}, "gradient_accumulation_steps is 16; expected global_batch_size 8"),
        ("ipu", {"gradient_accumulation_steps": 6}, "6 doesn't fill a pipeline of 4 IPUs; expected at least 7"),
        ("ipu", {"layers_per_ipu": [4]}, "layers_per_ipu has 1 numbers; expected ipus_per_replica 4"),
        ("ipu", {"layers_per_ipu": [4, 0, 0, -1]}, r"ipu\.layers_per_ipu\.3: -1"),
        ("ipu", {"n_ipu": 4}, r"ipu\.n_ipu: 4: extra"),
    ],
)
def test_a_layout_that_does_not_add_up_is_refused(
    tmp_path: Path, section: str, values: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        parse_run_file(ipu_run_document(tmp_path, **{section: values}))


def test_ipus_are_laid_out_for_their_backend_and_only_there(tmp_path: Path) -> None:
    document = ipu_run_document(tmp_path)
    assert parse_run_file(document).ipu is not None
    with pytest.raises(ConfigurationError, match="backend torch: ipu is not expected"):
        parse_run_file({**document, "backend": "torch"})
    del document["ipu"]
    with pytest.raises(ConfigurationError, match="backend ipu: ipu is missing"):
        parse_run_file(document)


def test_findings_are_never_taken_for_granted(tmp_path: Path) -> None:
    document = run_document(tmp_path)
    del document["dataset"]["findings"]
    with pytest.raises(ConfigurationError, match=r"dataset\.findings: field required"):
        parse_run_file(document)


def test_a_missing_or_broken_file_is_a_configuration_error(tmp_path: Path) -> None:
    broken = tmp_path / "run.json"
    broken.write_text("{")
    with pytest.raises(ConfigurationError, match="expected JSON"):
        read_run_file(broken)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_run_file(tmp_path / "absent.json")
