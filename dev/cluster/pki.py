"""Certificates, tokens and kubeconfigs of a cluster. Used by control_plane.py.

Components and the admin prove who they are by token; certificates serve TLS and the API server's calls to
the kubelet.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from dev.cluster.state import Cluster, write_text
from dev.cluster.tools import run

USERS = {
    "admin": ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "kubelet": ("system:node:{node}", "system:nodes"),
}
"""File name -> (user, group). RBAC's built-in roles name these."""

_VALID_DAYS = "3650"
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _self_signed(pki: Path, name: str) -> None:
    if not (pki / f"{name}.crt").exists():
        run(
            "openssl", "req", "-x509", *_KEY, "-days", _VALID_DAYS, "-subj", f"/CN=xray-{name}",
            # Python 3.13 and later refuse an authority that does not say what its key is for.
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.crt",
        )  # fmt: skip


def _signed(pki: Path, name: str, subject: str, names: str, usage: str) -> None:
    if not (pki / f"{name}.crt").exists():
        run(
            "openssl", "req", "-x509", *_KEY, "-days", _VALID_DAYS, "-subj", subject,
            "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key",
            "-addext", f"subjectAltName={names}", "-addext", f"extendedKeyUsage={usage}",
            "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature",
            "-keyout", pki / f"{name}.key", "-out", pki / f"{name}.crt",
        )  # fmt: skip


def make_certificates(cluster: Cluster, node_address: str, service_address: str) -> None:
    """Make what is missing in the cluster's pki folder (openssl 3)."""
    pki = cluster.pki
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    inside = [f"DNS:kubernetes{tail}" for tail in ("", ".default", ".default.svc", ".default.svc.cluster.local")]
    addresses = [f"IP:{address}" for address in ("127.0.0.1", node_address, service_address)]
    _self_signed(pki, "ca")
    _signed(pki, "apiserver", "/CN=kube-apiserver", ",".join([*inside, "DNS:localhost", *addresses]), "serverAuth")
    _signed(pki, "kubelet", "/CN=kubelet", f"IP:{node_address}", "serverAuth")
    _signed(
        pki,
        "kubelet-client",
        "/O=system:masters/CN=kube-apiserver-kubelet-client",
        "DNS:client",
        "clientAuth",
    )
    if not (pki / "service-account.key").exists():
        run("openssl", "genrsa", "-out", pki / "service-account.key", "2048")


def make_tokens(cluster: Cluster, node_name: str) -> dict[str, str]:
    """The users' tokens by USERS' file name; written to tokens.csv for the API server at the first call."""
    path = cluster.pki / "tokens.csv"
    if not path.exists():
        lines = [
            f'{secrets.token_hex(24)},"{user.format(node=node_name)}",{name},"{group}"'
            for name, (user, group) in USERS.items()
        ]
        write_text(path, "\n".join(lines) + "\n")
    fields = [line.split(",") for line in path.read_text().splitlines()]
    return {field[2]: field[0] for field in fields}


def kubeconfig_text(name: str, server: str, ca: Path, token: str) -> str:
    """A kubeconfig as JSON, which YAML readers read too."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority": str(ca)}}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(config, indent=1) + "\n"


def write_kubeconfigs(cluster: Cluster, server: str, tokens: dict[str, str]) -> None:
    """One kubeconfig per component in pki/, the admin's beside it."""
    for name, token in tokens.items():
        path = cluster.kubeconfig if name == "admin" else cluster.pki / f"{name}.kubeconfig"
        write_text(path, kubeconfig_text(f"xray-{cluster.name}", server, cluster.pki / "ca.crt", token))
