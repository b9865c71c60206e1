"""Who may have something of the host by an IPUJob in a namespace of partitions: the chart's policy on a real API server.

CRD and pods are those of the stand-in for Graphcore's operator; what its controller asks for is asked under its name.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from dev.ipu_operator_standin.controller import build_pod
from tests.integration.cluster_access import kubectl, until
from tests.integration.conftest import PREFIX, make_namespace, remove_namespace
from tests.integration.release import Release, installed
from tests.integration.test_ipu_operator import install_crd, let_go_of_left_ones, remove_crd
from tests.integration.test_partition_namespaces import (
    IMAGES,
    JOB_CONTROLLER,
    TRAINER,
    Manifest,
    change,
    job_of,
    pod,
    run_job,
    secured,
)
from tests.unit.operator.builders import make_flavor

pytestmark = pytest.mark.integration
NAMESPACE = f"{PREFIX}{uuid.uuid4().hex[:8]}"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{NAMESPACE}-xray-operator"
CONTROLLER = "system:serviceaccount:graphcore:manager"
ADMIN = "admin-of-the-namespace"
OTHERS = (ADMIN, JOB_CONTROLLER, CONTROLLER.replace("graphcore", "another"))
FLAVOR = make_flavor(
    "ipuOperator",
    accelerators=4,
    vipuProxyUrl="http://proxy.example",
    host={"cpu": "1", "hostNetwork": True, "hostIPC": True},
)
PRIVILEGED = FLAVOR | {"host": {"privileged": True}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def release(kubeconfig: Path) -> AsyncIterator[Release]:
    """The chart with its policy, installed before the CRD; somebody's IPUJob is there before the namespace is named."""
    let_go_of_left_ones(kubeconfig)
    remove_crd(kubeconfig)
    make_namespace(kubeconfig, NAMESPACE)
    values = {"trainer": TRAINER, "ipuOperator": {"controllers": [CONTROLLER]}}
    with installed(kubeconfig, NAMESPACE, partitionNamespaces=["another"], **values) as made:
        await install_crd(kubeconfig)
        older = ipu_job(job_of(pod(hostNetwork=True))["spec"]["template"], "older")
        older["metadata"]["finalizers"] = ["example.com/tracks"]
        assert create(made, older) == ""
        made.upgrade(partitionNamespaces=[NAMESPACE], **values)

        async def enforced() -> bool:
            return "hostPID" in refusal(made, pod(hostPID=True))

        await until("the policy is enforced", enforced)
        yield made
    let_go_of_left_ones(kubeconfig)
    kubectl(kubeconfig, "delete", "ipujobs", "--all", "-n", NAMESPACE)
    remove_namespace(kubeconfig, NAMESPACE)


def run_as(release: Release, user: str, *command: str, stdin: str | None = None) -> str:
    """What the API server says against a user with all rights; "" if nothing."""
    rights = [f"--as={user}", "--as-group=system:masters"]
    done = kubectl(release.kubeconfig, *command, "-n", NAMESPACE, *rights, stdin=stdin)
    return done.stderr if done.returncode else ""


def create(release: Release, manifest: Manifest, user: str = ADMIN) -> str:
    return run_as(release, user, "create", "-f", "-", stdin=json.dumps(manifest))


def refusal(release: Release, manifest: Manifest, user: str = ADMIN) -> str:
    return run_as(release, user, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(manifest))


def patch(release: Release, what: str, text: Manifest, user: str = ADMIN, *options: str) -> str:
    merge = "strategic" if what.startswith("pod/") else "merge"
    return run_as(release, user, "patch", what, f"--type={merge}", "-p", json.dumps(text), *options)


def ipu_job(template: Manifest, name: str = "own") -> Manifest:
    """Somebody's own."""
    spec = {"jobInstances": 1, "ipusPerJobInstance": "4", "workers": {"template": template}}
    return {"apiVersion": "graphcore.ai/v1alpha1", "kind": "IPUJob", "metadata": {"name": name}, "spec": spec}


def run_ipu_job(flavor: Manifest = FLAVOR) -> Manifest:
    """A run's, as the operator makes it; without an owner it stays."""
    made = run_job(flavor)
    made["metadata"]["namespace"] = NAMESPACE
    return made


def worker(flavor: Manifest = FLAVOR, **owner: str) -> Manifest:
    """The pod of a run's IPUJob, as the stand-in makes it."""
    job = run_ipu_job(flavor)
    job["metadata"]["uid"] = "0"
    made = build_pod(job)
    made["metadata"]["ownerReferences"][0] |= owner
    return made


@pytest.mark.parametrize("flavor", [FLAVOR, PRIVILEGED])
def test_only_the_operator_makes_an_ipu_job(release: Release, flavor: Manifest) -> None:
    assert refusal(release, run_ipu_job(flavor), OPERATOR) == ""
    for user in (*OTHERS, CONTROLLER):
        assert f"{user} may not" in refusal(release, run_ipu_job(flavor), user)


def test_an_ipu_job_that_asks_for_nothing_is_refused_too(release: Release) -> None:
    """Graphcore's controller gives its pod the host's network."""
    for template in (job_of(pod())["spec"]["template"], {}):
        said = refusal(release, ipu_job(template))
        assert "only runs of XRayTrainingJobs may have IPUJobs here; " in said
        assert "may neither make one nor change its spec" in said


@pytest.mark.parametrize("flavor", [FLAVOR, PRIVILEGED])
def test_only_graphcores_controller_makes_the_pod_of_a_run_and_only_for_an_ipu_job(
    release: Release, flavor: Manifest
) -> None:
    assert refusal(release, worker(flavor), CONTROLLER) == ""
    for user in (*OTHERS, OPERATOR):
        assert f" here; {user} may not" in refusal(release, worker(flavor), user)
    for owner in ({"kind": "Job"}, {"apiVersion": "example.com/v1"}, {"apiVersion": "batch/v1", "kind": "Job"}):
        assert "may not" in refusal(release, worker(flavor, **owner), CONTROLLER)
    orphan = worker(flavor)
    orphan["metadata"]["ownerReferences"] = []
    assert "may not" in refusal(release, orphan, CONTROLLER)


def test_graphcores_controller_gets_nothing_else_of_the_host(release: Release) -> None:
    assert "may not" in refusal(release, pod(secured(privileged=True)), CONTROLLER)
    assert "may not" in refusal(release, job_of(pod(hostNetwork=True)), CONTROLLER)
    assert refusal(release, pod(), CONTROLLER) == ""  # such as a launcher


MISSHAPEN = [
    (change("spec.hostPID", True), "shape"),
    (change("spec.automountServiceAccountToken", True), "shape"),
    (change("spec.volumes", [{"name": "etc", "hostPath": {"path": "/etc"}}]), "shape"),
    (change("spec.containers.0.securityContext.capabilities.add", ["SYS_ADMIN"]), "shape"),
    (change("spec.initContainers.0.securityContext", {"privileged": True}), "shape"),
    (change("spec.initContainers", []), "shape"),
    (change("metadata.labels", {}), "shape"),
    (change("spec.containers.0.image", "registry.example/own:1"), "an image that the release does not have"),
    (change("spec.initContainers.0.image", "registry.example/own:1"), "an image that the release does not have"),
]


@pytest.mark.parametrize(("spoil", "words"), MISSHAPEN)
def test_pod_and_ipu_job_have_the_shape_of_a_run(
    release: Release, spoil: Callable[[Manifest], None], words: str
) -> None:
    made, job = copy.deepcopy(worker()), copy.deepcopy(run_ipu_job())
    template = job["spec"]["workers"]["template"]
    for each in (made, template):
        for container in (*each["spec"]["containers"], *each["spec"]["initContainers"]):
            container["volumeMounts"] = []
        spoil(each)
    assert words in refusal(release, made, CONTROLLER)
    assert words in refusal(release, job, OPERATOR)


def test_nobody_turns_an_ipu_job_into_another(release: Release) -> None:
    job = run_ipu_job()
    assert create(release, job, OPERATOR) == ""
    name = f"ipujob/{job['metadata']['name']}"
    words = "may neither make one nor change its spec"
    assert words in patch(release, name, {"spec": {"ipusPerJobInstance": "64"}})
    assert words in run_as(release, ADMIN, "scale", name, "--replicas=8")
    assert patch(release, name, {"spec": {"interactive": {"ttl": 60}}}, CONTROLLER) == "", "with its defaults"
    host = {"spec": {"workers": {"template": {"spec": {"hostPID": True}}}}}
    assert "has not the shape" in patch(release, name, host, CONTROLLER)
    seen = {"metadata": {"finalizers": ["graphcore.example/partition"], "labels": {"seen": "yes"}}}
    assert patch(release, name, seen, CONTROLLER) == ""
    assert patch(release, name, {"status": {"launcherStatus": "Running"}}, CONTROLLER, "--subresource=status") == ""
    can_go(release, name)


def test_nobody_turns_the_pod_into_another(release: Release) -> None:
    job = run_ipu_job()
    assert create(release, job, OPERATOR) == ""
    made = build_pod(found(release, f"ipujob/{job['metadata']['name']}"))
    assert create(release, made, CONTROLLER) == ""
    name = f"pod/{made['metadata']['name']}"
    swapped = {"spec": {"containers": [{"name": "train", "image": IMAGES["torch"]}]}}
    assert "stay as they are" in patch(release, name, swapped)
    added = {"spec": {"ephemeralContainers": [{"name": "debug", "image": IMAGES["torch"]}]}}
    assert "has not the shape" in patch(release, name, added, ADMIN, "--subresource=ephemeralcontainers")
    assert patch(release, name, {"metadata": {"annotations": {"seen": "yes"}}}) == ""


def test_what_was_there_before_the_policy_can_go_and_nothing_else(release: Release) -> None:
    name = "ipujob/older"
    assert "has not the shape" in refusal(release, build_pod(found(release, name)), CONTROLLER)
    assert "has not the shape" in patch(release, name, {"spec": {"jobInstances": 8}})
    can_go(release, name)


def found(release: Release, name: str) -> Manifest:
    return dict(json.loads(kubectl(release.kubeconfig, "get", name, "-n", NAMESPACE, "-o", "json").stdout))


def can_go(release: Release, name: str) -> None:
    """Its controller takes away its finalizer."""
    assert run_as(release, ADMIN, "delete", name, "--wait=false") == ""
    assert patch(release, name, {"metadata": {"finalizers": []}}, CONTROLLER) == ""
    assert "NotFound" in run_as(release, ADMIN, "get", name)
