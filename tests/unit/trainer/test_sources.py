"""What holds for the sources of the package, whichever module is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "trainer-image" / "xray_trainer"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
TRAINING_LOOP = {"Trainer", "TrainerCallback", "TrainerControl", "TrainerState", "TrainingArguments"}
NEWER_MODULES = {"graphlib", "tomllib", "zoneinfo"}
NEWER_NAMES = {
    "datetime.UTC",
    "enum.StrEnum",
    "functools.cache",
    "hashlib.file_digest",
    "itertools.batched",
    "itertools.pairwise",
    "math.lcm",
    "typing.Annotated",
    "typing.ParamSpec",
    "typing.Self",
    "typing.TypeAlias",
    "typing.assert_never",
}
"""Of the standard library, since Python 3.9 or later; those that are easily taken for older."""


def names_used(source: str) -> Iterator[str]:
    """Imported modules, imported names and attributes, the last two with what stands before the dot."""
    for node in ast.walk(ast.parse(source, feature_version=(3, 8))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("module", MODULES)
def test_sources_are_python_3_8_and_use_its_standard_library(module: str) -> None:
    used = set(names_used((PACKAGE / module).read_text()))
    assert used & (NEWER_MODULES | NEWER_NAMES) == set()


@pytest.mark.parametrize("module", [module for module in MODULES if not module.startswith("backends/")])
def test_only_backends_know_the_training_loop(module: str) -> None:
    used = set(names_used((PACKAGE / module).read_text()))
    assert used & {f"transformers.{name}" for name in TRAINING_LOOP} == set()
