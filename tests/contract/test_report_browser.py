"""The report in a real Chromium: light, dark, on a phone, on paper, from the keyboard, and without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from dev.cluster.tools import BROWSER_PACKAGES, need_packages
from dev.report_picture import PARTS
from tests.unit.trainer.trained import make_scene
from xray_trainer.report.pictures import FILMS, SAMPLES

pytestmark = pytest.mark.slow

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
SHEET: Any = {"width": 680, "height": 960}
"""A4 without its margins, in pixels."""
TEXT_HEIGHTS = "[...document.querySelectorAll('figure svg text')].map(text => text.getBoundingClientRect().height)"
SEVERE = ("serious", "critical")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scene = make_scene(tmp_path_factory.mktemp("browser"))
    assert scene.write() == "report.html"
    return scene.output / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; its package brings it where it is missing."""
    need_packages(BROWSER_PACKAGES)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser
        browser.close()


class Reading:
    """A page that is read, with all that it says on the console and asks for."""

    def __init__(
        self, browser: Browser, report: Path, size: Any = DESKTOP, scheme: Literal["light", "dark"] = "light"
    ) -> None:
        self.page: Page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def background(self) -> str:
        return str(self.page.evaluate("getComputedStyle(document.body).backgroundColor"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_said_on_the_console_and_nothing_fetched(
    browser: Browser, report: Path, scheme: Literal["light", "dark"]
) -> None:
    reading = Reading(browser, report, scheme=scheme)
    reading.page.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    assert reading.said == []
    outside = [url for url in reading.requests if not url.startswith("data:")]
    assert outside == [report.as_uri()]
    assert reading.page.locator(".films .plate > img:first-child").count() == FILMS
    assert reading.page.locator(".samples img").count() == SAMPLES


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    browser: Browser, report: Path, scheme: Literal["light", "dark"], size: dict[str, int]
) -> None:
    found = Axe().run(Reading(browser, report, size, scheme).page).response
    assert len(found["passes"]) > 20
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"] if one["impact"] in SEVERE] == []


def test_dark_mode_is_dark_and_plots_follow(browser: Browser, report: Path) -> None:
    light, dark = (Reading(browser, report, scheme=scheme) for scheme in ("light", "dark"))
    assert (light.background(), dark.background()) == ("rgb(255, 255, 255)", "rgb(17, 22, 28)")
    ink = "getComputedStyle(document.querySelector('figure svg text')).fill"
    assert light.page.evaluate(ink) != dark.page.evaluate(ink)


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_page_is_as_wide_as_the_screen(browser: Browser, report: Path, width: int) -> None:
    page = Reading(browser, report, {"width": width, "height": 780}).page
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_plots_are_readable_on_a_phone(browser: Browser, report: Path) -> None:
    page = Reading(browser, report, PHONE).page
    heights = page.evaluate(TEXT_HEIGHTS)
    assert min(heights) >= 7.5, "pixels of the screen, of which a phone has two or three each way for one of these"


def test_it_prints(browser: Browser, report: Path, tmp_path: Path) -> None:
    reading = Reading(browser, report, scheme="dark")
    printed = reading.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert printed.startswith(b"%PDF")
    reading.page.emulate_media(media="print", color_scheme="dark")
    assert reading.background() == "rgb(255, 255, 255)"
    assert not reading.page.locator("nav").is_visible()
    reading.page.set_viewport_size(SHEET)
    wide = "[...document.querySelectorAll('table, svg, img')].filter(one => one.getBoundingClientRect().right > 681).length"
    assert reading.page.evaluate(wide) == 0


def test_on_paper_plots_are_readable_scores_are_drawn_and_nothing_is_cut(browser: Browser, report: Path) -> None:
    page = Reading(browser, report, SHEET).page
    page.emulate_media(media="print")
    assert min(page.evaluate(TEXT_HEIGHTS)) >= 8.5, "pixels of 1/96 inch, of which letters have two thirds"
    adjusted = "[...document.querySelectorAll('.bar *')].map(bar => getComputedStyle(bar).printColorAdjust)"
    assert set(page.evaluate(adjusted)) == {"exact"}, "browsers print no backgrounds else"
    whole = "[...document.querySelectorAll('figure, tr, .keys, .beside')].map(one => getComputedStyle(one).breakInside)"
    assert set(page.evaluate(whole)) == {"avoid"}
    tops = "new Set([...document.querySelectorAll('.keys > div')].map(key => key.offsetTop)).size"
    assert page.evaluate(tops) == 1, "the key figures stand side by side"


def shown_maps(page: Page) -> int:
    opacities = "[...document.querySelectorAll('.attention')].map(map => Number(getComputedStyle(map).opacity))"
    return sum(opacity == 1 for opacity in page.evaluate(opacities))


def test_the_attention_maps_can_be_switched_on_from_the_keyboard(browser: Browser, report: Path) -> None:
    page = browser.new_context(viewport=DESKTOP, reduced_motion="reduce").new_page()
    page.goto(report.as_uri())
    switch = page.get_by_label("Show where the model looked")
    assert shown_maps(page) == 0
    reach(page, switch)
    page.keyboard.press("Space")
    assert shown_maps(page) == FILMS
    page.keyboard.press("Space")
    assert shown_maps(page) == 0


@pytest.mark.parametrize("part", PARTS)
def test_pictures_for_the_documentation_can_be_taken(browser: Browser, report: Path, part: str) -> None:
    page = Reading(browser, report).page
    page.emulate_media(reduced_motion="reduce")
    assert all(shot.startswith(b"\x89PNG") for shot in PARTS[part](page))
    assert shown_maps(page) == (FILMS if part == "attention" else 0)


def reach(page: Page, target: Any) -> None:
    """By the tab key alone."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if target.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError("the tab key doesn't lead there")


def test_every_link_and_wide_table_is_reached_by_the_tab_key(browser: Browser, report: Path) -> None:
    page = Reading(browser, report, PHONE).page
    wanted = page.locator("a, input, .scroll").count()
    reached = set()
    for _ in range(wanted):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate("[...document.querySelectorAll('a, input, .scroll')].indexOf(document.activeElement)")
        )
    assert reached == set(range(wanted))
