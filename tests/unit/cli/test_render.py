"""`kubectl xray render`: what is refused, what is assumed, what is printed. tests/integration holds it against an operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.schemas import REPOSITORY
from tests.integration.life import claim, xray_job
from xray_cli.__main__ import run
from xray_cli.offline import CHART_CONFIG

Result = tuple[int, str, str]


@pytest.fixture
def render(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Renders these objects; returns exit code, stdout and stderr."""

    def rendered(*objects: dict[str, Any], options: tuple[str, ...] = ()) -> Result:
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump_all(objects))
        code = run(["render", "-f", str(path), *options])
        told = capsys.readouterr()
        return code, told.out, told.err

    return rendered


def job(**spec: Any) -> dict[str, Any]:
    return xray_job("chest", **{"flavor": "vpod4-vm", **spec})


def test_without_settings_the_images_are_those_of_the_chart() -> None:
    values = yaml.safe_load((REPOSITORY / "charts/xray-operator/values.yaml").read_text())
    version = yaml.safe_load((REPOSITORY / "charts/xray-operator/Chart.yaml").read_text())["appVersion"]
    images = CHART_CONFIG.images
    assert images.prepare == f"{values['trainer']['prepare']['repository']}:{version}"
    assert images.torch == f"{values['trainer']['torch']['repository']}:{version}"
    assert images.ipu == values["trainer"]["ipu"]["repository"] == ""
    assert values["defaultPrepareFlavor"] == CHART_CONFIG.default_prepare_flavor


def test_a_job_becomes_a_config_map_and_its_jobs_in_their_order(render: Any) -> None:
    code, out, err = render(job(dataset={"source": {"pvc": {"claimName": "nih"}}}, model={"name": "google/vit"}))
    assert code == 0
    kinds = [(item["kind"], item["metadata"]["name"][:10]) for item in yaml.safe_load_all(out)]
    assert kinds[0] == ("ConfigMap", kinds[3][1])
    assert [name for _, name in kinds[1:3]] == ["xray-data-", "xray-model"]
    assert err == (
        "note: XRayTrainingJob cxr: the resource is on no cluster yet: names and labels that hold its uid will be others "
        "there\n"
    )


def test_texts_of_several_lines_can_be_read(render: Any) -> None:
    _, out, _ = render(job())
    assert '  run.json: |\n    {\n      "version": 1,' in out


def test_json_is_one_list(render: Any) -> None:
    _, out, _ = render(job(), options=("-o", "json"))
    assert [item["kind"] for item in json.loads(out)["items"]] == ["ConfigMap", "Job"]


def test_what_waits_for_resume_is_shown_all_the_same(render: Any) -> None:
    code, out, err = render(job(suspend=True))
    assert code == 0
    assert "kind: Job" in out
    assert "spec.suspend is true: the operator makes these when it no longer is" in err


REFUSALS = [
    (
        {"flavor": "vpod8"},
        'would be Pending, not accepted (FlavorNotFound): spec.flavor: "vpod8" is not a flavor here; demo-vpod4, '
        "prepare-cpu, vpod16-bm",
    ),
    ({"training": {"epoch": 3, "epochs": 0}}, "XRayTrainingJob cxr: unknown field spec.training.epoch\n"),
    ({"training": {"epochs": 0}}, "not accepted (SpecInvalid): spec.training.epochs: 0 is refused"),
    ({"dataset": {"source": {}}}, "spec.dataset.source: (as given) is refused"),
    (
        {"dataset": {"source": {"pvc": {"claimName": "nih"}}, "prepareFlavor": "vpod4-vm"}},
        "has backend devicePlugin; preparation holds no accelerator",
    ),
]


@pytest.mark.parametrize(("spec", "told"), REFUSALS)
def test_a_refusal_is_told_as_status_would(render: Any, spec: dict[str, Any], told: str) -> None:
    code, out, err = render(job(**spec))
    assert (code, out) == (1, "")
    assert err.startswith("error: XRayTrainingJob cxr")
    assert told in err


def test_one_that_is_refused_keeps_no_other_back(render: Any) -> None:
    good = job()
    good["metadata"]["name"] = "good"
    code, out, err = render(job(flavor="none"), good)
    assert code == 1
    assert [item["metadata"]["labels"]["xray.training/job-name"] for item in yaml.safe_load_all(out)] == ["good"] * 2
    assert "error: XRayTrainingJob cxr would be Pending" in err


def test_claims_and_volumes_in_the_files_are_heeded(render: Any) -> None:
    out_claim, nih = claim("chest", "out"), claim("chest", "nih")
    nodes = ("node-1", "node-2")
    volumes = []
    for each, node in zip((out_claim, nih), nodes, strict=True):
        name = f"{each['metadata']['name']}-volume"
        each["spec"] |= {"volumeName": name}
        on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        required = {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}
        spec = {"nodeAffinity": {"required": required}}
        volumes.append({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})
    code, _, err = render(job(), out_claim, nih, *volumes)
    assert code == 1
    assert "not accepted (VolumeImpossible)" in err
    assert "no node can mount both" in err


def test_a_namespace_in_the_files_is_heeded_and_another_is_assumed_to_fit(render: Any, tmp_path: Path) -> None:
    flavors = tmp_path / "flavors.yaml"
    spec = {"backend": "cpu", "namespaceSelector": {"matchLabels": {"team": "chest"}}}
    flavor = {"apiVersion": "xray.training/v1alpha1", "kind": "AcceleratorFlavor", "metadata": {"name": "ours"}}
    flavors.write_text(yaml.safe_dump(flavor | {"spec": spec}))
    options = ("--flavors", str(flavors))
    code, _, err = render(job(flavor="ours"), options=options)
    assert code == 0
    assert "namespace chest is taken to have the labels" in err
    bare = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "chest"}}
    code, _, err = render(job(flavor="ours"), bare, options=options)
    assert code == 1
    assert "is not for namespace chest, which lacks the label team=chest" in err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: [", "error: error parsing "),
        ("- 1", "expected objects with apiVersion, kind and metadata; found a list"),
        ("a: 1", "found one without kind"),
        ("kind: XRayTrainingJob", "XRayTrainingJob without metadata.name"),
        ("{kind: XRayTrainingJob, metadata: {name: x}}", "XRayTrainingJob x: expected spec, with its fields"),
        ("{kind: Pod, metadata: {name: x}}", "no XRayTrainingJob in "),
        ("", "no XRayTrainingJob in "),
    ],
)
def test_a_file_that_has_no_job_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    assert run(["render", "-f", str(path)]) == 1
    assert told in capsys.readouterr().err


def test_a_file_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render", "-f", str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr().err == f'error: the path "{tmp_path}/none.yaml" does not exist\n'


def test_what_no_cluster_gives_is_told(render: Any) -> None:
    for status, told in (
        ({"run": []}, "status.run: [] in place of fields"),
        ({"run": {"startedAt": "2026-01-01"}}, "status.run.startedAt: '2026-01-01' in place of a time of RFC 3339"),
        ({"model": {"commit": 5}}, "status.model.commit: 5 in place of text"),
    ):
        assert render({**job(), "status": status}) == (1, "", f"error: XRayTrainingJob cxr: {told}\n")
    out_claim = claim("chest", "out")
    out_claim["spec"]["accessModes"] = 5
    told = "PersistentVolumeClaim out, or its volume, is not as a cluster gives it: 'int' object is not iterable"
    assert render(job(), out_claim) == (1, "", f"error: {told}\n")


def test_a_wrong_configuration_is_told_with_its_place(render: Any, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("images: {prepare: 3}")
    code, _, err = render(job(), options=("--config", str(config)))
    assert code == 1
    assert "images.prepare: 3" in err
