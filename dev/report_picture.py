"""A picture of a report for the documentation: `python -m dev.report_picture REPORT.html PICTURE.png`.

The beginning of the page beside its held-out films, as Chromium shows them. Of generated X-rays only: a picture goes into the
repository.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from dev.cluster.tools import BROWSER_PACKAGES, need_packages

WIDTH, HEIGHT = 1000, 1300
COLOURS = 256


def main(report: Path, picture: Path) -> int:
    need_packages(BROWSER_PACKAGES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
        page.goto(report.resolve().as_uri())
        beginning = page.screenshot()
        page.locator("#films").evaluate("section => window.scrollTo(0, section.offsetTop)")
        films = page.screenshot()
        browser.close()
    both = Image.new("RGB", (2 * WIDTH, HEIGHT))
    for place, shot in enumerate((beginning, films)):
        both.paste(Image.open(io.BytesIO(shot)), (place * WIDTH, 0))
    small = both.resize((both.width * 7 // 10, both.height * 7 // 10), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, Image.Quantize.FASTOCTREE).save(picture, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
