"""A finished result is taken for one only if it is this run's and its model is still there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import make_run_file
from xray_trainer.config import as_json
from xray_trainer.files import sha256_of
from xray_trainer.finished import find_finished

PREPARED = {"version": 1, "exit_code": 0, "images": 20, "adopted": False}


def finish(folder: Path, **changes: Any) -> None:
    """What a run leaves that ended well."""
    weights = folder / "out" / "model" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    report = {
        "version": 1,
        "exit_code": 0,
        "auroc_macro": 0.5,
        "model_digest": sha256_of(weights),
        "phases": [{"name": "Training"}],
        "adopted": False,
        "run_file": as_json(make_run_file(folder)),
        "versions": {},
        "prepared": PREPARED,
    }
    (folder / "out" / "result.json").write_text(json.dumps({**report, **changes}))


def test_each_container_gets_its_own_answer(tmp_path: Path) -> None:
    run_file = make_run_file(tmp_path)
    assert find_finished(run_file, "train") is None
    finish(tmp_path)
    assert find_finished(run_file, "prepare") == {**PREPARED, "adopted": True}
    found = find_finished(run_file, "train")
    assert found is not None
    assert found.keys() == {"version", "exit_code", "auroc_macro", "model_digest", "phases", "adopted"}
    assert (found["phases"], found["adopted"]) == ([], True)


def test_the_same_settings_elsewhere_and_saved_more_often_are_the_same_run(tmp_path: Path) -> None:
    finish(tmp_path)
    again = make_run_file(
        tmp_path, run={"uid": "2"}, checkpoint={"every_steps": 1}, dataset={"root": "/gone", "cache_dir": "/gone"}
    )
    assert find_finished(again, "train") is not None


@pytest.mark.parametrize(
    "changes",
    [{"training": {"seed": 1}}, {"dataset": {"findings": ["Mass"]}}, {"model": {"config": None, "path": "/model"}}],
)
def test_other_settings_are_another_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    finish(tmp_path)
    assert find_finished(make_run_file(tmp_path, **changes), "train") is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exit_code": 12}, "not the report of a run that succeeded"),
        ({"model_digest": "sha256:0"}, "its digest differs"),
        ({"model_digest": None}, "its digest differs"),
        ({"run_file": []}, "of other settings"),
        ({"run_file": {"dataset": "nih"}}, "of other settings"),
        ({"padding": "x" * (1 << 20)}, "more than 1048576 bytes"),
    ],
)
def test_a_result_that_does_not_hold_is_none_and_it_is_said_why(
    tmp_path: Path, changes: dict[str, Any], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    finish(tmp_path, **changes)
    for command in ("prepare", "train"):
        assert find_finished(make_run_file(tmp_path), command) is None
    assert caplog.text.count(expected) == 2


def test_a_damaged_model_or_report_is_no_result(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finish(tmp_path)
    weights = tmp_path / "out" / "model" / "model.safetensors"
    weights.write_bytes(b"Weights")
    assert find_finished(make_run_file(tmp_path), "train") is None
    weights.unlink()
    assert find_finished(make_run_file(tmp_path), "train") is None
    assert "model.safetensors: No such file" in caplog.text
    (tmp_path / "out" / "result.json").write_text('{"version": 1, ')
    assert find_finished(make_run_file(tmp_path), "train") is None
    assert "unreadable" in caplog.text


def test_a_report_that_does_not_tell_what_was_prepared_lets_prepare_work(tmp_path: Path) -> None:
    finish(tmp_path, prepared=None)
    assert find_finished(make_run_file(tmp_path), "prepare") is None
