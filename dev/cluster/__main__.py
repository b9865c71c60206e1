"""A one-node Kubernetes for development and tests, on a machine that may have nothing but Go and Python.

    python3 dev/cluster up --ipus 4
    eval "$(python3 dev/cluster env)"
    kubectl get nodes

Answers (paths, references) go to stdout, progress to stderr. Everything it keeps lies in one folder per
machine, ${XDG_CACHE_HOME:-~/.cache}/xray-operator; `down --purge --all` removes it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dev.cluster import builder, devices, images, kind, local
from dev.cluster.state import Cluster, ClusterError, cluster_named, home, locked, read_json, step, write_json
from dev.cluster.tools import client_folders, kubectl, run

PROVIDERS = ("auto", "kubeconfig", "kind", "local")


def choose_provider(asked: str, recorded: str, docker: bool) -> str:
    """What was recorded or is asked for; auto is kind where Docker answers, else local, never kubeconfig.

    Raises: ClusterError if the cluster was made with another provider, or for kind without Docker.
    """
    if recorded and asked not in ("auto", recorded):
        raise ClusterError(
            f"--provider {asked}: this cluster was made with {recorded}; "
            "run `down --purge` first, or give another --name"
        )
    provider = recorded or (asked if asked != "auto" else "kind" if docker else "local")
    if provider == "kind" and not docker:
        raise ClusterError("--provider kind: Docker's engine does not answer (docker version); start it, or use local")
    return provider


def _record(cluster: Cluster) -> dict[str, str]:
    return read_json(cluster.root / "cluster.json")


def _provider(cluster: Cluster) -> str:
    provider = _record(cluster).get("provider")
    if not provider:
        raise ClusterError(f"cluster {cluster.name}: there is none; expected an earlier `up`")
    return provider


def _kubeconfig(cluster: Cluster) -> str:
    return _record(cluster).get("kubeconfig") or str(cluster.kubeconfig)


def _users_kubeconfig() -> str:
    paths = [path for path in os.environ.get("KUBECONFIG", "").split(":") if path]
    default = Path.home() / ".kube" / "config"
    if not paths and default.exists():
        paths = [str(default)]
    if len(paths) != 1 or not Path(paths[0]).is_file():
        raise ClusterError(f"KUBECONFIG: {':'.join(paths) or 'unset'}; expected exactly one existing file")
    return str(Path(paths[0]).resolve())


def _start(cluster: Cluster, provider: str, control_plane_only: bool) -> None:
    if provider == "kubeconfig":
        with step("the cluster of KUBECONFIG answers"):
            kubectl(_kubeconfig(cluster), "get", "--raw", "/readyz")
    elif provider == "kind":
        kind.start(cluster)
    elif control_plane_only and not local.has_node(cluster):
        local.start_control_plane(cluster)
    else:
        local.start(cluster)


def up(cluster: Cluster, options: argparse.Namespace) -> None:
    with step("up"), locked(cluster.root.parent / f"{cluster.name}.lock"):
        recorded = _record(cluster).get("provider", "")
        asked = "local" if options.control_plane_only and options.provider == "auto" else options.provider
        matters = "kind" in (asked, recorded) or (asked == "auto" and not recorded)
        provider = choose_provider(asked, recorded, docker=matters and kind.docker_answers())
        kubeconfig = _users_kubeconfig() if provider == "kubeconfig" else str(cluster.kubeconfig)
        write_json(cluster.root / "cluster.json", {"provider": provider, "kubeconfig": kubeconfig})
        _start(cluster, provider, options.control_plane_only)
        if not options.control_plane_only:
            client_folders(ours=provider == "local")
        if options.ipus is not None:
            image = _deliver(cluster, "device-plugin", options.registry) if options.ipus else ""
            devices.offer(kubeconfig, image, options.ipus)
    print(kubeconfig)


def down(cluster: Cluster, options: argparse.Namespace) -> None:
    if options.all and not options.purge:
        raise ClusterError("--all: removes the built programs and images too; expected together with --purge")
    with step("down"), locked(cluster.root.parent / f"{cluster.name}.lock"):
        provider = _record(cluster).get("provider", "local")
        if provider == "kind":
            kind.stop(cluster, options.purge)
        elif provider == "local":
            local.stop(cluster, options.purge)
        if options.purge:
            shutil.rmtree(cluster.root, ignore_errors=True)
    if options.all:
        for folder in (home() / "tools", builder.images_folder()):
            shutil.rmtree(folder, ignore_errors=True)


def _node_lines(cluster: Cluster) -> tuple[list[str], bool]:
    columns = (
        "NODE:.metadata.name,READY:.status.conditions[?(@.type=='Ready')].status,"
        f"IPUS:.status.allocatable.{devices.RESOURCE.replace('.', chr(92) + '.')}"
    )
    try:
        lines = kubectl(_kubeconfig(cluster), "get", "nodes", "-o", f"custom-columns={columns}").splitlines()
    except ClusterError as error:
        return str(error).splitlines()[-1:], False
    return lines, all(line.split()[1] == "True" for line in lines[1:])


def status(cluster: Cluster, _: argparse.Namespace) -> None:
    """Raises: SystemExit(1) if a component is down, the API does not answer or a node is not Ready."""
    healthy = True
    if _provider(cluster) == "local":
        for name, pid, log in local.table(cluster):
            print(f"{name:20} {'running' if pid else 'DOWN':8} {pid or '-':>8}  {log}")
            healthy = healthy and pid is not None
    lines, ready = _node_lines(cluster)
    print("\n".join(lines))
    if not (healthy and ready):
        raise SystemExit(1)


def kubeconfig(cluster: Cluster, _: argparse.Namespace) -> None:
    _provider(cluster)
    print(_kubeconfig(cluster))


def env(cluster: Cluster, _: argparse.Namespace) -> None:
    _provider(cluster)
    print(f"export KUBECONFIG={_kubeconfig(cluster)}")
    folders = client_folders(ours=_provider(cluster) == "local")
    print(f'export PATH="{":".join([*map(str, folders), "$PATH"])}"')


def _push(ref: str) -> None:
    with step(f"push {ref}"):
        run("docker", "push", ref)


def _deliver(cluster: Cluster, name: str, registry: str) -> str:
    """Build an image if it is missing and bring it to where the cluster's nodes find it.

    Returns: its reference.
    """
    provider = _provider(cluster)
    if provider == "local":
        local.need_containerd(cluster)
        return images.ensure_local(cluster, name)
    if provider == "kind":
        return images.ensure_docker(name, images.DEFAULT_REGISTRY, lambda ref: kind.load(cluster, ref))
    if not registry:
        raise ClusterError(
            f"{name}: the nodes of a cluster given by KUBECONFIG pull their images; "
            "give --registry HOST/PATH, one that `docker push` may write to and the nodes may read"
        )
    return images.ensure_docker(name, registry, _push)


def build_images(cluster: Cluster, options: argparse.Namespace) -> None:
    for name in options.names:
        images.recipe_of(name)
    for name in options.names:
        print(f"{name}={_deliver(cluster, name, options.registry)}", flush=True)


def load_image(cluster: Cluster, options: argparse.Namespace) -> None:
    archive = Path(options.image)
    if options.image in images.RECIPES:
        print(_deliver(cluster, options.image, options.registry))
    elif not archive.is_file():
        raise ClusterError(f"{archive}: no such file; expected an image archive, or one of {', '.join(images.RECIPES)}")
    elif _provider(cluster) == "local":
        local.need_containerd(cluster)
        print(images.import_archive(cluster, archive).strip())
    elif _provider(cluster) == "kind":
        kind.load_archive(cluster, str(archive))
    else:
        raise ClusterError(f"{archive}: its nodes pull their images; push it to a registry that they read instead")


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="python3 dev/cluster", description=__doc__.splitlines()[0] if __doc__ else None
    )
    result.add_argument(
        "--name", default="dev", help="which cluster; each has a folder and ports of its own (default: dev)"
    )
    commands = result.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(function=function)
        sub.add_argument("--name", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return sub

    registry = "where images are pushed for a cluster given by KUBECONFIG, HOST/PATH"
    one = command("up", up, "start what is not running; prints the kubeconfig's path")
    one.add_argument("--provider", choices=PROVIDERS, default="auto", help="auto: kind if Docker answers, else local")
    one.add_argument("--control-plane-only", action="store_true", help="no node, no root: enough for API tests")
    one.add_argument("--ipus", type=int, help="have each node offer this many stand-in IPUs (0: none)")
    one.add_argument("--registry", default="", help=registry)
    one = command("down", down, "stop what `up` started; data stays")
    one.add_argument("--purge", action="store_true", help="delete the cluster's data")
    one.add_argument("--all", action="store_true", help="with --purge: built programs and images as well")
    command("status", status, "components, nodes, devices; exit code 1 if not healthy")
    command("kubeconfig", kubeconfig, "print the kubeconfig's path")
    command("env", env, "print shell lines that set KUBECONFIG and PATH (kubectl, helm)")
    one = command("images", build_images, "build images if missing and load them; prints NAME=REFERENCE")
    one.add_argument("names", nargs="+", metavar="NAME", help=", ".join(images.RECIPES))
    one.add_argument("--registry", default="", help=registry)
    one = command("load-image", load_image, "bring an image archive or a named image to the node")
    one.add_argument("image", metavar="ARCHIVE|NAME")
    one.add_argument("--registry", default="", help=registry)
    return result


def main() -> None:
    options = parser().parse_args()
    try:
        options.function(cluster_named(options.name), options)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
