"""What the command line brings of the project's files: the CRDs, and the chart's flavors. Called by render and doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from xray_operator.yaml_text import parse_only_yaml

_PACKAGE: Final = Path(__file__).resolve().parent
_IN_WHEEL: Final = _PACKAGE / "shipped"
_REPOSITORY: Final = _PACKAGE.parents[1]
_IN_CHECKOUT: Final = {"crds": _REPOSITORY / "crds", "flavors": _REPOSITORY / "charts" / "xray-operator" / "flavors"}
"""A wheel has copies of these folders in _IN_WHEEL (pyproject.toml)."""


def known_crds() -> dict[str, dict[str, Any]]:
    """The CRDs of this version, by name."""
    return {crd["metadata"]["name"]: crd for crd in _read("crds").values()}


def shipped_flavors() -> dict[str, dict[str, Any]]:
    """The specs of the flavors that the chart brings, by name."""
    return _read("flavors")


def _read(name: str) -> dict[str, dict[str, Any]]:
    """Each file's document by its stem."""
    folder = _IN_WHEEL / name if _IN_WHEEL.is_dir() else _IN_CHECKOUT[name]
    return {path.stem: parse_only_yaml(path.read_bytes()) for path in sorted(folder.glob("*.yaml"))}
