"""The manifests in examples/ are what the operator takes, and become run files that the trainer takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.schemas import REPOSITORY
from tests.unit.operator.builders import WITH_IPUS, make_job, make_run
from xray_operator import names
from xray_operator.core.manifests import build_job
from xray_operator.core.run_file import build_run_file
from xray_operator.core.spec import JobSpec, parse_part
from xray_trainer.config import RunFile, parse_run_file

EXAMPLES = [
    path for path in sorted((REPOSITORY / "examples").glob("*.yaml")) if "kind: XRayTrainingJob" in path.read_text()
]


def spec_of(path: Path) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(path.read_text())["spec"]
    return spec


def example_run_file(name: str) -> dict[str, Any]:
    """What the operator writes for the example."""
    return build_run_file(make_run(make_job().spec(**spec_of(REPOSITORY / "examples" / name))))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_becomes_a_run_file_that_the_trainer_reads(path: Path) -> None:
    assert isinstance(parse_part(JobSpec, spec_of(path), "spec", names.SPEC_INVALID), JobSpec)
    assert isinstance(parse_run_file(example_run_file(path.name)), RunFile)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_may_run_on_ipus(path: Path) -> None:
    run_file = build_run_file(make_run(make_job().spec(**spec_of(path)), config=WITH_IPUS))
    assert parse_run_file(run_file).backend == "ipu"


def test_the_example_for_argo_cd_keeps_the_whole_spec_of_a_job_as_git_has_it() -> None:
    spec = spec_of(REPOSITORY / "examples" / "argo-cd" / "application.yaml")
    assert "ignoreDifferences" not in spec, "an edit in git of what is ignored would never arrive"
    assert "RespectIgnoreDifferences=true" not in spec["syncPolicy"]["syncOptions"]


def test_the_example_for_kueue_fits_into_its_queue() -> None:
    folder = REPOSITORY / "examples" / "kueue"
    job = yaml.safe_load((folder / "job.yaml").read_text())
    objects = {each["kind"]: each for each in yaml.safe_load_all((folder / "queues.yaml").read_text())}
    queue, flavor = objects["LocalQueue"]["metadata"], f"{job['spec']['flavor']}.yaml"
    assert job["metadata"]["labels"] == {names.LABEL_QUEUE: queue["name"]}
    assert job["metadata"]["namespace"] == queue["namespace"]
    offered = yaml.safe_load((REPOSITORY / "charts" / "xray-operator" / "flavors" / flavor).read_text())
    run = build_job(make_run(make_job().spec(**job["spec"]), offered))["spec"]["template"]["spec"]
    asked = run["containers"][0]["resources"]["requests"] | run["containers"][0]["resources"]["limits"]
    (group,) = objects["ClusterQueue"]["spec"]["resourceGroups"]
    assert set(group["coveredResources"]) == set(asked), "Kueue admits nothing that is not covered"
    quota = {row["name"]: str(row["nominalQuota"]) for row in group["flavors"][0]["resources"]}
    assert quota == asked, "one at a time"
    assert objects["ResourceFlavor"]["spec"]["nodeLabels"] == offered["nodeSelector"]


def test_chexpert_s_labels_reach_the_trainer() -> None:
    labels = parse_run_file(example_run_file("chexpert.yaml")).dataset.labels
    assert (labels.layout, labels.uncertain, labels.patient_folder) == ("Columns", "Positive", "patient")
