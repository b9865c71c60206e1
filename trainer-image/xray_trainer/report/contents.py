"""All figures of the page as one document, report.json: numbers, names and sentences, no pictures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from xray_trainer.config import Model, RunFile
from xray_trainer.evaluation.document import auroc_floor
from xray_trainer.evaluation.table import Floats, Labels
from xray_trainer.prepare.cache import Manifest
from xray_trainer.prepare.pinned import PinnedModel
from xray_trainer.progress import Phase, timestamp

VERSION = 1
DECIMALS = 6
NIH_LABELS = "Data_Entry_2017"
"""How NIH's labels files begin."""

Row = Mapping[str, Optional[float]]


@dataclass(frozen=True)
class Trained:
    """What there is to tell of a training."""

    run_file: RunFile
    manifest: Manifest
    model: Optional[PinnedModel]
    """The model of the hub that it began with, if it was one."""
    evaluation: Mapping[str, Any]
    """The shape of tests/contract/examples/evaluation.json."""
    rows: Sequence[Row]
    """Of metrics.jsonl."""
    loss_floor: float
    """What a model that sees no pixel reaches of the loss that training makes smaller."""
    phases: Sequence[Phase]
    """Of this container; the last goes on."""
    device: str
    steps: int
    resumed_from_step: Optional[int]
    versions: Mapping[str, str]
    model_digest: str


@dataclass(frozen=True)
class Film:
    """An image, if held out with what the model says of it."""

    ordinal: int
    """All that names it: file names tell the patient."""
    labels: Labels
    """(n_findings,), 0 or 1; the findings are those of the evaluation."""
    scores: Optional[Floats] = None
    """(n_findings,), from 0 to 1; None of an image that was trained on."""


def make_contents(trained: Trained, films: Sequence[Film], samples: Sequence[Film], now: datetime) -> Dict[str, Any]:
    """The document.

    Args:
        films: held-out images.
        samples: images of the training part.
    """
    names = [finding["name"] for finding in trained.evaluation["findings"]]
    thresholds = {finding["name"]: finding["threshold"] for finding in trained.evaluation["findings"]}
    return {
        "version": VERSION,
        "made_at": timestamp(now),
        "run": trained.run_file.run.model_dump(include={"namespace", "name", "rerun"}),
        "verdict": judge(trained.evaluation),
        "accelerator": {
            **trained.run_file.accelerator.model_dump(),
            "device": trained.device,
            "emulated": "emulated" in trained.device,
        },
        "model": {"start": describe_model(trained.run_file.model, trained.model), "digest": trained.model_digest},
        "training": {
            **trained.run_file.training.model_dump(),
            "steps": trained.steps,
            "resumed_from_step": trained.resumed_from_step,
            "image_size": trained.run_file.dataset.image_size,
        },
        "evaluation": dict(trained.evaluation),
        "curves": {"loss_floor": round(trained.loss_floor, DECIMALS), "rows": [dict(row) for row in trained.rows]},
        "films": [_film(film, names, thresholds) for film in films],
        "samples": [{"ordinal": int(film.ordinal), "findings": _present(film.labels, names)} for film in samples],
        "data": describe_data(trained.run_file, trained.manifest),
        "phases": [_phase(phase, now) for phase in trained.phases],
        "versions": dict(trained.versions),
    }


def judge(evaluation: Mapping[str, Any]) -> Dict[str, Any]:
    """Whether the macro AUROC says that pixels were learnt from, against the best that was reached without any.

    Returns: `beats_floors` ("clearly", "perhaps", "no", or None if nothing could be measured) and `floor`.
    """
    macro, floor = evaluation["macro"], auroc_floor(evaluation)
    if macro["auroc"] is None:
        return {"beats_floors": None, "floor": floor}
    low = macro["auroc_interval"][0] if macro["auroc_interval"] else None
    if low is not None and low > floor:
        return {"beats_floors": "clearly", "floor": floor}
    return {"beats_floors": "perhaps" if macro["auroc"] > floor else "no", "floor": floor}


def describe_model(model: Model, pinned: Optional[PinnedModel]) -> str:
    """What training began with, in a few words."""
    if pinned is not None:
        return f"{pinned.name} at commit {pinned.commit[:12]}"
    if model.config is not None:
        size = model.config
        return (
            f"Vision Transformer from scratch, {size.layers} deep and {size.hidden_size} wide, "
            f"{size.heads} heads, patches of {size.patch_size} pixels"
        )
    return f"{model.path.name if model.path else model.hub_name}, from a volume"


def describe_data(run_file: RunFile, manifest: Manifest) -> Dict[str, Any]:
    """What was prepared, as counts."""
    dataset = run_file.dataset
    return {
        "kind": "generated" if dataset.synthetic else "nih" if dataset.labels.file.startswith(NIH_LABELS) else "other",
        "labels_file": dataset.labels.file,
        "split": manifest.settings["split"],
        "parts": {name: part.model_dump() for name, part in manifest.parts.items()},
        "images": manifest.images,
        "patients": manifest.patients,
        "archives": manifest.archives,
        "rejected": dict(manifest.rejected),
        "rows_without_image": manifest.rows_without_image,
        "absent_findings": list(manifest.absent_findings),
        "other_findings": dict(manifest.other_findings),
        "modes": dict(manifest.modes),
        "subjects": {name: dict(counts) for name, counts in manifest.subjects.items()},
        "digest": manifest.digest,
        "split_digest": manifest.split_digest,
        "versions": dict(manifest.versions),
    }


def _film(film: Film, names: Sequence[str], thresholds: Mapping[str, Optional[float]]) -> Dict[str, Any]:
    assert film.scores is not None
    scores, labels = film.scores.tolist(), film.labels.tolist()
    return {
        "ordinal": int(film.ordinal),
        "findings": [_judged(*each, thresholds.get(each[0])) for each in zip(names, scores, labels)],
    }


def _judged(name: str, score: float, label: int, threshold: Optional[float]) -> Dict[str, Any]:
    return {
        "name": name,
        "score": round(score, DECIMALS),
        "threshold": threshold,
        "predicted": None if threshold is None else score >= threshold,
        "real": bool(label),
    }


def _present(labels: Labels, names: Sequence[str]) -> List[str]:
    return [name for name, label in zip(names, labels.tolist()) if label]


def _phase(phase: Phase, now: datetime) -> Dict[str, Any]:
    seconds = ((phase.finished_at or now) - phase.started_at).total_seconds()
    return {**phase.as_json(), "seconds": round(seconds)}


def headline(contents: Mapping[str, Any]) -> Tuple[str, str]:
    """The page's verdict in two plain sentences: what was reached, and what to make of it."""
    macro, verdict = contents["evaluation"]["macro"], contents["verdict"]
    if verdict["beats_floors"] is None:
        return (
            "Nothing could be measured.",
            "No finding is both present and absent among the held-out images, so there is no AUROC.",
        )
    reached, floor = f"{macro['auroc']:.3f}", f"{verdict['floor']:.3f}"
    return {
        "clearly": (
            f"The model reads something from the films: AUROC {reached}.",
            f"Even the lower end of the interval lies above {floor}, the most that was reached without looking at a film.",
        ),
        "perhaps": (
            f"AUROC {reached}, which may be luck.",
            f"It lies above {floor}, the most that was reached without looking at a film, but its interval doesn't.",
        ),
        "no": (
            f"AUROC {reached}: no sign that the model has learnt from pixels.",
            f"Without looking at a film, {floor} is reached.",
        ),
    }[verdict["beats_floors"]]
