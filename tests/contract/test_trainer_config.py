"""The trainer reads the run file as the operator writes it, and what it writes has the shapes that the operator reads."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operator.builders import make_job, make_run
from tests.unit.operator.test_model_preparation import model_plan
from tests.unit.operator.test_sources import SOURCES, plan_with
from tests.unit.trainer.build import EXAMPLES, make_run_file, write_data_set
from xray_operator.core.plan import Preparation
from xray_operator.core.run_file import build_run_file, render_order, render_run_file
from xray_trainer.config import as_json, parse_data_order, parse_model_order, parse_run_file, read_run_file
from xray_trainer.errors import ConfigurationError, DataError, StoppedError
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress
from xray_trainer.result import encode, error_result


def example(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text())


def shape_of(value: object) -> object:
    """Keys and kinds of a document: a number is a number, null and the missing are compared by the tests themselves."""
    if isinstance(value, dict):
        return {key: shape_of(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape_of(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) else type(value).__name__


@pytest.mark.parametrize("name", ["run.json", "run-ipu.json"])
def test_the_example_run_file_is_read_whole(name: str) -> None:
    run_file = read_run_file(EXAMPLES / name)
    assert as_json(run_file) == example(name)


@pytest.mark.parametrize(
    "key",
    [
        "backend",
        "checkpoint",
        "dataset",
        "max_seconds",
        "model",
        "output_dir",
        "progress_port",
        "run",
        "training",
    ],
)
def test_every_section_of_the_example_is_needed(key: str) -> None:
    document = example("run.json")
    del document[key]
    with pytest.raises(Exception, match=key):
        parse_run_file(document)


def test_a_model_from_a_small_configuration_is_read() -> None:
    document = example("run.json")
    size = {"hidden_size": 192, "layers": 12, "heads": 3, "patch_size": 16}
    document["model"] = {"path": None, "hub_name": None, "revision": None, "config": size}
    config = parse_run_file(document).model.config
    assert config is not None
    assert config.model_dump() == size


LATER = {"labels": {"layout": "Columns", "uncertain": "Positive", "patientFolder": "patient"}, "verify": "Always"}


def test_what_images_of_runs_that_began_before_do_not_know_is_told_only_where_it_is_asked_for() -> None:
    """They refuse unknown fields; the trainer's defaults are the operator's."""
    source = {"pvc": {"claimName": "nih"}}
    usual, asked = (
        make_run(make_job().spec(dataset={"source": source, **fields}, training=training))
        for fields, training in (({}, {}), (LATER, {"horizontalFlip": True}))
    )
    later = {
        "dataset.labels": {"layout", "uncertain", "patient_folder"},
        "training": {"horizontal_flip"},
        "": {"verify"},
    }
    documents = [json.loads(render_run_file(plan)) for plan in (usual, asked)]
    for place, fields in later.items():
        parts = [functools.reduce(dict.__getitem__, filter(None, place.split(".")), each) for each in documents]
        assert parts[1].keys() - parts[0].keys() == fields
    labels, training = parse_run_file(documents[0]).dataset.labels, parse_run_file(documents[0]).training
    assert (labels.layout, labels.uncertain, labels.patient_folder) == ("List", "Negative", None)
    assert (training.horizontal_flip, parse_run_file(documents[0]).verify) == (False, "Sample")
    assert as_json(parse_run_file(documents[1])) == documents[1]
    assert "layout" not in render_order(usual, Preparation(job_name="xray-data-1", flavor="cpu"))


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_every_source_is_read_as_the_operator_writes_it(source: dict[str, Any]) -> None:
    plan = plan_with(source, "Job")
    document = json.loads(render_run_file(plan))
    run_file = parse_run_file(document)
    assert as_json(run_file) == document
    preparation = plan.snapshot.preparation
    assert preparation is not None
    order = parse_data_order(render_order(plan, preparation))
    assert order.name == run_file.prepared_by
    assert order.dataset == run_file.dataset


@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_hub_model_is_read_as_the_operator_writes_it(revision: str | None) -> None:
    plan = model_plan(name="example/vit", revision=revision)
    run_file = parse_run_file(json.loads(render_run_file(plan)))
    preparation = plan.snapshot.model_preparation
    assert preparation is not None
    order = parse_model_order(render_order(plan, preparation))
    assert order.name == run_file.model_prepared_by
    assert (order.hub_name, order.revision) == (run_file.model.hub_name, run_file.model.revision)
    assert (order.hub_name, order.revision) == ("example/vit", revision)
    assert order.cache_dir == run_file.dataset.cache_dir


def test_a_data_set_that_is_not_on_the_claim_is_told_by_the_user_s_own_path(tmp_path: Path) -> None:
    job = make_job().spec(dataset={"source": {"pvc": {"claimName": "nih", "path": "sets/no-such-folder"}}})
    root = build_run_file(make_run(job))["dataset"]["root"]
    with pytest.raises(ConfigurationError) as caught:
        prepare(make_run_file(tmp_path, dataset={"root": root}), Progress("Preparing"))
    assert str(caught.value).startswith("spec.dataset.source.pvc.path: sets/no-such-folder: uid ")


def test_preparation_answers_in_the_agreed_shape(tmp_path: Path) -> None:
    write_data_set(tmp_path / "nih")
    progress = Progress("Preparing")
    result = prepare(make_run_file(tmp_path), progress)
    assert shape_of(json.loads(encode(result))) == shape_of(example("prepare-result.json"))
    state, agreed = progress.as_json(), example("progress-preparing.json")
    assert state.keys() == agreed.keys()
    assert shape_of(state["data"]) == shape_of(agreed["data"])
    assert state["phase"] == "Preparing"
    assert state["progress_percentage"] == 100


def test_errors_have_the_agreed_shape() -> None:
    agreed = example("error-result.json")
    written = json.loads(encode(error_result(DataError(agreed["message"]))))
    assert written == agreed
    agreed = example("stopped-result.json")
    written = json.loads(encode(error_result(StoppedError(agreed["message"]), agreed["checkpoint"])))
    assert written == agreed


def test_progress_has_the_agreed_shape() -> None:
    progress = Progress("Training")
    progress.device = "cpu"
    progress.advance(6, 15)
    progress.record(loss=0.2207, learning_rate=0.000187)
    progress.saved({"step": 6, "time": "2026-11-22T10:00:30Z"})
    state, agreed = progress.as_json(), example("progress.json")
    assert shape_of(state) == shape_of(agreed)
    assert state["metrics"] == agreed["metrics"]
    assert state["progress_percentage"] == agreed["progress_percentage"]
