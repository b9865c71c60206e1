"""Each source reaches the container that prepares the data, with its list and credentials, and no other container."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.operator.builders import at, fix_run, make_flavor, make_job, make_run
from xray_operator import names
from xray_operator.core.manifests import build_job, build_shared_job
from xray_operator.core.plan import Plan, make_plan, plan_preparations
from xray_operator.core.run_file import build_run_file
from xray_operator.core.spec import FlavorSpec, JobSpec, Problem, parse_part

S3 = {"url": "s3://xrays/nih", "endpoint": "https://minio.example:9000", "secretName": "xrays-reader"}
FSSPEC = {"url": "gs://xrays/nih", "secretName": "xrays-reader"}
SOURCES: dict[str, dict[str, Any]] = {
    "NIH": {"http": {}},
    "list": {"http": {"configMapName": "our-files"}},
    "s3": {"s3": S3},
    "public bucket": {"s3": {"url": "s3://xrays"}},
    "fsspec": {"fsspec": FSSPEC},
    "public store": {"fsspec": {"url": "hf://datasets/owner/xrays"}},
    "generated": {"synthetic": {}},
}
IN_RUN_FILE = {
    "NIH": {"http": {"list": None}},
    "list": {"http": {"list": "/etc/xray-files/files.json"}},
    "s3": {"s3": {"url": "s3://xrays/nih", "endpoint": "https://minio.example:9000"}},
    "public bucket": {"s3": {"url": "s3://xrays", "endpoint": None}},
    "fsspec": {"fsspec": {"url": "gs://xrays/nih"}},
    "public store": {"fsspec": {"url": "hf://datasets/owner/xrays"}},
    "generated": {"synthetic": {"images": 1000, "seed": 0, "size": 1024}},
}
NAMED_KEYS = {
    "s3": {"AWS_ACCESS_KEY_ID": False, "AWS_SECRET_ACCESS_KEY": False, "AWS_SESSION_TOKEN": True, "AWS_REGION": True},
    "fsspec": {"STORAGE_OPTIONS": False},
}
"""Source -> key -> whether it may be missing."""


def spec_with(source: object) -> JobSpec | list[Problem]:
    return parse_part(JobSpec, make_job().spec(dataset={"source": source}).build().spec, "spec", names.SPEC_INVALID)


def plan_with(source: dict[str, Any], prepare: str) -> Plan:
    """A run on a device plugin's flavor, whose data a Job prepares, or its init container."""
    job = make_job().spec(dataset={"source": source, "prepare": prepare})
    if prepare == "InitContainer":
        return make_run(job)
    spec, flavor = JobSpec.model_validate(job.build().spec), FlavorSpec.model_validate(make_flavor("cpu"))
    preparations = plan_preparations(spec, "cpu", flavor, {}, "prepare:1", at(1))
    snapshot = fix_run(spec, FlavorSpec.model_validate(make_flavor()), preparations=preparations)
    return make_plan(job.build().ref, snapshot)


def containers(plan: Plan) -> dict[str, dict[str, Any]]:
    """Of the preparation's pod and of the run's."""
    pod = build_job(plan)["spec"]["template"]["spec"]
    found = {"init": pod["initContainers"][0], "train": pod["containers"][0]}
    preparation = plan.snapshot.preparation
    if preparation is not None:
        found["job"] = build_shared_job(plan, preparation)["spec"]["template"]["spec"]["containers"][0]
    return found


def secrets_of(container: dict[str, Any]) -> dict[str, bool]:
    """Key of the Secret -> whether it may be missing."""
    refs = [variable["valueFrom"]["secretKeyRef"] for variable in container["env"] if "valueFrom" in variable]
    assert {ref["name"] for ref in refs} <= {"xrays-reader"}
    return {ref["key"]: ref["optional"] for ref in refs}


@pytest.mark.parametrize(
    "source",
    [{}, {"http": {}, "synthetic": {}}, {"pvc": {"claimName": "nih"}, "s3": {"url": "s3://xrays"}}, {"ftp": {}}],
)
def test_exactly_one_source_is_given(source: dict[str, Any]) -> None:
    found = spec_with(source)
    assert isinstance(found, list)
    assert "give exactly one of pvc, http, s3, fsspec and synthetic" in str(found[0])


@pytest.mark.parametrize(
    "source",
    [
        {"s3": {"url": "https://xrays/nih"}},
        {"s3": {"url": "s3://xrays/a b"}},
        {"s3": {"url": "s3://xrays", "endpoint": "minio:9000"}},
        {"fsspec": {"url": "file:///etc"}},
        {"fsspec": {"url": "simplecache::gs://xrays"}},
        {"fsspec": {"url": "sftp://reader:password@host/xrays"}},
        {"http": {"configMapName": "../files"}},
        {"synthetic": {"images": 59}},
        {"synthetic": {"size": 4096}},
    ],
)
def test_a_wrong_field_of_a_source_is_refused(source: dict[str, Any]) -> None:
    assert isinstance(spec_with(source), list)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("prepare", ["Job", "InitContainer"])
def test_the_run_file_tells_the_source_and_who_has_prepared_it(name: str, prepare: str) -> None:
    plan = plan_with(SOURCES[name], prepare)
    document = build_run_file(plan)
    assert {key: document["dataset"].get(key) for key in IN_RUN_FILE[name]} == IN_RUN_FILE[name]
    assert "root" not in document["dataset"]
    preparation = plan.snapshot.preparation
    assert document.get("prepared_by") == (preparation.job_name if preparation else None)


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_without_a_claim_mounts_none(name: str) -> None:
    plan = plan_with(SOURCES[name], "Job")
    assert "spec.dataset.source.pvc.claimName" not in plan.spec.claims()
    assert set(plan.spec.data_claims().values()) == {"out"}
    assert "/mnt/dataset" not in json.dumps(containers(plan))


@pytest.mark.parametrize(("prepare", "reader"), [("Job", "job"), ("InitContainer", "init")])
@pytest.mark.parametrize("source", NAMED_KEYS)
def test_only_the_container_that_reads_the_store_gets_its_credentials(source: str, prepare: str, reader: str) -> None:
    for name, container in containers(plan_with(SOURCES[source], prepare)).items():
        assert secrets_of(container) == (NAMED_KEYS[source] if name == reader else {})
        assert "envFrom" not in container


@pytest.mark.parametrize("source", ["public bucket", "public store"])
def test_without_a_secret_there_are_no_credentials(source: str) -> None:
    found = containers(plan_with(SOURCES[source], "Job"))
    assert [secrets_of(container) for container in found.values()] == [{}, {}, {}]


@pytest.mark.parametrize(("prepare", "reader"), [("Job", "job"), ("InitContainer", "init")])
def test_only_the_container_that_reads_the_list_gets_it(prepare: str, reader: str) -> None:
    plan = plan_with(SOURCES["list"], prepare)
    having = [
        name
        for name, container in containers(plan).items()
        if any(mount["mountPath"] == "/etc/xray-files" for mount in container["volumeMounts"])
    ]
    assert having == [reader]
    volumes = {volume["name"]: volume for volume in build_job(plan)["spec"]["template"]["spec"]["volumes"]}
    assert ("file-list" in volumes) == (reader == "init")


@pytest.mark.parametrize(
    ("source", "same_folder", "same_preparation"),
    [
        ({"s3": S3}, True, True),
        ({"s3": S3 | {"secretName": "another"}}, True, False),
        ({"s3": S3 | {"url": "s3://xrays/other"}}, False, False),
        ({"s3": S3 | {"endpoint": None}}, False, False),
        ({"fsspec": {"url": S3["url"]}}, False, False),
    ],
)
def test_who_reads_is_no_setting_of_the_result(
    source: dict[str, Any], same_folder: bool, same_preparation: bool
) -> None:
    one, other = plan_with({"s3": S3}, "Job"), plan_with(source, "Job")
    assert (one.output_folder == other.output_folder) == same_folder
    assert (one.snapshot.preparation == other.snapshot.preparation) == same_preparation
