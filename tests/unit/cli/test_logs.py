"""Logs over connections that break and nodes that forget: an API server on the loopback plays both. tests/e2e has real ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.unit.cli.test_sources import RUN, job, pod
from xray_cli.__main__ import run

PODS = "/api/v1/namespaces/chest/pods"


class Server:
    """Answers of the API, by path; a path with several gives one after the other, the last one again and again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[bytes | dict[str, Any]]] = {}
        self.asked: list[dict[str, str]] = []
        """Queries for logs."""

    def answer(self, path: str) -> bytes | dict[str, Any]:
        left = self.answers[path]
        return left.pop(0) if len(left) > 1 else left[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        answer = self.state.answer(parts.path)
        self.send_response(200)
        if isinstance(answer, dict):
            body = json.dumps(answer).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.state.asked.append({key: values[0] for key, values in parse_qs(parts.query).items()})
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        text, breaks = answer.removesuffix(b"<BREAK>"), answer.endswith(b"<BREAK>")
        if text:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
        if not breaks:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = breaks

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that KUBECONFIG names, with a job that has a pod."""
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    place = {"name": "x", "cluster": {"server": f"http://127.0.0.1:{http.server_port}"}}
    context = {"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "chest"}}
    config = {"clusters": [place], "contexts": [context], "users": [{"name": "x", "user": {}}], "current-context": "x"}
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("xray_cli.commands.logs.POLL_SECONDS", 0)
    ended = pod(RUN, prepare="terminated", train="terminated")
    state.answers["/apis/xray.training/v1alpha1/namespaces/chest/xraytrainingjobs/cxr"] = [job(state="Succeeded")]
    state.answers[PODS] = [{"items": [ended]}]
    state.answers[f"{PODS}/{RUN}-0"] = [ended]
    yield state
    http.shutdown()
    http.server_close()


def says(server: Server, *texts: bytes) -> None:
    server.answers[f"{PODS}/{RUN}-0/log"] = list(texts)


def line(second: float, text: str) -> bytes:
    return f"2026-11-22T10:00:{second:012.9f}Z {text}\n".encode()


def test_a_last_line_without_its_end_is_printed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    says(server, line(1, "first") + line(2, "last").rstrip(b"\n"))
    assert run(["logs", "cxr", "-c", "train", "--tail", "2"]) == 0
    assert capsys.readouterr().out == "first\nlast\n"
    assert server.asked == [{"container": "train", "timestamps": "true", "tailLines": "2"}]


def test_what_a_node_has_forgotten_is_no_log(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    says(server, line(1, "prepared"), b"unable to retrieve container logs for containerd://1")
    assert run(["logs", "cxr"]) == 0
    told = capsys.readouterr()
    assert told.out == f"[pod/{RUN}-0/prepare] prepared\n"
    assert told.err == f"error: container train of pod {RUN}-0: unable to retrieve container logs for containerd://1\n"
    assert run(["logs", "cxr", "-c", "train"]) == 1
    assert capsys.readouterr().err.endswith("error: no log is left; --previous brings what training said\n")


def test_previous_reads_the_folder_where_a_node_has_forgotten(
    server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers[next(path for path in server.answers if path.endswith("/cxr"))] = [job(attempts=2, state="Training")]
    says(server, b"unable to retrieve container logs for containerd://1")
    monkeypatch.setattr("xray_cli.commands.logs.Log._print_file", lambda *_: print("of train.log"))
    assert run(["logs", "cxr", "-c", "train", "--previous"]) == 0
    assert capsys.readouterr().out == "of train.log\n"


def test_a_connection_that_breaks_is_made_anew_and_nothing_is_told_twice(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    running = pod(RUN, prepare="terminated", train="running")
    server.answers[f"{PODS}/{RUN}-0"] = [running, server.answers[f"{PODS}/{RUN}-0"][0]]
    head = line(1.5, "one") + line(1.7, "two")
    says(server, head + b"2026-11-22T10:00:01.8<BREAK>", head + line(1.8, "three") + line(1.8, "four"))
    assert run(["logs", "cxr", "-c", "train", "-f", "--tail", "5"]) == 0
    told = capsys.readouterr()
    assert told.out == "one\ntwo\nthree\nfour\n"
    assert "connecting again" in told.err
    assert [query.get("tailLines") for query in server.asked] == ["5", None]
    assert server.asked[1]["sinceTime"] == "2026-11-22T10:00:01.700000000Z"
