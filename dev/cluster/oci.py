"""The images that were built here, as one OCI layout folder. Used by images.py.

Layers are kept uncompressed: compressing 6 GB of libraries takes longer than everything else together, and
an uncompressed layer is found again by its digest, so pushing a second image with the same libraries below
writes only what is new. containerd takes an archive that lacks the blobs it has already, so a changed line
of code moves kilobytes, not gigabytes. After the import each large blob is a hard link to containerd's own
copy: kept here, it takes no further space.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

_NAME = "org.opencontainers.image.ref.name"


def _index(layout: Path) -> dict[str, Any]:
    path = layout / "index.json"
    empty: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
    return json.loads(path.read_text()) if path.exists() else empty


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _descriptor(layout: Path, ref: str) -> dict[str, Any] | None:
    entries = _index(layout)["manifests"]
    return next((entry for entry in entries if entry.get("annotations", {}).get(_NAME) == ref), None)


def has(layout: Path, ref: str) -> bool:
    return _descriptor(layout, ref) is not None


def names(layout: Path) -> list[str]:
    """The images' references, the newest last."""
    return [str(entry["annotations"][_NAME]) for entry in _index(layout)["manifests"]]


def digests(layout: Path, ref: str) -> list[str]:
    """Manifest, configuration and layers of an image."""
    descriptor = _descriptor(layout, ref)
    if descriptor is None:
        return []
    manifest = json.loads(_blob(layout, descriptor["digest"]).read_text())
    parts = [manifest["config"], *manifest["layers"]]
    return [str(descriptor["digest"]), *(str(part["digest"]) for part in parts)]


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    header = tarfile.TarInfo(name)
    header.size = len(text.encode())
    archive.addfile(header, io.BytesIO(text.encode()))


def write_archive(layout: Path, ref: str, present: Collection[str], out: IO[bytes]) -> None:
    """Write the image as an OCI archive for `ctr images import`, without the blobs in `present`."""
    descriptor = dict(_descriptor(layout, ref) or {})
    descriptor["annotations"] = {"io.containerd.image.name": ref, _NAME: ref}
    with tarfile.open(fileobj=out, mode="w|") as archive:
        _add_text(archive, "oci-layout", '{"imageLayoutVersion": "1.0.0"}')
        _add_text(archive, "index.json", json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
        for digest in digests(layout, ref):
            if digest not in present:
                archive.add(_blob(layout, digest), arcname=f"blobs/{digest.replace(':', '/')}")


def share_blobs(layout: Path, ref: str, content: Path) -> None:
    """Make the image's blobs hard links to those below `content` (containerd's store), if on one disk."""
    for digest in digests(layout, ref):
        ours, theirs = _blob(layout, digest), content / digest.replace(":", "/")
        if theirs.exists() and theirs.stat().st_dev == ours.stat().st_dev and not ours.samefile(theirs):
            part = ours.with_name(ours.name + ".part")
            part.unlink(missing_ok=True)
            os.link(theirs, part)
            part.rename(ours)


def prune(layout: Path, gone: Collection[str]) -> None:
    """Forget the images in `gone` and delete the blobs that no other image needs."""
    index = _index(layout)
    index["manifests"] = [entry for entry in index["manifests"] if entry["annotations"][_NAME] not in gone]
    part = layout / "index.json.part"
    part.write_text(json.dumps(index))
    part.rename(layout / "index.json")
    needed = {digest for ref in names(layout) for digest in digests(layout, ref)}
    for path in (layout / "blobs" / "sha256").iterdir():
        if f"sha256:{path.name}" not in needed:
            path.unlink()
