"""Hostile input ends `prepare`, or is left out, within bounds of time and memory, and nobody's name is told.

Each case runs the real program in a process of its own.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.build import TRAINER, run_document
from tests.unit.trainer.hostile import (
    ARCHIVE,
    CANARY,
    GOOD,
    JPEG_NAME,
    LEFT_OUT,
    NAME,
    REFUSED,
    REFUSED_MEMBERS,
    Make,
    largest,
    member,
    with_member,
)

pytestmark = pytest.mark.slow

MAX_SECONDS = 30
MAX_MEMORY_BYTES = 1 << 30
MAX_ADDRESSES_BYTES = 4 << 30
"""Safety net for this machine; libraries reserve more addresses than they use."""
CORES = 16
"""As many images are decoded at once, on however few real ones."""
PROGRAM = f"""
import pathlib, re, resource, runpy
import xray_trainer.resources
xray_trainer.resources.available_cores = lambda: {CORES}
resource.setrlimit(resource.RLIMIT_AS, ({MAX_ADDRESSES_BYTES}, {MAX_ADDRESSES_BYTES}))
try:
    runpy.run_module("xray_trainer", run_name="__main__", alter_sys=True)
finally:
    print(re.search(r"VmHWM:\\s*(\\d+) kB", pathlib.Path("/proc/self/status").read_text()).group(1))
"""
"""`python -m xray_trainer`, which at its end prints the most memory that it has taken, in KiB."""


@dataclass(frozen=True)
class Ending:
    """How `prepare` ended."""

    result: dict[str, Any]
    told: str
    """Log, result and what lies in the output folder: all that leaves the data's volume."""
    listed: list[list[str]]
    """Rows of the list on the cache volume; without its heading."""


def prepare(folder: Path, max_seconds: int = MAX_SECONDS, **dataset: object) -> Ending:
    """Run it on `folder`/nih. Fails the test beyond the bounds."""
    (folder / "run.json").write_text(json.dumps(run_document(folder, dataset=dataset)))
    result = folder / "result.json"
    options = ["prepare", "--run-file", str(folder / "run.json"), "--result-file", str(result)]
    command = [sys.executable, "-c", PROGRAM, *options]
    ended = subprocess.run(command, cwd=TRAINER, capture_output=True, text=True, timeout=max_seconds, check=False)
    document = json.loads(result.read_text())
    assert document["exit_code"] == ended.returncode, ended.stderr
    assert int(ended.stdout) * 1024 <= MAX_MEMORY_BYTES
    outputs = [path.read_text() for path in (folder / "out").glob("**/*") if path.is_file()]
    return Ending(document, "".join([ended.stderr, result.read_text(), *outputs]), read_list(folder / "cache"))


def read_list(cache: Path) -> list[list[str]]:
    lists = [*cache.glob("*/rejected.csv"), *cache.glob("*-rejected.csv")]
    return [row for path in lists for row in list(csv.reader(path.read_text().splitlines()))[1:]]


def require_no_patient_in(told: str) -> None:
    assert str(CANARY) not in told
    assert f"{CANARY}".encode().hex(" ") not in told


@pytest.mark.parametrize(("make", "expected"), REFUSED_MEMBERS.values(), ids=REFUSED_MEMBERS.keys())
def test_a_hostile_member_is_refused_by_its_ordinal(tmp_path: Path, make: Make, expected: str) -> None:
    make(tmp_path / "nih")
    ending = prepare(tmp_path)
    assert (ending.result["exit_code"], ending.result["reason"]) == (11, "DataCorrupt")
    assert ending.result["message"].startswith(f"{ARCHIVE}: member {GOOD + 1}: ")
    assert expected in ending.result["message"]
    require_no_patient_in(ending.told)
    place, ordinal, name, reason, _ = ending.listed[-1]
    assert (place, ordinal, reason) == (ARCHIVE, str(GOOD + 1), "refused")
    assert name.endswith(NAME)


@pytest.mark.parametrize(("make", "expected"), REFUSED.values(), ids=REFUSED.keys())
def test_hostile_archives_and_labels_are_refused(tmp_path: Path, make: Make, expected: str) -> None:
    make(tmp_path / "nih")
    ending = prepare(tmp_path)
    assert (ending.result["exit_code"], ending.result["reason"]) == (11, "DataCorrupt")
    assert re.search(expected, ending.result["message"]), ending.result["message"]
    require_no_patient_in(ending.told)


@pytest.mark.parametrize(("make", "expected"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_a_hostile_image_is_left_out_and_the_rest_kept(tmp_path: Path, make: Make, expected: str) -> None:
    make(tmp_path / "nih")
    ending = prepare(tmp_path)
    assert (ending.result["exit_code"], ending.result["images"], ending.result["rejected"]) == (0, GOOD, 1)
    require_no_patient_in(ending.told)
    ((place, ordinal, name, reason, detail),) = ending.listed
    assert (place, ordinal, reason) == (ARCHIVE, str(GOOD + 1), "unreadable")
    assert name in (f"images/{NAME}", f"images/{JPEG_NAME}")
    assert detail.startswith(expected)


def test_a_hostile_image_ends_a_run_that_takes_none(tmp_path: Path) -> None:
    make, _ = LEFT_OUT["17000 x 17000"]
    make(tmp_path / "nih")
    ending = prepare(tmp_path, on_bad_image={"mode": "Fail", "max_share": 0.0})
    assert ending.result["exit_code"] == 11
    assert ending.result["message"].startswith(f"{ARCHIVE}: member {GOOD + 1}: more than 33554432 pixels; expected")
    assert ending.listed[-1][2] == f"images/{NAME}"


def test_memory_is_bounded_where_everything_is_as_large_as_allowed(tmp_path: Path) -> None:
    largest(tmp_path / "nih")
    ending = prepare(tmp_path, max_seconds=120)
    assert (ending.result["images"], ending.result["rejected"]) == (14, 20_000)
    assert len(ending.listed) == 20_000


def test_no_name_in_the_list_is_a_formula(tmp_path: Path) -> None:
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "line\nbreak", "\udcff.png", 'quo"te']
    with_member(lambda: b"".join(map(member, names)))(tmp_path / "nih")
    ending = prepare(tmp_path)
    assert ending.result["rejected"] == len(names)
    listed = (next((tmp_path / "cache").glob("*/rejected.csv"))).read_bytes().decode()
    for name in ("'=cmd|' /C calc'!A0", "'+1", "'-1", "'@SUM(1)", "'\t=1", '"\'\r=1"', '"line\nbreak"', "\\udcff.png"):
        assert f",{name}," in listed
