"""The user's kubeconfig, read as kubectl reads it: where the API server is, and who asks it. Called by connection.

Certificates and tokens, which most kubeconfigs have, are read here. What needs more (credential plugins, OIDC, a pod's
service account) is left to `kubernetes`, whose import alone takes longer than a command may.
"""

from __future__ import annotations

import base64
import logging
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from xray_cli.documents import expect
from xray_cli.errors import CommandError, NoConnection
from xray_operator.errors import DocumentError
from xray_operator.yaml_text import parse_only_yaml

if TYPE_CHECKING:
    from kubernetes.client import Configuration

Raw = dict[str, Any]

SECTIONS: Final = ("clusters", "contexts", "users")
POD: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FOREIGN: Final = ("exec", "auth-provider")
"""Entries of a user that `kubernetes` knows how to follow."""
FILES: Final = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
TOP: Final[Mapping[tuple[str, ...], type]] = {("current-context",): str, **{(name,): list for name in SECTIONS}}
PARTS: Final[Mapping[tuple[str, ...], type]] = {
    **{(name,): str for name in ("server", "tls-server-name", "proxy-url", "cluster", "user", "namespace", *FILES)},
    **{(f"{name}-data",): str for name in FILES},
    ("insecure-skip-tls-verify",): bool,
    **{(name,): dict for name in FOREIGN},
}
"""What an entry has, if it is there. Tokens and passwords are left out: an error would print them."""


@dataclass(frozen=True)
class Login:
    """Everything that a request needs."""

    server: str
    namespace: str
    """That of the context; `default` if it names none."""
    tls: ssl.SSLContext
    headers: Callable[[], Mapping[str, str]]
    """Asked for each request: tokens expire."""
    server_name: str | None = None
    proxy: str | None = None


@dataclass(frozen=True)
class Kubeconfig:
    """The files together: of what several have under one name, the first one's counts."""

    paths: tuple[str, ...]
    current_context: str | None
    entries: Mapping[tuple[str, str], Raw]
    """(section, name) -> entry, whose file names are absolute."""

    def names(self, section: str) -> list[str]:
        return [name for of, name in self.entries if of == section]

    def entry(self, section: str, name: str) -> Raw:
        if (section, name) not in self.entries:
            raise CommandError(f'{section[:-1]} "{name}" does not exist')
        return self.entries[section, name]


def log_in(given: str | None, context_name: str | None) -> Login:
    """As --kubeconfig and --context say, or the environment, or the pod in which this runs."""
    config = read_kubeconfig(given)
    if not config.entries and POD.exists():
        return _from_kubernetes(load_configuration(config, None), _namespace_of_pod())
    name = context_name or config.current_context
    if not config.entries:
        raise CommandError("no configuration has been provided: neither KUBECONFIG nor ~/.kube/config names a cluster")
    if not name:
        raise CommandError("current-context is not set: give --context, or choose one by `kubectl config use-context`")
    context = config.entry("contexts", name)
    user = config.entry("users", context["user"]) if context.get("user") else {}
    namespace = context.get("namespace") or "default"
    if any(key in user for key in FOREIGN):
        return _from_kubernetes(load_configuration(config, name), namespace)
    cluster = config.entry("clusters", context.get("cluster", ""))
    if not cluster.get("server"):
        raise CommandError(f'invalid configuration: cluster "{context["cluster"]}" names no server')
    with _told("server"):
        urlsplit(cluster["server"])
    return Login(
        server=cluster["server"].rstrip("/"),
        namespace=namespace,
        tls=make_tls(cluster, user),
        headers=lambda: make_headers(user),
        server_name=cluster.get("tls-server-name"),
        proxy=cluster.get("proxy-url"),
    )


def read_namespace(given: str | None, context_name: str | None) -> str:
    """That of the context, without a look at server and credentials; `default` where nothing names one."""
    config = read_kubeconfig(given)
    if not config.entries and POD.exists():
        return _namespace_of_pod()
    name = context_name or config.current_context
    context = config.entry("contexts", name) if config.entries and name else {}
    return context.get("namespace") or "default"


def _namespace_of_pod() -> str:
    return (POD / "namespace").read_text().strip()


def read_kubeconfig(given: str | None, environment: Mapping[str, str] = os.environ) -> Kubeconfig:
    """The files that make up the kubeconfig; of KUBECONFIG's list, those that are there.

    Args:
        given: --kubeconfig, which has to be there.
    """
    if given and not Path(given).exists():
        raise CommandError(f"stat {given}: no such file or directory")
    listed = [given] if given else [path for path in environment.get("KUBECONFIG", "").split(os.pathsep) if path]
    paths = [path for path in listed or [str(Path("~/.kube/config").expanduser())] if Path(path).exists()]
    current, entries = None, dict[tuple[str, str], Raw]()
    for path in paths:
        document = _read_file(path)
        current = current or document.get("current-context")
        for section in SECTIONS:
            for name, entry in _named(document, section, path):
                entries.setdefault((section, name), _absolute(entry, Path(path).parent))
    return Kubeconfig(tuple(paths), current, entries)


def _read_file(path: str) -> Raw:
    try:
        document = parse_only_yaml(Path(path).read_bytes())
    except (OSError, DocumentError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise CommandError(f'error loading config file "{path}": {told}') from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise CommandError(f'error loading config file "{path}": it is no mapping')
    expect(f'error loading config file "{path}"', document, TOP)
    return document


def _named(document: Raw, section: str, path: str) -> Iterator[tuple[str, Raw]]:
    """The entries of a section."""
    for row in document.get(section) or ():
        if not isinstance(row, dict) or not isinstance(entry := row.get(section[:-1]) or {}, dict):
            raise CommandError(f'error loading config file "{path}": {section} are no list of named {section}')
        name = str(row.get("name", ""))
        expect(f'error loading config file "{path}": {section[:-1]} "{name}"', entry, PARTS)
        yield name, entry


def _absolute(entry: Raw, folder: Path) -> Raw:
    """File names are relative to the kubeconfig that has them."""
    return entry | {key: str(folder / entry[key]) for key in FILES if entry.get(key)}


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Raises: CommandError where this part of the kubeconfig can't be used."""
    try:
        yield
    except (ValueError, OSError) as error:  # of ssl too
        raise CommandError(f"invalid configuration: {what} of the kubeconfig: {error}") from error


@_told("certificates")
def make_tls(cluster: Raw, user: Raw) -> ssl.SSLContext:
    """How the server is verified, and the certificate by which the user is known."""
    context = ssl.create_default_context(cadata=_text(cluster, "certificate-authority"))
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = _text(user, "client-certificate"), _text(user, "client-key")
    if certificate and key:
        # ssl takes both from one file only; a private one, and not for longer than it is read
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(f"{certificate}\n{key}\n")
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _text(entry: Raw, key: str) -> str | None:
    """PEM text, given in the kubeconfig or in a file; what is given counts."""
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return Path(entry[key]).read_text() if entry.get(key) else None


def make_headers(user: Raw) -> dict[str, str]:
    """The header that says who asks, where no certificate does."""
    token = str(user.get("token") or _read_token(user) or "")
    if token and not re.fullmatch("[ -~]+", token):
        raise CommandError("invalid configuration: token of the kubeconfig: expected one line of ASCII")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user.get("username"):
        pair = base64.b64encode(f"{user['username']}:{user.get('password', '')}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}


@_told("token")
def _read_token(user: Raw) -> str | None:
    return Path(user["tokenFile"]).read_text().strip() if user.get("tokenFile") else None


def load_configuration(config: Kubeconfig, context_name: str | None) -> Configuration:
    """The same as `kubernetes` reads it: for what is foreign here, and for its clients of streams."""
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

    configuration = Configuration()
    configuration.retries = False  # urllib3 would wait, and warn in its own words
    # it only logs that a credential plugin failed, and goes on as nobody
    logging.getLogger().addHandler(heard := BufferingHandler(capacity=1000))
    try:
        if config.entries:
            name = context_name or config.current_context
            load_kube_config(os.pathsep.join(config.paths), name, configuration)  # type: ignore[no-untyped-call]
        else:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, ValueError) as error:
        raise CommandError(f"invalid configuration: {error}") from error
    finally:
        logging.getLogger().removeHandler(heard)
    for record in heard.buffer:
        if record.levelno >= logging.ERROR:
            told = re.sub(r"^\[Errno 2\].*: '(.*)'$", r"exec: executable \1 not found", record.getMessage())
            raise NoConnection(f"Unable to connect to the server: getting credentials: {' '.join(told.split())}")
    return configuration


@_told("certificates")
def _from_kubernetes(configuration: Configuration, namespace: str) -> Login:
    def headers() -> dict[str, str]:
        # asks the credential plugin again when its token has expired
        token = configuration.get_api_key_with_prefix("BearerToken")
        return {"Authorization": token} if token else {}

    tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if not configuration.verify_ssl:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if configuration.cert_file:
        tls.load_cert_chain(configuration.cert_file, configuration.key_file)
    server_name, proxy = configuration.tls_server_name, configuration.proxy
    return Login(str(configuration.host).rstrip("/"), namespace, tls, headers, server_name, proxy)
