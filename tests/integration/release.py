"""The chart, installed by Helm on the control plane; its pod finds no node, so the tests run the operator themselves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dev.cluster.tools import helm
from tests.integration.cluster_access import REPOSITORY, kubectl

CHART = str(REPOSITORY / "charts" / "xray-operator")


@dataclass(frozen=True)
class Release:
    """A release that has its namespace's name, so that what it makes for the whole cluster is its own too."""

    kubeconfig: Path
    namespace: str

    @property
    def full_name(self) -> str:
        """Of its service account, roles and other objects."""
        return f"{self.namespace}-xray-operator"

    def helm(self, command: str, *arguments: str, values: dict[str, Any] | None = None) -> str:
        """Run a helm command on the release; returns its stdout."""
        words = [str(helm() / "helm"), "--kubeconfig", str(self.kubeconfig), "--namespace", self.namespace, command]
        given = ["--values", "-"] if values is not None else []
        text = yaml.safe_dump(values or {})
        done = subprocess.run([*words, *arguments, *given], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def upgrade(self, **values: Any) -> None:
        self.helm("upgrade", "--install", self.namespace, CHART, values={"exampleFlavors": {"enabled": False}} | values)

    def may(self, verb: str, resource: str, namespace: str = "") -> bool:
        """Whether the operator's service account has this right; without a namespace, in all of them."""
        account = f"system:serviceaccount:{self.namespace}:{self.full_name}"
        return can_i(self.kubeconfig, account, verb, resource, namespace)


def can_i(kubeconfig: Path, user: str, verb: str, resource: str, namespace: str = "") -> bool:
    """Whether the user has this right; the resource is `name`, `name.group` or either with `/subresource`.

    Asked of the API server itself: `kubectl auth can-i` finds no group of a kind that is not installed.
    """
    kind, _, part = resource.partition("/")
    name, _, group = kind.partition(".")
    attributes = {"verb": verb, "group": group, "resource": name, "subresource": part, "namespace": namespace}
    spec = {"user": user, "resourceAttributes": attributes}
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    answer = kubectl(kubeconfig, "create", "-f", "-", "-o", "json", stdin=json.dumps(review))
    assert answer.returncode == 0, answer.stderr
    return bool(json.loads(answer.stdout)["status"]["allowed"])


@contextmanager
def installed(kubeconfig: Path, namespace: str, **values: Any) -> Iterator[Release]:
    """The chart installed with these values, gone afterwards."""
    release = Release(kubeconfig, namespace)
    release.upgrade(**values)
    try:
        yield release
    finally:
        release.helm("uninstall", namespace)
