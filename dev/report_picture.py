"""A picture of a report for the documentation: `python -m dev.report_picture REPORT.html PICTURE.png [PART]`.

PART is `beginning` (the page's beginning beside its held-out films, if left out), `roc` (ROC curves and reliability) or
`attention` (the films with attention maps), as Chromium shows them. Of generated X-rays only: a picture goes into the
repository.
"""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from dev.cluster.tools import BROWSER_PACKAGES, need_packages

WIDTH, HEIGHT = 1000, 1300
WIDEST = 1400
"""Of a picture, in pixels."""
COLOURS = 256
MARGIN = ".panels { padding: 1.25rem }"
"""The page's, which what is cut out of it has not."""


def take_beginning(page: Page) -> list[bytes]:
    return [page.screenshot(), take_films(page)]


def take_films(page: Page) -> bytes:
    page.locator("#films").evaluate("section => window.scrollTo(0, section.offsetTop)")
    return page.screenshot()


def take_roc(page: Page) -> list[bytes]:
    return [page.locator(".panels").screenshot(style=MARGIN)]


def take_attention(page: Page) -> list[bytes]:
    page.get_by_label("Show where the model looked").check()
    return [take_films(page)]


PARTS: Final[Mapping[str, Callable[[Page], list[bytes]]]] = {
    "beginning": take_beginning,
    "roc": take_roc,
    "attention": take_attention,
}
"""PNG files that stand side by side."""


def main(report: Path, picture: Path, part: str = "beginning") -> int:
    need_packages(BROWSER_PACKAGES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        page.goto(report.resolve().as_uri())
        shots = [Image.open(io.BytesIO(shot)) for shot in PARTS[part](page)]
        browser.close()
    together = Image.new("RGB", (sum(shot.width for shot in shots), shots[0].height))
    for place, shot in enumerate(shots):
        together.paste(shot, (place * shot.width, 0))
    together.thumbnail((WIDEST, together.height), Image.Resampling.LANCZOS)
    together.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
