"""The one node: containerd, kubelet and kube-proxy as plain processes, a bridge network, and their removal.
Root only.

There is no cluster DNS: pods reach the API server by the Service address in their environment, and outside
names go to the machine's own resolver.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path

from dev.cluster import processes
from dev.cluster.control_plane import NODE_ADDRESS, NODE_NAME
from dev.cluster.state import Cluster, ClusterError, boot_file, ports_of, step, write_text
from dev.cluster.tools import SYSTEM_PATH, mounts_below, run, unmount_below

POD_CIDR = "10.201.0.0/16"
BRIDGE = "xray-dev0"
CNI_PLUGINS = "/usr/lib/cni"
DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")
"""The kubelet serves device plugins here whatever its root folder is (pluginapi.DevicePluginPath)."""
COMPONENTS = ("containerd", "kubelet", "proxy")


def _containerd_config(cluster: Cluster, pause_image: str) -> str:
    folder = cluster.root / "containerd"
    return f"""version = 2
root = "{folder / "root"}"
state = "{folder / "state"}"
[grpc]
  address = "{cluster.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  # Lowering a process's OOM score needs CAP_SYS_RESOURCE, which containers and small VMs often lack.
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{cluster.root / "cni"}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder / "opt"}"
"""


def _cni_config(cluster: Cluster) -> str:
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": POD_CIDR}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(cluster.root / "cni-addresses"),
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "0.4.0", "name": "xray-dev", "plugins": plugins}, indent=1)


def _kubelet_config(cluster: Cluster, ports: dict[str, int]) -> str:
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "port": ports["kubelet"],
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": ports["kubelet-health"],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(cluster.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(cluster.pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(cluster.pki / "kubelet.key"),
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{cluster.containerd_socket}",
        "podLogsDir": str(cluster.root / "pod-logs"),
        "serializeImagePulls": False,
        # How soon the API server hears of devices that a plugin offers; 10 s by default.
        "nodeStatusUpdateFrequency": "2s",
        # kube-proxy takes its own chains away again, the kubelet would leave its.
        "makeIPTablesUtilChains": False,
        "shutdownGracePeriod": "0s",
        # Images were built here and cannot be pulled again: a full disk must never delete them.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
    }
    return json.dumps(config, indent=1)


def _proxy_config(cluster: Cluster, ports: dict[str, int]) -> str:
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_CIDR,
        "bindAddress": NODE_ADDRESS,
        "nodePortAddresses": [f"{NODE_ADDRESS}/32"],
        "healthzBindAddress": f"127.0.0.1:{ports['proxy-health']}",
        "metricsBindAddress": f"127.0.0.1:{ports['proxy-metrics']}",
        "clientConnection": {"kubeconfig": str(cluster.pki / "proxy.kubeconfig")},
        "hostnameOverride": NODE_NAME,
        # 0 leaves the machine's own connection tracking limits as they are.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return json.dumps(config, indent=1)


def ensure_address() -> None:
    """Put the node's address on the loopback interface (gone after a reboot)."""
    if NODE_ADDRESS not in run("ip", "-o", "address", "show", "dev", "lo"):
        run("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "lo")


def _route_device_plugins(cluster: Cluster) -> None:
    ours = cluster.kubelet_root / "device-plugins"
    ours.mkdir(parents=True, exist_ok=True)
    if DEVICE_PLUGINS.is_symlink() and DEVICE_PLUGINS.readlink() == ours:
        return
    if DEVICE_PLUGINS.exists():
        raise ClusterError(
            f"{DEVICE_PLUGINS}: belongs to another kubelet or cluster; expected nothing there. "
            "Stop that one first, or use it: up --provider kubeconfig"
        )
    DEVICE_PLUGINS.unlink(missing_ok=True)
    DEVICE_PLUGINS.parent.mkdir(parents=True, exist_ok=True)
    DEVICE_PLUGINS.symlink_to(ours)


def _forget_last_boot(cluster: Cluster) -> None:
    """Tasks and mounts of before a reboot are gone; containerd must not look for them."""
    record = boot_file(cluster)
    if not record.exists() or record.read_text() != processes.boot_id():
        shutil.rmtree(cluster.root / "containerd" / "state", ignore_errors=True)
        shutil.rmtree(cluster.root / "cni-addresses", ignore_errors=True)
        write_text(record, processes.boot_id())


def start_containerd(cluster: Cluster, pause_image: str) -> None:
    _forget_last_boot(cluster)
    write_text(cluster.root / "cni" / "10-bridge.conflist", _cni_config(cluster))
    config = cluster.root / "containerd" / "config.toml"
    write_text(config, _containerd_config(cluster, pause_image))
    argv = ["/usr/bin/env", f"PATH={SYSTEM_PATH}", "containerd", "--config", str(config)]
    processes.ensure(cluster, "containerd", argv, [config])
    processes.wait_for(cluster, "containerd", lambda: _ctr_answers(cluster), 60)


def _ctr_answers(cluster: Cluster) -> str:
    try:
        ctr(cluster, "images", "list", "-q")
    except ClusterError as error:
        return str(error).splitlines()[-1]
    return ""


def ctr(cluster: Cluster, *arguments: str | Path) -> str:
    """containerd's client, in the namespace that the kubelet uses."""
    return run("ctr", "--address", cluster.containerd_socket, "--namespace", "k8s.io", *arguments)


def start_kubelet(cluster: Cluster, programs: Path) -> None:
    _route_device_plugins(cluster)
    config = cluster.root / "kubelet.json"
    write_text(config, _kubelet_config(cluster, ports_of(cluster)))
    arguments = [
        f"--config={config}",
        f"--kubeconfig={cluster.pki / 'kubelet.kubeconfig'}",
        f"--root-dir={cluster.kubelet_root}",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_ADDRESS}",
    ]
    argv = ["/usr/bin/env", f"PATH={SYSTEM_PATH}", str(programs / "kubelet"), *arguments]
    processes.ensure(cluster, "kubelet", argv, [config])


def start_proxy(cluster: Cluster, programs: Path) -> None:
    config = cluster.root / "proxy.json"
    write_text(config, _proxy_config(cluster, ports_of(cluster)))
    argv = ["/usr/bin/env", f"PATH={SYSTEM_PATH}", str(programs / "kube-proxy"), f"--config={config}"]
    processes.ensure(cluster, "proxy", argv, [config])


def _remove_network(programs: Path, cluster: Cluster) -> None:
    if (cluster.root / "proxy.json").exists():
        run(programs / "kube-proxy", "--cleanup", f"--config={cluster.root / 'proxy.json'}")
    for words in (
        # The one chain that kube-proxy's own cleanup leaves.
        ("iptables", "-D", "INPUT", "-j", "KUBE-FIREWALL"),
        ("iptables", "-D", "OUTPUT", "-j", "KUBE-FIREWALL"),
        ("iptables", "-F", "KUBE-FIREWALL"),
        ("iptables", "-X", "KUBE-FIREWALL"),
        ("ip", "link", "delete", BRIDGE),
        ("ip", "address", "delete", f"{NODE_ADDRESS}/32", "dev", "lo"),
    ):
        with contextlib.suppress(ClusterError):  # gone already
            run(*words)


def stop(cluster: Cluster, programs: Path, pause_image: str) -> None:
    """End kubelet, pods, kube-proxy and containerd, and take away their mounts, network and socket folder."""
    processes.stop(cluster, "kubelet")
    if processes.running_pid(cluster, "containerd") is None and mounts_below(cluster.root):
        # It died before its containers did: only containerd can end those.
        start_containerd(cluster, pause_image)
    if processes.running_pid(cluster, "containerd") is not None:
        with step("pods"):
            run(programs / "k8s", "stop-pods", f"unix://{cluster.containerd_socket}")
    processes.stop(cluster, "proxy")
    processes.stop(cluster, "containerd")
    unmount_below(cluster.root)
    _remove_network(programs, cluster)
    if DEVICE_PLUGINS.is_symlink() and cluster.root in DEVICE_PLUGINS.readlink().parents:
        DEVICE_PLUGINS.unlink()


def remove_log_links(cluster: Cluster) -> None:
    """The kubelet links container logs to /var/log/containers whatever its folders are."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and cluster.root in link.readlink().parents:
            link.unlink()


def wait_ready(cluster: Cluster, programs: Path, timeout_seconds: float = 120.0) -> None:
    """Wait until the API server calls the node Ready, as last seen by the kubelet that runs now."""
    template = '{range .status.conditions[?(@.type=="Ready")]}{.lastHeartbeatTime} {.status} {.message}{end}'

    def missing() -> str:
        try:
            state = run(
                programs / "kubectl", f"--kubeconfig={cluster.kubeconfig}", "get", "node", NODE_NAME,
                "-o", f"jsonpath={template}",
            )  # fmt: skip
        except ClusterError as error:
            return str(error).splitlines()[-1]
        heartbeat, _, status = state.partition(" ")
        fresh = heartbeat >= processes.started_at(cluster, "kubelet")
        return "" if fresh and status.startswith("True") else f"node {NODE_NAME} is not Ready: {state}"

    processes.wait_for(cluster, "kubelet", missing, timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    while not (cluster.kubelet_root / "device-plugins" / "kubelet.sock").exists():
        if time.monotonic() > deadline:
            raise ClusterError(f"{DEVICE_PLUGINS}/kubelet.sock: not there after {timeout_seconds:.0f} s")
        time.sleep(0.1)
