"""What a backend decides is asked of the backend, and of nobody else."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import xray_operator
from xray_operator.core.backends import BACKENDS, BackendName
from xray_operator.core.backends.base import Backend

SOURCES = Path(inspect.getfile(xray_operator)).parent.parent
"""Of the operator and of the command line."""


def test_every_word_of_the_spec_has_a_backend_of_its_own() -> None:
    assert set(BACKENDS) == set(get_args(BackendName))
    assert len({type(backend) for backend in BACKENDS.values()}) == len(BACKENDS)
    assert Backend not in {type(backend) for backend in BACKENDS.values()}


def test_nobody_else_compares_a_backend_with_a_word() -> None:
    assert list(comparisons("a.backend == 'cpu' and b.backend in ('x', 'y') and 'gpu' != backend")) == [1, 1, 1]
    assert list(comparisons("match a.backend:\n  case 'cpu': pass")) == [1]
    found = {
        f"{path.relative_to(SOURCES)}:{line}"
        for path in SOURCES.rglob("*.py")
        for line in comparisons(path.read_text())
    }
    assert found == set()


def comparisons(text: str) -> Iterator[int]:
    """The lines on which something called backend is compared."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare):
            yield from (side.lineno for side in (node.left, *node.comparators) if name_of(side) == "backend")
        if isinstance(node, ast.Match) and name_of(node.subject) == "backend":
            yield node.lineno


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
