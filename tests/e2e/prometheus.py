"""A real Prometheus on this machine that scrapes the cluster's pods as docs/metrics.md says.

Pods need not be in reach from here: scrapes go through `kubectl proxy`. Debian's Prometheus is built without discovery
in Kubernetes, so we list the pods for it, with the same labels as its own would give them.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

import yaml

from dev.chart.manifests import template
from dev.demo.stack import Kube
from dev.prometheus import running_server
from tests.e2e.waiting import until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    url: str

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """Series with their `metric` and `value`, [time, text]; as of now, or of a moment in Unix time."""
        moment = {} if at is None else {"time": str(at)}
        return list(self._get("query", {"query": promql, **moment})["data"]["result"])

    def value(self, promql: str) -> float | None:
        """Of the one series that answers, None if none does."""
        values = [float(series["value"][1]) for series in self.query(promql)]
        assert len(values) < 2, f"{promql}: {len(values)} series"
        return values[0] if values else None

    def firing(self, alert: str) -> list[dict[str, str]]:
        """The labels of the alerts of this name that fire now."""
        found = self.query(f'ALERTS{{alertstate="firing",alertname="{alert}"}}')
        ours = ("__name__", "alertname", "alertstate")
        return [{k: v for k, v in series["metric"].items() if k not in ours} for series in found]

    def names(self) -> set[str]:
        """Every metric that has arrived so far."""
        return set(self._get("label/__name__/values", {})["data"])

    def _get(self, what: str, query: dict[str, str]) -> Any:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error


def documented_blocks(language: str) -> list[str]:
    """Code blocks of the metrics' page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def configuration(proxy: str, discovery: str, rules: Path) -> dict[str, Any]:
    """The documented scrape configuration, each second and through the proxy at this HOST:PORT, and the chart's rules."""
    (text,) = documented_blocks("yaml")
    document: dict[str, Any] = yaml.safe_load(text)
    (job,) = document["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    job["http_sd_configs"] = [{"url": discovery, "refresh_interval": "1s"}]
    where = ["namespace", "pod_name", "pod_annotation_prometheus_io_port"]
    job["relabel_configs"] += [
        {
            "source_labels": [f"__meta_kubernetes_{each}" for each in where],
            "regex": "(.+);(.+);(.+)",
            "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
            "target_label": "__metrics_path__",
        },
        {"target_label": "__address__", "replacement": proxy},
    ]
    each_second = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    return {"global": each_second, "rule_files": [str(rules)], **document}


def write_rules(folder: Path, values: str = "metrics: {prometheusRule: {enabled: true}}") -> Path:
    """The chart's rules file, for a release in namespace xray-system."""
    shown = template("--show-only", "templates/prometheusrule.yaml", values=values)
    path = folder / "xray.rules.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(shown)["spec"]))
    return path


def as_discovered(pod: Mapping[str, Any]) -> dict[str, Any]:
    """A pod as Prometheus' discovery of role pod describes it."""
    metadata, status = pod["metadata"], pod["status"]
    labels = {"namespace": metadata["namespace"], "pod_name": metadata["name"]}
    labels |= {"pod_ip": status.get("podIP", ""), "pod_phase": status["phase"]}
    for kind in ("label", "annotation"):
        for name, value in metadata.get(f"{kind}s", {}).items():
            labels[f"pod_{kind}_{re.sub('[^a-zA-Z0-9_]', '_', name)}"] = value
    meta = {f"__meta_kubernetes_{name}": value for name, value in labels.items()}
    return {"targets": [status.get("podIP", "")], "labels": meta}


class Discovery(BaseHTTPRequestHandler):
    """Lists the cluster's pods for Prometheus, anew at each request."""

    proxy: str

    def do_GET(self) -> None:
        with urllib.request.urlopen(f"http://{self.proxy}/api/v1/pods", timeout=10) as answer:
            pods = json.load(answer)["items"]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps([as_discovered(pod) for pod in pods]).encode())

    def log_message(self, *_: object) -> None:
        """One request a second is not worth a line."""


@contextlib.contextmanager
def running_discovery(proxy: str) -> Iterator[str]:
    """Its URL, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Discovery,), {"proxy": proxy}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def running_prometheus(kube: Kube, programs: Path, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with data and log in `folder`; it ends with the block."""
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(running(["kubectl", "proxy", "--port=0"], kube, folder / "proxy.log"))
        (proxy,) = until("kubectl proxy's address", lambda: re.findall(r"127\.0\.0\.1:\d+", output.read_text()))
        discovery = stack.enter_context(running_discovery(proxy))
        config = configuration(proxy, discovery, write_rules(folder))
        url = stack.enter_context(running_server(config, folder, programs))
        yield Prometheus(url)


@contextlib.contextmanager
def running(command: Sequence[str], kube: Kube, log: Path) -> Iterator[Path]:
    """A process that is asked to end, and waited for, when the block ends."""
    with log.open("wb") as output:
        process = start(command, kube, output)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(timeout=30)


def start(command: Sequence[str], kube: Kube, output: IO[bytes]) -> subprocess.Popen[bytes]:
    environment = dict(kube.environment)
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
