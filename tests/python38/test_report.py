"""The report is written there as here: by matplotlib 3.7, numpy 1.23 and transformers 4.29."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict

import numpy as np
from tiny import FINDINGS, IMAGE_SIZE, IMAGES, make_vit, open_parts, write_cache

from xray_trainer.config import parse_run_file
from xray_trainer.evaluation.predictions import Predictions
from xray_trainer.prepare.cache import Manifest, Part
from xray_trainer.progress import Phase
from xray_trainer.report.contents import Trained
from xray_trainer.report.write import write_report

EXAMPLES = Path(__file__).parents[1] / "contract" / "examples"


def evaluation() -> Dict[str, Any]:
    """The example's figures for two of its findings."""
    document: Dict[str, Any] = json.loads((EXAMPLES / "evaluation.json").read_text(encoding="utf-8"))
    by_name = {finding["name"]: finding for finding in document["findings"]}
    return {**document, "findings": [by_name[name] for name in FINDINGS]}


def manifest_of(cache: Manifest) -> Manifest:
    """With what the report tells of data beside what training reads."""
    told = json.loads((EXAMPLES / "run-ipu.json").read_text(encoding="utf-8"))["dataset"]["split"]
    parts = {
        name: Part(images=images, patients=images, positives=dict.fromkeys(FINDINGS, 5))
        for name, images in IMAGES.items()
    }
    empty: Dict[str, Any] = {name: {} for name in ("rejected", "other_findings", "modes", "subjects", "versions")}
    counts = {"images": 130, "patients": 130, "archives": 1, "rows_without_image": 0, "absent_findings": []}
    digests = {"digest": "sha256:1", "split_digest": "sha256:2", "settings": {**cache.settings, "split": told}}
    return cache.model_copy(update={"parts": parts, **empty, **counts, **digests})


def test_the_report_is_written_with_maps_and_plots(tmp_path: Path) -> None:
    folder, cached = write_cache(tmp_path / "cache")
    labels = open_parts(folder, cached)["test"].labels
    make_vit().save_pretrained(tmp_path / "model", safe_serialization=True)
    document = json.loads((EXAMPLES / "run-ipu.json").read_text(encoding="utf-8"))
    document["dataset"].update(findings=FINDINGS, image_size=IMAGE_SIZE, stored_size=36)
    trained = Trained(
        run_file=parse_run_file(document),
        manifest=manifest_of(cached),
        model=None,
        evaluation=evaluation(),
        rows=[{"step": step, "loss": 1 / step, "learning_rate": 1e-4} for step in range(1, 9)],
        loss_floor=0.6,
        phases=[Phase("Training", datetime.now(timezone.utc))],
        device="emulated IPU",
        steps=8,
        resumed_from_step=None,
        versions={"torch": "2.0.1"},
        model_digest="sha256:3",
    )
    held_out = Predictions(tuple(FINDINGS), np.zeros(labels.shape, dtype=np.float32), labels)
    assert write_report(tmp_path, folder, tmp_path / "model", trained, held_out) == "report.html"
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('class="attention"') == 9
    assert "var(--blue)" in page
    assert "No IPU has computed this" in page
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"{name}.png" for name in ("auroc", "labels", "learning_rate", "loss", "roc_reliability")
    }
