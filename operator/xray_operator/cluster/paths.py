"""Paths of the API that the operator uses; the chart's ClusterRole allows these and no more."""

from __future__ import annotations

from typing import Any

from xray_operator import names

_COLLECTIONS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Event": "/api/v1/namespaces/{}/events",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Pod": "/api/v1/namespaces/{}/pods",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    names.IPU_JOB_KIND: f"/apis/{names.IPU_JOB_API}/namespaces/{{}}/{names.IPU_JOBS}",
    names.BUDGET_KIND: f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.BUDGETS}",
    names.JOB_KIND: f"/apis/{names.API_VERSION}/namespaces/{{}}/{names.JOBS}",
    names.WORKLOAD_KIND: f"/apis/{names.QUEUE_API}/namespaces/{{}}/{names.WORKLOADS}",
}


def collection(kind: str, namespace: str) -> str:
    """Where objects of a kind are created."""
    return _COLLECTIONS[kind].format(namespace)


def item(kind: str, namespace: str, name: str) -> str:
    """One object."""
    return f"{collection(kind, namespace)}/{name}"


def collection_of(manifest: dict[str, Any]) -> str:
    """Where this object is created."""
    return collection(manifest["kind"], manifest["metadata"]["namespace"])


def item_of(manifest: dict[str, Any]) -> str:
    """This object."""
    return f"{collection_of(manifest)}/{manifest['metadata']['name']}"


def namespace(name: str) -> str:
    return f"/api/v1/namespaces/{name}"


def persistent_volume(name: str) -> str:
    return f"/api/v1/persistentvolumes/{name}"


def api() -> str:
    """Which of our resources the API server has."""
    return f"/apis/{names.API_VERSION}"


def flavors() -> str:
    return f"{api()}/{names.FLAVORS}"


def flavor(name: str) -> str:
    return f"{flavors()}/{name}"


def listing(kind: str, namespace_name: str | None) -> str:
    """All objects of a kind, or those of a namespace."""
    if namespace_name:
        return collection(kind, namespace_name)
    return _COLLECTIONS[kind].replace("namespaces/{}/", "")


def resource_of(path: str) -> tuple[str, bool]:
    """What a path of the API asks for.

    Returns: the resource as RBAC names it, like `xraytrainingjobs/status`, or `apiresources` for the list of resources;
        whether the path names one object.
    """
    parts = path.strip("/").split("/")[3 if path.startswith("/apis/") else 2 :] or ["apiresources"]
    if parts[0] == "namespaces" and len(parts) > 2:
        parts = parts[2:]
    return "/".join([parts[0], *parts[2:]]), len(parts) > 1
