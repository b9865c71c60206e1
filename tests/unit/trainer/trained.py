"""A training to report on, without training: the example's figures, generated X-rays in a cache, a tiny model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.unit.trainer.build import EXAMPLES, make_run_file
from xray_trainer.config import Model, RunFile, VitConfig
from xray_trainer.dataset import open_part
from xray_trainer.evaluation.predictions import Predictions
from xray_trainer.model import make_model
from xray_trainer.prepare.cache import Manifest, Prepared, open_prepared
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Phase, Progress
from xray_trainer.report.contents import Trained
from xray_trainer.report.write import write_report
from xray_trainer.synthetic import synthesize

BEGIN = datetime(2026, 11, 22, 10, 0, 4, tzinfo=UTC)
IMAGES, SIDE = 60, 96
VIT = {"hidden_size": 16, "layers": 2, "heads": 2, "patch_size": 16}


class Scene(NamedTuple):
    """What a report is written from."""

    output: Path
    cache: Path
    model: Path
    trained: Trained
    held_out: Predictions

    def write(self, **changes: Any) -> str | None:
        """write_report, with other fields of Trained."""
        trained = self.trained.__class__(**{**vars(self.trained), **changes})
        self.output.mkdir(exist_ok=True)
        return write_report(self.output, self.cache, self.model, trained, self.held_out)


def evaluation() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((EXAMPLES / "evaluation.json").read_text())
    return document


def rows(steps: int = 40) -> list[dict[str, float | None]]:
    """Of metrics.jsonl: a loss that falls, validated twice."""
    logged: list[dict[str, float | None]] = [
        {"step": step, "epoch": step / steps, "loss": 0.2 + 0.5 / step, "learning_rate": 2e-4 * (1 - step / steps)}
        for step in range(1, steps + 1)
    ]
    return [*logged, *({"step": step, "epoch": 1.0, "validation_loss": 0.22} for step in (steps // 2, steps))]


def make_scene(folder: Path, data: Path | None = None, **sections: Mapping[str, Any]) -> Scene:
    """Args: data: a folder in NIH layout; if None, X-rays are generated."""
    if data is None:
        data = folder / "nih"
        synthesize(data, images=IMAGES, seed=3, size=128)
    dataset = {"root": str(data), "image_size": SIDE, "stored_size": SIDE + 8, **sections.get("dataset", {})}
    run_file = make_run_file(folder, dataset=dataset)
    run_file.output_dir.mkdir(parents=True)
    prepare(run_file, Progress("Preparing"))
    prepared, manifest = open_prepared(run_file.output_dir, "seed")
    return Scene(
        output=run_file.output_dir,
        cache=prepared.cache,
        model=save_tiny_model(folder / "model", manifest),
        trained=make_trained(run_file, manifest),
        held_out=predict(prepared, manifest),
    )


def save_tiny_model(folder: Path, manifest: Manifest) -> Path:
    make_model(Model(config=VitConfig(**VIT)), manifest.settings["findings"], SIDE).save_pretrained(folder)
    return folder


def predict(prepared: Prepared, manifest: Manifest) -> Predictions:
    """What a model says that is often right."""
    labels = open_part(prepared.cache, manifest, "test", SIDE).labels
    noise = np.random.default_rng(0).normal(-2.5, 1, labels.shape)
    return Predictions(tuple(manifest.settings["findings"]), (noise + 2 * labels).astype(np.float32), labels)


def make_trained(run_file: RunFile, manifest: Manifest) -> Trained:
    ended = BEGIN + timedelta(seconds=86)
    return Trained(
        run_file=run_file,
        manifest=manifest,
        model=None,
        evaluation=evaluation(),
        rows=rows(),
        loss_floor=0.21,
        phases=[Phase("Training", BEGIN, ended), Phase("Evaluating", ended)],
        device="cpu",
        steps=40,
        resumed_from_step=None,
        versions={"xray_trainer": "0.1.0", "torch": "2.13.0"},
        model_digest="sha256:" + "0" * 64,
    )
