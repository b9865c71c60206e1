"""The Secret of a tracker: some of its keys, for the container that trains, and for nothing else."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.builders import CONFIG, make_job, make_run
from xray_operator.config import CaBundle, Pod
from xray_operator.core.manifests import TRACKING_KEYS, build_config_map, build_job
from xray_operator.core.plan import Plan

TRACKED = make_job().spec(tracking={"secretName": "mlflow-writer"})


def containers(plan: Plan) -> dict[str, dict[str, Any]]:
    spec = build_job(plan)["spec"]["template"]["spec"]
    return {each["name"]: each for each in [*spec["initContainers"], *spec["containers"]]}


def references(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}


def test_each_key_is_optional_and_reaches_only_the_container_that_trains() -> None:
    found = containers(make_run(TRACKED))
    assert references(found["prepare"]) == {}
    assert references(found["train"]) == {
        key: {"name": "mlflow-writer", "key": key, "optional": True} for key in TRACKING_KEYS
    }
    assert all("envFrom" not in container for container in found.values())
    assert all(key.startswith(("MLFLOW_", "WANDB_")) for key in TRACKING_KEYS)


def test_the_run_file_says_nothing_of_it() -> None:
    assert "mlflow-writer" not in build_config_map(make_run(TRACKED))["data"]["run.json"]


def test_without_it_there_is_no_reference() -> None:
    assert references(containers(make_run())["train"]) == {}


def test_it_decides_nothing_about_the_output_folder() -> None:
    assert make_run(TRACKED).output_folder == make_run().output_folder


def test_the_way_out_of_the_administrators_network_is_for_those_who_go_out() -> None:
    pod = Pod(https_proxy="http://proxy:3128", ca_bundle=CaBundle(config_map_name="roots"))
    config = CONFIG.model_copy(update={"pod": pod})
    for job, goes_out in ((TRACKED, True), (make_job(), False)):
        train = containers(make_run(job, config=config))["train"]
        named = {each["name"] for each in train["env"]}
        assert ({"HTTPS_PROXY", "REQUESTS_CA_BUNDLE"} <= named) == goes_out
        assert ("ca-bundle" in {mount["name"] for mount in train["volumeMounts"]}) == goes_out
