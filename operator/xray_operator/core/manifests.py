"""The plan of a run -> its ConfigMap and the Job that trains, or what its backend has in its place. Both are created once
and never applied again.

Later only the Job's `suspend` is patched: a newly rendered pod template over a live Job would be refused (422).

Owner references: controller, so that nothing else adopts them and deleting the resource collects them;
not blocking the owner's deletion, so that no right on finalizers is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from xray_operator import names
from xray_operator.config import Pod
from xray_operator.core import run_file
from xray_operator.core.backends import backend_of
from xray_operator.core.backends.base import PodParts
from xray_operator.core.batch_job import GRACE_SECONDS, job_spec
from xray_operator.core.parts import Host
from xray_operator.core.plan import JobRef, Plan, Preparation, Snapshot

USER: Final = 65532
"""uid, gid and fsGroup of every container; "nonroot" in distroless images."""
CA_MOUNT: Final = "/etc/xray-ca"
_CACHE_MOUNTS: Final = (run_file.CACHE_MOUNT, "/tmp", "/dev/shm")
S3_KEYS: Final = {
    "AWS_ACCESS_KEY_ID": True,
    "AWS_SECRET_ACCESS_KEY": True,
    "AWS_SESSION_TOKEN": False,
    "AWS_REGION": False,
}
FSSPEC_KEYS: Final = {"STORAGE_OPTIONS": True}
"""Keys of a source's Secret, and whether they must be there. By name and not all: an environment decides over more than
credentials, and who may write a Secret may not be allowed to decide what a pod runs."""
TRACKING_KEYS: Final = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_EXPERIMENT_NAME",
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "WANDB_ENTITY",
    "WANDB_PROJECT",
    "WANDB_MODE",
)
"""What of the Secret of spec.tracking reaches the container that trains; none has to be there."""


def build_config_map(plan: Plan) -> dict[str, Any]:
    """The run file, for kubelet to mount, and the record of what was fixed: immutable, also for those who edit Jobs."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(plan),
        "immutable": True,
        "data": {run_file.RUN_FILE: run_file.render_run_file(plan), names.SNAPSHOT_FILE: plan.snapshot.to_json()},
    }


def build_job(plan: Plan, model_commit: str | None = None, last_pod: str = "") -> dict[str, Any]:
    """The object whose pod trains, a Job for most backends: init container `prepare`, container `train`; passes Pod
    Security `restricted`, unless its backend needs the host's network and memory.

    Args:
        model_commit: of the hub model that a Job of its own has fetched for this run, if it has told it.
        last_pod: of the attempt before, where each attempt has an object of its own.
    """
    backend = backend_of(plan.snapshot.backend)
    metadata, pod_labels = _metadata(plan), _labels(plan) | {names.LABEL_OUTPUT: plan.output_folder}
    if backend.one_attempt:
        metadata["name"] = plan.job.run_name(plan.snapshot.rerun, last_pod)
    metadata["labels"] |= plan.snapshot.queue_labels
    if plan.partition_key:
        metadata["annotations"] = {names.ANNOTATION_TURN: names.WAITS}
        for labels in (metadata["labels"], pod_labels):
            labels[names.LABEL_PARTITION] = plan.partition_key
    template = {
        "metadata": _pod_metadata(plan, pod_labels, plan.progress_port),
        "spec": _run_pod(plan, model_commit),
    }
    # Kueue, or the line of the partition, says when it may run
    suspend = bool(plan.snapshot.queue_name or plan.partition_key)
    return backend.build_child(plan.snapshot, metadata, template, suspend=suspend)


def build_shared_job(plan: Plan, preparation: Preparation) -> dict[str, Any]:
    """The Job of a preparation, for every run that needs it: one container `prepare`, no accelerator.

    Its owners are the resources that wait for it or have used it; the last of them takes it along.
    """
    labels = {
        "app.kubernetes.io/name": "xray-training",
        "app.kubernetes.io/managed-by": names.OPERATOR,
        names.LABEL_JOB_UID: preparation.job_name,
        names.LABEL_FLAVOR: preparation.flavor,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": preparation.job_name,
            "namespace": plan.job.namespace,
            "labels": labels,
            "ownerReferences": [shared_owner(plan.job)],
        },
        "spec": job_spec(
            {
                "metadata": _pod_metadata(plan, labels, names.PROGRESS_PORT),
                "spec": _shared_pod(plan, preparation),
            }
        ),
    }


def shared_owner(job: JobRef) -> dict[str, Any]:
    """What makes a resource one of several owners of a child."""
    return owner_reference(job) | {"controller": False}


def owner_reference(job: JobRef) -> dict[str, Any]:
    """What makes a child ours."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.JOB_KIND,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _metadata(plan: Plan) -> dict[str, Any]:
    return {
        "name": plan.run_name,
        "namespace": plan.job.namespace,
        "labels": _labels(plan),
        "ownerReferences": [owner_reference(plan.job)],
    }


def _labels(plan: Plan) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "xray-training",
        "app.kubernetes.io/managed-by": names.OPERATOR,
        names.LABEL_JOB_NAME: plan.job.name[:63].rstrip("-."),
        names.LABEL_JOB_UID: plan.job.uid,
        names.LABEL_FLAVOR: plan.snapshot.flavor,
        names.LABEL_RERUN: str(plan.snapshot.rerun),
    }


def _pod_metadata(plan: Plan, labels: dict[str, str], port: int) -> dict[str, Any]:
    scraped = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(port),
        "prometheus.io/path": "/metrics",
    }
    pod = plan.snapshot.pod
    return {"labels": dict(pod.labels) | labels, "annotations": dict(pod.annotations) | scraped}


def _run_pod(plan: Plan, model_commit: str | None) -> dict[str, Any]:
    prepare = _run_container(plan, names.PREPARE, plan.snapshot.prepare_image)
    if plan.snapshot.model_preparation and model_commit:
        prepare["args"] += ["--model-commit", model_commit]
    parts = backend_of(plan.snapshot.backend).pod_parts(plan.snapshot)
    train = _train_container(plan, parts)
    if plan.snapshot.preparation is None:
        _let_out(plan, prepare)
        _let_read(plan, prepare)
    elif plan.snapshot.fetches_in_its_pod:  # it was fixed before models had Jobs
        _let_out(plan, prepare)
        _let_out(plan, train)
    if plan.spec.tracking and not plan.snapshot.fetches_in_its_pod:
        _let_out(plan, train)
    volumes = [*_volumes(plan, prepare, train), *parts.volumes]
    spec = _pod_spec(plan.snapshot, plan.snapshot, [train], volumes)
    return spec | parts.pod | {"initContainers": [prepare]}


def _let_out(plan: Plan, container: dict[str, Any]) -> None:
    """Give a container what the administrator's network asks for. Where a Job prepares, the run's own pod needs it for
    nothing but a tracker."""
    container["env"] += _network(plan.snapshot.pod)
    if plan.snapshot.pod.ca_bundle.config_map_name:
        mount = {"name": "ca-bundle", "mountPath": CA_MOUNT, "readOnly": True}
        container["volumeMounts"] = [*container["volumeMounts"], mount]


def _let_read(plan: Plan, container: dict[str, Any]) -> None:
    """Give a container what it reads a remote source with. Where a Job prepares, the run's own pod gets nothing of it."""
    container["env"] += _credentials(plan)
    if _file_list(plan):
        mount = {"name": "file-list", "mountPath": run_file.FILE_LIST_MOUNT, "readOnly": True}
        container["volumeMounts"] = [*container["volumeMounts"], mount]


def _credentials(plan: Plan) -> list[dict[str, Any]]:
    """Kubelet reads the Secret, the operator never does."""
    source = plan.spec.dataset.source
    store, keys = (source.s3, S3_KEYS) if source.s3 else (source.fsspec, FSSPEC_KEYS)
    if store is None or store.secret_name is None:
        return []
    return _from_secret(store.secret_name, keys)


def _from_secret(name: str, keys: Mapping[str, bool]) -> list[dict[str, Any]]:
    """Args:
    keys: and whether they must be there.
    """
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": not needed}}}
        for key, needed in keys.items()
    ]


def _shared_pod(plan: Plan, preparation: Preparation) -> dict[str, Any]:
    of_data = preparation.kind == "data"
    wanted = (*_CACHE_MOUNTS, run_file.DATASET_MOUNT) if of_data else _CACHE_MOUNTS
    mounts = [mount for mount in _mounts(plan, with_dataset=True) if mount["mountPath"] in wanted]
    arguments = [f"prepare-{preparation.kind}", "--order", run_file.render_order(plan, preparation)]
    container = _container(plan.snapshot, names.PREPARE, plan.snapshot.prepare_image, preparation.host)
    container |= {"args": arguments, "ports": _ports(names.PROGRESS_PORT), "volumeMounts": mounts}
    _let_out(plan, container)
    if of_data:
        _let_read(plan, container)
        container["env"] += [{"name": name, "value": value} for name, value in run_file.ordered_by(plan).items()]
    return _pod_spec(plan.snapshot, preparation, [container], _volumes(plan, container))


def _pod_spec(
    snapshot: Snapshot, place: Snapshot | Preparation, containers: list[dict[str, Any]], volumes: list[dict[str, Any]]
) -> dict[str, Any]:
    """A pod that passes Pod Security `restricted` unless a backend adds to it, on the nodes of one flavor."""
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": place.node_selector,
        "tolerations": list(place.tolerations),
        "priorityClassName": snapshot.pod.priority_class_name,
        "imagePullSecrets": [{"name": name} for name in snapshot.pod.image_pull_secrets],
        "containers": containers,
        "volumes": volumes,
    }
    return {key: value for key, value in spec.items() if value not in ({}, [], "")}


def _train_container(plan: Plan, parts: PodParts) -> dict[str, Any]:
    container = _run_container(plan, names.TRAIN, plan.snapshot.train_image) | {"ports": _ports(plan.progress_port)}
    if not plan.snapshot.fetches_in_its_pod:
        container["env"].append({"name": "HF_HUB_OFFLINE", "value": "1"})
    if parts.limits:
        container["resources"].setdefault("limits", {}).update(parts.limits)
    container["env"] += parts.env
    if plan.spec.tracking:
        container["env"] += _from_secret(plan.spec.tracking.secret_name, dict.fromkeys(TRACKING_KEYS, False))
    container["volumeMounts"] = [*container["volumeMounts"], *parts.mounts]
    container["securityContext"] |= parts.security
    return container


def _ports(port: int) -> list[dict[str, Any]]:
    # protocol is a key of the list of ports: CRDs with pod templates of their own may ask for it, where Jobs have a default
    return [{"name": "progress", "containerPort": port, "protocol": "TCP"}]


def _run_container(plan: Plan, name: str, image: str) -> dict[str, Any]:
    return _container(plan.snapshot, name, image, plan.snapshot.host) | {
        "args": [name, "--run-file", f"{run_file.RUN_FILE_MOUNT}/{run_file.RUN_FILE}"],
        "volumeMounts": _mounts(plan, with_dataset=name == names.PREPARE),
    }


def _container(snapshot: Snapshot, name: str, image: str, host: Host) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": snapshot.pull_policy,
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "HF_HOME", "value": "/tmp/huggingface"},
            {"name": "HF_HUB_DISABLE_TELEMETRY", "value": "1"},
            {"name": "MPLCONFIGDIR", "value": "/tmp/matplotlib"},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "XDG_CACHE_HOME", "value": "/tmp/cache"},
        ],
        "resources": _resources(host),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        # the file holds our JSON; only a container that died without writing it shows its log instead
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _network(pod: Pod) -> list[dict[str, str]]:
    """Proxies are given in both spellings: curl and Python's urllib read the lower case first."""
    bundle = f"{CA_MOUNT}/{pod.ca_bundle.key}" if pod.ca_bundle.config_map_name else ""
    proxies = {"HTTP_PROXY": pod.http_proxy, "HTTPS_PROXY": pod.https_proxy, "NO_PROXY": pod.no_proxy}
    variables = {
        **proxies,
        **{name.lower(): value for name, value in proxies.items()},
        "SSL_CERT_FILE": bundle,
        "REQUESTS_CA_BUNDLE": bundle,
        "HF_ENDPOINT": pod.hugging_face_endpoint,
    }
    return [{"name": name, "value": value} for name, value in variables.items() if value]


def _resources(host: Host) -> dict[str, Any]:
    requests = {name: str(v) for name, v in (("cpu", host.cpu), ("memory", host.memory)) if v is not None}
    limits = {name: quantity for name, quantity in requests.items() if name == "memory"}
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _written_claims(plan: Plan) -> tuple[str, str]:
    return plan.spec.cache_claim, plan.spec.output.claim_name


def _claim_volumes(plan: Plan) -> dict[str, str]:
    """Claim -> volume name: a claim that serves several roles is one volume with several mounts."""
    spec = plan.spec
    roles = (
        ("dataset", spec.dataset.source.claim_name),
        ("cache", spec.cache_claim),
        ("output", spec.output.claim_name),
        ("model", spec.model.claim_name),
    )
    volumes: dict[str, str] = {}
    for role, claim in roles:
        if claim:
            volumes.setdefault(claim, role)
    return volumes


def _claim_source(plan: Plan, claim: str) -> dict[str, Any]:
    """Read-only as a whole where nothing is written: the kubelet then leaves the files' group as it is (fsGroup)."""
    return {"claimName": claim} | ({} if claim in _written_claims(plan) else {"readOnly": True})


def _volumes(plan: Plan, *containers: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that these containers mount."""
    used = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    return [volume for volume in _all_volumes(plan) if volume["name"] in used]


def _all_volumes(plan: Plan) -> list[dict[str, Any]]:
    claims = [
        {"name": volume, "persistentVolumeClaim": _claim_source(plan, claim)}
        for claim, volume in _claim_volumes(plan).items()
    ]
    shared: dict[str, Any] = {"medium": "Memory"}
    if plan.snapshot.host.shared_memory:
        shared["sizeLimit"] = plan.snapshot.host.shared_memory
    bundle, file_list = plan.snapshot.pod.ca_bundle.config_map_name, _file_list(plan)
    return [
        *claims,
        # one key only: the record beside it is not the trainer's business
        {"name": "run-file", "configMap": {"name": plan.run_name, "items": [_same_path(run_file.RUN_FILE)]}},
        *([{"name": "ca-bundle", "configMap": {"name": bundle}}] if bundle else []),
        # without the ConfigMap or the key the container says so, where kubelet would only wait
        *([{"name": "file-list", "configMap": {"name": file_list, "optional": True}}] if file_list else []),
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": shared},
    ]


def _file_list(plan: Plan) -> str | None:
    """The ConfigMap with a list of files, if the source has one."""
    http = plan.spec.dataset.source.http
    return http.config_map_name if http else None


def _same_path(key: str) -> dict[str, str]:
    return {"key": key, "path": key}


def _mounts(plan: Plan, *, with_dataset: bool) -> list[dict[str, Any]]:
    spec, volumes = plan.spec, _claim_volumes(plan)
    read_only = {"readOnly": True}
    mounts: list[dict[str, Any]] = [
        {"name": volumes[spec.cache_claim], "mountPath": run_file.CACHE_MOUNT},
        {"name": volumes[spec.output.claim_name], "mountPath": run_file.OUTPUT_MOUNT},
    ]
    claim = spec.dataset.source.claim_name
    if with_dataset and claim:  # foreign bytes are for the container that is made for them
        mounts.insert(0, {"name": volumes[claim], "mountPath": run_file.DATASET_MOUNT, **read_only})
    if spec.model.claim_name:
        model = volumes[spec.model.claim_name]
        mounts.append({"name": model, "mountPath": run_file.MODEL_MOUNT, **read_only})
    return [
        *mounts,
        {"name": "run-file", "mountPath": run_file.RUN_FILE_MOUNT, **read_only},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
    ]
