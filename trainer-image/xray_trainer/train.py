"""`train`: the container that follows preparation, from prepared.json to a saved model, its figures and its curves."""

from __future__ import annotations

import json
import logging
import math
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
from xray_trainer.checkpoints import CHECKPOINTS_FOLDER, Checkpoints, training_digest
from xray_trainer.config import Model, RunFile, as_json
from xray_trainer.errors import ConfigurationError
from xray_trainer.files import (
    delete_abandoned,
    disk_full_reported,
    published_folder,
    sha256_of,
    sync_folder,
    write_json,
)
from xray_trainer.finished import MODEL_FOLDER, PREPARED_KEY, RESULT, WEIGHTS
from xray_trainer.interruption import Interruption, StopSignal
from xray_trainer.metrics import auroc, bce_from_logits, loss_floor, macro
from xray_trainer.prepare.cache import Manifest, Prepared, open_prepared, result_of
from xray_trainer.prepare.pinned import PinnedModel, open_pinned
from xray_trainer.progress import Phase, Progress
from xray_trainer.result import VERSION

if TYPE_CHECKING:  # torch and transformers are imported only after `set_environment`
    from xray_trainer.backends.callbacks import MetricsFile
    from xray_trainer.backends.common import Outcome

LOG = logging.getLogger(__name__)

PREPROCESSOR = "preprocessor_config.json"
READABLE = 0o644
"""safetensors writes for the owner only; whoever opens the volume after us is another user."""
DECIMALS = 6


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
    from xray_trainer.backends.callbacks import MetricsFile
    from xray_trainer.report import write_learning_rate_curve, write_loss_curve

    output, libraries = run_file.output_dir, versions(backend)
    with disk_full_reported(f"output {output}"):
        delete_abandoned(output, time.time())
        prepared, manifest = open_prepared(output, sample_seed=run_file.run.uid)
        model = open_pinned(run_file)
        metrics = MetricsFile(output / "metrics.jsonl")
        digest = training_digest(run_file, prepared.digest, prepared.split_digest, model.commit if model else None)
        checkpoints = Checkpoints(output / CHECKPOINTS_FOLDER, run_file.checkpoint.keep, digest, libraries)
        interruption = Interruption(progress, run_file.max_seconds, signal or StopSignal())
        from_folder = _on_disk(run_file, model)
        outcome: Outcome = backend.run(
            from_folder, prepared.cache, manifest, progress, metrics, checkpoints, interruption
        )
        model_digest = save_model(outcome, run_file, output / MODEL_FOLDER)
        figures = evaluate(outcome, manifest)
        _log_figures(figures, metrics, outcome.steps)
        write_loss_curve(output / "loss.png", metrics.rows, figures["loss_floor"])
        write_learning_rate_curve(output / "learning_rate.png", metrics.rows)
        result = make_result(run_file.backend, outcome, figures, model_digest, progress.finish())
        write_json(output / RESULT, {**result, **describe(run_file, prepared, manifest, model, libraries)})
        sync_folder(output)
        shutil.rmtree(output / CHECKPOINTS_FOLDER, ignore_errors=True)
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
    """The module of xray_trainer.backends: each has a `run` and tells its `versions`.

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


def evaluate(outcome: Outcome, manifest: Manifest) -> Dict[str, Any]:
    """Figures on the held-out images, as the result carries them; what can't be measured is null."""
    names = list(manifest.parts["train"].positives)
    train_part = manifest.parts["train"]
    aurocs = auroc(outcome.test_logits, outcome.test_labels)
    positives = outcome.test_labels.sum(axis=0, dtype=np.int64)
    train_positives = np.array([train_part.positives[name] for name in names])
    return {
        "auroc_macro": _rounded(macro(aurocs)),
        "findings_evaluated": int(np.count_nonzero(~np.isnan(aurocs))),
        "loss": _rounded(bce_from_logits(outcome.test_logits, outcome.test_labels)),
        "loss_floor": _rounded(loss_floor(train_positives, train_part.images, outcome.test_labels)),
        "findings": [
            {"name": name, "auroc": _rounded(float(aurocs[index])), "positives": int(positives[index])}
            for index, name in enumerate(names)
        ],
    }


def make_result(
    backend: str, outcome: Outcome, figures: Mapping[str, Any], model_digest: str, phases: Tuple[Phase, ...]
) -> Dict[str, Any]:
    """The shape of tests/contract/examples/result.json."""
    return {
        "version": VERSION,
        "exit_code": 0,
        "backend": backend,
        "device": outcome.device,
        **figures,
        "steps": outcome.steps,
        "resumed_from_step": outcome.resumed_from_step,
        "adopted": False,
        "model_digest": model_digest,
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


def _rounded(value: float) -> Optional[float]:
    return round(value, DECIMALS) if math.isfinite(value) else None


def _log_figures(figures: Mapping[str, Any], metrics: MetricsFile, steps: int) -> None:
    measured = {"auroc_macro": figures["auroc_macro"], "loss": figures["loss"]}
    metrics.append({"step": steps, **{f"test_{name}": value for name, value in measured.items()}})
    LOG.info("held-out images: %s", json.dumps({**measured, "loss_floor": figures["loss_floor"]}))
