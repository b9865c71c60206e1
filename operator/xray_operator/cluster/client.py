"""Requests to the API server, with plain dictionaries in and out. Called by execute, gather, handlers and workers.

`kubernetes.aio` does what is hard (kubeconfig, certificates, renewed service account tokens); its typed
models are not used: they would take memory and lose fields that are newer. kopf's session is kopf's own.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import ApiClient, Configuration

from xray_operator import names
from xray_operator.cluster.paths import resource_of
from xray_operator.core.listing import Listing
from xray_operator.errors import AlreadyExists, ClusterError, ConfigError, Conflict, NotFound, Refused

Raw = dict[str, Any]

Answered = Callable[[str, str, str], None]
"""Called once per request with its verb and resource, as RBAC names them, and the HTTP status or NO_ANSWER."""

NO_ANSWER: Final = "<error>"
"""As client-go's metrics call it."""

VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

JSON = "application/json"
VERSIONS = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE_PATCH = "application/merge-patch+json"


class Cluster:
    """One connection pool to one API server."""

    def __init__(self, api: ApiClient, request_timeout_seconds: float) -> None:
        self._api = api
        self._timeout = aiohttp.ClientTimeout(total=request_timeout_seconds)
        self.answered: Answered = lambda *_: None

    @classmethod
    async def connect(cls, request_timeout_seconds: float) -> Cluster:
        """Log in as a pod with its service account, or as a person with KUBECONFIG."""
        configuration = Configuration()
        try:
            kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except kube_config.ConfigException:
            await _load_kubeconfig(configuration)
        return cls(ApiClient(configuration), request_timeout_seconds)

    async def close(self) -> None:
        await self._api.close()  # type: ignore[no-untyped-call]

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Raw:
        """An object or a list; NotFound if there is none."""
        return await self._request("GET", path, query=query)

    async def list_versions(self, path: str, label: str | None = None) -> Listing:
        """All objects there, or those that carry a label; only their versions are sent."""
        query = {"limit": "500"} | ({"labelSelector": label} if label else {})
        version, objects, more = 0, dict[str, int](), ""
        while True:
            page = await self._request("GET", path, query=query | ({"continue": more} if more else {}), accept=VERSIONS)
            version = version or int(page["metadata"]["resourceVersion"])
            found = [item["metadata"] for item in page["items"] or ()]  # null where there are none
            objects |= {metadata["uid"]: int(metadata["resourceVersion"]) for metadata in found}
            more = page["metadata"].get("continue", "")
            if not more:
                return Listing(version, objects)

    async def create(self, path: str, body: Raw) -> Raw:
        """The object as the server stored it; AlreadyExists if the name is taken, Refused by quota or admission."""
        return await self._request("POST", path, body=body)

    async def replace(self, path: str, body: Raw) -> Raw:
        """The object as the server stored it; Conflict if body's resourceVersion is not the newest."""
        return await self._request("PUT", path, body=body)

    async def merge(self, path: str, body: Raw) -> Raw:
        """A merge patch."""
        return await self._request("PATCH", path, body=body, content_type=MERGE_PATCH)

    async def delete(self, path: str, uid: str) -> None:
        """Delete this very object and, before it, what depends on it; it may be gone already.

        Foreground, because the API's default for Jobs would orphan their pods, and an orphan holds accelerators.
        """
        options = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        with contextlib.suppress(NotFound):
            await self._request("DELETE", path, body={"apiVersion": "v1", "kind": "DeleteOptions", **options})

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Raw | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> Raw:
        writes = {"fieldManager": names.OPERATOR} if body is not None and method != "DELETE" else {}
        arguments = await self._api.param_serialize(
            method,
            path,
            query_params=list({**writes, **(query or {})}.items()),
            header_params={"Accept": accept, "Content-Type": content_type},
            body=body,
            auth_settings=["BearerToken"],
        )
        code = NO_ANSWER
        try:
            response = await self._api.call_api(*arguments, _request_timeout=self._timeout)
            text = await response.read()  # type: ignore[no-untyped-call]
            code = str(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ClusterError(f"{method} {path}", 0, repr(error)) from error
        finally:
            self.answered(*_words(method, path), code)
        return _answer(f"{method} {path}", response.status, text)


def _words(method: str, path: str) -> tuple[str, str]:
    """Verb and resource of a request."""
    resource, one = resource_of(path)
    return VERBS.get(method) or ("get" if one else "list"), resource


async def _load_kubeconfig(configuration: Configuration) -> None:
    try:
        await kube_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except kube_config.ConfigException as error:
        raise ConfigError(f"neither a pod's service account nor KUBECONFIG: {error}") from error


def _answer(what: str, status: int, text: bytes) -> Raw:
    answer = _json_object(text)
    if status >= 300:
        # of a resource that it doesn't know, the API server speaks plain text, and so do gateways before it
        raise _refusal(what, status, answer or {"message": names.short(text.decode(errors="replace"), 256)})
    if answer is None:
        raise ClusterError(what, status, f"{len(text)} bytes that are not a JSON object")
    return answer


def _json_object(text: bytes) -> Raw | None:
    try:
        answer = json.loads(text)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _refusal(what: str, status: int, answer: Raw) -> ClusterError:
    reason = str(answer.get("message", ""))
    if status == 404:
        return NotFound(what, status, reason)
    if status == 409:
        kind = AlreadyExists if answer.get("reason") == "AlreadyExists" else Conflict
        return kind(what, status, reason)
    if status in (403, 422):
        return Refused(what, status, reason)
    return ClusterError(what, status, reason)
