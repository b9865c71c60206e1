"""What mkdocs is told beside mkdocs.yml: pages may link to files of the repository, which the site doesn't have."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final

DOCS: Final = Path(__file__).parents[1] / "docs"
OUTSIDE: Final = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links out of docs/ lead to the sources where XRAY_SOURCES_URL says that these are, and are plain text otherwise.

    Raises: FileNotFoundError for a link to what isn't there.
    """
    folder = (DOCS / page.file.src_uri).parent
    sources = os.environ.get("XRAY_SOURCES_URL", "").rstrip("/")

    def outside(link: re.Match[str]) -> str:
        text, path, anchor = link[1], (folder / link[2]).resolve(strict=True), link[3] or ""
        if path.is_relative_to(DOCS):
            return link[0]
        return f"[{text}]({sources}/{path.relative_to(DOCS.parent)}{anchor})" if sources else text

    return OUTSIDE.sub(outside, markdown)
