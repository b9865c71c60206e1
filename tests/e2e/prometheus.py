"""A real Prometheus on this machine that scrapes the cluster's pods as docs/metrics.md says.

Pods need not be in reach from here: `kubectl proxy` finds them for Prometheus and passes its scrapes on.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from dev.demo.stack import Kube
from tests.e2e.waiting import until

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


@dataclass(frozen=True)
class Prometheus:
    """Its HTTP API."""

    url: str

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Series with their `metric` and `value`, as of now."""
        return list(self._get("query", {"query": promql})["data"]["result"])

    def value(self, promql: str) -> float | None:
        """Of the one series that answers, None if none does."""
        values = [float(series["value"][1]) for series in self.query(promql)]
        assert len(values) < 2, f"{promql}: {len(values)} series"
        return values[0] if values else None

    def names(self) -> set[str]:
        """Every metric that has arrived so far."""
        return set(self._get("label/__name__/values", {})["data"])

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

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


def configuration(proxy: str) -> dict[str, Any]:
    """The documented scrape configuration, each second and through the proxy at this HOST:PORT."""
    (text,) = documented_blocks("yaml")
    document: dict[str, Any] = yaml.safe_load(text)
    (job,) = document["scrape_configs"]
    job["kubernetes_sd_configs"][0]["api_server"] = f"http://{proxy}"
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
    return {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, **document}


@contextlib.contextmanager
def running_prometheus(kube: Kube, programs: Path, folder: Path) -> Iterator[Prometheus]:
    """Prometheus with data and log in `folder`; it ends with the block."""
    with running(["kubectl", "proxy", "--port=0"], kube, folder / "proxy.log") as output:
        proxy = until("kubectl proxy's address", lambda: re.search(r"127\.0\.0\.1:\d+", output.read_text()))[0]
        config, address = folder / "prometheus.yml", f"127.0.0.1:{free_port()}"
        config.write_text(yaml.safe_dump(configuration(proxy)))
        command = [str(programs / "prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
        with running([*command, f"--web.listen-address={address}"], kube, folder / "prometheus.log") as log:
            prometheus = Prometheus(f"http://{address}")
            until(f"Prometheus is ready, see {log}", prometheus.is_ready)
            yield prometheus


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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
