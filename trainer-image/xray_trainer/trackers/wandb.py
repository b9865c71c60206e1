"""One Weights & Biases run for each training run, where the image has their package: ours have not (docs/tracking.md)."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Mapping, Optional, Sequence

from xray_trainer.config import RunFile
from xray_trainer.trackers.courier import Told
from xray_trainer.trackers.mlflow import parameters_of
from xray_trainer.trackers.tracker import figures_of, step_of

LOG = logging.getLogger(__name__)

PACKAGE = "wandb"
KEY, MODE = "WANDB_API_KEY", "WANDB_MODE"
DEFAULT_PROJECT = "xray-training"
QUIET = {"console": "off", "silent": True, "disable_git": True, "save_code": False, "init_timeout": 10}
"""Neither the log nor sources of this machine are theirs; and the courier tries again."""


def wandb_run(environment: Mapping[str, str], run_file: RunFile) -> Optional[WandbRun]:
    """The one that the environment asks for, if it does and the package is there."""
    if not environment.get(KEY) and environment.get(MODE) != "offline":
        return None
    if find_spec(PACKAGE) is None:
        LOG.warning("%s or %s is given, but this image has no package %s; see docs/tracking.md", KEY, MODE, PACKAGE)
        return None
    LOG.info("figures are told to Weights & Biases")
    return WandbRun(environment.get("WANDB_PROJECT") or DEFAULT_PROJECT, run_file)


class WandbRun:
    """A service for a courier. What is said of steps that are there already, Weights & Biases leaves out."""

    name = "Weights & Biases"

    def __init__(self, project: str, run_file: RunFile) -> None:
        self._project = project
        self._run_file = run_file
        self._run: Any = None

    def open(self) -> None:
        wandb, made = import_module(PACKAGE), self._run_file.run
        self._run = wandb.init(
            project=self._project,
            name=f"{made.namespace}/{made.name}/{made.rerun}",
            id=f"{made.uid}-{made.rerun}",  # the same in each attempt
            resume="allow",
            config=parameters_of(self._run_file),
            dir=str(self._run_file.output_dir),
            settings=wandb.Settings(**QUIET),
        )

    def send(self, told: Sequence[Told]) -> None:
        for each in told:
            self._run.log(dict(figures_of(each.row)), step=step_of(each.row))

    def close(self, error: Optional[BaseException]) -> None:
        self._run.finish(exit_code=0 if error is None else 1)
