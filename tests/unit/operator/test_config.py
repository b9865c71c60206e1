"""The configuration file: camelCase YAML, every mistake named."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import xray_operator
from xray_operator.config import OperatorConfig, load_config
from xray_operator.errors import ConfigError


def test_a_file_says_what_differs_from_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("images: {prepare: p, torch: t, pullPolicy: Always}\nresyncSeconds: 1\nnamespaces: [a, b]\n")
    config = load_config(path)
    assert config.images.pull_policy == "Always"
    assert config.namespaces == ("a", "b")
    assert config.health_port == OperatorConfig().health_port


def test_the_admins_pod_settings(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "pod: {imagePullSecrets: [registry], priorityClassName: low, httpProxy: 'http://proxy:3128', noProxy: .example, "
        "caBundle: {configMapName: company-ca}, huggingFaceEndpoint: 'https://hub.example', labels: {team: radiology}, "
        "annotations: {sidecar.istio.io/inject: 'false'}}\n"
    )
    pod = load_config(path).pod
    assert pod.image_pull_secrets == ("registry",)
    assert (pod.priority_class_name, pod.http_proxy, pod.https_proxy, pod.no_proxy) == (
        "low",
        "http://proxy:3128",
        "",
        ".example",
    )
    assert (pod.ca_bundle.config_map_name, pod.ca_bundle.key) == ("company-ca", "ca.crt")
    assert pod.hugging_face_endpoint == "https://hub.example"
    assert (pod.labels, pod.annotations) == ({"team": "radiology"}, {"sidecar.istio.io/inject": "false"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pod: {imagePullSecrets: [Registry]}", r"pod\.imagePullSecrets\.0: 'Registry'"),
        ("pod: {httpsProxy: 'proxy:3128'}", r"pod\.httpsProxy: 'proxy:3128'"),
        ("pod: {caBundle: {name: ca}}", r"pod\.caBundle\.name: 'ca'"),
        ("pod: {labels: {team: 'a b'}}", r"pod\.labels\.team: 'a b'"),
        ("pod: {labels: {xray.training/job-uid: mine}}", r"pod\.labels: .*xray\.training/job-uid: .*operator's own"),
        ("pod: {annotations: {prometheus.io/port: '1'}}", r"pod\.annotations: .*prometheus\.io/port"),
    ],
)
def test_pod_settings_that_no_pod_could_have_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resyncSeconds: 0\nworkers: 0\n", "resyncSeconds: 0: .*workers: 0: "),
        ("resync: 1\n", "resync: 1: "),
        ("images: {torch: a: b}", r"config\.yaml: line 1, column 18: [^\n]*$"),
        ("---\n---\n", r"config\.yaml: 2 documents in place of one"),
        ("just text", r"\(top\): 'just text'"),
    ],
)
def test_all_mistakes_are_named_at_once(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"images: \x80")
    with pytest.raises(ConfigError, match=r"config\.yaml: position 8: invalid leading UTF-8 octet$"):
        load_config(path)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("")
    assert load_config(path) == OperatorConfig()


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    assert xray_operator.__version__ == project["version"]
