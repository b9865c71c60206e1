"""What the user may do, by asking the API server. Called before something is begun that needs several rights, and by doctor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from xray_cli.connection import Connection
from xray_cli.errors import CommandError

REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True)
class Right:
    """A verb on a resource of a group ("" is the core's), with its subresource after a slash."""

    verb: str
    resource: str
    group: str = ""
    namespaced: bool = True

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


def tell(rights: Sequence[Right]) -> str:
    """In words, the verbs on each resource together: get, list pods; create pods/exec."""
    verbs: dict[str, list[str]] = {}
    for right in rights:
        verbs.setdefault(str(right).partition(" ")[2], []).append(right.verb)
    return "; ".join(f"{', '.join(found)} {resource}" for resource, found in verbs.items())


def lacks(connection: Connection, rights: Sequence[Right]) -> list[Right]:
    """Those that the user has not; in the connection's namespace, where a right is of one."""
    return [right for right in rights if not _has(connection, right)]


def require(connection: Connection, rights: Sequence[Right], purpose: str) -> None:
    """Raises: CommandError that names what is missing, and a way to get it."""
    missing = lacks(connection, rights)
    if not missing:
        return
    verbs = ",".join(sorted({right.verb for right in rights}))
    resources = ",".join(sorted({right.resource for right in rights}))
    raise CommandError(
        f"{purpose}, with your own rights, and you may not {tell(missing)} in namespace "
        f"{connection.namespace}. The role edit has all of it; the least that does is what\n"
        f"  kubectl -n {connection.namespace} create role xray-reader --verb={verbs} --resource={resources}\n"
        f"  kubectl -n {connection.namespace} create rolebinding xray-reader --role=xray-reader --user=YOU\n"
        "give, for an administrator to run"
    )


def _has(connection: Connection, right: Right) -> bool:
    resource, _, sub = right.resource.partition("/")
    asked: dict[str, Any] = {"verb": right.verb, "group": right.group, "resource": resource, "subresource": sub}
    if right.namespaced:
        asked["namespace"] = connection.namespace
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    return bool(connection.create(REVIEWS, body)["status"]["allowed"])
