"""The run file: what the operator tells the trainer. The only words that the two share."""

from __future__ import annotations

import json
from typing import Any, Final

from xray_operator import names
from xray_operator.core.budget import trainer_seconds
from xray_operator.core.ipu_config import parse_overrides
from xray_operator.core.parts import Part
from xray_operator.core.plan import Plan, Preparation
from xray_operator.core.spec import Model, Source

DATASET_MOUNT: Final = "/mnt/dataset"
CACHE_MOUNT: Final = "/mnt/cache"
CACHE_DIR: Final = f"{CACHE_MOUNT}/xray-cache"
EXECUTABLES_DIR: Final = f"{CACHE_MOUNT}/xray-executables"
"""Root of what is compiled for IPUs: runs that compile the same share it, as they do the cache."""
OUTPUT_MOUNT: Final = "/mnt/output"
MODEL_MOUNT: Final = "/mnt/model"
RUN_FILE_MOUNT: Final = "/etc/xray"
FILE_LIST_MOUNT: Final = "/etc/xray-files"
FILE_LIST: Final = "files.json"
"""Key of the ConfigMap that a source http names."""
RUN_FILE: Final = "run.json"
ORDERED_BY: Final = "XRAY_ORDERED_BY"
"""Variable with the run file of the run that has ordered what is prepared; images from before there was one don't look."""
_LATER_LABELS: Final = ("layout", "uncertain", "patient_folder")


def build_run_file(plan: Plan) -> dict[str, Any]:
    """The run file as a JSON object: version 1, see tests/contract/examples/run.json."""
    orders = {"prepared_by": plan.snapshot.preparation, "model_prepared_by": plan.snapshot.model_preparation}
    return {
        "version": 1,
        "run": {
            "namespace": plan.job.namespace,
            "name": plan.job.name,
            "uid": plan.job.uid,
            "rerun": plan.snapshot.rerun,
        },
        "accelerator": {
            "flavor": plan.snapshot.flavor,
            "backend": plan.snapshot.backend,
            "resource_name": plan.snapshot.resource_name,
            "count": plan.snapshot.accelerators,
        },
        "backend": plan.snapshot.trains_with,
        "model": _model(plan.spec.model),
        "dataset": _dataset(plan),
        "training": _training(plan),
        "checkpoint": plan.spec.checkpoint.model_dump(),
        "max_seconds": _max_seconds(plan),
        "output_dir": f"{OUTPUT_MOUNT}/{plan.output_folder}",
        "progress_port": plan.progress_port,
        **_if_asked_for(plan.spec.dataset, "verify"),
        **({"ipu": _ipu(plan)} if plan.snapshot.trains_with == "ipu" else {}),
    } | {field: order.job_name for field, order in orders.items() if order}


def _max_seconds(plan: Plan) -> int | None:
    return trainer_seconds(plan.spec.limits, plan.spec.budget, plan.snapshot.price)


def render_order(plan: Plan, preparation: Preparation) -> str:
    """What a preparation of its own is told, on one line."""
    if preparation.kind == "model":
        model = _model(plan.spec.model)
        what = {"hub_name": model["hub_name"], "revision": model["revision"], "cache_dir": CACHE_DIR}
    else:
        what = {"dataset": _dataset(plan)}
    order = {"version": 1, "name": preparation.job_name, "progress_port": names.PROGRESS_PORT} | what
    return json.dumps(order, sort_keys=True)


def ordered_by(plan: Plan) -> dict[str, str]:
    """Has a preparation of data tell the result of the run that has ordered it, if that is finished already; where the run's
    folder lies on what the preparation mounts anyway: a claim of its own might be in use on another node, or not be bound yet.
    """
    if plan.spec.cache_claim != plan.spec.output.claim_name:
        return {}
    return {ORDERED_BY: json.dumps(build_run_file(plan) | {"output_dir": f"{CACHE_MOUNT}/{plan.output_folder}"})}


def render_run_file(plan: Plan) -> str:
    """The same as text; equal plans give equal bytes."""
    return json.dumps(build_run_file(plan), indent=2) + "\n"


def _if_asked_for(part: Part, *fields: str) -> dict[str, Any]:
    """These fields as far as they differ from their defaults, which are the trainer's too: an image from before them refuses
    what it does not know, and a run keeps its image."""
    return part.model_dump(include=set(fields), exclude_defaults=True)


def _model(model: Model) -> dict[str, Any]:
    return {
        "path": f"{MODEL_MOUNT}/{model.name}" if model.claim_name else None,
        "hub_name": model.name if model.is_of_hub else None,
        "revision": model.revision,
        "config": model.config.model_dump() if model.config else None,
    }


def _dataset(plan: Plan) -> dict[str, Any]:
    dataset = plan.spec.dataset
    fractions = dataset.split.fractions
    return _source(dataset.source) | {
        "labels": dataset.labels.model_dump(exclude={"findings", *_LATER_LABELS})
        | _if_asked_for(dataset.labels, *_LATER_LABELS),
        "findings": list(dataset.labels.findings),
        "split": {
            "by": dataset.split.by,
            "seed": dataset.split.seed,
            "train": float(fractions.train),
            "validation": float(fractions.validation),
            "test": float(fractions.test),
        },
        "image_size": dataset.image_size,
        "stored_size": plan.stored_size,
        "cache_dir": CACHE_DIR,
        "on_bad_image": {"mode": dataset.on_bad_image, "max_share": dataset.max_bad_percent / 100},
    }


def _source(source: Source) -> dict[str, Any]:
    if source.http:
        return {"http": {"list": f"{FILE_LIST_MOUNT}/{FILE_LIST}" if source.http.config_map_name else None}}
    if source.s3:
        return {"s3": source.s3.model_dump(exclude={"secret_name"})}
    if source.fsspec:
        return {"fsspec": source.fsspec.model_dump(exclude={"secret_name"})}
    if source.synthetic:
        return {"synthetic": source.synthetic.model_dump()}
    path = (source.pvc.path or "").strip("/") if source.pvc else ""
    return {"root": f"{DATASET_MOUNT}/{path}".rstrip("/")}


def _training(plan: Plan) -> dict[str, Any]:
    training, sizing = plan.spec.training, plan.snapshot.effective
    return {
        "epochs": training.epochs,
        "global_batch_size": sizing.global_batch_size,
        "micro_batch_size": sizing.micro_batch_size,
        # of all replicas together
        "gradient_accumulation_steps": sizing.global_batch_size // sizing.micro_batch_size,
        "learning_rate": float(sizing.learning_rate),
        "warmup_ratio": float(training.warmup_ratio),
        "weight_decay": float(training.weight_decay),
        "scheduler": training.scheduler,
        "seed": training.seed,
        **_if_asked_for(training, "horizontal_flip"),
    }


def _ipu(plan: Plan) -> dict[str, Any]:
    sizing = plan.snapshot.effective
    return {
        "ipus_per_replica": sizing.ipus_per_replica,
        "replication_factor": sizing.replication_factor,
        "gradient_accumulation_steps": sizing.gradient_accumulation_steps,
        "layers_per_ipu": list(sizing.layers_per_ipu) if sizing.layers_per_ipu else None,
        "overrides": parse_overrides(plan.spec.ipu.overrides),
        "executables_dir": EXECUTABLES_DIR,
        "image": plan.snapshot.train_image,
    }
