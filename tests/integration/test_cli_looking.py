"""`kubectl xray doctor`, and what `logs` and `report` say where there is nothing to show, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import xray
from tests.integration.cluster_access import apply, kubectl
from tests.integration.life import claim, flavor, xray_job
from tests.kubeconfigs import with_token

pytestmark = pytest.mark.integration
OPERATOR = {"app.kubernetes.io/name": "xray-operator", "app.kubernetes.io/version": "0.1.0"}
NODE = "doctor"


def examine(kubeconfig: Path, namespace: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and state and message by check."""
    done = xray(kubeconfig, "doctor", "-n", namespace, "-o", "json")
    assert done.stderr == ""
    return done.returncode, {row["check"]: (row["state"], row["message"]) for row in json.loads(done.stdout)}


@pytest.fixture
def stranger(kubeconfig: Path, namespace: str, tmp_path: Path) -> Path:
    """Kubeconfig of a user without any rights."""
    assert kubectl(kubeconfig, "create", "serviceaccount", "stranger", "-n", namespace).returncode == 0
    token = kubectl(kubeconfig, "create", "token", "stranger", "-n", namespace)
    assert token.returncode == 0, token.stderr
    return with_token(kubeconfig, token.stdout.strip(), namespace, tmp_path / "stranger")


@pytest.fixture
def roomy_flavor(kubeconfig: Path, namespace: str) -> Iterator[str]:
    """A flavor with a node of its own, on which nobody else's pods come."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {"doctor": namespace}}}
    node["spec"] = {"taints": [{"key": "doctor", "value": "only", "effect": "NoSchedule"}]}
    made = flavor(f"doctor-{namespace}")
    made["spec"] |= {"nodeSelector": {"doctor": namespace}, "tolerations": [{"operator": "Exists"}]}
    assert apply(kubeconfig, node, made).returncode == 0
    room = {"status": {"allocatable": {"cpu": "8", "memory": "64Gi", "graphcore.ai/ipu": "16"}}}
    patched = kubectl(kubeconfig, "patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(room))
    assert patched.returncode == 0, patched.stderr
    yield made["metadata"]["name"]
    kubectl(kubeconfig, "delete", "acceleratorflavor", made["metadata"]["name"])
    kubectl(kubeconfig, "delete", "node", NODE)


def set_up_operator(kubeconfig: Path, namespace: str) -> None:
    """A Deployment of which its controller is said to have told that it is available."""
    template = {"metadata": {"labels": OPERATOR}, "spec": {"containers": [{"name": "operator", "image": "none"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": OPERATOR}, "template": template}
    metadata = {"name": "xray", "namespace": namespace, "labels": OPERATOR}
    made = apply(kubeconfig, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    assert made.returncode == 0, made.stderr
    config = {"config.yaml": "images: {prepare: p, torch: t}\nnamespaces: [elsewhere]\n"}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "xray", "namespace": namespace}}
    assert apply(kubeconfig, config_map | {"data": config}).returncode == 0
    waited = kubectl(kubeconfig, "wait", "deploy/xray", "-n", namespace, "--for=condition=Available", "--timeout=60s")
    assert waited.returncode == 0, waited.stderr


def test_doctor_tells_what_a_run_needs_until_it_is_there(kubeconfig: Path, namespace: str, roomy_flavor: str) -> None:
    code, found = examine(kubeconfig, namespace)
    assert code == 1
    assert found["xraytrainingjobs.xray.training"][0] == found["acceleratorflavors.xray.training"][0] == "ok"
    assert found["right to submit"] == ("ok", "create, get, list, watch xraytrainingjobs.xray.training")
    assert found["operator"][0] == "missing"
    assert found["claims"][0] == "missing"
    assert found[f"flavor {roomy_flavor}"] == ("ok", "1 node fits; 16 graphcore.ai/ipu, 16 free; 8.50 USD an hour")
    assert "flavors" not in found
    set_up_operator(kubeconfig, namespace)
    assert apply(kubeconfig, claim(namespace, "results")).returncode == 0
    code, found = examine(kubeconfig, namespace)
    assert found["operator"] == ("ok", f"{namespace}/xray, version 0.1.0")
    assert found["claims"] == ("ok", "results (ReadWriteMany)")
    not_served = ("missing", f"namespace {namespace} is not served; elsewhere is")
    assert (code, found[f"configuration of {namespace}/xray"]) == (1, not_served)
    assert kubectl(kubeconfig, "delete", "configmap", "xray", "-n", namespace).returncode == 0
    done = xray(kubeconfig, "doctor", "-n", namespace)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["CHECK", "STATE", "MESSAGE"]
    assert ["claims", "ok", "results", "(ReadWriteMany)"] in lines
    told = yaml.safe_load(xray(kubeconfig, "doctor", "-n", namespace, "-o", "yaml").stdout)
    assert {"check": "claims", "state": "ok", "message": "results (ReadWriteMany)"} in told


def test_doctor_tells_a_stranger_what_is_not_for_him(stranger: Path, namespace: str) -> None:
    code, found = examine(stranger, namespace)
    assert code == 1
    states = {check: state for check, (state, _) in found.items()}
    assert states == {
        "xraytrainingjobs.xray.training": "ok",  # by what everybody may read
        "acceleratorflavors.xray.training": "ok",
        "trainingbudgets.xray.training": "ok",
        "right to submit": "missing",
        "right to suspend, resume, rerun": "warning",
        "right to choose a flavor": "warning",
        "right to read logs": "warning",
        "right to read reports": "warning",
        "operator": "unknown",
        "flavors": "unknown",
        "claims": "unknown",
    }


def test_doctor_tells_of_a_server_that_does_not_answer(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}],"
        " clusters: [{name: x, cluster: {server: 'http://127.0.0.1:9'}}], users: [{name: x, user: {}}]}"
    )
    done = xray(path, "doctor")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The connection to the server 127.0.0.1:9 was refused")


def is_in(kubeconfig: Path, namespace: str, **status: Any) -> None:
    """As if the operator had written that."""
    body = json.dumps({"status": status})
    words = ("patch", "xtj/cxr", "-n", namespace, "--subresource=status", "--type=merge", "-p", body)
    done = kubectl(kubeconfig, *words)
    assert done.returncode == 0, done.stderr


RUN = {"jobName": "cxr-1", "claimName": "out", "folder": "cxr-2", "prepareImage": "registry.example/prepare:1"}
READY = {
    "type": "Ready",
    "status": "Unknown",
    "reason": "Queued",
    "message": "no node has room",
    "lastTransitionTime": "2026-11-22T10:00:00Z",
}
ATTEMPT = {"podName": "cxr-1-abcde", "startedAt": "2026-11-22T10:00:00Z", "trainingSeconds": 9}


def test_logs_and_report_tell_where_a_job_is_that_has_neither(kubeconfig: Path, namespace: str) -> None:
    for verb in ("logs", "report"):
        done = xray(kubeconfig, verb, "cxr", "-n", namespace)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == 'Error from server (NotFound): xraytrainingjobs.xray.training "cxr" not found\n'
    assert apply(kubeconfig, xray_job(namespace)).returncode == 0
    assert xray(kubeconfig, "logs", "cxr", "-n", namespace).stderr == (
        "error: there is no pod yet, -f waits for it; cxr: Pending: Waiting for the operator\n"
    )
    is_in(kubeconfig, namespace, state="Queued", conditions=[READY])
    assert xray(kubeconfig, "logs", "cxr", "-n", namespace).stderr == (
        "error: there is no pod yet, -f waits for it; cxr: Queued: no node has room\n"
    )
    assert xray(kubeconfig, "logs", "cxr", "-n", namespace, "--previous").stderr == (
        "error: it has not trained yet, so there is no train.log; cxr: Queued: no node has room\n"
    )
    assert xray(kubeconfig, "report", "cxr", "-n", namespace).stderr == (
        "error: there is no report of cxr: Queued: no node has room; the report comes when it has succeeded; "
        "kubectl xray watch cxr shows how far it is\n"
    )
    is_in(kubeconfig, namespace, state="Training", trainerStatus={"progressPercentage": 40}, conditions=[])
    assert (
        "there is no report of cxr: Training 40%; the report comes"
        in xray(kubeconfig, "report", "cxr", "-n", namespace).stderr
    )
    is_in(kubeconfig, namespace, state="Failed", run=RUN, attempts=[ATTEMPT])
    assert (
        "there is no report of cxr: Failed; kubectl xray logs cxr tells more"
        in xray(kubeconfig, "report", "cxr", "-n", namespace).stderr
    )
    for words in ((), ("-f",), ("-c", "train")):
        assert xray(kubeconfig, "logs", "cxr", "-n", namespace, *words).stderr == (
            "error: the pods of cxr are gone; --previous brings what training said in them\n"
        )
    assert "there is no attempt 2" in xray(kubeconfig, "logs", "cxr", "-n", namespace, "--attempt", "2").stderr
    assert "goes with neither" in xray(kubeconfig, "logs", "cxr", "-n", namespace, "-f", "-p").stderr


def test_who_may_not_start_a_pod_is_told_what_would_let_him(kubeconfig: Path, namespace: str, stranger: Path) -> None:
    assert apply(kubeconfig, xray_job(namespace)).returncode == 0
    is_in(kubeconfig, namespace, state="Succeeded", run=RUN, attempts=[ATTEMPT])
    refused = xray(stranger, "report", "cxr")
    assert refused.returncode == 1
    assert refused.stderr.startswith('Error from server (Forbidden): xraytrainingjobs.xray.training "cxr" is forbidden')
    account = f"--serviceaccount={namespace}:stranger"
    for verbs, resource in (("get", "xraytrainingjobs.xray.training"), ("list,get,create", "pods")):
        name = resource.partition(".")[0]
        made = kubectl(kubeconfig, "create", "role", name, f"--verb={verbs}", f"--resource={resource}", "-n", namespace)
        bound = kubectl(kubeconfig, "create", "rolebinding", name, f"--role={name}", account, "-n", namespace)
        assert (made.returncode, bound.returncode) == (0, 0), made.stderr + bound.stderr
    for words in (("report", "cxr"), ("logs", "cxr", "--previous")):
        refused = xray(stranger, *words)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "through a pod, with your own rights" in refused.stderr
        assert (
            "you may not delete pods; get, create pods/exec; get persistentvolumeclaims in namespace" in refused.stderr
        )
        assert f"kubectl -n {namespace} create role xray-reader --verb=create,delete,get --resource=" in refused.stderr
    pods = kubectl(kubeconfig, "get", "pods", "-n", namespace, "-o", "name")
    assert pods.stdout == ""


def test_a_claim_that_is_gone_is_told_of_before_there_is_a_pod(kubeconfig: Path, namespace: str) -> None:
    assert apply(kubeconfig, xray_job(namespace)).returncode == 0
    is_in(kubeconfig, namespace, state="Succeeded", run=RUN, attempts=[ATTEMPT])
    done = xray(kubeconfig, "report", "cxr", "-n", namespace)
    assert done.returncode == 1
    assert done.stderr == 'Error from server (NotFound): persistentvolumeclaims "out" not found\n'
