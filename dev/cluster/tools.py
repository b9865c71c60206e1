"""Programs that the cluster needs: Kubernetes and Helm built from Go modules, the rest from Debian's
packages.

Built programs lie under a hash of what they are built from: unchanged sources are never built twice, from
any clone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from dev.cluster.state import ClusterError, home, locked, say, step

GO_MODULE = Path(__file__).parent / "go"
GITOPS_MODULE = Path(__file__).parents[1] / "gitops"
HELM = "helm.sh/helm/v4/cmd/helm@v4.3.1"
KIND = "sigs.k8s.io/kind@v0.30.0"
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"
HELM_DOCS = "github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2"
KUEUE = "sigs.k8s.io/kueue@v0.19.2"
PROMETHEUS_OPERATOR = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
"""For its CRDs."""
HELM_UNITTEST = "github.com/helm-unittest/helm-unittest@v1.1.2"
K8S_PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)

NODE_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iptables": "iptables",
    "iproute2": "ip",
    "conntrack": "conntrack",
    "socat": "socat",
    "ethtool": "ethtool",
    "mount": "mount",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
"""Debian package -> a program or file of it that shows that it is there."""
CONTROL_PLANE_PACKAGES = {"openssl": "openssl"}
PROMETHEUS_PACKAGES = {"prometheus": "promtool"}
"""The server and promtool, for tests."""
BROWSER_PACKAGES = {"chromium": "chromium"}
"""For tests and pictures of the report."""


SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of the node's own processes: fixed, so that they are the same from every shell."""


def search_path() -> str:
    """PATH with the folders that Debian keeps root's programs in, which not every shell has."""
    return os.environ.get("PATH", "") + ":" + SYSTEM_PATH


def has(program: str) -> bool:
    return Path(program).exists() if program.startswith("/") else shutil.which(program, path=search_path()) is not None


def run(
    *argv: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str | None = None
) -> str:
    """Run a program to its end.

    Returns: its stdout.
    Raises: ClusterError with the command and the end of its output if it fails.
    """
    words = [str(word) for word in argv]
    full_env = {**os.environ, "PATH": search_path(), **(env or {})}
    try:
        done = subprocess.run(words, env=full_env, cwd=cwd, input=stdin, text=True, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]}: no such program; expected it on PATH") from error
    except subprocess.CalledProcessError as error:
        output = f"{error.stdout}\n{error.stderr}".strip().splitlines()[-15:]
        raise ClusterError(f"{' '.join(words)}\nended with {error.returncode}:\n" + "\n".join(output)) from error
    return done.stdout


def hash_of_files(paths: Iterable[Path], root: Path, extra: Iterable[str] = ()) -> str:
    """12 hex digits over names (from `root`), executable bits and contents, the same in every clone."""
    digest = hashlib.sha256()
    for text in extra:
        digest.update(text.encode() + b"\0")
    for path in sorted(set(paths)):
        content = path.read_bytes()
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"{path.relative_to(root)}\0{executable}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def mounts_below(folder: Path) -> list[str]:
    """Mount points in the folder, the innermost first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(f"{folder}/")), reverse=True)


def unmount_below(folder: Path) -> None:
    for point in mounts_below(folder):
        run("umount", "--lazy", point)


def go_sources(module: Path) -> list[Path]:
    return [path for pattern in ("**/*.go", "go.mod", "go.sum") for path in module.glob(pattern)]


def _go(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    if not has("go"):
        raise ClusterError("go: not found on PATH; install Go 1.24 or newer, the cluster's programs are built with it")
    return run("go", *arguments, cwd=cwd, env={"CGO_ENABLED": "0", **(env or {})})


def go_build(module: Path, package: str, output: Path, flags: str = "-s -w") -> None:
    _go("build", "-trimpath", "-buildvcs=false", f"-ldflags={flags}", "-o", str(output), package, cwd=module)


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path | None]:
    """Yield a folder to fill that appears as `folder` only when complete; None if it is there already."""
    with locked(folder.parent / f".{folder.name}.lock"):
        if folder.exists():
            yield None
            return
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        part.rename(folder)


def kubernetes_version(go_mod: str) -> str:
    """The version of k8s.io/kubernetes that a go.mod asks for, like v1.34.4."""
    found = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise ClusterError(f"{GO_MODULE / 'go.mod'}: requires no k8s.io/kubernetes; expected a line with its version")
    return found[1]


def kubernetes() -> Path:
    """The folder with kubectl, kube-apiserver, ...; built at the first call (about 5 minutes on 2 cores)."""
    sources = [path for path in go_sources(GO_MODULE) if "pause" not in path.parts]
    folder = home() / "tools" / f"k8s-{hash_of_files(sources, GO_MODULE)}"
    with _new_folder(folder) as new:
        if new:
            version = kubernetes_version((GO_MODULE / "go.mod").read_text())
            major, minor = version.lstrip("v").split(".")[:2]
            named = "k8s.io/component-base/version.git"
            flags = f"-s -w -X {named}Version={version} -X {named}Major={major} -X {named}Minor={minor}"
            with step(f"build Kubernetes {version}"):
                go_build(GO_MODULE, ".", new / "k8s", flags)
            for program in K8S_PROGRAMS:
                (new / program).symlink_to("k8s")
    return folder


def _go_installed(module: str) -> Path:
    package, _, version = module.partition("@")
    folder = home() / "tools" / f"{package.rpartition('/')[2]}-{version}"
    with _new_folder(folder) as new:
        if new:
            with step(f"build {module}"):
                _go("install", "-trimpath", "-ldflags=-s -w", module, env={"GOBIN": str(new)})
    return folder


def helm() -> Path:
    """The folder with helm; built at the first call (about 3 minutes on 2 cores)."""
    return _go_installed(HELM)


def kubeconform() -> Path:
    """The program kubeconform; built at the first call (10 seconds on 2 cores)."""
    return _go_installed(KUBECONFORM) / "kubeconform"


def helm_docs() -> Path:
    """The program helm-docs; built at the first call (10 seconds on 2 cores)."""
    return _go_installed(HELM_DOCS) / "helm-docs"


def helm_unittest() -> Path:
    """The program helm-unittest; built at the first call (90 seconds on 2 cores)."""
    name, _, version = HELM_UNITTEST.rpartition("/")[2].partition("@")
    folder = home() / "tools" / f"{name}-{version}"
    with _new_folder(folder) as new:
        if new:
            with step(f"build {HELM_UNITTEST}"):
                # go install refuses a module that replaces another one; inside of it the replacement holds
                go_build(go_module(HELM_UNITTEST), f"./cmd/{name}", new / name)
    return folder / name


def kueue() -> Path:
    """The folder with Kueue's controller, `kueue`, and its CRDs, `crds`; built at the first call (8 minutes of one core)."""
    folder = home() / "tools" / KUEUE.rpartition("/")[2].replace("@", "-")
    with _new_folder(folder) as new:
        if new:
            with step(f"build {KUEUE}"):
                _build_kueue(new)
    return folder


def _build_kueue(folder: Path) -> None:
    """As it was released but for one path: it reads its metrics' certificate in /etc, here beside that of its webhooks."""
    sources = folder / "sources"
    shutil.copytree(go_module(KUEUE), sources, copy_function=shutil.copyfile)
    run("chmod", "-R", "u+w", sources)  # Go keeps its modules read-only
    main = sources / "cmd" / "kueue" / "main.go"
    main.write_text(main.read_text().replace('"/etc/kueue/metrics/certs"', "cfg.Webhook.CertDir"))
    go_build(sources, "./cmd/kueue", folder / "kueue")
    shutil.copytree(sources / "config" / "components" / "crd" / "bases", folder / "crds")
    shutil.rmtree(sources)


def gitops() -> Path:
    """The program of dev/gitops; built at the first call (25 seconds on 2 cores)."""
    folder = home() / "tools" / f"gitops-{hash_of_files(go_sources(GITOPS_MODULE), GITOPS_MODULE)}"
    with _new_folder(folder) as new:
        if new:
            with step("build dev/gitops"):
                go_build(GITOPS_MODULE, ".", new / "gitops")
    return folder / "gitops"


def go_module(module: str) -> Path:
    """The folder with the sources of `path@version`, in Go's own cache."""
    return Path(json.loads(_go("mod", "download", "-json", module))["Dir"])


def kubernetes_sources() -> Path:
    """The folder with the sources of the Kubernetes that we build."""
    return go_module(f"k8s.io/kubernetes@{kubernetes_version((GO_MODULE / 'go.mod').read_text())}")


def prometheus_operator_sources() -> Path:
    """The folder with the sources of prometheus-operator, which has its CRDs."""
    return go_module(PROMETHEUS_OPERATOR)


def client_folders(ours: bool) -> list[Path]:
    """Folders with kubectl and helm to put on PATH: ours, or only what PATH lacks."""
    return [make() for program, make in (("kubectl", kubernetes), ("helm", helm)) if ours or not has(program)]


def kind() -> Path:
    """The program kind: the one on PATH, else built."""
    found = shutil.which("kind")
    return Path(found) if found else _go_installed(KIND) / "kind"


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep apt from starting what it installs: the cluster runs a containerd of its own."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def need_packages(packages: Mapping[str, str]) -> None:
    """Install the Debian packages that are missing; without root or apt say which they are."""
    missing = [package for package, sign in packages.items() if not has(sign)]
    if not missing:
        return
    if os.geteuid() != 0 or not has("apt-get"):
        raise ClusterError(f"missing programs; as root: apt-get install {' '.join(missing)}")
    say(f"missing packages: {' '.join(missing)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    with step("apt-get install"), locked(home() / "apt.lock"), _no_services():
        run("apt-get", "update", env=quiet)
        run("apt-get", "install", "-y", "--no-install-recommends", *missing, env=quiet)


def kubectl(kubeconfig: str, *arguments: str, stdin: str | None = None) -> str:
    """Run the kubectl on PATH, else the built one, against a cluster."""
    program = shutil.which("kubectl") or str(kubernetes() / "kubectl")
    return run(program, f"--kubeconfig={kubeconfig}", *arguments, stdin=stdin)
