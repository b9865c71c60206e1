"""The CRDs on a real API server: they apply, they refuse what is wrong with words that help, and they explain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cluster_access import REPOSITORY, apply, kubectl
from tests.integration.life import flavor, xray_job

pytestmark = pytest.mark.integration
CRDS = sorted((REPOSITORY / "crds").glob("*.yaml"))
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.yaml"))
MODEL = {"config": {"hiddenSize": 64, "layers": 2, "heads": 2, "patchSize": 16}}


HERE = 'Invalid value: "object": '
"""How the API server begins the message of a rule: it shows no value by itself."""


def dataset(**fields: Any) -> dict[str, Any]:
    return {"source": {"pvc": {"claimName": "nih"}}} | fields


def refusal(kubeconfig: Path, *objects: dict[str, Any]) -> str:
    """What kubectl apply says; it must not succeed. Dry run on the server: nothing is left."""
    text = yaml.safe_dump_all(objects)
    done = kubectl(kubeconfig, "apply", "--dry-run=server", "-f", "-", stdin=text)
    assert done.returncode != 0, "was accepted"
    return done.stderr


NO_HUB_IDS = (
    "/weights",
    "../weights",
    "google/../vit",
    "a/b/c",
    "google/",
    "a--b",
    "a/vit.git",
    ".vit",
    "vit-",
    "x" * 97,
)
JOBS = [
    *(({"model": {"name": name}}, f'spec.model.name: {HERE}"{name}" is not a hub id') for name in NO_HUB_IDS),
    (
        {"model": {}},
        f"spec.model: {HERE}neither name nor config; expected either name (pre-trained weights) or config",
    ),
    ({"model": MODEL | {"name": "google/vit"}}, f'spec.model: {HERE}name "google/vit" beside config; expected either'),
    ({"model": MODEL | {"claimName": "models"}}, f'spec.model.claimName: {HERE}"models" needs name'),
    (
        {"model": {"name": "../other", "claimName": "m"}},
        f'spec.model.name: {HERE}"../other" is not a relative path inside the claim',
    ),
    (
        {"model": {"name": "vit", "claimName": "m", "revision": "abc"}},
        f'spec.model.revision: {HERE}"abc" pins a hub model, which has a name and no claimName; found claimName "m"',
    ),
    (
        {"model": {"config": MODEL["config"] | {"heads": 3}}},
        f"spec.model.config.hiddenSize: {HERE}64 is not divisible by heads, 3",
    ),
    (
        {"model": {"config": MODEL["config"] | {"patchSize": 15}}},
        f"spec.model.config.patchSize: {HERE}15 does not divide dataset.imageSize, 224",
    ),
    ({"model": {"name": "vit", "claimName": "_"}}, 'spec.model.claimName: Invalid value: "_"'),
    ({"output": {"claimName": "Results"}}, 'spec.output.claimName: Invalid value: "Results"'),
    ({"output": {"claimName": "out."}}, 'spec.output.claimName: Invalid value: "out."'),
    ({"output": {"claimName": "x" * 254}}, "spec.output.claimName: Too long"),
    (
        {"dataset": {"source": {"pvc": {"claimName": "../nih"}}}},
        'spec.dataset.source.pvc.claimName: Invalid value: "../nih"',
    ),
    ({"dataset": dataset(cache={"claimName": "a..b"})}, 'spec.dataset.cache.claimName: Invalid value: "a..b"'),
    ({"dataset": {"source": {}}}, f"spec.dataset.source: {HERE}0 of pvc, http, s3, fsspec and synthetic are given"),
    (
        {"dataset": {"source": {"pvc": {"claimName": "nih"}, "http": {}}}},
        f"spec.dataset.source: {HERE}2 of pvc, http, s3, fsspec and synthetic are given; expected exactly one",
    ),
    ({"dataset": {"source": {"s3": {"url": "https://xrays"}}}}, "spec.dataset.source.s3.url: Invalid value"),
    (
        {"dataset": {"source": {"s3": {"url": "s3://xrays", "endpoint": "minio:9000"}}}},
        "spec.dataset.source.s3.endpoint",
    ),
    ({"dataset": {"source": {"http": {"configMapName": "a..b"}}}}, "spec.dataset.source.http.configMapName"),
    ({"dataset": {"source": {"fsspec": {"url": "file:///etc"}}}}, "spec.dataset.source.fsspec.url: Invalid value"),
    ({"dataset": {"source": {"fsspec": {"url": "zip::gs://xrays/x.zip"}}}}, "spec.dataset.source.fsspec.url"),
    ({"dataset": {"source": {"fsspec": {"url": "sftp://reader:password@host/x"}}}}, "spec.dataset.source.fsspec.url"),
    ({"dataset": dataset(labels={"layout": "Rows"})}, 'supported values: "List", "Columns"'),
    ({"dataset": dataset(labels={"uncertain": "Ignore"})}, 'supported values: "Negative", "Positive"'),
    ({"dataset": dataset(labels={"patientFolder": "(a+)+"})}, "spec.dataset.labels.patientFolder: Invalid value"),
    ({"dataset": {"source": {"synthetic": {"images": 59}}}}, "should be greater than or equal to 60"),
    (
        {"dataset": {"source": {"pvc": {"claimName": "nih", "path": "a/../../b"}}}},
        f'spec.dataset.source.pvc.path: {HERE}"a/../../b" is not relative to the root',
    ),
    ({"dataset": dataset(imageSize=1024)}, "should be less than or equal to 512"),
    ({"dataset": dataset(split={"by": "Weekday"})}, 'supported values: "Patient", "Official", "Image"'),
    ({"dataset": dataset(labels={"findings": []})}, "spec.dataset.labels.findings"),
    ({"dataset": dataset(labels={"findings": ["Mass", "Mass"]})}, "Duplicate value"),
    ({"limits": {"runSeconds": 1}}, "should be greater than or equal to 60"),
    ({"budget": {"limit": "0", "currency": "USD"}}, f'spec.budget.limit: {HERE}"0" is not above 0'),
    ({"budget": {"limit": "20.00001", "currency": "USD"}}, 'spec.budget.limit: Invalid value: "20.00001"'),
    ({"budget": {"limit": "20", "currency": "usd"}}, 'spec.budget.currency: Invalid value: "usd"'),
    ({"budget": {"limit": "20"}}, "spec.budget.currency: Required value"),
    ({"checkpoint": {"keep": 0}}, "should be greater than or equal to 1"),
    ({"rerun": -1}, "should be greater than or equal to 0"),
    ({"readyWhen": "Sometimes"}, 'supported values: "Accepted", "Started", "Succeeded"'),
    (
        {"dataset": dataset(split={"fractions": {"train": "0.8"}})},
        f"spec.dataset.split.fractions: {HERE}train 0.8, validation 0.1 and test 0.2 do not add up to 1",
    ),
    (
        {"training": {"globalBatchSize": 128, "microBatchSize": 3}},
        f"spec.training.globalBatchSize: {HERE}128 is not a multiple of microBatchSize, 3; nearest: [126, 129]; "
        "a flavor of IPUs may need another",
    ),
    ({"training": {"globalBatchSize": 16384, "microBatchSize": 1000}}, "nearest: [16000]; a flavor"),
    ({"training": {"globalBatchSize": 2, "microBatchSize": 3}}, "nearest: [3]; a flavor"),
    ({"training": {"learningRate": "0"}}, f'spec.training.learningRate: {HERE}"0" is not above 0'),
    ({"ipu": {"ipusPerReplica": 3}}, 'spec.ipu.ipusPerReplica: Unsupported value: 3: supported values: "1", "2", "4"'),
    (
        {"ipu": {"ipusPerReplica": 4, "layersPerIpu": [6, 6]}},
        f"spec.ipu.layersPerIpu: {HERE}2 entries; expected one for each IPU of a replica, so 4",
    ),
    (
        {"ipu": {"layersPerIpu": [4, 4, 4]}},
        f"spec.ipu.layersPerIpu: {HERE}3 entries; expected one for each IPU of a replica, so a power of two; "
        "nearest are 2 and 4",
    ),
    (
        {"model": MODEL, "ipu": {"layersPerIpu": [1, 2]}},
        f"spec.ipu.layersPerIpu: {HERE}adds up to 3; expected model.config.layers, 2; nearest is 1 on each IPU",
    ),
    (
        {"model": MODEL, "ipu": {"layersPerIpu": [1, 1, 1, 1]}},
        f"spec.ipu.layersPerIpu: {HERE}adds up to 4; expected model.config.layers, 2; "
        "nearest is an entry for each of 2 IPUs",
    ),
    (
        {"model": {"config": MODEL["config"] | {"layers": 6}}, "ipu": {"layersPerIpu": [1, 1, 1, 1]}},
        f"spec.ipu.layersPerIpu: {HERE}adds up to 4; expected model.config.layers, 6; "
        "nearest is 1 on each of the first 2 IPUs and 2 on the others",
    ),
    (
        {"model": MODEL, "ipu": {"ipusPerReplica": 4}},
        f"spec.ipu.ipusPerReplica: {HERE}4 is more than model.config.layers, 2; nearest is 2",
    ),
    ({"ipu": {"scaling": "Half"}}, 'supported values: "Keep", "Linear", "SquareRoot"'),
    (
        {"ipu": {"overrides": {"replication_factor": "2", "seed": "1", "output_mode": "all"}}},
        f'spec.ipu.overrides: {HERE}["replication_factor is derived by the operator: use spec.ipu.ipusPerReplica", '
        '"seed is derived by the operator: use spec.training.seed"]',
    ),
    ({"training": {"epochs": 0}}, "should be greater than or equal to 1"),
    ({"flavor": "Not A Name"}, "spec.flavor"),
    ({"podTemplate": {}}, 'unknown field "spec.podTemplate"'),
]
POD4 = {
    "backend": "vipuPartition",
    "resourceName": None,
    "partition": {"host": "10.3.0.1", "id": "vpod4"},
    "nodeSelector": {"vpod": "vpod4"},
}
"""What makes the usual flavor one with a partition."""
BY_OPERATOR = {"backend": "ipuOperator", "resourceName": None, "vipuProxyUrl": "http://proxy.ipu-operator.svc:80"}
"""What makes the usual flavor one of Graphcore's IPU Operator."""
FLAVORS = [
    ({"backend": "cpu"}, f'spec.backend: {HERE}cpu has no accelerators; found resourceName "graphcore.ai/ipu"'),
    ({"backend": "cpu", "resourceName": None}, "cpu has no accelerators; found accelerators 4"),
    ({"accelerators": None}, f"spec.backend: {HERE}devicePlugin needs accelerators and resourceName"),
    ({"resourceName": None}, "found accelerators 4 only"),
    (
        {"backend": "gpu", "accelerators": None},
        "gpu needs accelerators and resourceName, for example accelerators: 4, resourceName: graphcore.ai/ipu; "
        'found resourceName "graphcore.ai/ipu" only',
    ),
    ({"accelerators": None, "resourceName": None}, "found neither"),
    ({"namespaceSelector": {}}, "spec.namespaceSelector.matchLabels: Required value"),
    ({"namespaceSelector": {"matchLabels": {}}}, "spec.namespaceSelector.matchLabels"),
    ({"accelerators": 3}, f"spec.accelerators: {HERE}3 is not a power of two from 1 to 64"),
    ({"accelerators": 63}, "V-IPU partitions come in no other size; nearest are 32 and 64"),
    ({"resourceName": "ipu"}, "spec.resourceName"),
    (POD4 | {"accelerators": 6}, f"spec.accelerators: {HERE}6 is not a power of two from 1 to 64"),
    (POD4 | {"partition": None}, "vipuPartition needs accelerators and partition, for example accelerators: 4"),
    (POD4 | {"accelerators": None, "partition": None}, "partition: {host: 10.3.0.1, id: vpod4}; found neither"),
    (POD4 | {"resourceName": "graphcore.ai/ipu"}, 'reached over the network; found "graphcore.ai/ipu"'),
    (
        POD4 | {"nodeSelector": None},
        "vipuPartition needs nodeSelector, the label of the hosts that reach the partition",
    ),
    (POD4 | {"nodeSelector": {}}, "vipuPartition needs nodeSelector"),
    (
        POD4 | {"partition": {"host": "10.3.0.1"}},
        f'spec.partition: {HERE}either host and id, or configSecretName alone; found host "10.3.0.1" no id',
    ),
    (
        POD4 | {"partition": {"configSecretName": "ipuof", "port": 8090}},
        'alone; found no host no id configSecretName "ipuof"',
    ),
    (POD4 | {"partition": {"host": "10.3.0.1", "id": "a b"}}, "spec.partition.id"),
    (POD4 | {"partition": {"host": "vipu.example.", "id": "vpod4"}}, "spec.partition.host"),
    (POD4 | {"host": {"extraResources": {"memory": 1}}}, "without a domain; names of extended resources are like"),
    ({"partition": {"host": "10.3.0.1", "id": "vpod4"}}, "devicePlugin has no partition"),
    ({"host": {"hostNetwork": True}}, "devicePlugin has no host.hostNetwork, hostIPC, privileged or extraResources"),
    (BY_OPERATOR | {"accelerators": 6}, f"spec.accelerators: {HERE}6 is not a power of two from 1 to 64"),
    (
        BY_OPERATOR | {"vipuProxyUrl": None},
        "ipuOperator needs accelerators and vipuProxyUrl, for example accelerators: 4",
    ),
    (BY_OPERATOR | {"accelerators": None}, "ipu-operator-vipu-proxy.ipu-operator.svc; found vipuProxyUrl only"),
    (
        BY_OPERATOR | {"resourceName": "graphcore.ai/ipu"},
        "ipuOperator has no resourceName, a partition is made for each",
    ),
    (BY_OPERATOR | {"partition": {"host": "10.3.0.1", "id": "vpod4"}}, "ipuOperator has no partition"),
    (BY_OPERATOR | {"vipuProxyUrl": "http://proxy/query"}, "spec.vipuProxyUrl"),
    ({"vipuProxyUrl": "http://proxy"}, "devicePlugin has no vipuProxyUrl, which is for ipuOperator only"),
    ({"host": {"cpu": -5}}, "spec.host.cpu in body should be greater than or equal to 0"),
    ({"host": {"cpu": "-5"}}, "spec.host.cpu"),
    ({"host": {"cpu": 100000}}, "spec.host.cpu in body should be less than or equal to 9999"),
    ({"prices": [{"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "usd", "perHour": "1"}]}, "currency"),
    ({"prices": [{"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "-1"}]}, "perHour"),
]
HOST_WITH_PORT = (
    POD4 | {"partition": {"host": "10.3.0.1:8090", "id": "vpod4"}},
    f'spec.partition.host: {HERE}"10.3.0.1:8090" has a port, which belongs into port',
)
"""By a rule of the CRD that the schema of the chart's values doesn't have: there the API server refuses it."""


@pytest.mark.parametrize(("spec", "message"), JOBS)
def test_a_wrong_job_is_refused_at_apply(kubeconfig: Path, namespace: str, spec: dict[str, Any], message: str) -> None:
    assert message.lower() in refusal(kubeconfig, xray_job(namespace, **spec)).lower()


@pytest.mark.parametrize(("spec", "message"), [*FLAVORS, HOST_WITH_PORT])
def test_a_wrong_flavor_is_refused_at_apply(kubeconfig: Path, spec: dict[str, Any], message: str) -> None:
    wrong = flavor("wrong")
    wrong["spec"] = {key: value for key, value in (wrong["spec"] | spec).items() if value is not None}
    assert message in refusal(kubeconfig, wrong)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_taken(kubeconfig: Path, namespace: str, path: Path) -> None:
    done = kubectl(kubeconfig, "apply", "--dry-run=server", "-n", namespace, "-f", str(path))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["x", "9", "nih-2017.v2", "x" * 253])
def test_a_claim_is_called_as_kubernetes_lets_it(kubeconfig: Path, namespace: str, name: str) -> None:
    right = xray_job(namespace, output={"claimName": name})
    done = kubectl(kubeconfig, "apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(right))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cpu", [0, 2, 9999, "2", "0.5", "250m"])
def test_cores_are_a_number_or_a_quantity(kubeconfig: Path, cpu: int | str) -> None:
    right = flavor("right")
    right["spec"]["host"]["cpu"] = cpu
    done = kubectl(kubeconfig, "apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(right))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "partition",
    [{"host": "vipu.example", "port": 8090, "id": "vpod4", "timeoutSeconds": 120}, {"configSecretName": "ipuof-conf"}],
)
def test_a_partition_is_named_by_its_server_or_by_a_secret(kubeconfig: Path, partition: dict[str, Any]) -> None:
    host = {"cpu": "8", "hostNetwork": True, "hostIPC": True, "extraResources": {"rdma/hca": 1}}
    right = flavor("right")
    right["spec"] = {
        key: value for key, value in (right["spec"] | POD4 | {"partition": partition, "host": host}).items() if value
    }
    done = kubectl(kubeconfig, "apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(right))
    assert done.returncode == 0, done.stderr


def test_a_short_manifest_gets_the_tutorials_defaults_and_is_pending_at_once(kubeconfig: Path, namespace: str) -> None:
    assert apply(kubeconfig, xray_job(namespace)).returncode == 0
    got = yaml.safe_load(kubectl(kubeconfig, "get", "xtj", "cxr", "-n", namespace, "-o", "yaml").stdout)
    assert got["spec"]["training"] == {
        "epochs": 3,
        "globalBatchSize": 128,
        "learningRate": "2e-4",
        "warmupRatio": "0.25",
        "weightDecay": "0",
        "scheduler": "cosine",
        "seed": 1337,
        "horizontalFlip": False,
    }
    assert got["spec"]["dataset"]["split"]["fractions"] == {"train": "0.7", "validation": "0.1", "test": "0.2"}
    ready = got["status"]["conditions"][0]
    assert (ready["type"], ready["status"]) == ("Ready", "Unknown")


def test_rerun_can_only_be_raised(kubeconfig: Path, namespace: str) -> None:
    assert apply(kubeconfig, xray_job(namespace, rerun=1)).returncode == 0
    assert 'spec.rerun: Invalid value: "integer": 0 is below 1: rerun can only be raised' in refusal(
        kubeconfig, xray_job(namespace)
    )
    assert apply(kubeconfig, xray_job(namespace, rerun=2, training={"epochs": 4})).returncode == 0


def test_everything_that_is_wrong_is_told_at_once(kubeconfig: Path, namespace: str) -> None:
    wrong = xray_job(namespace, flavor="Not A Name", training={"epochs": 0, "globalBatchSize": 0}, rerun=-1)
    told = refusal(kubeconfig, wrong)
    paths = ("spec.flavor", "spec.training.epochs", "spec.training.globalBatchSize", "spec.rerun")
    assert all(path in told for path in paths), told


@pytest.mark.parametrize("path", CRDS, ids=lambda path: path.stem.split(".")[0])
def test_kubectl_explain_names_every_field_and_tells_what_it_means(kubeconfig: Path, path: Path) -> None:
    crd = yaml.safe_load(path.read_text())["spec"]
    for part, schema in crd["versions"][0]["schema"]["openAPIV3Schema"]["properties"].items():
        if part in ("spec", "status"):
            place = f"{crd['names']['plural']}.{part}"
            told = kubectl(kubeconfig, "explain", place, "--recursive").stdout
            names = re.findall(r"^ +(\S+)\t<", told, re.MULTILINE)
            assert names == sorted_names(schema)
            for name, field in schema.get("properties", {}).items():
                explained = kubectl(kubeconfig, "explain", f"{place}.{name}").stdout
                assert " ".join(field["description"].split()) in " ".join(explained.split())


def sorted_names(schema: dict[str, Any]) -> list[str]:
    """Names of all fields in the order in which kubectl explain --recursive has them."""
    inner = schema.get("items", schema)
    fields = sorted(inner.get("properties", {}).items())
    return [name for key, field in fields for name in (key, *sorted_names(field))]


def test_columns_are_those_that_people_look_for(kubeconfig: Path, namespace: str) -> None:
    assert apply(kubeconfig, xray_job(namespace)).returncode == 0
    heads = kubectl(kubeconfig, "get", "xtj", "-n", namespace).stdout.splitlines()[0]
    assert re.split(r"\s{2,}", heads.strip()) == [
        "NAME", "STATE", "FLAVOR", "PROGRESS", "ETA", "AUROC", "COST", "AGE",
    ]  # fmt: skip
