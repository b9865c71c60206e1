"""Whether a tool keeps an object as git has it: what is changed here would be changed back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Owner:
    """Who keeps the object."""

    tool: str
    what: str
    """What of it, by name."""

    def __str__(self) -> str:
        return f"{self.tool} ({self.what})"


def owner_of(metadata: Mapping[str, Any]) -> Owner | None:
    """The tool whose marks an object carries, or None.

    Args:
        metadata: of the object.

    Source: argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking, fluxcd.io/flux/components/kustomize/kustomizations
    and fluxcd.io/flux/components/helm/helmreleases. The label app.kubernetes.io/instance alone is no mark: Helm sets it too.
    """
    labels: Mapping[str, str] = metadata.get("labels") or {}
    annotations: Mapping[str, str] = metadata.get("annotations") or {}
    if tracking := annotations.get("argocd.argoproj.io/tracking-id"):
        return Owner("Argo CD", f"application {tracking.partition(':')[0]}")
    if instance := labels.get("argocd.argoproj.io/instance"):
        return Owner("Argo CD", f"application {instance}")
    for group, what in (("kustomize", "Kustomization"), ("helm", "HelmRelease")):
        mark = f"{group}.toolkit.fluxcd.io"
        if name := labels.get(f"{mark}/name"):
            return Owner("Flux", f"{what} {labels.get(f'{mark}/namespace', '')}/{name}".replace(" /", " "))
    return None
