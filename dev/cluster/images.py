"""The project's images: what each is made from, its tag, and how it gets onto the node. Called by __main__.py.

A tag is a hash of the Dockerfile's instructions and the files they copy, so an unchanged tree is never
built twice. A Dockerfile stage named NAME-libs (or libraries) holds what our code needs from outside, 6 GB
in one case. It is kept as an image of its own, under its own hash: a changed line of code builds on it
without installing anything again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from dev.cluster import builder, node, oci
from dev.cluster.dockerfile import Dockerfile, Stage, input_files, parse
from dev.cluster.state import REPOSITORY, Cluster, ClusterError, locked, step
from dev.cluster.tools import go_build, go_sources, hash_of_files, run

DEFAULT_REGISTRY = "localhost"
GIGABYTE = 10**9
_LIBRARIES = re.compile(r"(^|-)(libs|libraries)$")
"""Names of the stages that are kept as images of their own."""


@dataclass(frozen=True)
class Recipe:
    """How one image is made."""

    dockerfile: str
    context: str
    target: str = ""
    needed_bytes: int = 2 * GIGABYTE
    """Free disk at the peak of its cold build: build store, temporary layer, layout, containerd's copies.
    Half of it where the libraries are there already."""
    kept: int = 2
    """Builds that are kept, the newest and the one before: a switch between two branches rebuilds nothing."""
    binary: str = ""
    """A static Go program that is built from the context before and copied by the Dockerfile."""


RECIPES = {
    "operator": Recipe("operator/Dockerfile", "."),
    "prepare": Recipe("trainer-image/Dockerfile", "trainer-image", "prepare", 6 * GIGABYTE),
    "torch": Recipe("trainer-image/Dockerfile", "trainer-image", "torch", 24 * GIGABYTE, kept=1),
    "ipu": Recipe("trainer-image/Dockerfile", "trainer-image", "ipu", 16 * GIGABYTE, kept=1),
    "poplar-emulated": Recipe("dev/poplar-emulated/Dockerfile", ".", needed_bytes=16 * GIGABYTE, kept=1),
    "device-plugin": Recipe("dev/device-plugin/Dockerfile", "dev/device-plugin", binary="device-plugin"),
    "pause": Recipe("dev/cluster/go/pause/Dockerfile", "dev/cluster/go/pause", binary="pause"),
}


def recipe_of(name: str) -> Recipe:
    if name not in RECIPES:
        raise ClusterError(f"{name}: no such image; there are {', '.join(RECIPES)}")
    return RECIPES[name]


@dataclass(frozen=True)
class Base:
    """An image that FROM lines name by a build argument, of a kind that is made where no registry is in reach."""

    pulled: Callable[[], str | None]
    """The one that the environment names in its place."""
    ref: Callable[[], str]
    make: Callable[[builder.Store, str], None]


def base_ref() -> str:
    tag = hash_of_files([], REPOSITORY, [builder.SUITE, builder.BASE_PACKAGES])
    return f"{DEFAULT_REGISTRY}/xray-operator/base:{tag}"


def python38_ref() -> str:
    tag = hash_of_files([], REPOSITORY, [base_ref(), builder.host_python38().name])
    return f"{DEFAULT_REGISTRY}/xray-operator/python38:{tag}"


def _make_python38(store: builder.Store, ref: str) -> None:
    if not oci.has(builder.layout(), base_ref()):
        builder.make_base(store, base_ref())
    builder.fetch(store, base_ref())
    builder.make_python38(store, ref, base_ref())


def emulated() -> Build:
    """The base of the ipu image for machines without IPUs."""
    return plan(recipe_of("poplar-emulated"), "poplar-emulated", local_base)


BASES = {
    "BASE_IMAGE": Base(lambda: os.environ.get("XRAY_BASE_IMAGE"), base_ref, builder.make_base),
    "PYTHON38_IMAGE": Base(lambda: os.environ.get("XRAY_PYTHON38_IMAGE"), python38_ref, _make_python38),
    "IPU_BASE_IMAGE": Base(
        lambda: os.environ.get("XRAY_IPU_BASE_IMAGE"),
        lambda: emulated().ref,
        lambda store, _: _ensure_in_layout(emulated(), store),
    ),
}


def local_base(argument: str) -> str:
    """Of builds without a container engine."""
    return BASES[argument].pulled() or BASES[argument].ref()


@dataclass(frozen=True)
class Build:
    """One target of one recipe, with its reference."""

    name: str
    recipe: Recipe
    dockerfile: Dockerfile
    target: str
    ref: str
    files: tuple[Path, ...]
    bases: Mapping[str, str]
    """By the build arguments of the FROM lines; one that is left out is as the Dockerfile says."""

    @property
    def libs(self) -> list[str]:
        """Names of the other stages below the target that are kept as images of their own."""
        stages = self.dockerfile.needed(self.target)
        return [stage.name for stage in stages if _LIBRARIES.search(stage.name) and stage.name != self.target]


def _base_arguments(stages: tuple[Stage, ...]) -> list[str]:
    return sorted({argument for stage in stages for argument in re.findall(r"\$\{(\w+)\}", stage.base)})


def plan(
    recipe: Recipe,
    name: str,
    base_of: Callable[[str], str],
    registry: str = DEFAULT_REGISTRY,
    root: Path = REPOSITORY,
) -> Build:
    """What is to be built: pure but for reading the Dockerfile and the files that it copies.

    Args:
        base_of: the image for a build argument of a FROM line; empty for the Dockerfile's own.
    """
    context = root / recipe.context
    dockerfile = parse(root / recipe.dockerfile)
    stages: tuple[Stage, ...] = dockerfile.needed(recipe.target)
    bases = {argument: ref for argument in _base_arguments(stages) if (ref := base_of(argument))}
    files = input_files(stages, context, recipe.binary)
    sources = [path for path in go_sources(context) if not path.name.endswith("_test.go")] if recipe.binary else []
    text = [*dockerfile.arguments, *(line for stage in stages for line in stage.instructions), *bases.values()]
    tag = hash_of_files([*files, *sources], context, text)
    ref = f"{registry}/xray-operator/{name}:{tag}"
    return Build(name, recipe, dockerfile, recipe.target, ref, tuple(files), bases)


def _with_target(recipe: Recipe, target: str) -> Recipe:
    return replace(recipe, target=target)


def make_context(build: Build, folder: Path) -> Path:
    """A build context that holds exactly the files that the tag was made from."""
    context = REPOSITORY / build.recipe.context
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in build.files:
        copy = folder / path.relative_to(context)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    if build.recipe.binary:
        go_build(context, ".", folder / build.recipe.binary)
    return folder


def _ensure_in_layout(build: Build, store: builder.Store) -> None:
    """Build what is missing, libraries first; afterwards the layout has the image."""
    if oci.has(builder.layout(), build.ref):
        return
    libraries = [
        plan(
            _with_target(build.recipe, stage),
            stage if "-" in stage else f"{build.name}-{stage}",
            build.bases.__getitem__,
        )
        for stage in build.libs
    ]
    cold = not libraries or any(not oci.has(builder.layout(), each.ref) for each in libraries)
    builder.need_space(build.recipe.needed_bytes if cold else build.recipe.needed_bytes // 2)
    for each in libraries:
        _ensure_in_layout(each, store)
    ready = {each.target: each.ref for each in libraries}
    text = build.dockerfile.text(build.target, ready)
    ours = {
        argument: ref
        for argument, ref in build.bases.items()
        if f"FROM ${{{argument}}}" in text and ref == BASES[argument].ref()
    }
    for argument, ref in ours.items():
        if not oci.has(builder.layout(), ref):
            BASES[argument].make(store, ref)
    with step(f"build {build.ref}"):
        for ref in [*ready.values(), *ours.values()]:
            builder.fetch(store, ref)
        context = make_context(build, store.folder / "context")
        builder.build(store, text, context, build.ref, build.target, build.bases)


def _import(cluster: Cluster, ref: str) -> None:
    layout = builder.layout()
    present = set(node.ctr(cluster, "content", "list", "-q").split())
    argv = [
        "ctr",
        "--address",
        str(cluster.containerd_socket),
        "--namespace",
        "k8s.io",
        "images",
        "import",
        "-",
    ]
    with step(f"import {ref}"):
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert process.stdin is not None
        broken: BrokenPipeError | None = None
        try:
            oci.write_archive(layout, ref, present, process.stdin)
        except BrokenPipeError as error:
            broken = error
        output = process.communicate()[0].decode()
        if process.returncode or broken:
            raise ClusterError(f"{' '.join(argv)}\nended with {process.returncode}:\n{output}") from broken
        content = cluster.root / "containerd" / "root" / "io.containerd.content.v1.content" / "blobs"
        oci.share_blobs(layout, ref, content)


def outdated(refs: list[str]) -> list[str]:
    """All but the newest builds of each image; `refs` has the newest last."""
    by_image: dict[str, list[str]] = {}
    for ref in refs:
        by_image.setdefault(ref.rpartition(":")[0].rpartition("/")[2], []).append(ref)
    kept = {name: recipe.kept for name, recipe in RECIPES.items()}
    return [ref for image, same in by_image.items() for ref in same[: -kept.get(image, 1)]]


def _loaded(cluster: Cluster) -> set[str]:
    return set(node.ctr(cluster, "images", "list", "-q").split())


def ensure_local(cluster: Cluster, name: str) -> str:
    """Have the image in the node's containerd.

    Returns: its reference.
    """
    build = plan(recipe_of(name), name, local_base)
    if build.ref in _loaded(cluster):  # before the lock: another image's build may hold it for minutes
        return build.ref
    with locked(builder.images_folder() / "lock"):
        if not oci.has(builder.layout(), build.ref):
            with builder.new_store() as store:
                _ensure_in_layout(build, store)
        _import(cluster, build.ref)
        _prune(cluster)
    return build.ref


def _prune(cluster: Cluster) -> None:
    layout = builder.layout()
    gone = outdated(oci.names(layout))
    # The kubelet's side of containerd gives every image a second name, its configuration's digest.
    configurations = {oci.digests(layout, ref)[1] for ref in gone}
    for name in _loaded(cluster) & {*gone, *configurations}:
        node.ctr(cluster, "images", "remove", name)
    oci.prune(layout, gone)


def ensure_docker(name: str, registry: str, deliver: Callable[[str], object]) -> str:
    """Build with Docker, where it answers, and hand the reference to `deliver` (kind load, or a push)."""
    with locked(builder.images_folder() / "lock"):
        ref = _ensure_in_docker(name, registry)
    deliver(ref)
    return ref


def _ensure_in_docker(name: str, registry: str) -> str:
    def base_of(argument: str) -> str:
        pulled = BASES[argument].pulled() or ""
        emulated = argument == "IPU_BASE_IMAGE" and not pulled
        return _ensure_in_docker("poplar-emulated", registry) if emulated else pulled

    build = plan(recipe_of(name), name, base_of, registry)
    if not run("docker", "image", "ls", "-q", build.ref).strip():
        builder.need_space(build.recipe.needed_bytes)
        context = make_context(build, builder.images_folder() / "docker-context")
        words = [word for each in build.bases.items() for word in ("--build-arg", "=".join(each))]
        targeted = ["--target", build.target] if build.target else []
        with step(f"build {build.ref}"):
            run("docker", "build", "--tag", build.ref, "--file", build.dockerfile.path, *targeted, *words, context)
    return build.ref


def import_archive(cluster: Cluster, archive: Path) -> str:
    """Import an image archive (docker-archive or OCI) into the node's containerd.

    Returns: what ctr says.
    """
    with step(f"import {archive}"):
        return node.ctr(cluster, "images", "import", archive)
