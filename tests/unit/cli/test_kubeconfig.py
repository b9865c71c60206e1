"""Kubeconfigs are read as kubectl reads them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from xray_cli.__main__ import run
from xray_cli.errors import CommandError
from xray_cli.kubeconfig import log_in, make_headers, read_kubeconfig


def write(path: Path, current: str | None = None, **contexts: dict[str, Any]) -> str:
    """A kubeconfig whose contexts have a cluster of their own name, at https://NAME.example."""
    document: dict[str, Any] = {"apiVersion": "v1", "kind": "Config"}
    document["contexts"] = [{"name": n, "context": {"cluster": n, "user": n, **c}} for n, c in contexts.items()]
    document["clusters"] = [{"name": n, "cluster": {"server": f"https://{n}.{path.stem}/"}} for n in contexts]
    document["users"] = [{"name": n, "user": {"token": f"{n} of {path.stem}"}} for n in contexts]
    if current:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_of_several_files_the_first_to_name_a_thing_decides(tmp_path: Path) -> None:
    one = write(tmp_path / "one", None, a={"namespace": "chest"})
    two = write(tmp_path / "two", "b", a={"namespace": "other"}, b={})
    three = write(tmp_path / "three", "a", c={})
    listed = os.pathsep.join([str(tmp_path / "absent"), one, "", two, three])
    config = read_kubeconfig(None, {"KUBECONFIG": listed})
    assert config.current_context == "b"
    assert config.names("contexts") == ["a", "b", "c"]
    assert config.entry("clusters", "a")["server"] == "https://a.one/"
    assert config.entry("contexts", "a")["namespace"] == "chest"


def test_what_is_given_comes_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "environment", "a", a={}))
    given = write(tmp_path / "given", "b", b={"namespace": "chest"}, c={})
    assert (log_in(None, None).server, log_in(None, None).namespace) == ("https://a.environment", "default")
    assert (log_in(given, None).server, log_in(given, None).namespace) == ("https://b.given", "chest")
    assert log_in(given, "c").headers() == {"Authorization": "Bearer c of given"}


def test_without_a_list_it_lies_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", "a", a={})
    assert read_kubeconfig(None, {}).current_context == "a"


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ("x", 'context "x" does not exist'),
        (None, "current-context is not set"),
    ],
)
def test_a_context_that_is_not_there(tmp_path: Path, context: str | None, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        log_in(write(tmp_path / "config", None, a={}), context)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no such file or directory"):
        read_kubeconfig(str(tmp_path / "absent"))
    for text in ("a: [", "[]", "clusters: [x]", "users: [{name: a, user: x}]"):
        (tmp_path / "broken").write_text(text)
        with pytest.raises(CommandError, match="error loading config file"):
            read_kubeconfig(str(tmp_path / "broken"))
    with pytest.raises(CommandError, match="no configuration has been provided"):
        log_in_without_any(tmp_path)


def test_a_kubeconfig_of_another_shape_is_told_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "config"
    for text, told in (
        ("a:\n  b: c: d", "line 2, column 7: mapping values are not allowed in this context"),
        ("\0\1", "position 0: control characters are not allowed"),
        ("contexts: 5", "contexts: 5 in place of a list"),
        ("current-context: [a]", "current-context: ['a'] in place of text"),
        ("contexts: [{name: a, context: {user: [b]}}]", "context \"a\": user: ['b'] in place of text"),
        (
            "clusters: [{name: a, cluster: {certificate-authority: 5}}]",
            'cluster "a": certificate-authority: 5 in place',
        ),
        ("clusters: [{name: a, cluster: {insecure-skip-tls-verify: 'no'}}]", "'no' in place of true or false"),
        ("users: [{name: a, user: {exec: aws}}]", "user \"a\": exec: 'aws' in place of fields"),
    ):
        file.write_text(text)
        with pytest.raises(CommandError, match=re.escape(told)) as raised:
            read_kubeconfig(str(file))
        assert str(raised.value).startswith(f'error loading config file "{file}": ')
        assert "\n" not in str(raised.value)
    for environment in (None, {"KUBECONFIG": str(tmp_path)}):
        with pytest.raises(CommandError, match="Is a directory"):
            read_kubeconfig(None, environment) if environment else read_kubeconfig(str(tmp_path))


def log_in_without_any(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.delenv("KUBECONFIG", raising=False)
        log_in(None, None)


def test_file_names_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    document = {"users": [{"name": "a", "user": {"tokenFile": "token"}}]}
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    user = read_kubeconfig(str(tmp_path / "config")).entry("users", "a")
    assert make_headers(user) == {"Authorization": "Bearer secret"}


def test_what_is_missing_is_told(tmp_path: Path) -> None:
    document = {"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "b", "user": "c"}}]}
    users: list[dict[str, Any]] = [{"name": "c", "user": {"tokenFile": "absent"}}]
    steps: list[tuple[dict[str, Any], str]] = [
        ({}, 'user "c" does not exist'),
        ({"users": users}, 'cluster "b" does not exist'),
        ({"clusters": [{"name": "b"}]}, 'cluster "b" names no server'),
    ]
    for more, told in steps:
        document |= more
        (tmp_path / "config").write_text(yaml.safe_dump(document))
        with pytest.raises(CommandError, match=told):
            log_in(str(tmp_path / "config"), None)
    document["clusters"] = [{"name": "b", "cluster": {"server": "https://b"}}]
    (tmp_path / "config").write_text(yaml.safe_dump(document))
    with pytest.raises(CommandError, match="token of the kubeconfig"):
        log_in(str(tmp_path / "config"), None).headers()


def test_names_and_passwords() -> None:
    assert make_headers({"username": "ada", "password": "x"}) == {"Authorization": "Basic YWRhOng="}
    assert make_headers({}) == {}
    with pytest.raises(CommandError, match="token of the kubeconfig: expected one line of ASCII"):
        make_headers({"token": "a\n"})


def with_plugin(path: Path, command: str, *arguments: str, **cluster: str) -> str:
    """A kubeconfig whose only user is what a credential plugin says."""
    document = yaml.safe_load(Path(write(path, "a", a={})).read_text())
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": command, "args": [*arguments]}
    document["users"][0]["user"] = {"exec": plugin | {"interactiveMode": "Never"}}
    document["clusters"][0]["cluster"] |= cluster
    path.write_text(yaml.safe_dump(document))
    return str(path)


def credential(token: str) -> str:
    kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    return json.dumps({**kind, "status": {"token": token} if token else {}})


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("aws-iam-authenticator-that-is-not-there",), "executable aws-iam-authenticator-that-is-not-there not found"),
        (("sh", "-c", "echo log in first >&2; exit 3"), "process returned 3. log in first"),
        (("echo", credential("")), "missing token or clientCertificateData field in plugin output"),
    ],
)
def test_who_gets_no_credentials_does_not_go_on_as_nobody(
    command: tuple[str, ...], told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["list", "--kubeconfig", with_plugin(tmp_path / "config", *command)]) == 1
    assert capfd.readouterr() == ("", f"Unable to connect to the server: getting credentials: exec: {told}\n")


def test_a_credential_plugin_is_asked_and_a_broken_certificate_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config"
    login = log_in(with_plugin(path, "echo", credential("of the plugin")), None)
    assert (login.server, login.headers()) == ("https://a.config", {"Authorization": "Bearer of the plugin"})
    for data in ("eA==", "x"):
        with_plugin(path, "echo", credential("of the plugin"), **{"certificate-authority-data": data})
        with pytest.raises(CommandError, match="invalid configuration: "):
            log_in(str(path), None)
    document = yaml.safe_load(Path(write(path, "a", a={})).read_text())
    document["users"][0]["user"] = {"client-certificate-data": "eA==", "client-key-data": "eA=="}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(CommandError, match="certificates of the kubeconfig"):
        log_in(str(path), None)
