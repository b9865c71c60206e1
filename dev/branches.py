"""Ends with 1 if fewer branches of the operator's core were tested than pyproject.toml asks for. Run by `make test-fast`.

coverage.py's own fail_under adds lines to branches, and many tested lines hide an untested branch.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = float(settings["tool"]["coverage"]["report"]["fail_under"])
    totals: dict[str, Any] = json.loads((REPOSITORY / "build" / "coverage.json").read_text())["totals"]
    tested, all_branches = totals["covered_branches"], totals["num_branches"]
    percent = 100 * tested / all_branches
    print(f"core: {tested} of {all_branches} branches tested ({percent:.1f} %; at least {wanted:.0f} %)")
    return 0 if percent >= wanted else 1


if __name__ == "__main__":
    sys.exit(main())
