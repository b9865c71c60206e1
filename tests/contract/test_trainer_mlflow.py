"""What a real MLflow server shows of runs, and that none depends on it."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from tests.contract.test_trainer_resume import StopAtLook
from tests.contract.test_trainer_run import run
from tests.curves import expected
from tests.mlflow_server import mlflow_server
from tests.unit.trainer.build import run_document, write_data_set
from xray_trainer.config import parse_run_file
from xray_trainer.errors import StoppedError
from xray_trainer.progress import Progress
from xray_trainer.train import train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment_as_before", "one_core")]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mlflow")
    write_data_set(folder / "nih", films=[3] * 16)
    document = run_document(folder, training={"epochs": 2})
    assert run(folder, "prepare", document)[0] == 0
    return document


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_server(tmp_path_factory.mktemp("server")) as address:
        MlflowClient(tracking_uri=address).search_experiments()  # the first answer takes it long
        yield address


def attempt(document: dict[str, Any], output: Path, signal: StopAtLook | None = None) -> dict[str, Any]:
    if not output.exists():
        output.mkdir()
        shutil.copy(Path(document["output_dir"]) / "prepared.json", output)
    return train(parse_run_file({**document, "output_dir": str(output)}), Progress("Training"), signal)


def curves(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    names = client.get_run(run_id).data.metrics
    histories = {name: client.get_metric_history(run_id, name) for name in names if name != "images_per_second"}
    return {name: sorted((metric.step, metric.value) for metric in history) for name, history in histories.items()}


def test_a_run_in_several_attempts_is_one_run_there_and_no_step_is_twice(
    document: dict[str, Any], server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "chests")
    client, output = MlflowClient(tracking_uri=server), tmp_path / "out"
    for look in (3, 5):
        with pytest.raises(StoppedError):
            attempt(document, output, StopAtLook(look))
        run_id = json.loads((output / "mlflow.json").read_text())["run_id"]
        assert client.get_run(run_id).info.status == "KILLED"
    result = attempt(document, output)

    experiment = client.get_experiment_by_name("chests")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    resource = document["run"]
    assert found.info.run_name == f"{resource['namespace']}/{resource['name']}/{resource['rerun']}"
    assert (found.info.run_id, found.info.status) == (run_id, "FINISHED")
    assert found.data.params["learning_rate"] == str(document["training"]["learning_rate"])
    assert found.data.metrics["test_loss"] == pytest.approx(result["loss"])
    assert curves(client, run_id) == {name: sorted(told) for name, told in expected(output).items()}
    assert {each.path for each in client.list_artifacts(run_id)} == {"README.md", "evaluation.json", "result.json"}


def test_a_server_that_is_not_there_is_told_of_and_makes_no_difference(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        told = attempt(document, tmp_path / "told")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    silent = attempt(document, tmp_path / "silent")
    assert told["model_digest"] == silent["model_digest"]
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("MLflow")]
    assert [line.partition("(")[0] for line in lines] == ["MLflow does not take what it is told ", lines[1]]
    assert "were not delivered" in lines[1]
    assert not (tmp_path / "told" / "mlflow.json").exists()
