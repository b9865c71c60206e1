"""ConfigMap and Job as they are sent, compared with files under tests/golden; XRAY_UPDATE_GOLDEN=1 writes those."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
import yaml

from tests.unit.operator.builders import CONFIG, GOLDEN, WITH_IPUS, make_flavor, make_job, make_run
from xray_operator import names
from xray_operator.config import CaBundle, Pod
from xray_operator.core.manifests import build_config_map, build_job
from xray_operator.core.partition import largest_divisor
from xray_operator.core.parts import Partition
from xray_operator.core.plan import Plan, make_plan, read_snapshot
from xray_operator.core.run_file import build_run_file

CPU = make_flavor(
    "cpu",
    nodeSelector={"pool": "cpu"},
    tolerations=[{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
    prices=[],
)
GPU = "nvidia.com/gpu"
POD4 = make_flavor(
    "vipuPartition",
    accelerators=4,
    partition={"host": "10.3.0.1", "id": "vpod4", "timeoutSeconds": 120},
    host={"cpu": "8", "memory": "128Gi", "sharedMemory": "10Gi", "hostNetwork": True, "hostIPC": True},
    nodeSelector={"xray.example/vpod": "vpod4"},
)
OF_SECRET = POD4 | {
    "partition": {"configSecretName": "ipuof-conf"},
    "host": {"cpu": "8", "privileged": True, "extraResources": {"rdma/hca": 1}},
}
ON_IPU_OPERATOR = make_flavor(
    "ipuOperator",
    accelerators=4,
    vipuProxyUrl="http://ipu-operator-vipu-proxy.ipu-operator.svc",
    host={"cpu": "32", "memory": "200Gi", "sharedMemory": "10Gi", "hostNetwork": True, "hostIPC": True},
)
PREPARED = make_job().spec(dataset={"source": {"pvc": {"claimName": "nih"}}})
RUNS = {
    "devicePlugin": make_run(),
    "ipu": make_run(
        make_job("cxr").spec(
            flavor="vpod16-bm",
            model={"name": "google/vit-base-patch16-224-in21k"},
            ipu={"overrides": {"matmul_proportion": "[0.2, 0.3, 0.3, 0.3]", "auto_loss_scaling": "true"}},
        ),
        make_flavor(accelerators=16),
        WITH_IPUS,
    ),
    "cpu": make_run(
        make_job("lung-nodules").spec(
            flavor="cpu-small",
            model={"config": {"hiddenSize": 64, "layers": 2, "heads": 2, "patchSize": 16}},
            dataset={"source": {"pvc": {"claimName": "work"}}, "cache": {"claimName": "cache"}, "imageSize": 64},
            output={"claimName": "work"},
        ),
        CPU,
    ),
    "vipuPartition": make_run(PREPARED, POD4, WITH_IPUS),
    "vipuPartition-secret": make_run(PREPARED, OF_SECRET),
    "ipuOperator": make_run(PREPARED, ON_IPU_OPERATOR, WITH_IPUS),
    "gpu": make_run(
        make_job().spec(flavor="a100"),
        make_flavor(
            "gpu",
            accelerators=1,
            nodeSelector={"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"},
            tolerations=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        ),
    ),
}


class _Readable(yaml.SafeDumper):
    """Texts of several lines as such, so that a change shows as the line that changed."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Readable.add_representer(str, _Readable.represent_str)


@pytest.mark.parametrize("name", RUNS)
def test_the_manifests_are_as_agreed(name: str) -> None:
    path = GOLDEN / f"{name}.yaml"
    built = [build_config_map(RUNS[name]), build_job(RUNS[name])]
    if os.environ.get("XRAY_UPDATE_GOLDEN"):
        path.write_text(yaml.dump_all(built, Dumper=_Readable, sort_keys=False, width=10**6))
    assert list(yaml.safe_load_all(path.read_text())) == built


def pod(plan: Plan) -> dict[str, Any]:
    spec: dict[str, Any] = build_job(plan)["spec"]["template"]["spec"]
    return spec


def test_an_ipu_job_tries_once_and_asks_for_as_many_ipus_as_its_flavor_has() -> None:
    job = build_job(RUNS["ipuOperator"])
    assert (job["apiVersion"], job["kind"]) == ("graphcore.ai/v1alpha1", "IPUJob")
    assert job["spec"]["ipusPerJobInstance"] == "4"
    assert job["spec"]["restartPolicy"] == {"type": "Never", "backOffLimit": 0}
    worker, label = job["spec"]["workers"]["template"], names.LABEL_JOB_UID
    assert worker["metadata"]["labels"][label] == job["metadata"]["labels"][label]
    train = worker["spec"]["containers"][0]
    assert not [each for each in train["env"] if each["name"].startswith("IPUOF")], "Graphcore's operator tells"
    assert train["securityContext"]["capabilities"]["add"] == ["DAC_OVERRIDE", "IPC_LOCK"]


@pytest.mark.parametrize("name", ["cxr", "x" * 63, "lung.nodules-2017-" * 14])
def test_no_name_of_an_ipu_job_is_too_long_to_get_ipus_and_no_two_attempts_share_one(name: str) -> None:
    plan = make_run(make_job(name).spec(dataset=PREPARED.raw()["spec"]["dataset"]), ON_IPU_OPERATOR, WITH_IPUS)
    first = build_job(plan)["metadata"]["name"]
    second = build_job(plan, last_pod=f"{first}-worker-0")["metadata"]["name"]
    third = build_job(plan, last_pod=f"{second}-worker-0")["metadata"]["name"]
    assert len({first, second, third}) == 3
    assert max(map(len, (first, second, third))) <= 36


def test_a_claim_with_two_roles_is_one_volume_that_is_read_only_only_where_it_must_be() -> None:
    spec = pod(RUNS["cpu"])
    claims = [v["persistentVolumeClaim"] for v in spec["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": "work"}, {"claimName": "cache"}]
    prepare, train = (
        {m["mountPath"]: (m["name"], m.get("readOnly", False)) for m in container["volumeMounts"]}
        for container in (*spec["initContainers"], *spec["containers"])
    )
    assert prepare["/mnt/dataset"] == ("dataset", True)
    assert prepare["/mnt/output"] == train["/mnt/output"] == ("dataset", False)
    assert "/mnt/dataset" not in train, "foreign bytes are for prepare only"


@pytest.mark.parametrize("name", ["cpu", "gpu", "devicePlugin"])
def test_the_pod_passes_pod_security_restricted(name: str) -> None:
    spec = pod(RUNS[name])
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not spec["automountServiceAccountToken"]
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not container["securityContext"]["allowPrivilegeEscalation"]
    allowed = {"name", "persistentVolumeClaim", "configMap", "emptyDir"}
    assert all(set(volume) <= allowed for volume in spec["volumes"])


@pytest.mark.parametrize(("name", "resource", "held"), [("devicePlugin", "graphcore.ai/ipu", "4"), ("gpu", GPU, "1")])
def test_only_train_asks_for_accelerators(name: str, resource: str, held: str) -> None:
    spec = pod(RUNS[name])
    assert resource not in str(spec["initContainers"])
    assert spec["containers"][0]["resources"]["limits"][resource] == held
    assert resource not in str(pod(RUNS["cpu"]))


def test_a_gpu_run_goes_to_the_nodes_of_its_flavor_with_the_torch_image() -> None:
    spec = pod(RUNS["gpu"])
    assert spec["containers"][0]["image"] == CONFIG.images.torch
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB"}
    assert [toleration["key"] for toleration in spec["tolerations"]] == [GPU]


def test_a_run_on_a_partition_waits_for_its_turn_and_is_told_where_the_partition_is() -> None:
    job, train = build_job(RUNS["vipuPartition"]), pod(RUNS["vipuPartition"])["containers"][0]
    assert job["spec"]["suspend"]
    assert job["metadata"]["annotations"] == {names.ANNOTATION_TURN: names.WAITS}
    key = job["metadata"]["labels"][names.LABEL_PARTITION]
    assert job["spec"]["template"]["metadata"]["labels"][names.LABEL_PARTITION] == key
    told = {each["name"]: each["value"] for each in train["env"] if "IPU" in each["name"]}
    assert told == {
        "IPUOF_VIPU_API_HOST": "10.3.0.1",
        "IPUOF_VIPU_API_PORT": "8090",
        "IPUOF_VIPU_API_PARTITION_ID": "vpod4",
        "IPUOF_VIPU_API_TIMEOUT": "120",
    }
    assert train["resources"]["limits"].keys() == {"memory"}


def test_only_what_trains_on_a_partition_gets_more_than_a_pod_usually_has() -> None:
    spec = pod(RUNS["vipuPartition"])
    (prepare,), (train,) = spec["initContainers"], spec["containers"]
    assert (spec["hostNetwork"], spec["hostIPC"], spec["dnsPolicy"]) == (True, True, "ClusterFirstWithHostNet")
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["fsGroup"] == 65532, "others read what user 0 wrote"
    assert prepare["securityContext"] == pod(RUNS["cpu"])["initContainers"][0]["securityContext"]
    assert train["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "IPC_LOCK"]},
        "readOnlyRootFilesystem": True,
        "runAsUser": 0,
        "runAsNonRoot": False,
    }
    assert not [volume for volume in spec["volumes"] if "hostPath" in volume]


def test_the_devices_of_the_host_are_for_a_flavor_that_is_privileged() -> None:
    spec = pod(RUNS["vipuPartition-secret"])
    (train,) = spec["containers"]
    assert train["securityContext"]["privileged"]
    assert "hostNetwork" not in spec
    assert [volume["hostPath"]["path"] for volume in spec["volumes"] if "hostPath" in volume] == ["/dev/infiniband"]
    assert {"/etc/ipuof", "/dev/infiniband"} <= {mount["mountPath"] for mount in train["volumeMounts"]}
    assert not {"/etc/ipuof", "/dev/infiniband"} & {m["mountPath"] for m in spec["initContainers"][0]["volumeMounts"]}
    assert train["resources"]["limits"]["rdma/hca"] == "1"


def test_a_run_on_the_hosts_network_has_a_port_of_its_own_and_says_it_everywhere() -> None:
    run, other = RUNS["vipuPartition"], make_run(make_job("other").spec(**PREPARED.raw()["spec"]), POD4)
    port = run.progress_port
    assert port in names.HOST_PORTS
    assert port != other.progress_port
    assert json.loads(build_config_map(run)["data"]["run.json"])["progress_port"] == port
    template = build_job(run)["spec"]["template"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    assert template["spec"]["containers"][0]["ports"] == [
        {"name": "progress", "containerPort": port, "protocol": "TCP"}
    ]
    assert RUNS["vipuPartition-secret"].progress_port == names.PROGRESS_PORT


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ({"host": "V.example", "id": "p"}, {"host": "v.example", "port": 9, "id": "p", "timeoutSeconds": 5}, True),
        ({"host": "FD00:0::1", "id": "p"}, {"host": "fd00::1", "id": "p"}, True),
        ({"host": "10.3.0.1", "id": "p"}, {"host": "10.3.0.10", "id": "p"}, False),
        ({"host": "v", "id": "p"}, {"host": "v", "id": "q"}, False),
        ({"host": "v", "id": "p"}, {"host": "w", "id": "p"}, False),
        ({"configSecretName": "s"}, {"configSecretName": "s"}, True),
        ({"configSecretName": "s"}, {"configSecretName": "t"}, False),
    ],
)
def test_flavors_share_a_partition_by_server_and_name(one: dict[str, Any], two: dict[str, Any], same: bool) -> None:
    keys = [Partition.model_validate(each).key for each in (one, two)]
    assert (keys[0] == keys[1]) is same


@pytest.mark.parametrize("flavor", [POD4, OF_SECRET])
def test_runs_of_one_flavor_share_its_partition_whatever_their_namespace(flavor: dict[str, Any]) -> None:
    """The Secret is one beside each job, and tells all of them of the flavor's one partition."""
    spec = PREPARED.raw()["spec"]
    runs = [make_run(make_job().in_namespace(name).spec(**spec), flavor) for name in ("radiology", "elsewhere")]
    assert len({run.partition_key for run in runs}) == 1


@pytest.mark.parametrize(
    ("number", "limit", "expected"), [(128, 32, 32), (100, 32, 25), (31, 32, 31), (37, 32, 1), (1, 32, 1)]
)
def test_the_default_micro_batch_is_the_largest_divisor_that_fits(number: int, limit: int, expected: int) -> None:
    assert largest_divisor(number, limit) == expected


def test_the_same_plan_gives_the_same_bytes_and_a_price_changes_nothing_but_the_snapshot() -> None:
    other = make_run(flavor=make_flavor(prices=[]))
    one, two = (build_config_map(run)["data"] for run in (RUNS["devicePlugin"], other))
    assert one["run.json"] == two["run.json"]
    assert one["snapshot.json"] != two["snapshot.json"]
    assert build_job(RUNS["devicePlugin"])["spec"] == build_job(other)["spec"]


ONLY_TO_REACH = {
    *("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HF_ENDPOINT"),
}


def test_what_the_administrator_sets_is_fixed_with_the_run_and_the_network_is_for_who_prepares() -> None:
    settings = Pod(
        image_pull_secrets=("mirror",),
        priority_class_name="research",
        https_proxy="http://proxy.example:3128",
        no_proxy="10.0.0.0/8",
        ca_bundle=CaBundle(config_map_name="hospital-ca", key="bundle.pem"),
        hugging_face_endpoint="https://hub.example",
        labels={"cost-centre": "4711"},
        annotations={"sidecar.istio.io/inject": "false"},
    )
    config = CONFIG.model_copy(update={"pod": settings})
    run = make_run(config=config)
    template = build_job(run)["spec"]["template"]
    spec = template["spec"]
    assert spec["imagePullSecrets"] == [{"name": "mirror"}]
    assert spec["priorityClassName"] == "research"
    assert template["metadata"]["labels"]["cost-centre"] == "4711"
    assert template["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    assert {"name": "ca-bundle", "configMap": {"name": "hospital-ca"}} in spec["volumes"]
    (prepare,), (train,) = spec["initContainers"], spec["containers"]
    mount = {"name": "ca-bundle", "mountPath": "/etc/xray-ca", "readOnly": True}
    environment = {each["name"]: each["value"] for each in prepare["env"]}
    assert environment["HTTPS_PROXY"] == environment["https_proxy"] == "http://proxy.example:3128"
    assert environment["NO_PROXY"] == environment["no_proxy"] == "10.0.0.0/8"
    assert "HTTP_PROXY" not in environment
    assert environment["SSL_CERT_FILE"] == environment["REQUESTS_CA_BUNDLE"] == "/etc/xray-ca/bundle.pem"
    assert environment["HF_ENDPOINT"] == "https://hub.example"
    assert mount in prepare["volumeMounts"]
    assert {each["name"] for each in train["env"]} & environment.keys() == environment.keys() - ONLY_TO_REACH
    assert {"name": "HF_HUB_OFFLINE", "value": "1"} in train["env"]
    assert mount not in train["volumeMounts"]
    assert read_snapshot(build_config_map(run)).pod == run.snapshot.pod, "a later setting changes nothing about the run"


def test_a_record_from_before_ipus_trained_is_one_of_torch() -> None:
    config_map = build_config_map(make_run())
    snapshot = json.loads(config_map["data"]["snapshot.json"])
    del snapshot["sizing"], snapshot["spec"]["ipu"]
    config_map["data"]["snapshot.json"] = json.dumps(snapshot)
    run_file = build_run_file(make_plan(make_job().build().ref, read_snapshot(config_map)))
    assert run_file == json.loads(config_map["data"]["run.json"])
    assert run_file["backend"] == "torch"


def test_a_record_of_a_newer_operator_is_still_read() -> None:
    config_map = build_config_map(RUNS["cpu"])
    snapshot = json.loads(config_map["data"]["snapshot.json"])
    snapshot["pod"] |= {"futureSetting": 1}
    config_map["data"]["snapshot.json"] = json.dumps(snapshot | {"futureField": 2})
    assert read_snapshot(config_map).to_json() == RUNS["cpu"].snapshot.to_json()
