"""Data that is damaged or doesn't fit: what is left out and counted, what ends the run, and what is told of it.

All runs are started at once; names of files identify patients and must not leave the volume.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.demo.stack import Kube, claim, restricted_pod, run_pod_job
from tests.e2e.bad_data import ARCHIVE, IMAGES, LABELS_FILE
from tests.e2e.places import CLAIM, Place, cpu_flavor

pytestmark = pytest.mark.e2e

FLAVOR = "e2e-bad-data"
PATIENT = re.compile(r"\d{8}_\d{3}|\b(0000|9999)\d{4}\b")
"""A generated file's name, or its patient."""

REFUSED = [
    ("many-bad", rf": {ARCHIVE}: member 11: not a PNG .*10 of {IMAGES} images unreadable"),
    ("absent", rf": {ARCHIVE}: member 1: no label row; no usable image is left \({IMAGES} no label row\)"),
    ("empty", "archives and folders are empty; expected PNG or JPEG images"),
    ("no-archive", r"no images_\*\.tar\.gz and no files in images/"),
    ("no-labels", f"{LABELS_FILE}: no such file; expected the labels as a CSV file"),
    (
        "no-patients",
        f": {LABELS_FILE}: line 1: no column Patient ID; there are Image Index, Finding Labels, Follow-up #",
    ),
    ("cut", f": {ARCHIVE}: after member [0-9]+: .*expected a whole .tar.gz archive"),
]
"""Folder, and what the message must say."""


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str) -> Iterator[Place]:
    """All runs of this module under way."""
    claim(kube, module_namespace, CLAIM)
    program = Path(__file__).with_name("bad_data.py").read_text()
    pod = restricted_pod(prepare_image, [], {CLAIM: "/data"}, ["python3", "-c", program, "/data"])
    run_pod_job(kube, module_namespace, "generate", pod, 120)
    with cpu_flavor(kube, FLAVOR):
        place = Place(kube, module_namespace, FLAVOR)
        for folder in ("few-bad", *(folder for folder, _ in REFUSED)):
            place.start(folder, folder)
        yield place


def conditions(status: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {each["type"]: each for each in status["conditions"]}


def told(place: Place) -> str:
    """What the cluster shows of the namespace's runs: resources, Events, the pods' states with termination messages."""
    states = [pod["status"] for pod in place.kube.items("pods", place.namespace)]
    assert any("exit_code" in json.dumps(state) for state in states), "termination messages are looked at"
    return json.dumps([states, *(place.kube.items(kind, place.namespace) for kind in ("xraytrainingjobs", "events"))])


@pytest.mark.parametrize(("folder", "message"), REFUSED, ids=[folder for folder, _ in REFUSED])
def test_data_that_can_t_be_used_end_the_run_and_say_where(place: Place, folder: str, message: str) -> None:
    found = conditions(place.wait(folder))
    assert (found["Succeeded"]["status"], found["Succeeded"]["reason"]) == ("False", "DataCorrupt")
    assert re.search(message, found["Succeeded"]["message"]), found["Succeeded"]["message"]
    assert found["Stalled"]["status"] == "True"
    assert not PATIENT.search(told(place))


def test_a_few_bad_images_are_left_out_and_counted(place: Place) -> None:
    """One that is no PNG, half of one, one without a label row, and so one row without an image."""
    status = place.wait("few-bad")
    found = conditions(status)
    assert found["Succeeded"]["status"] == "True", found["Succeeded"]
    assert found["Stalled"]["status"] == "False"
    assert (status["data"]["images"], status["data"]["rejected"]) == (IMAGES - 3, 3)
    assert not PATIENT.search(told(place))
