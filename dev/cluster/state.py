"""Where the development cluster keeps its things on this machine. Every other module here asks it.

Everything lies in one folder per machine, so a second clone of the repository finds the same tools, images
and cluster.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import random
import socket
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path


class ClusterError(Exception):
    """Something the person at the keyboard can act on: the message says where, what and what was expected."""


REPOSITORY = Path(__file__).resolve().parents[2]


def home() -> Path:
    """The machine's one folder: ${XDG_CACHE_HOME:-~/.cache}/xray-operator."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "xray-operator"


@dataclass(frozen=True)
class Cluster:
    """Paths of one cluster, by name; several control planes can live side by side."""

    name: str
    root: Path

    @property
    def kubeconfig(self) -> Path:
        return self.root / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def processes(self) -> Path:
        return self.root / "processes"

    @property
    def containerd_socket(self) -> Path:
        return self.root / "containerd" / "containerd.sock"

    @property
    def kubelet_root(self) -> Path:
        return self.root / "kubelet"


def cluster_named(name: str) -> Cluster:
    return Cluster(name, home() / "cluster" / name)


def write_text(path: Path, text: str, mode: int = 0o600) -> None:
    """Write under a temporary name, then rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.touch(mode=mode)
    part.chmod(mode)
    part.write_text(text)
    part.rename(path)


def read_json(path: Path) -> dict[str, str]:
    """The record at `path`, or an empty one where there is none."""
    try:
        return {str(key): str(value) for key, value in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ClusterError(f"{path}: not a JSON object ({error}); remove the file and try again") from error


def write_json(path: Path, record: dict[str, str]) -> None:
    write_text(path, json.dumps(record, indent=1) + "\n")


def say(line: str) -> None:
    """Progress goes to stderr: stdout is for answers that scripts read."""
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Print what was done and how long it took."""
    start = time.monotonic()
    try:
        yield
    except BaseException:
        say(f"{what}: stopped after {time.monotonic() - start:.1f} s")
        raise
    say(f"{what}: {time.monotonic() - start:.1f} s")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, so that two calls at once do the work once; waits and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{path}: another call holds it; waiting")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


PORT_RANGE = range(20_000, 30_000)
"""Below the ports that the kernel gives to outgoing connections and that Kubernetes gives to Services: a port
that is recorded here stays free while the cluster is down."""


def _is_free(port: int) -> bool:
    with socket.socket() as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind(("", port))
        except OSError:
            return False
    return True


def free_ports(count: int, taken: Collection[int]) -> list[int]:
    """Distinct TCP ports that nobody listens on now and that are not in `taken`."""
    candidates = random.sample(PORT_RANGE, len(PORT_RANGE))
    return list(itertools.islice((port for port in candidates if port not in taken and _is_free(port)), count))


PORT_NAMES = (
    "apiserver",
    "etcd",
    "etcd-peer",
    "controller-manager",
    "scheduler",
    "kubelet",
    "kubelet-health",
    "proxy-health",
    "proxy-metrics",
)


def ports_of(cluster: Cluster) -> dict[str, int]:
    """The cluster's ports: chosen at its first start, the same ever after (the kubeconfig stays valid)."""
    path = cluster.root / "ports.json"
    known = {name: int(port) for name, port in read_json(path).items()}
    missing = [name for name in PORT_NAMES if name not in known]
    if missing:
        records = (read_json(other) for other in cluster.root.parent.glob("*/ports.json"))
        taken = {int(port) for record in records for port in record.values()}
        known.update(zip(missing, free_ports(len(missing), taken), strict=True))
        write_json(path, {name: str(port) for name, port in known.items()})
    return known


def boot_file(cluster: Cluster) -> Path:
    """Holds the id of the boot in which the cluster last ran."""
    return cluster.root / "boot"
