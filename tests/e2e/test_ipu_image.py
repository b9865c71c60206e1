"""The image that trains on IPUs: only the base that it is built on here knows the stand-in for PopTorch."""

from __future__ import annotations

import tarfile

import pytest

from dev.cluster import builder, images, oci
from dev.demo.stack import build_images

STANDIN = ("poptorch", "popart")


def files_of(digest: str) -> set[str]:
    """In one layer."""
    with tarfile.open(builder.layout() / "blobs" / digest.replace(":", "/")) as layer:
        return {member.name for member in layer}


@pytest.mark.usefixtures("kube")
def test_its_own_layers_hold_the_trainer_and_nothing_of_the_stand_in() -> None:
    ref, base = build_images("ipu")["ipu"], images.emulated().ref
    assert oci.has(builder.layout(), ref), "its layers can be looked at only where it is built without Docker"
    _, _, *layers = oci.digests(builder.layout(), ref)
    _, _, *below = oci.digests(builder.layout(), base)
    assert layers[: len(below)] == below
    own = set().union(*map(files_of, layers[len(below) :]))
    assert {"opt/trainer/xray_trainer/train.py", "opt/venv/bin/python3", "etc/image-contents"} <= own
    assert not [name for name in own if any(part.startswith(STANDIN) for part in name.split("/"))]
    assert "usr/local/lib/python3.8/site-packages/poptorch/__init__.py" in set().union(*map(files_of, below))
