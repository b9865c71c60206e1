"""The operator's side of the seam: it writes the run file as agreed, and reads what the trainer writes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import EXAMPLES, WITH_IPUS, example, make_flavor, make_job, make_run
from tests.unit.trainer.build import make_run_file, write_data_set
from tests.unit.trainer.test_finished import finish
from tests.unit.trainer.test_progress_server import Asked
from xray_operator.cluster.progress import fetch_progress
from xray_operator.core.admission import size_run
from xray_operator.core.backends.base import PARTITION_SIZES
from xray_operator.core.manifests import build_config_map
from xray_operator.core.plan import read_snapshot
from xray_operator.core.reports import (
    ErrorResult,
    FoundResult,
    ModelResult,
    PrepareResult,
    Progress,
    Report,
    TrainResult,
    read_report,
)
from xray_operator.core.run_file import ORDERED_BY, build_run_file
from xray_operator.core.spec import FlavorSpec, JobSpec
from xray_operator.names import FATAL_EXIT_CODES, NEVER
from xray_trainer.__main__ import main
from xray_trainer.config import as_json, parse_run_file
from xray_trainer.progress_server import serve


def test_the_run_file_of_the_example_job_is_the_example() -> None:
    plan = make_run(make_job("cxr"))
    expected = json.loads(example("run.json"))
    expected["output_dir"] = f"/mnt/output/{plan.output_folder}"  # the example's hash is a stand-in
    assert build_run_file(plan) == expected


def test_the_run_file_of_the_example_job_on_ipus_is_the_example() -> None:
    plan = make_run(
        make_job("cxr").spec(ipu={"layersPerIpu": [3, 3, 3, 3], "overrides": {"matmul_proportion": "0.25"}}),
        config=WITH_IPUS,
    )
    expected = json.loads(example("run-ipu.json"))
    expected["output_dir"] = f"/mnt/output/{plan.output_folder}"
    assert build_run_file(plan) == expected
    assert plan.snapshot.train_image == expected["ipu"]["image"]
    section = parse_run_file(build_run_file(plan)).ipu
    assert section is not None
    assert section.ipus == 4


@given(
    accelerators=st.sampled_from(PARTITION_SIZES),
    layers=st.integers(1, 48),
    batch=st.integers(127, 2048),
    scaling=st.sampled_from(["Keep", "Linear", "SquareRoot"]),
)
def test_what_the_operator_sizes_is_taken_by_the_trainer(
    accelerators: int, layers: int, batch: int, scaling: str
) -> None:
    job = make_job().spec(
        model={"config": {"hiddenSize": 64, "layers": layers, "heads": 2, "patchSize": 16}},
        training={"globalBatchSize": batch},
        ipu={"scaling": scaling},
    )
    spec, flavor = (
        JobSpec.model_validate(job.build().spec),
        FlavorSpec.model_validate(make_flavor(accelerators=accelerators)),
    )
    sizing = size_run(spec, flavor, WITH_IPUS)
    if isinstance(sizing, list):
        return
    run_file = parse_run_file(build_run_file(make_run(job, make_flavor(accelerators=accelerators), WITH_IPUS)))
    assert run_file.training.global_batch_size == sizing.global_batch_size
    assert run_file.ipu is not None
    assert run_file.ipu.ipus == accelerators
    assert run_file.ipu.layers_per_ipu == list(sizing.layers_per_ipu or ())


def test_the_config_map_holds_the_run_file_and_the_record_and_nothing_else() -> None:
    plan = make_run()
    config_map = build_config_map(plan)
    assert set(config_map["data"]) == {"run.json", "snapshot.json"}
    assert json.loads(config_map["data"]["run.json"]) == build_run_file(plan)
    assert read_snapshot(config_map).to_json() == plan.snapshot.to_json()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("prepare-result.json", PrepareResult),
        ("model-result.json", ModelResult),
        ("result.json", TrainResult),
        ("error-result.json", ErrorResult),
        ("progress.json", Progress),
        ("progress-preparing.json", Progress),
    ],
)
def test_what_the_trainer_writes_is_read_whole(name: str, model: type[Report]) -> None:
    report = read_report(model, (EXAMPLES / name).read_bytes())
    assert report is not None
    written = json.loads(example(name))
    read = json.loads(report.model_dump_json(exclude_unset=True))
    assert all(written[field] == value for field, value in read.items())


def test_data_that_is_corrupt_is_not_tried_again() -> None:
    error = read_report(ErrorResult, example("error-result.json"))
    assert error is not None
    assert error.exit_code in FATAL_EXIT_CODES


@pytest.mark.parametrize("told", ["2026-11-22T10:10:00Z", NEVER, ""])
async def test_the_operator_tells_the_trainer_by_when_to_end_as_it_asks_for_progress(told: str) -> None:
    served = Asked("Training")
    port = serve(served, 0, "127.0.0.1")
    assert port
    async with aiohttp.ClientSession() as session:
        assert await fetch_progress(session, "127.0.0.1", port, 5, told)
    assert served.heard.wait(10)
    expected = {NEVER: datetime.max, "": None}.get(told, datetime(2026, 11, 22, 10, 10))
    assert served.run_until() == (expected and expected.replace(tzinfo=UTC))


def test_a_preparation_tells_the_operator_of_the_finished_run_that_has_ordered_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data_set(tmp_path / "nih")
    run_file, told = make_run_file(tmp_path), tmp_path / "told.json"
    order = {"version": 1, "name": "xray-data-1", "progress_port": 0} | {
        "dataset": run_file.dataset.model_dump(mode="json")
    }
    monkeypatch.setenv(ORDERED_BY, json.dumps(as_json(run_file)))
    command = ["prepare-data", "--order", json.dumps(order), "--result-file", str(told)]
    assert main(command) == 0
    assert read_report(PrepareResult, told.read_text()) is not None
    assert read_report(FoundResult, told.read_text()) is None, "there is nothing yet"
    result = json.loads(example("result.json"))
    finish(tmp_path, **{name: value for name, value in result.items() if name != "model_digest"})
    assert main(command) == 0
    found = read_report(FoundResult, told.read_text())
    assert found is not None
    assert (found.output_folder, found.adopted, found.auroc_macro) == ("out", True, 0.5124)
    assert read_report(PrepareResult, told.read_text()) is not None, "the data are there, for others too"
