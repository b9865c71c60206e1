"""Weights & Biases, played by a module of its name: the package is no dependency."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.unit.trainer.build import make_run_file
from xray_trainer.config import RunFile
from xray_trainer.trackers.tracker import open_trackers
from xray_trainer.trackers.wandb import wandb_run

ASKED = {"WANDB_API_KEY": "hush", "WANDB_PROJECT": "films"}


class Wandb(ModuleType):
    """What the package is asked to do."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = __spec__  # find_spec asks for it
        self.begun: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.ended: list[int] = []
        self.Settings = dict

    def init(self, **settings: Any) -> Wandb:
        self.begun.append(settings)
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self.rows.append((step, figures))

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Wandb:
    played = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", played)
    return played


def attempt_that_fails(run_file: RunFile) -> None:
    with open_trackers(run_file, dict(ASKED)) as trackers:
        trackers.begin([])
        trackers.add({"step": 1, "epoch": 0.1, "loss": 0.5, "auroc": None})
        raise RuntimeError("killed")


def test_a_run_in_two_attempts_is_one_run_there(wandb: Wandb, tmp_path: Path) -> None:
    run_file = make_run_file(tmp_path)
    run_file.output_dir.mkdir(parents=True, exist_ok=True)
    with pytest.raises(RuntimeError):
        attempt_that_fails(run_file)
    with open_trackers(run_file, dict(ASKED)) as trackers:
        trackers.begin([])
        trackers.add({"step": 2, "epoch": 0.2, "loss": 0.25})
    assert wandb.rows == [(1, {"loss": 0.5}), (2, {"loss": 0.25})]
    assert wandb.ended == [1, 0]
    first, second = wandb.begun
    assert first["id"] == second["id"]
    assert (first["project"], first["resume"]) == ("films", "allow")
    assert first["config"]["flavor"] == run_file.accelerator.flavor


def test_a_failing_package_stops_nothing(
    wandb: Wandb, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def init(**_: Any) -> Wandb:
        raise OSError("key hush is wrong")

    monkeypatch.setattr(wandb, "init", init)
    run_file = make_run_file(tmp_path)
    run_file.output_dir.mkdir(parents=True, exist_ok=True)
    with open_trackers(run_file, dict(ASKED)) as trackers:
        trackers.begin([{"step": 1, "loss": 0.5}])
    assert "Weights & Biases does not take what it is told (OSError)" in caplog.text
    assert "hush" not in caplog.text


def test_an_image_without_the_package_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert wandb_run(ASKED, make_run_file(tmp_path)) is None
    assert "this image has no package wandb" in caplog.text


def test_nobody_is_told_who_was_not_asked_for(wandb: Wandb, tmp_path: Path) -> None:
    assert wandb_run({"WANDB_PROJECT": "films"}, make_run_file(tmp_path)) is None
    assert not wandb.begun
