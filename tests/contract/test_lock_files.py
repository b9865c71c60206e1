"""Lock files hold what pyproject.toml asks for, in lines that pip takes. An old lock is found here; `make lock` mends it."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
Document = dict[str, Any]

LOCKS = (
    "operator/requirements.txt",
    "trainer-image/requirements/prepare.txt",
    "trainer-image/requirements/torch.txt",
    "requirements-dev.txt",
)
APART = (
    "trainer-image/requirements/ipu.txt",
    "benchmarks/decoders.txt",
    "tests/mlflow/requirements.txt",
    "tests/s3/requirements.txt",
    "tests/python38/requirements.txt",
)
"""Of environments of their own, whose packages are not installed here."""
LEFT_OUT = {"triton", "cmake", "lit", "hf-xet"}
"""torch and huggingface-hub ask for them, and we don't: the Makefile says why."""
ALONE = {
    canonicalize_name(each["name"]): each["requires-dist"]
    for each in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["uv"]["dependency-metadata"]
}
"""Packages of which only data are read, with what the lock is told that they need."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""The images' and the contributors'."""
PLATFORMS: tuple[dict[str, str], ...] = (
    {"sys_platform": "linux", "platform_machine": "x86_64"},
    {"sys_platform": "linux", "platform_machine": "aarch64"},
)


class Locked(NamedTuple):
    """An entry of a lock file."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """Empty if it is not one version."""
        pin = re.fullmatch(r"==([^*,]+)", str(self.requirement.specifier))
        return pin[1] if pin else ""

    def counts(self, environment: dict[str, str] | None = None) -> bool:
        """Whether pip installs it there; without an environment, here."""
        marker = self.requirement.marker
        return marker is None or marker.evaluate(environment)


def read_lock(text: str) -> list[Locked]:
    """The entries of a lock file."""
    lines = text.replace("\\\n", " ").splitlines()
    parts = [line.split(" --hash=") for line in lines if line.strip()]
    return [Locked(Requirement(head), tuple(word.strip() for word in hashes)) for head, *hashes in parts]


def projects(edit: Callable[[str], str] = str) -> tuple[Document, Document]:
    """pyproject.toml of operator and trainer, after an edit of their texts."""
    operator, trainer = (REPOSITORY / path for path in ("pyproject.toml", "trainer-image/pyproject.toml"))
    return tomllib.loads(edit(operator.read_text())), tomllib.loads(edit(trainer.read_text()))


def asked_for(lock: str, operator: Document, trainer: Document) -> list[str]:
    """The direct requirements of a lock file, as in the Makefile's `lock`."""
    extras: dict[str, list[str]] = trainer["project"]["optional-dependencies"]
    image: list[str] = trainer["project"]["dependencies"]
    process: list[str] = operator["project"]["dependencies"]
    if lock == "operator/requirements.txt":
        return process
    if lock == "requirements-dev.txt":
        return [*process, *operator["dependency-groups"]["dev"], *image, *extras["prepare"], *extras["torch"]]
    return [*image, *extras[Path(lock).stem]]


def needed(direct: Iterable[str]) -> set[str]:
    """These packages and all that they need here, by the metadata of what is installed."""
    seen: set[tuple[str, str]] = set()
    wanted = [Requirement(line) for line in direct]
    while wanted:
        requirement = wanted.pop()
        for extra in {"", *requirement.extras}:
            key = (canonicalize_name(requirement.name), extra)
            if key not in seen:
                seen.add(key)
                wanted += dependencies(requirement.name, extra)
    return {name for name, _ in seen}


@cache
def dependencies(name: str, extra: str) -> list[Requirement]:
    """None, if the package is not installed."""
    try:
        found = [Requirement(line) for line in ALONE.get(canonicalize_name(name), requires(name) or ())]
    except PackageNotFoundError:
        return []
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": extra})]


def differences(direct: Sequence[str], lock: Sequence[Locked]) -> list[str]:
    """What a lock file lacks, has in another version than was asked for, or holds for nobody."""
    told = other_versions(direct, lock)
    here, wanted_here = {entry.name for entry in lock if entry.counts()}, needed(direct) - LEFT_OUT
    told += [f"{name} is not locked" for name in sorted(wanted_here - here)]
    return told + [f"{name} is locked, and nothing needs it" for name in sorted(here - wanted_here)]


def other_versions(direct: Iterable[str], lock: Sequence[Locked]) -> list[str]:
    """What was asked for and is locked in a version that doesn't fit."""
    told = []
    for line in direct:
        wanted = Requirement(line)
        entries = [entry for entry in lock if entry.name == canonicalize_name(wanted.name)]
        told += [f"{line}: locked is {e.version}" for e in entries if not wanted.specifier.contains(e.version or "0")]
    return told


def faults(lock: Sequence[Locked]) -> list[str]:
    """What pip would refuse with --require-hashes."""
    told = [f"{entry.requirement}: not one version" for entry in lock if not entry.version]
    for entry in lock:
        if not entry.hashes or not all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in entry.hashes):
            told.append(f"{entry.requirement}: hashes missing or spoilt")
    for python in PYTHONS:
        for platform in PLATFORMS:
            environment = platform | {"python_version": python, "python_full_version": f"{python}.0"}
            count = Counter(entry.name for entry in lock if entry.counts(environment))
            told += [f"{name} twice on Python {python}" for name, times in count.items() if times > 1]
    return told


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_what_is_asked_for_and_what_that_needs(lock: str) -> None:
    assert differences(asked_for(lock, *projects()), read_lock((REPOSITORY / lock).read_text())) == []


@pytest.mark.parametrize("lock", ["trainer-image/requirements/ipu.txt", "tests/python38/requirements.txt"])
def test_the_locks_of_python_3_8_hold_what_the_ipu_image_asks_for(lock: str) -> None:
    direct = asked_for("trainer-image/requirements/ipu.txt", *projects())
    entries = read_lock((REPOSITORY / lock).read_text())
    assert other_versions(direct, entries) == []
    assert {canonicalize_name(Requirement(line).name) for line in direct} <= {entry.name for entry in entries}


def test_the_tests_run_with_what_the_ipu_image_holds() -> None:
    image, tests = (
        set(read_lock((REPOSITORY / path / f"{name}.txt").read_text()))
        for path, name in (("trainer-image/requirements", "ipu"), ("tests/python38", "requirements"))
    )
    assert image <= tests
    assert "pytest" in {entry.name for entry in tests - image}


@pytest.mark.parametrize("lock", [*LOCKS, *APART])
def test_pip_takes_every_line_of_a_lock(lock: str) -> None:
    entries = read_lock((REPOSITORY / lock).read_text())
    assert entries
    assert faults(entries) == []


def test_every_lock_that_is_made_is_looked_at() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    recipe = makefile.split("\nlock:", 1)[1].split("\n\n", 1)[0]
    assert sorted(re.findall(r" -o (\S+)", recipe)) == sorted([*LOCKS, *APART])
    assert set(re.findall(r"--no-emit-package (\S+)", makefile)) == LEFT_OUT


@pytest.mark.parametrize(
    ("lock", "before", "after", "told"),
    [
        ("operator/requirements.txt", "kopf", "kopf>=99", r"kopf>=99: locked is 1\."),
        ("operator/requirements.txt", "pydantic>=2.12", "pydantic<2", r"pydantic<2: locked is 2\."),
        ("operator/requirements.txt", "aiohttp", "pytest", "pytest is not locked"),
        ("operator/requirements.txt", "kubernetes", "", "kubernetes is locked, and nothing needs it"),
        ("requirements-dev.txt", "mypy", "mypy<1", r"mypy<1: locked is \d"),
        ("requirements-dev.txt", "ruff", "ruff-lsp", "ruff-lsp is not locked"),
        ("requirements-dev.txt", "torch", "torch>=99", r"torch>=99: locked is 2\."),
        ("trainer-image/requirements/torch.txt", "accelerate", "", "accelerate is locked, and nothing needs it"),
        ("trainer-image/requirements/torch.txt", "numpy", "numpy<2", r"numpy<2: locked is 2\."),
        ("trainer-image/requirements/prepare.txt", "pillow", "pillow>=99", r"pillow>=99: locked is 1\d\."),
        ("trainer-image/requirements/prepare.txt", "pillow", "torch", "torch is not locked"),
    ],
)
def test_a_changed_pyproject_with_an_old_lock_is_found(lock: str, before: str, after: str, told: str) -> None:
    documents = projects(lambda text: re.sub(f'"{before}[^"]*",', f'"{after}",' if after else "", text))
    found = differences(asked_for(lock, *documents), read_lock((REPOSITORY / lock).read_text()))
    assert any(re.match(told, each) for each in found), found


HASH = f" --hash=sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (f"torch==2{HASH}\ntorch==3 ; python_full_version >= '3.12'{HASH}", "torch twice on Python 3.12"),
        (f"torch>=2{HASH}", "torch>=2: not one version"),
        (f"torch==2.*{HASH}", r"torch==2\.\*: not one version"),
        (f"torch @ https://example.org/torch.whl{HASH}", "torch @ .*: not one version"),
        ("torch==2", "torch==2: hashes missing"),
        ("torch==2 --hash=md5:0123", "torch==2: hashes missing"),
    ],
)
def test_a_line_that_pip_would_not_take_is_found(lines: str, told: str) -> None:
    assert faults(read_lock(f"numpy==2{HASH}")) == []
    found = faults(read_lock(lines))
    assert any(re.match(told, each) for each in found), found
