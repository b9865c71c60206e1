"""One MLflow run for each training run, also for one in several attempts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Dict, Mapping, MutableMapping, Optional, Sequence, Set, Tuple
from urllib.parse import urlsplit

from xray_trainer.config import RunFile
from xray_trainer.errors import LimitReachedError, StoppedError
from xray_trainer.files import write_json
from xray_trainer.trackers.courier import Told
from xray_trainer.trackers.tracker import figures_of, step_of

LOG = logging.getLogger(__name__)

ADDRESS = "MLFLOW_TRACKING_URI"
EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "xray-training"
KEPT = "mlflow.json"
"""In the output folder: which MLflow run is this one's."""
ARTIFACTS = ("evaluation.json", "result.json", "model/README.md")
"""Texts with figures. Nothing that shows a patient, such as the report's films, leaves the volume."""
METRICS_AT_ONCE = 1000
"""MLflow's own bound of one request."""
CLIENT_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the courier tries again
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def mlflow_run(environment: MutableMapping[str, str], run_file: RunFile) -> Optional[MlflowRun]:
    """The one that the environment names, if it names any that can be taken."""
    address = environment.get(ADDRESS, "")
    if not address:
        return None
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        LOG.warning("%s: no http:// or https:// address of a server; nothing is told to MLflow", ADDRESS)
        return None
    if parts.username or parts.password:
        LOG.warning(
            "%s holds a password, which would get into messages: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are "
            "for that; nothing is told to MLflow",
            ADDRESS,
        )
        return None
    environment.update(CLIENT_SETTINGS)
    LOG.info("figures are told to MLflow at %s", parts.hostname)
    return MlflowRun(address, environment.get(EXPERIMENT) or DEFAULT_EXPERIMENT, run_file)


class MlflowRun:
    """A service for a courier."""

    name = "MLflow"

    def __init__(self, address: str, experiment: str, run_file: RunFile) -> None:
        self._address = address
        self._experiment = experiment
        self._run_file = run_file
        self._known: Set[Tuple[str, int]] = set()
        """Figures and steps that are there."""

    def open(self) -> None:
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._client = MlflowClient(tracking_uri=self._address)
        run = self._find() or self._create()
        self._run_id: str = run.info.run_id
        if not run.data.params:
            self._tell_parameters()
        history = (self._client.get_metric_history(self._run_id, name) for name in run.data.metrics)
        self._known = {(metric.key, metric.step) for metrics in history for metric in metrics}

    def send(self, told: Sequence[Told]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, each.milliseconds, step_of(each.row))
            for each in told
            for name, value in figures_of(each.row).items()
            if (name, step_of(each.row)) not in self._known
        ]
        for begin in range(0, len(metrics), METRICS_AT_ONCE):
            some = metrics[begin : begin + METRICS_AT_ONCE]
            self._client.log_batch(self._run_id, metrics=some)
            self._known |= {(metric.key, metric.step) for metric in some}

    def close(self, error: Optional[BaseException]) -> None:
        self._client.set_terminated(self._run_id, _status(error))
        if error is None:
            for name in ARTIFACTS:
                self._client.log_artifact(self._run_id, str(self._run_file.output_dir / name))

    def _find(self) -> Any:
        """The run of an earlier attempt, if the server still has it."""
        from mlflow.exceptions import MlflowException

        run_id = read_run_id(self._run_file.output_dir)
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if run.info.lifecycle_stage != "active":
            return None
        self._client.update_run(run_id, status="RUNNING")
        return run

    def _create(self) -> Any:
        found = self._client.get_experiment_by_name(self._experiment)
        experiment = found.experiment_id if found else self._client.create_experiment(self._experiment)
        made = self._run_file.run
        run = self._client.create_run(experiment, run_name=f"{made.namespace}/{made.name}/{made.rerun}")
        write_json(self._run_file.output_dir / KEPT, {"run_id": run.info.run_id})
        return run

    def _tell_parameters(self) -> None:
        from mlflow.entities import Param

        parameters = parameters_of(self._run_file)
        self._client.log_batch(self._run_id, params=[Param(name, value) for name, value in parameters.items()])


def read_run_id(output: Path) -> Optional[str]:
    try:
        return str(json.loads((output / KEPT).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def parameters_of(run_file: RunFile) -> Dict[str, str]:
    """What somebody compares runs by."""
    dataset, model = run_file.dataset, run_file.model
    begin = model.hub_name or ("random weights" if model.config else "a model on a claim")
    told: Mapping[str, Any] = {
        "flavor": run_file.accelerator.flavor,
        "backend": run_file.backend,
        "model": begin,
        **run_file.training.model_dump(mode="json"),
        "image_size": dataset.image_size,
        "findings": len(dataset.findings),
        "split": dataset.split.by,
        "split_seed": dataset.split.seed,
    }
    return {name: str(value) for name, value in told.items()}


def _status(error: Optional[BaseException]) -> str:
    """In MLflow's words; one that was killed may go on."""
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, (StoppedError, LimitReachedError)) else "FAILED"
