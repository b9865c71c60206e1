"""The real controller of Kueue, as a process beside the control plane.

Its webhooks are not registered with the API server: they would refuse every Job while no test runs it. What they default
on a Job (suspend) the operator sets itself, and what they default on Kueue's own objects is in its CRDs too.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dev.cluster import tools
from dev.cluster.state import cluster_named, free_ports
from tests.integration.cluster_access import DEADLINE_SECONDS, REPOSITORY, apply, kubectl

EXAMPLES = REPOSITORY / "examples" / "kueue"


@contextlib.contextmanager
def running_kueue(kubeconfig: Path, folder: Path) -> Iterator[None]:
    """Kueue decides over this API server's Jobs until the end of the block; its log stays in `folder`."""
    built = tools.kueue()
    _install_crds(kubeconfig, built / "crds")
    webhook, health = free_ports(2, ())
    config, log = folder / "kueue.yaml", folder / "kueue.log"
    config.write_text(yaml.safe_dump(_configuration(folder, webhook, health)))
    command = [str(built / "kueue"), f"--config={config}", f"--kubeconfig={kubeconfig}"]
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{health}/readyz", log)
            yield
        finally:
            process.terminate()
            process.wait(20)


def make_queues(kubeconfig: Path, namespace: str) -> None:
    """Those of the example, with their LocalQueue in this namespace."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all((EXAMPLES / "queues.yaml").read_text()))
    for document in documents:
        if "namespace" in document["metadata"]:
            document["metadata"]["namespace"] = namespace
    applied = apply(kubeconfig, *documents)
    assert applied.returncode == 0, applied.stderr


def _install_crds(kubeconfig: Path, folder: Path) -> None:
    # larger than what a plain apply may write into an annotation
    applied = kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", "-f", str(folder))
    assert applied.returncode == 0, applied.stderr
    waited = kubectl(kubeconfig, "wait", "--for=condition=Established", "-f", str(folder), "--timeout=60s")
    assert waited.returncode == 0, waited.stderr


def _configuration(folder: Path, webhook_port: int, health_port: int) -> dict[str, Any]:
    pki = cluster_named("integration").pki
    for ours, theirs in (("apiserver.crt", "tls.crt"), ("apiserver.key", "tls.key")):
        (folder / theirs).symlink_to(pki / ours)
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"127.0.0.1:{health_port}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"host": "127.0.0.1", "port": webhook_port, "certDir": str(folder)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "manageJobsWithoutQueueName": False,
        "integrations": {"frameworks": ["batch/job"]},
        # a server of its own, which nobody here asks
        "featureGates": {"VisibilityOnDemand": False},
    }


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not _answers(url):
        assert process.poll() is None, f"Kueue has ended; {log.read_text()[-2000:]}"
        assert time.monotonic() < end, f"Kueue is not ready; {log.read_text()[-2000:]}"
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
