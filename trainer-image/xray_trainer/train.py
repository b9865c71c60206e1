"""`train`: the container that follows preparation, from prepared.json to a saved model, its figures and its curves."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Dict, Mapping, MutableMapping, Optional, Tuple

import numpy as np

from xray_trainer import __version__
from xray_trainer.card import CARD, Facts, make_card
from xray_trainer.checkpoints import CHECKPOINTS_FOLDER, Checkpoints, training_digest
from xray_trainer.config import Model, RunFile, as_json
from xray_trainer.errors import ConfigurationError
from xray_trainer.evaluation.cached import read_parts
from xray_trainer.evaluation.document import Parts, auroc_floor, evaluate
from xray_trainer.evaluation.predictions import Predictions, write_predictions
from xray_trainer.files import (
    delete_abandoned,
    disk_full_reported,
    published_folder,
    sha256_of,
    sync_folder,
    write_json,
    write_text,
)
from xray_trainer.finished import MODEL_FOLDER, PREPARED_KEY, RESULT, WEIGHTS
from xray_trainer.interruption import Interruption, StopSignal
from xray_trainer.metrics import prevalence_losses
from xray_trainer.prepare.cache import Manifest, Prepared, open_prepared, result_of
from xray_trainer.prepare.pinned import PinnedModel, open_pinned
from xray_trainer.progress import Phase, Progress
from xray_trainer.result import VERSION
from xray_trainer.thresholds import THRESHOLDS, thresholds_document
from xray_trainer.trackers.tracker import open_trackers

if TYPE_CHECKING:  # torch and transformers are imported only after `set_environment`
    from xray_trainer.backends.callbacks import MetricsFile
    from xray_trainer.backends.common import Outcome

LOG = logging.getLogger(__name__)

PREPROCESSOR = "preprocessor_config.json"
EVALUATION = "evaluation.json"
PREDICTIONS = "predictions.csv"
READABLE = 0o644
"""safetensors writes for the owner only; whoever opens the volume after us is another user."""


def train(run_file: RunFile, progress: Progress, signal: Optional[StopSignal] = None) -> Dict[str, Any]:
    """Train on the prepared data and write everything into the run's output folder, the result last.

    Goes on from the newest whole checkpoint of an earlier attempt. Once the result is written, the checkpoints have
    done their work and are deleted.

    Args:
        signal: tells of SIGTERM; None if nobody listens to it.
    Returns: the document for the termination message.
    Raises: TrainerError, see backends/*.py and prepare/cache.py.
    """
    set_environment(os.environ)
    backend = open_backend(run_file.backend)
    progress.device = device = backend.device()
    from xray_trainer.backends.callbacks import MetricsFile
    from xray_trainer.report.contents import Trained
    from xray_trainer.report.write import write_report

    output, libraries = run_file.output_dir, versions(backend)
    with disk_full_reported(f"output {output}"), open_trackers(run_file, os.environ) as trackers:
        delete_abandoned(output, time.time())
        prepared, manifest = open_prepared(output, sample_seed=run_file.run.uid)
        model = open_pinned(run_file)
        metrics = MetricsFile(output / "metrics.jsonl", trackers)
        digest = training_digest(run_file, prepared.digest, prepared.split_digest, model.commit if model else None)
        checkpoints = Checkpoints(output / CHECKPOINTS_FOLDER, run_file.checkpoint.keep, digest, libraries)
        interruption = Interruption(progress, run_file.max_seconds, signal or StopSignal())
        from_folder = _on_disk(run_file, model)
        outcome: Outcome = backend.run(
            from_folder, prepared.cache, manifest, progress, metrics, checkpoints, interruption
        )
        model_digest = save_model(outcome, run_file, output / MODEL_FOLDER)
        held_out, validation = predictions_of(outcome, run_file)
        parts, ordinals = read_parts(prepared.cache, manifest)
        evaluation = evaluate(held_out, validation, parts)
        write_json(output / EVALUATION, evaluation)
        write_predictions(output / PREDICTIONS, held_out, ordinals)
        _log_figures(evaluation, metrics, outcome.steps)
        trained = Trained(
            run_file=run_file,
            manifest=manifest,
            model=model,
            evaluation=evaluation,
            rows=metrics.rows,
            loss_floor=floor_of_training(held_out, parts),
            phases=progress.state.phases,
            device=device,
            steps=outcome.steps,
            resumed_from_step=outcome.resumed_from_step,
            versions=libraries,
            model_digest=model_digest,
        )
        report = write_report(output, prepared.cache, output / MODEL_FOLDER, trained, held_out)
        figures = {**summarise(evaluation), "report": report}
        result = make_result(run_file.backend, device, outcome, figures, model_digest, progress.finish())
        describe_model(output / MODEL_FOLDER, Facts(run_file, manifest, model, result, evaluation, libraries))
        write_json(output / RESULT, {**result, **describe(run_file, prepared, manifest, model, libraries)})
        sync_folder(output)
        shutil.rmtree(output / CHECKPOINTS_FOLDER, ignore_errors=True)
        progress.saved(None)
    return result


def set_environment(environment: MutableMapping[str, str]) -> None:
    """Settings that the libraries read when they are imported."""
    environment["HF_HUB_OFFLINE"] = "1"  # `prepare` has fetched what there is to fetch
    environment["HF_HUB_DISABLE_TELEMETRY"] = "1"
    environment["DO_NOT_TRACK"] = "1"
    environment["DISABLE_KUBEFLOW_INTEGRATION"] = "TRUE"  # it would report even where report_to is "none"
    environment["TOKENIZERS_PARALLELISM"] = "false"
    environment["TRANSFORMERS_VERBOSITY"] = "error"
    environment["CUDA_VISIBLE_DEVICES"] = "0"  # two would train on twice the batch that was asked for


def open_backend(name: str) -> ModuleType:
    """The module of xray_trainer.backends: each has a `run` and tells its `versions` and its `device`.

    Raises: ConfigurationError if this image hasn't the libraries that it needs.
    """
    try:
        return import_module(f"xray_trainer.backends.{name}")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"backend: {name} needs {error.name}, which this image doesn't have; expected the image of target {name}"
        ) from error


def _on_disk(run_file: RunFile, model: Optional[PinnedModel]) -> RunFile:
    """The run file with the folder of the fetched model in place of its name."""
    return run_file if model is None else run_file.model_copy(update={"model": Model(path=model.folder)})


def save_model(outcome: Outcome, run_file: RunFile, folder: Path) -> str:
    """Write weights, configuration and image processor, all loadable with transformers' Auto classes.

    The folder appears whole under its name; one of an earlier attempt is replaced.
    Returns: `sha256:` digest of model.safetensors.
    Raises: DiskFullError.
    """
    from xray_trainer.model import preprocessor_config

    sizes = run_file.dataset
    with published_folder(folder, f"model in {folder.parent}") as temporary:
        outcome.model.save_pretrained(temporary, safe_serialization=True)  # transformers 5 knows nothing else
        write_json(temporary / PREPROCESSOR, preprocessor_config(sizes.stored_size, sizes.image_size))
        (temporary / WEIGHTS).chmod(READABLE)
    return sha256_of(folder / WEIGHTS)


def describe_model(folder: Path, facts: Facts) -> None:
    """Add its card to the saved model, and the thresholds that its evaluation has fixed."""
    write_json(folder / THRESHOLDS, thresholds_document(facts.evaluation))
    write_text(folder / CARD, make_card(facts))


def predictions_of(outcome: Outcome, run_file: RunFile) -> Tuple[Predictions, Predictions]:
    """For the held-out images and for those of the validation part."""
    findings = tuple(run_file.dataset.findings)
    return (
        Predictions(findings, outcome.test_logits, outcome.test_labels),
        Predictions(findings, outcome.validation_logits, outcome.validation_labels),
    )


def floor_of_training(held_out: Predictions, parts: Parts) -> float:
    """What a model that sees no pixel has for the loss that training makes smaller: that of all outputs."""
    trained = parts.table.labels[parts.train]
    return float(prevalence_losses(trained.sum(axis=0, dtype=np.int64), len(trained), held_out.labels).mean())


def summarise(evaluation: Mapping[str, Any]) -> Dict[str, Any]:
    """What the result carries of it; what couldn't be measured is null."""
    macro = evaluation["macro"]
    return {
        "auroc_macro": macro["auroc"],
        "auroc_interval": macro["auroc_interval"],
        "auroc_floor": auroc_floor(evaluation),
        "findings_evaluated": macro["findings"],
        "test_images": evaluation["images"],
        "loss": evaluation["loss"],
        "loss_floor": evaluation["floors"]["loss"],
        "findings": [{key: each[key] for key in ("name", "auroc", "positives")} for each in evaluation["findings"]],
    }


def make_result(
    backend: str,
    device: str,
    outcome: Outcome,
    figures: Mapping[str, Any],
    model_digest: str,
    phases: Tuple[Phase, ...],
) -> Dict[str, Any]:
    """The shape of tests/contract/examples/result.json."""
    return {
        "version": VERSION,
        "exit_code": 0,
        "backend": backend,
        "device": device,
        **figures,
        "steps": outcome.steps,
        "resumed_from_step": outcome.resumed_from_step,
        "adopted": False,
        "model_digest": model_digest,
        "model_folder": MODEL_FOLDER,
        "phases": [phase.as_json() for phase in phases],
    }


def describe(
    run_file: RunFile,
    prepared: Prepared,
    manifest: Manifest,
    model: Optional[PinnedModel],
    libraries: Mapping[str, str],
) -> Dict[str, Any]:
    """What somebody needs to judge and repeat the run, and what `prepare` answered; goes into result.json beside the
    result. The keys are finished.REPORT_KEYS."""
    fetched = {"model": model.as_json()} if model else {}
    return {
        "weights": "after the last epoch",
        "run_file": as_json(run_file),
        "data": {
            "digest": prepared.digest,
            "split_digest": prepared.split_digest,
            "split": manifest.settings["split"],
            "parts": {name: part.model_dump() for name, part in manifest.parts.items()},
            "rejected": manifest.rejected,
        },
        "versions": dict(libraries),
        **fetched,
        PREPARED_KEY: {**result_of(manifest), **fetched},
    }


def versions(backend: ModuleType) -> Dict[str, str]:
    """Our own, Python's and those of the libraries that decide over the weights."""
    return {"xray_trainer": __version__, "python": platform.python_version(), **backend.versions()}


def _log_figures(evaluation: Mapping[str, Any], metrics: MetricsFile, steps: int) -> None:
    told = summarise(evaluation)
    measured = {"auroc_macro": told["auroc_macro"], "loss": told["loss"]}
    metrics.append({"step": steps, **{f"test_{name}": value for name, value in measured.items()}})
    floors = {name: told[name] for name in ("auroc_floor", "loss_floor")}
    LOG.info("held-out images: %s", json.dumps({**measured, **floors}))
