"""A container's Progress over HTTP: `/progress` as JSON for the operator, `/metrics` for Prometheus.

A process of its own answers. PopTorch holds Python's lock while an executable runs on the IPUs or is loaded, and while weights
are copied (github.com/graphcore/poptorch, python/poptorch.cpp; it lets go while it compiles): a thread would answer between
steps only, and not at all where a step hangs, which is when it matters most. The process ends with the one that has started it,
and whatever happens to it, the run goes on: nobody's answer is worth a lost run.

What Progress tells is one message each on a socket. None waits for room: the state is told again after each question.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xray_trainer.progress import METRICS, Progress, timestamp, utc_now

LOG = logging.getLogger(__name__)

RUN_UNTIL = "X-Xray-Run-Until"
"""Header of whoever asks for /progress: when the container has to end by itself (`2026-11-22T10:00:00Z`), or `never`."""
MOST_BYTES = 1 << 16
"""Of a message."""
MOST_CHARACTERS = 64
"""Of RUN_UNTIL: what is longer is no time, and would find no room."""


def serve(progress: Progress, port: int, host: str = "0.0.0.0") -> Optional[int]:
    """Serve `progress` until this process ends.

    Args:
        port: TCP port; 0 lets the system choose.
    Returns: the port, or None if it could not be opened, which is logged and otherwise without consequence.
    """
    try:
        with socket.create_server((host, port)) as listener:
            channel, answerer = _start(listener)
            port = int(listener.getsockname()[1])
    except OSError as error:
        LOG.warning("progress port %d: %s; the run goes on without /progress and /metrics", port, error.strerror)
        return None
    progress.follow(lambda: _tell(channel, progress))
    threading.Thread(target=_hear, args=(channel, progress, answerer), name="progress", daemon=True).start()
    return port


def render_metrics(values: Mapping[str, float]) -> bytes:
    """As Prometheus reads them; the keys are those of METRICS."""
    registry = CollectorRegistry()
    registry.register(_Values(values))
    return generate_latest(registry)


def _start(listener: socket.socket) -> Tuple[socket.socket, subprocess.Popen[bytes]]:
    """The process that answers, and this end of the channel to it."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        passed = (listener.fileno(), theirs.fileno())
        answerer = subprocess.Popen(
            [sys.executable, "-m", __name__, *map(str, passed)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            pass_fds=passed,
        )
    os.register_at_fork(after_in_child=channel.close)  # a loader's worker that is left over would keep it answering
    return channel, answerer


def _tell(channel: socket.socket, progress: Progress) -> None:
    """Called within the run's own work: what can't be told ends no run."""
    try:
        state = {"progress": progress.as_json(), "metrics": progress.state.as_metrics()}
        message = json.dumps(state, default=float).encode()
    except (TypeError, ValueError, OverflowError):  # a value that JSON has no word for, or a share that is no number
        LOG.warning("progress could not be told", exc_info=True)
        return
    with contextlib.suppress(OSError):  # no room: told again at the next change or question; no reader: _hear says it
        channel.send(message, socket.MSG_DONTWAIT)


def _hear(channel: socket.socket, progress: Progress, answerer: subprocess.Popen[bytes]) -> None:
    """Each message is a question that was answered, with what its asker told."""
    with contextlib.suppress(OSError):
        while message := channel.recv(MOST_BYTES):
            progress.asked(json.loads(message))
    LOG.warning("/progress and /metrics ended with code %d; the run goes on without them", answerer.wait())


class _Latest:
    """The latest message."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self.progress: Dict[str, Any] = {}
        self.metrics: Dict[str, float] = {}

    def wait(self) -> bool:
        """Until there are others. Returns: whether any more can come."""
        select.select([self._channel], [], [])
        return self.catch_up()

    def catch_up(self) -> bool:
        """Read what is there: whoever asks hears of all that came before. Returns: whether any more can come."""
        with self._lock:
            try:
                while message := self._channel.recv(MOST_BYTES, socket.MSG_DONTWAIT):
                    told = json.loads(message)
                    self.progress, self.metrics = told["progress"], told["metrics"]
            except BlockingIOError:
                return True
            except ConnectionResetError:  # it ended with a question unread
                return False
            return False

    def asked(self, run_until: Optional[str]) -> None:
        """Tell the container that somebody reads `/progress`."""
        with contextlib.suppress(OSError):
            told = run_until and run_until[:MOST_CHARACTERS]
            self._channel.send(json.dumps(told).encode(), socket.MSG_DONTWAIT)


class _Values(Collector):
    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for key, value in self._values.items():
            name, documentation = METRICS[key]
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(name, documentation, value=value)


class _Handler(BaseHTTPRequestHandler):
    """Answers from what `main` bound to the class."""

    latest: _Latest
    timeout = 10
    """A client that sends nothing gives its thread back after this many seconds."""

    def do_GET(self) -> None:
        self.latest.catch_up()
        if self.path == "/progress":
            self.latest.asked(self.headers.get(RUN_UNTIL))
            told = {**self.latest.progress, "time": timestamp(utc_now())}
            self._answer(200, "application/json", json.dumps(told).encode())
        elif self.path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, render_metrics(self.latest.metrics))
        else:
            self._answer(404, "text/plain; charset=utf-8", b"/progress and /metrics are served here\n")

    def _answer(self, code: int, content_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: the operator asks every few seconds."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, latest: _Latest) -> None:
        handler = type("_BoundHandler", (_Handler,), {"latest": latest})
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 (the base class calls it)
        """A client that went away is none of the run's business."""
        LOG.debug("a progress request ended early")


def main(listener: int, channel: int) -> None:
    """Answer until the process that has started this one ends.

    Args:
        listener, channel: numbers of its open sockets.
    """
    for each in (signal.SIGINT, signal.SIGTERM):  # it is asked for while the run ends, too
        signal.signal(each, signal.SIG_IGN)
    latest = _Latest(socket.socket(fileno=channel))
    latest.wait()
    server = _Server(socket.socket(fileno=listener), latest)
    threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
    while latest.wait():
        pass
    os._exit(0)  # whoever is being answered has nobody left to hear of


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
