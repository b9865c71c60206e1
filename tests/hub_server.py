"""A Hugging Face hub on this machine: as much of its API as huggingface_hub asks for to fetch a model.

As the real one: large files are listed and named by sha256 and lie at another address, small ones by git's name for
their content; a branch means a commit; a model that isn't there is 401 with X-Error-Code, like one that is private.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = ".safetensors"
PAGE = b"<!DOCTYPE html><html><body>Please log in to the guest network.</body></html>"


class Hub(ThreadingHTTPServer):
    """Serves models; `faults` of a file are used up one by one, a request for its content each."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.scheme = "http"
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        """(model, commit) -> its files."""
        self.refs: dict[tuple[str, str], str] = {}
        """(model, branch or tag) -> commit."""
        self.gated: set[str] = set()
        self.faults: dict[str, list[str]] = {}
        self.status = 0
        """With which everything is answered; 0: properly."""
        self.asked: list[tuple[str, str, int]] = []
        """Method, path and offset of each request."""

    def speak_tls(self, certificate: Path) -> None:
        """From now on, with this certificate and the key beside it in the same file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"

    @property
    def endpoint(self) -> str:
        return f"{self.scheme}://{self.server_address[0]}:{self.server_port}"

    @property
    def elsewhere(self) -> str:
        """Where large files lie: for a client another host, as long as all is on this machine."""
        return self.endpoint.replace("http://127.0.0.1", "http://localhost")

    def push(self, model: str, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit of these files on a branch. Returns: the commit."""
        content = json.dumps([[name, hashlib.sha256(data).hexdigest()] for name, data in sorted(files.items())])
        commit = hashlib.sha1(f"{model} {content}".encode()).hexdigest()
        self.commits[model, commit] = dict(files)
        self.refs[model, branch] = commit
        return commit

    def push_folder(self, model: str, folder: Path, branch: str = "main") -> str:
        return self.push(model, {path.name: path.read_bytes() for path in folder.iterdir()}, branch)

    def commit_of(self, model: str, revision: str) -> str | None:
        return revision if (model, revision) in self.commits else self.refs.get((model, revision))

    def contents_asked(self) -> list[str]:
        """Names of the files whose bytes were asked for."""
        return [path.rpartition("/")[2] for method, path, _ in self.asked if method == "GET" and "/api/" not in path]


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def listed(name: str, data: bytes) -> dict[str, Any]:
    """A file as /api/models lists it with blobs=true."""
    entry = {"rfilename": name, "size": len(data), "blobId": git_blob(data)}
    if name.endswith(LARGE):
        entry["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
    return entry


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        begin = int(self.headers.get("Range", "bytes=0-").partition("=")[2].rstrip("-"))
        self.server.asked.append((self.command, address.path, begin))
        if self.server.status == 200:
            self._send(200, PAGE)
        elif self.server.status:
            self._send(self.server.status)
        elif parts[:2] == ["api", "models"] and "revision" in parts:
            at = parts.index("revision")
            self._info("/".join(parts[2:at]), parts[at + 1], "blobs" in parse_qs(address.query))
        elif parts[0] == "large":
            model, commit, name = "/".join(parts[1:-2]), parts[-2], parts[-1]
            etag = hashlib.sha256(self.server.commits[model, commit][name]).hexdigest()
            self._content(begin, model, commit, name, {"X-Repo-Commit": commit, "ETag": f'"{etag}"'})
        elif "resolve" in parts:
            at = parts.index("resolve")
            self._resolve(begin, "/".join(parts[:at]), parts[at + 1], parts[at + 2])
        else:
            self._send(404)

    def _known(self, model: str, revision: str) -> str | None:
        """The commit; without one the refusal is sent."""
        if not any(known == model for known, _ in self.server.commits):
            self._send(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."})
            return None
        commit = self.server.commit_of(model, revision)
        if commit is None:
            self._send(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        return commit

    def _info(self, model: str, revision: str, with_blobs: bool) -> None:
        commit = self._known(model, revision)
        if commit is None:
            return
        files = self.server.commits[model, commit]
        siblings = [listed(name, data) if with_blobs else {"rfilename": name} for name, data in files.items()]
        self._send(200, {}, json.dumps({"id": model, "sha": commit, "siblings": siblings}).encode())

    def _resolve(self, begin: int, model: str, revision: str, name: str) -> None:
        commit = self._known(model, revision)
        if commit is None:
            return
        data = self.server.commits[model, commit].get(name)
        told = {"X-Repo-Commit": commit}
        if model in self.server.gated:
            self._send(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."})
        elif data is None:
            self._send(404, {**told, "X-Error-Code": "EntryNotFound"})
        elif name.endswith(LARGE):
            etag = hashlib.sha256(data).hexdigest()
            place = f"{self.server.elsewhere}/large/{model}/{commit}/{name}?signature=secret"
            linked = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{etag}"', "Location": place}
            self._send(302, told | linked)
        else:
            self._content(begin, model, commit, name, told | {"ETag": f'"{git_blob(data)}"'})

    def _content(self, begin: int, model: str, commit: str, name: str, told: dict[str, str]) -> None:
        data = self.server.commits[model, commit][name]
        faults = self.server.faults.get(name) if self.command == "GET" else None
        kind, _, number = (faults.pop(0) if faults else "").partition(" ")
        if kind == "status":
            self._send(int(number))
        elif kind == "other":
            self._send(200, told, bytes(len(data)))
        else:
            part = {"Content-Range": f"bytes {begin}-{len(data) - 1}/{len(data)}"} if begin else {}
            self._send(206 if begin else 200, told | part, data[begin:], int(number) if kind == "cut" else None)

    def _send(
        self, status: int, headers: dict[str, str] | bytes | None = None, body: bytes = b"", sent: int | None = None
    ) -> None:
        """Args: sent: the connection ends after so many bytes of the body."""
        if isinstance(headers, bytes):
            headers, body = {}, headers
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])
        self.close_connection = sent is not None

    def log_message(self, *_: object) -> None:
        """Not to stderr, which tests read."""


@contextlib.contextmanager
def hub_server(host: str = "127.0.0.1") -> Iterator[Hub]:
    """Args: host: the address to listen at."""
    server = Hub(host)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
