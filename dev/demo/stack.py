"""The project on a cluster: images built from this tree, claims, chart. Used by `make demo` and by the e2e tests.

Standard library only: the demo starts on a machine that has nothing else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.cluster.devices import RESOURCE
from dev.cluster.state import ClusterError, cluster_named, home, read_json, step

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASE = "xray"
SYSTEM_NAMESPACE = "xray-system"
TRAINER_UID = 65532
"""User of the training pods; the operator's manifests set it."""

Manifest = dict[str, Any]


def cluster_tool(*arguments: str) -> str:
    """Run `dev/cluster`; its progress goes to the terminal.

    Returns: its stdout.
    Raises: ClusterError if it ended with another code than 0; its own message is on the terminal then.
    """
    done = subprocess.run(
        [sys.executable, REPOSITORY / "dev" / "cluster", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"dev/cluster {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


@dataclass(frozen=True)
class Kube:
    """kubectl and helm against one cluster."""

    environment: Mapping[str, str]

    def run(self, *argv: str, stdin: str | None = None, timeout: float = 600) -> str:
        """Returns: stdout. Raises: ClusterError with the command and stderr if it fails."""
        done = subprocess.run(
            argv,
            input=stdin,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def kubectl(self, *argv: str, stdin: str | None = None) -> str:
        return self.run("kubectl", *argv, stdin=stdin)

    def apply(self, *manifests: Manifest) -> None:
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(each) for each in manifests))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """The object, or None where there is none."""
        scope = ["-n", namespace] if namespace else []
        text = self.kubectl("get", kind, name, *scope, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def items(self, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        text = self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
        return list(json.loads(text)["items"])


def exports(lines: str) -> dict[str, str]:
    """The environment that `export NAME=VALUE` lines ask for, with $PATH put in."""
    found = {}
    for line in lines.splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        found[name] = os.path.expandvars(value.strip().strip("\"'"))
    return found


def start_cluster(ipus: int, provider: str = "auto", registry: str = "") -> Kube:
    """Bring the cluster up with `ipus` stand-in IPUs; a running one is used as it is, and so are real IPUs on it."""
    at = ("--registry", registry) if registry else ()
    if provider != "kubeconfig":
        cluster_tool("up", "--ipus", str(ipus), "--provider", provider)
        return current_cluster()
    cluster_tool("up", "--provider", provider)
    nodes = json.loads(current_cluster().kubectl("get", "nodes", "-o", "json"))["items"]
    if not any(int(node["status"]["allocatable"].get(RESOURCE, 0)) for node in nodes):
        cluster_tool("up", "--ipus", str(ipus), "--provider", provider, *at)
    return current_cluster()


def current_cluster() -> Kube:
    return Kube({**os.environ, **exports(cluster_tool("env"))})


def provider_of_cluster() -> str:
    """local, kind or kubeconfig: how the running cluster came to be."""
    return read_json(cluster_named("dev").root / "cluster.json").get("provider", "")


def build_images(*names: str, registry: str = "") -> dict[str, str]:
    """Build and load what is missing of the named images. Returns: name -> reference."""
    at = ("--registry", registry) if registry else ()
    with step("images " + ", ".join(names)):
        lines = cluster_tool("images", *at, *names).splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


IMAGES = ("operator", "prepare", "torch", "ipu")
PREPARE_FLAVOR: Manifest = {
    "host": {"cpu": "1", "memory": "2Gi"},
    "prices": [
        {
            "effectiveFrom": "2026-01-01T00:00:00Z",
            "currency": "USD",
            "perHour": "0.20",
            "source": "invented for the demo, not the price of any provider",
        }
    ],
}
"""Of the small node that demo and tests have."""


def install_chart(kube: Kube, images: Mapping[str, str], **more: Any) -> None:
    """CRDs by server-side apply, then the chart; both orders and repeats are fine.

    Args:
        images: name -> reference; without one of `ipu` the torch image trains on flavors of IPUs.
        more: values beside the demo's.
    """
    values = {
        "image": image_value(images["operator"]),
        "trainer": {name: image_value(images[name]) for name in ("prepare", "torch", "ipu") if name in images},
        "demoFlavor": {"enabled": True},
        "flavors": {"prepare-cpu": PREPARE_FLAVOR},
        "resyncSeconds": 2,
        **more,
    }
    kube.apply(namespace(SYSTEM_NAMESPACE))
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(REPOSITORY / "crds"))
    kube.run(
        *("helm", "upgrade", "--install", RELEASE, str(REPOSITORY / "charts" / "xray-operator")),
        *("--namespace", SYSTEM_NAMESPACE, "--values", "-", "--wait", "--timeout", "3m"),
        stdin=json.dumps(values),
    )


def image_value(reference: str) -> Manifest:
    """`repository:tag` as the chart's values name it."""
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def namespace(name: str) -> Manifest:
    """A namespace in which only pods that pass Pod Security `restricted` may run."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def claim(kube: Kube, namespace: str, name: str, folder: Path | None = None, size: str = "20Gi") -> Path | None:
    """Make a claim: from the cluster's default StorageClass, else on a folder of the node.

    Args:
        folder: existing data on the node, used in place and read-only.

    Returns: the folder on this machine that holds the data, None where only pods can reach it.
    """
    if kube.find("pvc", name, namespace):
        volume = kube.find("pv", f"{namespace}-{name}")
        return Path((volume["spec"].get("local") or volume["spec"]["hostPath"])["path"]) if volume else None
    if folder is None and has_default_storage_class(kube):
        kube.apply(claim_manifest(namespace, name, size, None, read_only=False))
        return None
    path = folder or new_volume_folder(namespace, name)
    read_only = folder is not None
    # of a claim that went with its namespace: it stays bound to that one for ever; the folder stays
    kube.kubectl("delete", "pv", f"{namespace}-{name}", "--ignore-not-found", "--timeout=120s")
    kube.apply(volume_manifest(kube, namespace, name, size, path, read_only))
    kube.apply(claim_manifest(namespace, name, size, f"{namespace}-{name}", read_only))
    return path


def has_default_storage_class(kube: Kube) -> bool:
    classes = json.loads(kube.kubectl("get", "storageclass", "-o", "json"))["items"]
    mark = "storageclass.kubernetes.io/is-default-class"
    return any(each["metadata"].get("annotations", {}).get(mark) == "true" for each in classes)


def new_volume_folder(namespace: str, name: str) -> Path:
    path = home() / "volumes" / namespace / name
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, TRAINER_UID, TRAINER_UID)
    return path


def remove_claim(kube: Kube, namespace: str, name: str) -> None:
    """Delete a claim, its static volume and the folder that we made for it, if they are there."""
    kube.kubectl("delete", "pvc", name, "-n", namespace, "--ignore-not-found", "--timeout=120s")
    kube.kubectl("delete", "pv", f"{namespace}-{name}", "--ignore-not-found", "--timeout=120s")
    shutil.rmtree(home() / "volumes" / namespace / name, ignore_errors=True)


def remove_volumes(kube: Kube, namespace: str) -> None:
    """Delete the static volumes of a namespace that is gone, and the folders that we made for them."""
    volumes = json.loads(kube.kubectl("get", "pv", "-o", "json"))["items"]
    for volume in volumes:
        if volume["spec"].get("claimRef", {}).get("namespace") == namespace:
            kube.kubectl("delete", "pv", volume["metadata"]["name"])
    shutil.rmtree(home() / "volumes" / namespace, ignore_errors=True)


def access_modes(read_only: bool) -> list[str]:
    return ["ReadOnlyMany"] if read_only else ["ReadWriteOnce"]


def claim_manifest(namespace: str, name: str, size: str, volume: str | None, read_only: bool) -> Manifest:
    spec: Manifest = {"accessModes": access_modes(read_only), "resources": {"requests": {"storage": size}}}
    if volume:
        spec |= {"storageClassName": "", "volumeName": volume}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def volume_source(path: Path, read_only: bool) -> Manifest:
    """hostPath for somebody's own data: unlike `local`, the kubelet never changes its owner."""
    return {"hostPath": {"path": str(path), "type": "Directory"}} if read_only else {"local": {"path": str(path)}}


def volume_manifest(kube: Kube, namespace: str, name: str, size: str, path: Path, read_only: bool) -> Manifest:
    """A static volume on a folder of the only node."""
    node = json.loads(kube.kubectl("get", "nodes", "-o", "json"))["items"][0]
    on_node = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node["metadata"]["name"]]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{name}"},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": access_modes(read_only),
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": namespace, "name": name},
            **volume_source(path, read_only),
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_node]}]}},
        },
    }


def run_pod_job(kube: Kube, namespace: str, name: str, pod: Manifest, deadline_seconds: float) -> None:
    """Run a pod to its end as a Job; one of this name that has succeeded before is not run again.

    Raises: ClusterError with the pod's last lines if it fails, or at the deadline; the Job is gone then.
    """
    spec = {"backoffLimit": 0, "template": {"spec": pod}}
    metadata = {"name": name, "namespace": namespace}
    kube.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    deadline = time.monotonic() + deadline_seconds
    while time.monotonic() < deadline:
        job = kube.find("job", name, namespace) or {}
        ended = [each["type"] for each in job.get("status", {}).get("conditions", []) if each["status"] == "True"]
        if "Complete" in ended:
            return
        if "Failed" in ended:
            break
        time.sleep(1)
    log = kube.kubectl("logs", "-n", namespace, f"job/{name}", "--tail=5")
    kube.kubectl("delete", "job", name, "-n", namespace, "--cascade=foreground")
    raise ClusterError(f"job/{name}: not complete after {deadline_seconds:.0f} s or failed; its last lines:\n{log}")


@contextmanager
def pod_on_claim(kube: Kube, namespace: str, name: str, image: str) -> Iterator[str]:
    """A pod that sleeps with the claim at /claim, for `kubectl cp`: works where the volume is out of our reach."""
    pod = restricted_pod(image, [], {name: "/claim"}, ["python3", "-c", "import time; time.sleep(600)"])
    metadata = {"name": f"files-of-{name}", "namespace": namespace}
    kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod})
    kube.kubectl("wait", "-n", namespace, f"pod/files-of-{name}", "--for=condition=Ready", "--timeout=3m")
    try:
        yield f"{namespace}/files-of-{name}:/claim"
    finally:
        kube.kubectl("delete", "-n", namespace, f"pod/files-of-{name}", "--grace-period=0", "--wait=true")


def restricted_pod(
    image: str, args: list[str], claims: Mapping[str, str], command: list[str] | None = None
) -> Manifest:
    """A pod spec with one container that passes Pod Security `restricted`.

    Args:
        claims: claim name -> mount path.
    """
    mounts = [{"name": name, "mountPath": path} for name, path in claims.items()]
    container: Manifest = {
        "name": "main",
        "image": image,
        "args": args,
        "env": [{"name": "HOME", "value": "/tmp"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
    }
    if command:
        container["command"] = command
    user = {"runAsNonRoot": True, "runAsUser": TRAINER_UID, "runAsGroup": TRAINER_UID, "fsGroup": TRAINER_UID}
    volumes: list[Manifest] = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
    }
