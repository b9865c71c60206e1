"""What dev/cluster decides before it acts: provider, whose process, disk space, an image's inputs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dev.cluster import builder, images, oci, pki, processes, state, tools
from dev.cluster.__main__ import choose_provider, parser
from dev.cluster.state import REPOSITORY, Cluster, ClusterError, ports_of, write_json

DOCKERFILE = """\
# base
ARG BASE_IMAGE=docker.io/library/python:3.13-slim-trixie
FROM ${BASE_IMAGE} AS torch-libs
COPY requirements.txt /
RUN pip install \\
    # the newest
    -r /requirements.txt
FROM ${BASE_IMAGE} AS prepare
COPY --chown=1:1 package/ ./LICENSE* /app/
FROM torch-libs AS torch
COPY --from=prepare /app /app
COPY ["package/train.py", "/app/"]
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with one image folder."""
    folder = tmp_path / "repo" / "trainer-image"
    (folder / "package").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "requirements.txt").write_text("torch\n")
    (folder / "package" / "train.py").write_text("print(1)\n")
    (folder / "package" / "verify.py").write_text("print(2)\n")
    return tmp_path / "repo"


def ref(tree: Path, target: str, base: str = "base:1") -> str:
    recipe = images.Recipe("trainer-image/Dockerfile", "trainer-image", target)
    return images.plan(recipe, target, lambda _: base, root=tree).ref


@pytest.mark.parametrize(
    ("asked", "recorded", "docker", "expected"),
    [
        ("auto", "", True, "kind"),
        ("auto", "", False, "local"),
        ("auto", "local", True, "local"),
        ("kubeconfig", "", True, "kubeconfig"),
        ("local", "", True, "local"),
        ("auto", "kind", True, "kind"),
    ],
)
def test_provider(asked: str, recorded: str, docker: bool, expected: str) -> None:
    assert choose_provider(asked, recorded, docker) == expected


@pytest.mark.parametrize(
    ("asked", "recorded", "docker", "message"),
    [
        ("kind", "", False, "does not answer"),
        ("kind", "local", True, "made with local"),
        ("kubeconfig", "local", True, "made with local"),
    ],
)
def test_provider_refused(asked: str, recorded: str, docker: bool, message: str) -> None:
    with pytest.raises(ClusterError, match=message):
        choose_provider(asked, recorded, docker)


def test_name_is_taken_before_and_after_the_command() -> None:
    assert parser().parse_args(["--name", "it", "up"]).name == "it"
    assert parser().parse_args(["up", "--name", "it"]).name == "it"
    assert parser().parse_args(["up"]).name == "dev"


@pytest.mark.parametrize(
    ("boot", "ticks", "expected"),
    [("b", "7", True), ("other boot", "7", False), ("b", "8", False), ("b", None, False)],
)
def test_only_the_recorded_process_is_ours(boot: str, ticks: str | None, expected: bool) -> None:
    assert processes.is_ours({"pid": "1", "boot": "b", "ticks": "7"}, boot, ticks) is expected


def test_stat_of_a_program_with_a_strange_name() -> None:
    fields = " ".join(str(number) for number in range(4, 30))
    assert processes.stat_fields(f"12 (a) S (b c) Z {fields}") == ("Z", "22")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster("test", tmp_path / "cluster")
    yield found
    for name in processes.names_of(found):
        processes.stop(found, name)


def test_a_running_process_is_started_once_and_anew_when_its_arguments_change(cluster: Cluster) -> None:
    cluster.root.mkdir(parents=True)
    assert processes.ensure(cluster, "sleeper", ["sleep", "60"])
    first = processes.running_pid(cluster, "sleeper")
    assert not processes.ensure(cluster, "sleeper", ["sleep", "60"])
    assert processes.running_pid(cluster, "sleeper") == first
    assert processes.ensure(cluster, "sleeper", ["sleep", "61"])
    assert processes.running_pid(cluster, "sleeper") not in (None, first)


def test_stop_leaves_a_foreign_process_that_got_the_pid(cluster: Cluster) -> None:
    with subprocess.Popen(["sleep", "60"]) as foreign:
        record = {"pid": str(foreign.pid), "boot": processes.boot_id(), "ticks": "1", "fingerprint": ""}
        write_json(cluster.processes / "etcd.json", record)
        processes.stop(cluster, "etcd")
        assert foreign.poll() is None
        assert processes.names_of(cluster) == []
        foreign.kill()


def test_a_process_that_dies_at_start_is_told_with_its_last_words(cluster: Cluster) -> None:
    cluster.root.mkdir(parents=True)
    processes.ensure(cluster, "etcd", ["sh", "-c", "echo no such disk; exit 1"])
    with pytest.raises(ClusterError, match="no such disk"):
        processes.wait_for(cluster, "etcd", lambda: "not up", 10)


def test_logs_of_earlier_starts_are_kept_but_not_without_end(tmp_path: Path) -> None:
    log = tmp_path / "etcd.log"
    for start in range(6):
        processes.rotate(log)
        log.write_text(str(start))
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {"etcd.log": "5", "etcd.log.1": "4", "etcd.log.2": "3", "etcd.log.3": "2"}


def test_ports_are_chosen_once(cluster: Cluster) -> None:
    ports = ports_of(cluster)
    assert len(set(ports.values())) == len(ports)
    assert ports_of(cluster) == ports


def test_two_clusters_share_no_port_even_while_one_is_down(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "PORT_RANGE", range(20_000, 20_060))
    other = Cluster("other", cluster.root.parent / "other")
    assert not set(ports_of(cluster).values()) & set(ports_of(other).values())


def test_too_little_space_names_folder_free_and_needed() -> None:
    with pytest.raises(ClusterError, match=r"/cache/images: 1,000 bytes free, 2,000 needed"):
        builder.check_space(Path("/cache/images"), needed=2_000, free=1_000)
    builder.check_space(Path("/cache/images"), needed=2_000, free=2_000)


def test_equal_trees_have_equal_tags_in_every_clone(tree: Path, tmp_path: Path) -> None:
    before = ref(tree, "torch")
    assert ref(tree.rename(tmp_path / "clone"), "torch") == before


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("package/train.py", {"prepare", "torch"}),
        ("requirements.txt", {"torch-libs", "torch"}),
        ("package/__pycache__/train.pyc", set()),
        ("README.md", set()),
        ("LICENSE", {"prepare", "torch"}),
    ],
)
def test_a_tag_changes_with_what_its_stages_copy_and_nothing_else(tree: Path, file: str, changed: set[str]) -> None:
    (tree / "trainer-image" / "LICENSE.md").write_text("x")
    before = {target: ref(tree, target) for target in ("prepare", "torch", "torch-libs")}
    path = tree / "trainer-image" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("changed\n")
    assert {target for target in before if ref(tree, target) != before[target]} == changed


def test_a_tag_changes_with_instructions_base_and_executable_bit(tree: Path) -> None:
    before = ref(tree, "prepare")
    assert ref(tree, "prepare", base="base:2") != before
    (tree / "trainer-image" / "package" / "train.py").chmod(0o755)
    executable = ref(tree, "prepare")
    assert executable != before
    dockerfile = tree / "trainer-image" / "Dockerfile"
    dockerfile.write_text(DOCKERFILE.replace("--chown=1:1", "--chown=2:2"))
    assert ref(tree, "prepare") not in (before, executable)


def test_a_file_that_the_dockerfile_copies_but_is_not_there_is_named(tree: Path) -> None:
    (tree / "trainer-image" / "requirements.txt").unlink()
    with pytest.raises(ClusterError, match=r"requirements\.txt: not there"):
        ref(tree, "torch")


def test_libraries_that_are_an_image_already_are_not_installed_again(tree: Path) -> None:
    recipe = images.Recipe("trainer-image/Dockerfile", "trainer-image", "torch")
    build = images.plan(recipe, "torch", lambda _: "base:1", root=tree)
    assert build.libs == ["torch-libs"]
    text = build.dockerfile.text("torch", {"torch-libs": "localhost/libs:1"})
    assert "FROM localhost/libs:1 AS torch-libs" in text
    assert "pip install" not in text
    assert "pip install -r /requirements.txt" in build.dockerfile.text("torch", {})


def test_each_base_is_asked_for_by_the_argument_of_its_from_line() -> None:
    def bases(name: str) -> dict[str, str]:
        return dict(images.plan(images.recipe_of(name), name, lambda argument: f"my-{argument}").bases)

    assert bases("torch") == {"BASE_IMAGE": "my-BASE_IMAGE"}
    assert bases("ipu") == {"IPU_BASE_IMAGE": "my-IPU_BASE_IMAGE"}
    assert bases("poplar-emulated") == {"PYTHON38_IMAGE": "my-PYTHON38_IMAGE"}
    assert bases("pause") == {}


def test_only_the_base_of_the_ipu_image_is_made_of_the_stand_in() -> None:
    standin = REPOSITORY / "dev" / "poptorch_standin"
    for name, expected in (("ipu", False), ("poplar-emulated", True)):
        files = images.plan(images.recipe_of(name), name, lambda _: "base:1").files
        assert any(standin in path.parents for path in files) is expected


def test_every_image_of_this_repository_has_a_plan() -> None:
    for name, recipe in images.RECIPES.items():
        if (REPOSITORY / recipe.dockerfile).exists():
            assert images.plan(recipe, name, lambda _: "base:1").ref.startswith(f"localhost/xray-operator/{name}:")


def test_of_each_image_the_newest_builds_are_kept() -> None:
    refs = [f"localhost/xray-operator/{name}" for name in ("operator:1", "torch:1", "torch-libs:1", "operator:2")]
    newer = [f"localhost/xray-operator/{name}" for name in ("torch:2", "operator:3", "torch-libs:2")]
    assert {ref.rpartition("/")[2] for ref in images.outdated(refs + newer)} == {
        "operator:1",
        "torch:1",
        "torch-libs:1",
    }


def test_pip_settings_come_from_files_and_environment_and_leave_folders_out() -> None:
    files = [
        "[global]\nindex-url = https://a/simple\ntimeout = 5\nfind-links = /opt/wheels\n",
        "[install]\ntimeout = 6\n",
    ]
    found = builder.pip_settings({"PIP_CERT": "/c.pem", "PIP_FIND_LINKS": "/opt"}, files)
    assert found == {"index-url": "https://a/simple", "timeout": "6", "cert": "/c.pem"}


def test_the_mirror_is_the_one_that_apt_uses() -> None:
    lines = (
        "https://tools.test Tools Tools\n"
        "http://security.test/d Debian Debian-Security\n"
        "http://mirror.test/d Debian Debian\n"
    )
    assert builder.apt_mirror(lines) == "http://mirror.test/d"
    with pytest.raises(ClusterError, match="no Debian mirror"):
        builder.apt_mirror("https://tools.test Tools Tools\n")


def test_missing_packages_are_listed_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    tools.need_packages({"bash": "bash"})
    with pytest.raises(ClusterError, match="apt-get install no-such-package"):
        tools.need_packages({"no-such-package": "no-such-program", "bash": "bash"})


def test_kubernetes_version_is_the_go_modules() -> None:
    assert tools.kubernetes_version("require (\n\tk8s.io/kubernetes v1.34.4\n)\n") == "v1.34.4"
    with pytest.raises(ClusterError, match=r"k8s\.io/kubernetes"):
        tools.kubernetes_version("require k8s.io/kubectl v0.34.4\n")


def test_tokens_stay_the_same_and_name_every_component(cluster: Cluster) -> None:
    tokens = pki.make_tokens(cluster, "node-1")
    assert set(tokens) == set(pki.USERS)
    assert pki.make_tokens(cluster, "node-1") == tokens
    assert '"system:node:node-1",kubelet,"system:nodes"' in (cluster.pki / "tokens.csv").read_text()
    assert (cluster.pki / "tokens.csv").stat().st_mode & 0o077 == 0


def make_layout(folder: Path, refs: dict[str, list[str]]) -> Path:
    """A layout with images (name -> contents of its layers)."""
    manifests = []
    for name, layers in refs.items():
        parts = [put_blob(folder, text) for text in layers]
        manifest = {
            "config": {"digest": put_blob(folder, name)},
            "layers": [{"digest": part} for part in parts],
        }
        manifests.append(
            {
                "digest": put_blob(folder, json.dumps(manifest)),
                "annotations": {"org.opencontainers.image.ref.name": name},
            }
        )
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return folder


def put_blob(folder: Path, text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (folder / "blobs" / "sha256" / digest).write_text(text)
    return f"sha256:{digest}"


def test_pruning_keeps_the_layers_that_another_image_shares(tmp_path: Path) -> None:
    layout = make_layout(tmp_path, {"a:1": ["libs", "code 1"], "a:2": ["libs", "code 2"]})
    oci.prune(layout, ["a:1"])
    contents = {path.read_text() for path in (layout / "blobs" / "sha256").iterdir()}
    assert {"libs", "code 2"} <= contents
    assert "code 1" not in contents
    assert oci.names(layout) == ["a:2"]


def test_an_archive_leaves_out_what_containerd_has(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", {"a:1": ["libs", "code"]})
    libs = put_blob(layout, "libs")
    archive = tmp_path / "archive.tar"
    with archive.open("wb") as out:
        oci.write_archive(layout, "a:1", {libs}, out)
    with tarfile.open(archive) as found:
        names = found.getnames()
    assert f"blobs/{libs.replace(':', '/')}" not in names
    assert f"blobs/{put_blob(layout, 'code').replace(':', '/')}" in names
    assert {"index.json", "oci-layout"} <= set(names)


def test_shared_blobs_take_no_further_space(tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "layout", {"a:1": ["libs"]})
    digest = put_blob(tmp_path / "containerd", "libs")
    theirs = tmp_path / "containerd" / "blobs" / digest.replace(":", "/")
    oci.share_blobs(layout, "a:1", tmp_path / "containerd" / "blobs")
    assert (layout / "blobs" / digest.replace(":", "/")).samefile(theirs)
