"""etcd, API server, controller manager and scheduler as plain processes. Called by local.py.

Admission is Kubernetes' default set: PodSecurity and ValidatingAdmissionPolicy are on, as on a real cluster.
"""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from dev.cluster import pki, processes
from dev.cluster.state import Cluster, ClusterError, ports_of, step

NODE_NAME = "xray-dev"
NODE_ADDRESS = "10.203.0.1"
"""The node's own address, on the loopback interface: the same after a reboot, unreachable from elsewhere."""
LOOPBACK = "127.0.0.1"
SERVICE_CIDR = "10.202.0.0/16"
SERVICE_ADDRESS = "10.202.0.1"
COMPONENTS = ("etcd", "apiserver", "controller-manager", "scheduler")

CLIENT_RATE = ("--kube-api-qps=500", "--kube-api-burst=1000")
"""At their defaults of 20 and 50 these two are what a test of hundreds of jobs measures."""


@dataclass(frozen=True)
class Endpoint:
    """Where the API server answers and how the admin proves itself."""

    server: str
    ca: Path
    token: str


def _etcd(cluster: Cluster, ports: dict[str, int]) -> list[str]:
    client, peer = (f"http://{LOOPBACK}:{ports[name]}" for name in ("etcd", "etcd-peer"))
    return [
        f"--data-dir={cluster.root / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        # What a power cut loses here is a development cluster's last second.
        "--unsafe-no-fsync",
        "--auto-compaction-retention=5m",
    ]


def _apiserver(cluster: Cluster, ports: dict[str, int], address: str) -> list[str]:
    certificates = cluster.pki
    return [
        f"--bind-address={address}",
        f"--secure-port={ports['apiserver']}",
        f"--advertise-address={NODE_ADDRESS}",
        # Without a node no pod asks for the Service address, and a loopback one may not stand behind it.
        f"--endpoint-reconciler-type={'none' if address == LOOPBACK else 'lease'}",
        f"--etcd-servers=http://{LOOPBACK}:{ports['etcd']}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--token-auth-file={certificates / 'tokens.csv'}",
        f"--client-ca-file={certificates / 'ca.crt'}",
        f"--tls-cert-file={certificates / 'apiserver.crt'}",
        f"--tls-private-key-file={certificates / 'apiserver.key'}",
        f"--kubelet-certificate-authority={certificates / 'ca.crt'}",
        f"--kubelet-client-certificate={certificates / 'kubelet-client.crt'}",
        f"--kubelet-client-key={certificates / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={certificates / 'service-account.key'}",
        f"--service-account-signing-key-file={certificates / 'service-account.key'}",
    ]


def _controller_manager(cluster: Cluster, ports: dict[str, int]) -> list[str]:
    certificates = cluster.pki
    return [
        f"--kubeconfig={certificates / 'controller-manager.kubeconfig'}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={ports['controller-manager']}",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={certificates / 'ca.crt'}",
        f"--service-account-private-key-file={certificates / 'service-account.key'}",
        f"--cluster-signing-cert-file={certificates / 'ca.crt'}",
        f"--cluster-signing-key-file={certificates / 'ca.key'}",
        *CLIENT_RATE,
    ]


def _scheduler(cluster: Cluster, ports: dict[str, int]) -> list[str]:
    return [
        f"--kubeconfig={cluster.pki / 'scheduler.kubeconfig'}",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={ports['scheduler']}",
        "--leader-elect=false",
        *CLIENT_RATE,
    ]


def api_get(endpoint: Endpoint, path: str, timeout_seconds: float = 5.0) -> str:
    """GET a path of the API server as the admin.

    Returns: "" if it answered 200, else what came instead.
    """
    trust = ssl.create_default_context(cafile=str(endpoint.ca))
    request = urllib.request.Request(endpoint.server + path, headers={"Authorization": f"Bearer {endpoint.token}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    try:
        with opener.open(request, timeout=timeout_seconds):
            return ""
    except urllib.error.HTTPError as error:
        return f"{path} answers {error.code}"
    except OSError as error:
        return f"{path} of {endpoint.server}: {error}"


def endpoint_of(cluster: Cluster, address: str) -> Endpoint:
    """The API server's address and the admin's token; makes certificates and tokens at the first call."""
    pki.make_certificates(cluster, NODE_ADDRESS, SERVICE_ADDRESS)
    tokens = pki.make_tokens(cluster, NODE_NAME)
    server = f"https://{address}:{ports_of(cluster)['apiserver']}"
    pki.write_kubeconfigs(cluster, server, tokens)
    return Endpoint(server, cluster.pki / "ca.crt", tokens["admin"])


def start(cluster: Cluster, programs: Path, address: str) -> Endpoint:
    """Have the control plane run and answer on `address`; what runs already is left running."""
    with step("certificates and kubeconfigs"):
        endpoint = endpoint_of(cluster, address)
    ports = ports_of(cluster)
    with step("etcd and API server"):
        processes.ensure(cluster, "etcd", [str(programs / "etcd"), *_etcd(cluster, ports)])
        apiserver = [str(programs / "kube-apiserver"), *_apiserver(cluster, ports, address)]
        processes.ensure(cluster, "apiserver", apiserver)
        try:
            processes.wait_for(cluster, "apiserver", lambda: api_get(endpoint, "/readyz"), 60)
        except ClusterError as error:
            if processes.running_pid(cluster, "etcd") is None:
                raise ClusterError(f"etcd does not run; see {processes.log_path(cluster, 'etcd')}") from error
            raise
    with step("controller manager and scheduler"):
        manager = [str(programs / "kube-controller-manager"), *_controller_manager(cluster, ports)]
        processes.ensure(cluster, "controller-manager", manager)
        processes.ensure(cluster, "scheduler", [str(programs / "kube-scheduler"), *_scheduler(cluster, ports)])
        # The first pod of a namespace needs it; who creates one at once would be refused.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        processes.wait_for(cluster, "controller-manager", lambda: api_get(endpoint, account), 60)
    return endpoint


def stop(cluster: Cluster) -> None:
    for name in reversed(COMPONENTS):
        # The API server would wait a minute for watches that others hold; what matters is in etcd.
        processes.stop(cluster, name, grace_seconds=3 if name == "apiserver" else 20)
