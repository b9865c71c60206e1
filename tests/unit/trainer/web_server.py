"""A web server on this machine that breaks in the ways in which servers break."""

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

PAGE = b"<!DOCTYPE html><html><body>This file is very popular. Please try again later.</body></html>"


class WebServer(ThreadingHTTPServer):
    """Serves `files`; `faults` of a file are used up one by one, a request each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.asked: list[tuple[str, int]] = []
        """Name and offset of each request."""
        self.ranges = True
        self.scheme = "http"

    def speak_tls(self, certificate: Path) -> None:
        """From now on, with this certificate and the key beside it in the same file."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.scheme = "https"

    def url(self, name: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/{name}?signature=secret"

    def line(self, name: str, **fields: Any) -> dict[str, Any]:
        """A file's line in a list."""
        data = self.files[name]
        told = {"name": name, "url": self.url(name), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return {key: value for key, value in (told | fields).items() if value is not None}

    def serve_folder(self, root: Path) -> None:
        self.files |= {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}

    def write_list(self, path: Path) -> Path:
        path.write_text(json.dumps([self.line(name) for name in self.files]))
        return path


class _Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:  # the base class asks for this name
        name = self.path.partition("?")[0].rpartition("/")[2]  # of a proxy, the path is a URL
        data = self.server.files.get(name)
        begin = int(self.headers.get("Range", "bytes=0-").partition("=")[2].rstrip("-")) if self.server.ranges else 0
        self.server.asked.append((name, begin))
        faults = self.server.faults.get(name)
        fault = faults.pop(0) if faults else ""
        kind, _, number = fault.partition(" ")
        if kind == "status" or data is None:
            self.send_error(int(number) if number else 404)
        elif kind == "page":
            self._answer(200, PAGE, len(PAGE))
        elif kind == "redirect":
            self.send_response(302)
            self.send_header("Location", self.server.url(number))
            self.end_headers()
        else:
            sent = data[begin : begin + int(number)] if kind == "cut" else data[begin:]
            self._answer(206 if begin else 200, sent, len(data) - begin, f"bytes {begin}-{len(data) - 1}/{len(data)}")

    def _answer(self, status: int, sent: bytes, length: int, part: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if status == 206:
            self.send_header("Content-Range", part)
        self.end_headers()
        self.wfile.write(sent)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Not to stderr, which tests read."""


@contextlib.contextmanager
def web_server() -> Iterator[WebServer]:
    server = WebServer()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
