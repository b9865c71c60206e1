"""docs/architecture.md names the tests that hold each rule; they exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()


def rules(page: str) -> dict[str, str]:
    """Rule -> what the table says of its tests."""
    table = page.partition("## Rules, and the tests that hold them")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    return dict(rows[2:])  # without the head


def find_tests(*files: Path) -> set[str]:
    """The names of all test functions."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {name for name in functions if name.startswith("test_")}


def mistakes(table: dict[str, str], existing: Collection[str]) -> Iterator[str]:
    """Rules without a test, and tests that are not there."""
    for rule, told in table.items():
        named = re.findall(r"`(test_\w+)`", told)
        if not named:
            yield f"no test: {rule}"
        yield from (f"not there: {name}" for name in named if name not in existing)


def test_each_rule_has_tests_that_exist() -> None:
    assert len(rules(PAGE)) >= 10
    assert list(mistakes(rules(PAGE), find_tests(*REPOSITORY.glob("tests/**/test_*.py")))) == []


def test_each_test_of_a_rule_stands_in_the_table() -> None:
    file = REPOSITORY / "tests" / "integration" / "test_rules.py"
    assert [name for name in sorted(find_tests(file)) if f"`{name}`" not in PAGE] == []


def test_a_rule_without_its_test_is_found() -> None:
    page = "## Rules, and the tests that hold them\n| rule | tests |\n|---|---|\n| A. | `test_a`, `test_b` |\n| B. | soon |\n"
    assert list(mistakes(rules(page), {"test_a"})) == ["not there: test_b", "no test: B."]
