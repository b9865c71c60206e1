"""Kubeconfigs of users with fewer rights than an administrator."""

from __future__ import annotations

from pathlib import Path

import yaml


def with_token(admin: Path, token: str, namespace: str, target: Path) -> Path:
    """A kubeconfig for the same cluster with this user and namespace, at `target`."""
    document = yaml.safe_load(admin.read_text())
    (cluster,) = document["clusters"]
    context = {"cluster": cluster["name"], "user": "user", "namespace": namespace}
    document |= {
        "contexts": [{"name": "user", "context": context}],
        "current-context": "user",
        "users": [{"name": "user", "user": {"token": token}}],
    }
    target.write_text(yaml.safe_dump(document))
    return target
