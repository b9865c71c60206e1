"""Builds an image from a Dockerfile without a container engine (buildah), and the base image that cannot be
pulled.

The build store lives for one build; what lasts is the OCI layout (oci.py). Used by images.py.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.cluster.state import ClusterError, home, step
from dev.cluster.tools import NODE_PACKAGES, need_packages, run, unmount_below

SUITE = "trixie"
"""Debian 13 with Python 3.13, as in the Dockerfiles' own python:3.13-slim-trixie."""
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
BASE_BYTES = 2 * 10**9

_PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "cert", "timeout", "retries")
"""pip's settings about where packages come from; others, like folders, mean nothing in a container."""


def images_folder() -> Path:
    return home() / "images"


def layout() -> Path:
    return images_folder() / "oci"


def check_space(folder: Path, needed: int, free: int) -> None:
    """Raises: ClusterError if less than `needed` bytes are free in the folder."""
    if free < needed:
        raise ClusterError(
            f"{folder}: {free:,} bytes free, {needed:,} needed for this build; "
            "free some (`down --purge --all` removes all that was built), or set XDG_CACHE_HOME to a larger disk"
        )


def need_space(needed: int) -> None:
    folder = images_folder()
    folder.mkdir(parents=True, exist_ok=True)
    check_space(folder, needed, shutil.disk_usage(folder).free)


@dataclass(frozen=True)
class Store:
    """buildah's storage for one build, and a folder for its temporary files."""

    folder: Path

    def buildah(self, *arguments: str | Path) -> str:
        env = {
            "BUILDAH_ISOLATION": "chroot",
            "STORAGE_DRIVER": "overlay",
            "TMPDIR": str(self.folder / "tmp"),
        }
        roots = ("--root", self.folder / "root", "--runroot", self.folder / "run")
        return run("buildah", *roots, *arguments, env=env, cwd=images_folder())


def _remove_store(folder: Path) -> None:
    unmount_below(folder)
    shutil.rmtree(folder)


@contextlib.contextmanager
def new_store() -> Iterator[Store]:
    """A store that is gone afterwards; call it with the images lock held."""
    need_packages(NODE_PACKAGES)
    folder = images_folder() / "build"
    if folder.exists():  # of a build that was killed
        _remove_store(folder)
    (folder / "tmp").mkdir(parents=True)
    try:
        yield Store(folder)
    finally:
        _remove_store(folder)


def pip_settings(environment: Mapping[str, str], files: list[str]) -> dict[str, str]:
    """Where the host's pip finds packages: texts of its configuration files, environment on top."""
    found: dict[str, str] = {}
    for text in files:
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        for section in ("global", "install"):
            if parser.has_section(section):
                found.update({key.replace("_", "-"): value for key, value in parser.items(section)})
    for key in _PIP_KEYS:
        from_environment = environment.get("PIP_" + key.upper().replace("-", "_"))
        found.update({key: from_environment} if from_environment else {})
    return {key: value for key, value in found.items() if key in _PIP_KEYS}


def _host_pip_files() -> list[str]:
    named = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"]
    if os.environ.get("PIP_CONFIG_FILE"):
        named.append(Path(os.environ["PIP_CONFIG_FILE"]))
    return [path.read_text() for path in named if path.is_file()]


def _host_mounts(store: Store) -> list[str]:
    """--volume options: the host's certificates and package index settings, for the build, in no layer."""
    volumes = ["/etc/ssl/certs:/etc/ssl/certs:ro"]
    settings = pip_settings(os.environ, _host_pip_files())
    pip_conf = store.folder / "pip.conf"
    pip_conf.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))
    volumes.append(f"{pip_conf}:/etc/pip.conf:ro")
    uv = [path for path in (Path.home() / ".config/uv/uv.toml", Path("/etc/uv/uv.toml")) if path.is_file()]
    volumes.extend(f"{path}:/etc/uv/uv.toml:ro" for path in uv[:1])
    return [word for volume in volumes for word in ("--volume", volume)]


def build(
    store: Store, dockerfile_text: str, context: Path, ref: str, target: str, arguments: Mapping[str, str]
) -> None:
    """Build one target and keep it as `ref`. The images that its FROM lines name must be in the store."""
    dockerfile = store.folder / "Dockerfile"
    dockerfile.write_text(dockerfile_text)
    words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    targeted = ["--target", target] if target else []
    # Straight into the layout: by way of the store's own images each layer would be written twice more.
    store.buildah(
        "build", "--layers=false", "--disable-compression", "--file", dockerfile, "--tag", f"oci:{layout()}:{ref}",
        *targeted, *words, *_host_mounts(store), context,
    )  # fmt: skip


def fetch(store: Store, ref: str) -> None:
    """Have an image of the layout in the store, under its reference."""
    # Relative, because buildah makes a name of the folder, and one that begins with a dot is none.
    image = store.buildah("pull", "--quiet", f"oci:{layout().name}:{ref}").strip()
    store.buildah("tag", image, ref)


def apt_mirror(targets: str) -> str:
    """The Debian mirror that apt uses, from `apt-get indextargets --format '$(SITE) $(ORIGIN) $(LABEL)'`.

    Raises: ClusterError if apt knows none.
    """
    for line in targets.splitlines():
        if line.split()[1:] == ["Debian", "Debian"]:
            return line.split()[0]
    raise ClusterError(
        "apt-get indextargets: names no Debian mirror, which the base image is made from; expected one in apt's "
        "sources, or XRAY_BASE_IMAGE=NAME, an image with Python 3.11 or newer that can be pulled here"
    )


def make_base(store: Store, ref: str) -> None:
    """Keep a Debian with Python as `ref`: what FROM names cannot be pulled where no registry is in reach."""
    need_space(BASE_BYTES)
    run("apt-get", "update")
    mirror = apt_mirror(run("apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(LABEL)"))
    folder = store.folder / "base"
    rootfs = folder / "rootfs"
    with step(f"base image (Debian {SUITE})"):
        folder.mkdir()
        run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, rootfs, mirror)
        for path in [*rootfs.glob("var/cache/apt/archives/*.deb"), *rootfs.glob("var/lib/apt/lists/*_*")]:
            path.unlink()
        run("tar", "--create", "--numeric-owner", "--file", folder / "rootfs.tar", "--directory", rootfs, ".")
        shutil.rmtree(rootfs)
        text = 'FROM scratch\nADD rootfs.tar /\nENV LANG=C.UTF-8\nCMD ["python3"]\n'
        build(store, text, folder, ref, "", {})
        shutil.rmtree(folder)


def host_python38() -> Path:
    """Where this machine's Python 3.8 is. Raises: ClusterError if pyenv has none."""
    try:
        return Path(run("pyenv", "prefix", "3.8").strip())
    except ClusterError as error:
        raise ClusterError(
            "pyenv prefix 3.8: none; expected one ('pyenv install 3.8' brings it), or XRAY_PYTHON38_IMAGE=NAME, an image with "
            "Python 3.8 in /usr/local that can be pulled here"
        ) from error


def make_python38(store: Store, ref: str, base: str) -> None:
    """Keep this machine's Python 3.8 on a Debian as `ref`; the base has to be in the store."""
    folder = store.folder / "python38"
    left_out = shutil.ignore_patterns("__pycache__", "site-packages", "test", "idlelib", "tkinter", "*.a")
    with step("base image with Python 3.8"):
        shutil.copytree(host_python38(), folder / "python", symlinks=True, ignore=left_out)
        text = (
            f"FROM {base}\n"
            "COPY python /usr/local\n"
            "RUN ldconfig && ln -sf python3.8 /usr/local/bin/python3"
            " && python3 -c 'import bz2, ctypes, lzma, sqlite3, ssl, zlib'"
            " && python3 -m ensurepip\n"
        )
        build(store, text, folder, ref, "", {})
        shutil.rmtree(folder)
