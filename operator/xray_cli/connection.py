"""The API server that the user's kubeconfig names, with plain dictionaries in and out. Called by the commands."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, TimeoutError

from xray_cli.errors import CommandError, NoConnection, ServerError, read_refusal
from xray_cli.kubeconfig import Login, load_configuration, log_in, read_kubeconfig, read_namespace

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Raw = dict[str, Any]
Query = Mapping[str, str]

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
TABLE: Final = "application/json;as=Table;g=meta.k8s.io;v=v1"
"""The API server makes the rows, from the columns that the CRD names."""
FIELD_MANAGER: Final = "kubectl-xray"
PAGE: Final = 500
"""Objects per answer to a LIST, as kubectl's --chunk-size."""
WATCH_SECONDS: Final = 240
"""After so long the server ends a watch, and another one begins."""


class Connection:
    """One API server, asked with the user's rights. Nothing is read or sent before something is asked.

    Args:
        kubeconfig: path; None: KUBECONFIG, a list of paths, or ~/.kube/config, or the pod's service account.
        context: name in it; None: its current context.
        namespace: None: that of the context.
        request_timeout: seconds for each answer; None waits for ever.
    """

    def __init__(
        self,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
        request_timeout: float | None = None,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self.given_namespace = namespace
        self._timeout = request_timeout

    @property
    def namespace(self) -> str:
        """Where the command acts."""
        return self.given_namespace or self._login.namespace

    @property
    def namespace_here(self) -> str:
        """The same for what asks no cluster: it takes no credentials, and no kubeconfig either."""
        return self.given_namespace or read_namespace(self._kubeconfig, self._context)

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self._login.server

    @cached_property
    def api(self) -> ApiClient:
        """The client of `kubernetes`, for its streams (exec, attach); its import takes a second."""
        from kubernetes.client import ApiClient

        configuration = load_configuration(read_kubeconfig(self._kubeconfig), self._context)
        return ApiClient(configuration)

    def get(self, path: str, query: Query | None = None, accept: str = JSON) -> Raw:
        """An object, or a page of a list."""
        return self._json("GET", path, query=query, accept=accept)

    def pages(self, path: str, query: Query | None = None, accept: str = JSON) -> list[Raw]:
        """A list in pages; in one piece, anew, if it takes longer to read than the server keeps its past."""
        asked, found = dict(query or {}), list[Raw]()
        more: Query = {}
        while True:
            try:
                page = self.get(path, {**asked, "limit": str(PAGE), **more}, accept)
            except ServerError as error:
                if more and error.status == 410:
                    return [self.get(path, asked, accept)]
                raise
            found.append(page)
            if not page["metadata"].get("continue"):
                return found
            more = {"continue": page["metadata"]["continue"]}

    def create(self, path: str, body: Raw, query: Query | None = None) -> Raw:
        """The object as the server stored it. Fields that it doesn't know are refused, as kubectl has it."""
        return self._json("POST", path, query={"fieldValidation": "Strict", **(query or {})}, body=body)

    def merge(self, path: str, body: Raw) -> Raw:
        """A merge patch; with metadata.resourceVersion in it, a Conflict if the object has changed since."""
        return self._json("PATCH", path, body=body, content_type=MERGE_PATCH)

    def delete(self, path: str, options: Raw | None = None) -> Raw:
        return self._json("DELETE", path, body=options)

    def watch(self, path: str, query: Query, accept: str = JSON) -> Iterator[Raw]:
        """The events of one watch, until the server ends it: {"type": "MODIFIED", "object": {...}}.

        Raises: NoConnection where it breaks off. An event of type ERROR is passed on.
        """
        asked = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS), **query}
        # a peer that vanished says nothing any more: wait a little longer than the server would
        for line in self.lines(path, asked, accept, WATCH_SECONDS + 30):
            try:
                event = json.loads(line)
            except ValueError:  # the last line, cut off by a server that went: the next watch has it whole
                return
            yield event

    def lines(self, path: str, query: Query, accept: str, silent_seconds: float | None = None) -> Iterator[bytes]:
        """Lines of a stream as they come. Raises: NoConnection where it breaks off; a line that is cut off by that is left out.

        Args:
            silent_seconds: longest wait for the next bytes; None waits for ever.
        """
        with self._open("GET", path, query=query, accept=accept, streams=True, seconds=silent_seconds) as response:
            rest = b""
            try:
                for chunk in response.stream(amt=None):
                    *whole, rest = (rest + chunk).split(b"\n")
                    yield from whole
                if rest:
                    yield rest
            except HTTPError as error:
                raise no_connection(self.server, error) from error

    def _json(self, method: str, path: str, **request: Any) -> Raw:
        with self._open(method, path, **request) as response:
            try:
                answer: Raw = json.loads(self._body(response))
            except ValueError as error:
                raise CommandError(f"{self.server} answers what is no JSON: it is no API server") from error
            return answer

    def _open(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Raw | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        streams: bool = False,
        seconds: float | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, of which nothing but the head has been read; refusals are raised."""
        writes = {"fieldManager": FIELD_MANAGER} if method in ("POST", "PATCH", "PUT") else {}
        headers = {"Accept": accept, "Content-Type": content_type, "User-Agent": FIELD_MANAGER, **self._login.headers()}
        limits = urllib3.Timeout(connect=self._timeout, read=seconds if streams else self._timeout)
        url = f"{self.server}{path}?{urlencode({**writes, **(query or {})})}"
        try:
            response = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=limits,
                # who asks decides; urllib3 would wait, and warn in its own words
                retries=False,
                preload_content=False,
            )
        except HTTPError as error:
            raise no_connection(self.server, error) from error
        for told in response.headers.getlist("Warning"):
            print(f"Warning: {warning_text(told)}", file=sys.stderr)
        if response.status >= 300:
            raise read_refusal(response.status, path, self._body(response))
        return response

    def _body(self, response: urllib3.BaseHTTPResponse) -> bytes:
        try:
            return response.read()
        except HTTPError as error:
            raise no_connection(self.server, error) from error

    @cached_property
    def _login(self) -> Login:
        return log_in(self._kubeconfig, self._context)

    @cached_property
    def _pool(self) -> urllib3.PoolManager:
        login = self._login
        settings: Raw = {"ssl_context": login.tls}
        if login.server_name:
            settings |= {"server_hostname": login.server_name, "assert_hostname": login.server_name}
        proxy = login.proxy or environment_proxy(login.server)
        return urllib3.ProxyManager(proxy, **settings) if proxy else urllib3.PoolManager(**settings)


def environment_proxy(server: str) -> str | None:
    """What HTTPS_PROXY and NO_PROXY say of this server."""
    parts = urlsplit(server)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


def no_connection(server: str, error: HTTPError) -> NoConnection:
    """What kubectl says where no answer came."""
    if isinstance(error, NewConnectionError) and "refused" in str(error):
        host = urlsplit(server).netloc
        told = f"The connection to the server {host} was refused - did you specify the right host or port?"
        return NoConnection(told)
    if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
        return NoConnection(f"Unable to connect to the server: no answer from {server} in time")
    return NoConnection(f"Unable to connect to the server: {' '.join(str(error).split())}")


def warning_text(header: str) -> str:
    """What a Warning header says: 299 - "text"."""
    found = re.match(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"', header)
    return re.sub(r"\\(.)", r"\1", found.group(1)) if found else header
