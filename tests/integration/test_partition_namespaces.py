"""Who may have something of the host in a namespace of partitions: the chart's policy on a real API server."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.integration.cluster_access import kubectl, until
from tests.integration.conftest import PREFIX, make_namespace, remove_namespace
from tests.integration.release import Release, installed
from tests.unit.operator.builders import make_flavor, make_job, make_run
from xray_operator.config import Images, OperatorConfig
from xray_operator.core.manifests import build_job

pytestmark = pytest.mark.integration
NAMESPACE = f"{PREFIX}{uuid.uuid4().hex[:8]}"
JOB_CONTROLLER = "system:serviceaccount:kube-system:job-controller"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{NAMESPACE}-xray-operator"
IMAGES = {name: f"registry.example/{name}:1" for name in ("prepare", "torch", "ipu")}
TRAINER = {name: {"repository": f"registry.example/{name}", "tag": "1"} for name in IMAGES}
FLAVOR = make_flavor(
    "vipuPartition",
    accelerators=4,
    partition={"host": "10.3.0.1", "id": "vpod4"},
    host={"cpu": "1", "hostNetwork": True, "hostIPC": True},
    nodeSelector={"vpod": "vpod4"},
)
PRIVILEGED = FLAVOR | {"host": {"privileged": True}}

Manifest = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def release(kubeconfig: Path) -> AsyncIterator[Release]:
    """The chart with its policy for its own namespace."""
    make_namespace(kubeconfig, NAMESPACE)
    for kind, older in OLDER.items():
        made = kubectl(kubeconfig, "create", "-f", "-", "-n", NAMESPACE, stdin=json.dumps(older))
        assert made.returncode == 0, (kind, made.stderr)
    with installed(kubeconfig, NAMESPACE, partitionNamespaces=[NAMESPACE], trainer=TRAINER) as made:

        async def enforced() -> bool:
            return "hostPID" in refusal(made, pod(hostPID=True))

        await until("the policy is enforced", enforced)
        yield made
    for kind in OLDER:
        patch = ["patch", kind, "older", "-n", NAMESPACE, "--type=merge", "-p", '{"metadata": {"finalizers": []}}']
        kubectl(kubeconfig, *patch)  # without the policy nothing keeps them
    remove_namespace(kubeconfig, NAMESPACE)


def refusal(release: Release, manifest: Manifest, user: str = "", namespace: str = NAMESPACE) -> str:
    """What the API server says against the creation; "" if nothing."""
    command = ["create", "--dry-run=server", "-f", "-", "-n", namespace, *([f"--as={user}"] if user else [])]
    done = kubectl(release.kubeconfig, *command, stdin=json.dumps(manifest))
    return done.stderr if done.returncode else ""


def pod(of_container: Manifest | None = None, **spec: Any) -> Manifest:
    """Somebody's own."""
    container = {"name": "own", "image": "registry.example/own:1"} | (of_container or {})
    metadata = {"name": "own"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]} | spec}


def job_of(own: Manifest) -> Manifest:
    template = {"spec": own["spec"] | {"restartPolicy": "Never"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "own"}, "spec": {"template": template}}


def run_job(flavor: Manifest = FLAVOR) -> Manifest:
    """A run's, as the operator makes it; without an owner it stays."""
    job = make_job().spec(dataset={"source": {"pvc": {"claimName": "nih"}}})
    made = build_job(make_run(job, flavor, OperatorConfig(images=Images(**IMAGES))))
    made["metadata"] |= {"namespace": NAMESPACE, "ownerReferences": []}
    return made


def older(manifest: Manifest) -> Manifest:
    """What is there before the policy, with a finalizer of a controller."""
    return manifest | {"metadata": {"name": "older", "finalizers": ["example.com/tracks"]}}


OLDER = {"pod": older(pod(hostNetwork=True)), "job": older(job_of(pod(hostNetwork=True)))}


def secured(**context: Any) -> Manifest:
    return {"securityContext": context}


ASKING = [
    (pod(hostNetwork=True), "hostNetwork"),
    (pod(hostIPC=True), "hostIPC"),
    (pod(hostPID=True), "hostPID"),
    (pod(volumes=[{"name": "root", "hostPath": {"path": "/"}}]), "hostPath"),
    (pod(secured(privileged=True)), "privileged"),
    (pod(secured(capabilities={"add": ["SYS_ADMIN"]})), "capabilities"),
    (pod(secured(privileged=True), hostNetwork=True), "hostNetwork, privileged"),
    (pod({"ports": [{"containerPort": 20000, "hostPort": 20000}]}), "hostPort"),
    (pod(secured(seccompProfile={"type": "Unconfined"})), "seccompProfile Unconfined"),
    (pod(securityContext={"seccompProfile": {"type": "Unconfined"}}), "seccompProfile Unconfined"),
    (pod(secured(appArmorProfile={"type": "Unconfined"})), "appArmorProfile Unconfined"),
    (pod(secured(seLinuxOptions={"type": "spc_t"})), "seLinuxOptions"),
    (pod(securityContext={"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "0"}]}), "sysctls"),
    (pod(initContainers=[{"name": "i", "image": "i", **secured(privileged=True)}]), "privileged"),
]


@pytest.mark.parametrize(("manifest", "asked"), ASKING)
def test_somebodys_own_pod_or_job_gets_nothing_of_the_host(release: Release, manifest: Manifest, asked: str) -> None:
    assert f"only runs of XRayTrainingJobs may ask for {asked} here" in refusal(release, manifest)
    assert f"only runs of XRayTrainingJobs may ask for {asked} here" in refusal(release, job_of(manifest))


def test_what_asks_for_nothing_is_let_through(release: Release) -> None:
    assert refusal(release, pod()) == ""
    assert refusal(release, job_of(pod())) == ""
    assert refusal(release, pod(secured(capabilities={"drop": ["ALL"]}, privileged=False), hostNetwork=False)) == ""
    usual = {"seccompProfile": {"type": "RuntimeDefault"}, "seLinuxOptions": {"level": "s0:c1,c2"}}
    assert refusal(release, pod(secured(**usual), securityContext=usual)) == ""


def test_other_namespaces_are_not_touched(release: Release, namespace: str) -> None:
    assert refusal(release, pod(hostNetwork=True), namespace=namespace) == ""


@pytest.mark.parametrize("flavor", [FLAVOR, PRIVILEGED])
def test_only_the_operator_makes_a_run(release: Release, flavor: Manifest) -> None:
    assert refusal(release, run_job(flavor), OPERATOR) == ""
    assert "may not" in refusal(release, run_job(flavor))
    template = run_job(flavor)["spec"]["template"]
    template["metadata"]["name"] = "own"
    assert "may not" in refusal(release, {"apiVersion": "v1", "kind": "Pod", **template})


def test_a_pod_of_that_shape_is_a_jobs(release: Release) -> None:
    """Where all controllers share one account, it is no proof of a Job that was looked at: a ReplicaSet's pod has any image."""
    template = run_job(PRIVILEGED)["spec"]["template"]
    template["metadata"]["name"] = "own"
    made = {"apiVersion": "v1", "kind": "Pod", **template}
    assert "may not" in refusal(release, made, JOB_CONTROLLER)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "own", "uid": "0", "controller": True}
    template["metadata"]["ownerReferences"] = [owner]
    assert "may not" in refusal(release, made, JOB_CONTROLLER)
    template["metadata"]["ownerReferences"] = [owner | {"apiVersion": "batch/v1", "kind": "Job"}]
    assert refusal(release, made, JOB_CONTROLLER) == ""


def change(path: str, value: Any) -> Callable[[Manifest], None]:
    def carry_out(spec: Manifest) -> None:
        *way, last = path.split(".")
        place: Any = spec
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value

    return carry_out


MISSHAPEN = [
    (change("spec.hostPID", True), "shape"),
    (change("spec.automountServiceAccountToken", True), "shape"),
    (change("spec.volumes", [{"name": "etc", "hostPath": {"path": "/etc"}}]), "shape"),
    (change("spec.containers.0.securityContext.capabilities.add", ["SYS_ADMIN"]), "shape"),
    (change("spec.initContainers.0.securityContext.capabilities.add", ["IPC_LOCK"]), "shape"),
    (change("spec.initContainers", []), "shape"),
    (change("metadata.labels", {}), "shape"),
    (change("spec.containers.0.image", "registry.example/own:1"), "an image that the release does not have"),
    (change("spec.initContainers.0.image", "registry.example/own:1"), "an image that the release does not have"),
]


@pytest.mark.parametrize(("spoil", "words"), MISSHAPEN)
def test_even_the_operator_makes_nothing_else(release: Release, spoil: Callable[[Manifest], None], words: str) -> None:
    made = copy.deepcopy(run_job())
    for mount_of in (
        *made["spec"]["template"]["spec"]["containers"],
        *made["spec"]["template"]["spec"]["initContainers"],
    ):
        mount_of["volumeMounts"] = []
    spoil(made["spec"]["template"])
    assert words in refusal(release, made, OPERATOR)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_job_controller_makes_the_pod_and_nobody_turns_it_into_another(release: Release) -> None:
    made = run_job()
    made["spec"]["suspend"] = False
    created = kubectl(release.kubeconfig, "create", "-f", "-", f"--as={OPERATOR}", stdin=json.dumps(made))
    assert created.returncode == 0, created.stderr

    async def pod_name() -> str:
        selector = f"job-name={made['metadata']['name']}"
        return kubectl(release.kubeconfig, "get", "pods", "-n", NAMESPACE, "-l", selector, "-o", "name").stdout.strip()

    name = await until("the Job has its pod", pod_name)

    def patch(text: Manifest, *options: str) -> str:
        command = ["patch", name, "-n", NAMESPACE, "--type=strategic", "-p", json.dumps(text), *options]
        return kubectl(release.kubeconfig, *command).stderr

    swapped = {"spec": {"containers": [{"name": "train", "image": "registry.example/own:1"}]}}
    assert "stay as they are" in patch(swapped)
    added = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "registry.example/own:1"}]}}
    assert "has not the shape" in patch(added, "--subresource=ephemeralcontainers")
    assert patch({"metadata": {"annotations": {"seen": "yes"}}}) == ""


@pytest.mark.parametrize("kind", OLDER)
def test_what_was_there_before_the_policy_can_go_and_nothing_else(release: Release, kind: str) -> None:
    def patch(text: Manifest) -> str:
        command = ["patch", kind, "older", "-n", NAMESPACE, "--type=merge", "-p", json.dumps(text)]
        return kubectl(release.kubeconfig, *command).stderr

    assert "has not the shape" in patch({"metadata": {"labels": {"app": "another"}}})
    assert "has not the shape" in patch({"spec": {"activeDeadlineSeconds": 3600}})
    kubectl(release.kubeconfig, "delete", kind, "older", "-n", NAMESPACE, "--wait=false", "--cascade=orphan")
    assert patch({"metadata": {"finalizers": []}}) == ""
