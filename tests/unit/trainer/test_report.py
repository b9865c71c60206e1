"""The report: what its page and its document hold, and that it costs no run."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from tests.unit.trainer.trained import BEGIN, Scene, evaluation, make_scene
from xray_trainer.dataset import open_part
from xray_trainer.model import normalise
from xray_trainer.report.attention import attention_maps, roll_out
from xray_trainer.report.contents import judge, make_contents
from xray_trainer.report.figures import STYLE, make_svg
from xray_trainer.report.page import duration, worth_showing
from xray_trainer.report.pictures import FILMS, FILMS_WITH_FINDING, choose_films
from xray_trainer.report.plots import make_panels, make_plots, make_sheet, measured

HOSTILE = "<img src=x onerror=alert(1)>$\\frac{}&\x07-->"
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    scene = make_scene(tmp_path_factory.mktemp("report"))
    assert scene.write() == "report.html"
    return scene


@pytest.fixture(scope="module")
def contents(scene: Scene) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((scene.output / "report.json").read_text())
    return document


@pytest.fixture(scope="module")
def page(scene: Scene) -> str:
    return (scene.output / "report.html").read_text()


class Reader(HTMLParser):
    """Collects what a page refers to and says, and whether its elements are closed in the order of their opening."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "srcset", "action", "data"):
                self.references.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    read = Reader(page)
    assert all(reference.startswith(("data:image/", "#")) for reference in read.references)
    assert not set(read.names) & {"script", "link", "iframe", "object"}
    assert "url(http" not in page
    assert "@import" not in page


def test_each_id_is_there_once_and_all_links_lead_somewhere(page: str) -> None:
    read = Reader(page)
    assert len(read.ids) == len(set(read.ids))
    assert {reference[1:] for reference in read.references if reference.startswith("#")} <= set(read.ids)


def test_the_page_tells_the_figures_beside_their_floors(page: str) -> None:
    text = " ".join(Reader(page).text.split())
    macro, floors = evaluation()["macro"], evaluation()["floors"]
    low, high = macro["auroc_interval"]
    assert f"{macro['auroc']:.3f} 95 % interval {low:.3f} to {high:.3f}" in text
    assert f"{evaluation()['loss']:.4f} {floors['loss']:.4f} without a pixel" in text
    for finding in measured(evaluation()["findings"]):
        assert f"{finding['average_precision']:.3f} {finding['prevalence']:.3f} {finding['floors']['loss']:.4f}" in text
    assert "no positives among the held-out images: nothing to measure" in text
    assert "no substitute for a doctor" in text
    assert "Training 1 min 26 s 2026-11-22T10:00:04Z" in text


def test_the_document_has_what_the_page_shows(contents: dict[str, Any], scene: Scene) -> None:
    assert contents["evaluation"] == evaluation()
    assert contents["run"] == {"namespace": "radiology", "name": "cxr", "rerun": 0}
    assert [phase["name"] for phase in contents["phases"]] == ["Training", "Evaluating"]
    assert contents["phases"][0]["seconds"] == 86
    assert len(contents["films"]) == FILMS
    part = open_part(scene.cache, scene.trained.manifest, "test", 96)
    labels = dict(zip(part.ordinals().tolist(), part.labels.tolist(), strict=True))
    for film in contents["films"]:
        assert [finding["real"] for finding in film["findings"]] == [label == 1 for label in labels[film["ordinal"]]]
        for finding in film["findings"]:
            threshold = finding["threshold"]
            assert finding["predicted"] == (None if threshold is None else finding["score"] >= threshold)


def test_no_file_name_and_no_patient_are_told(scene: Scene) -> None:
    table = (scene.trained.run_file.dataset.root or Path()) / "Data_Entry_2017_v2020.csv"
    names = [line.split(",")[0] for line in table.read_text().splitlines()[1:]]
    told = (scene.output / "report.html").read_text() + (scene.output / "report.json").read_text()
    assert len(names) == 60
    assert not [name for name in names if name.removesuffix(".png") in told]


def test_the_plots_lie_beside_the_page(scene: Scene) -> None:
    for name in ("loss", "learning_rate", "auroc", "labels", "roc_reliability"):
        with Image.open(scene.output / f"{name}.png") as plot:
            assert plot.width >= 700
    assert not list(scene.output.glob(".*"))


def test_an_emulated_run_says_so(scene: Scene, page: str, tmp_path: Path) -> None:
    scene._replace(output=tmp_path).write(device="emulated IPU")
    assert "No IPU has computed this" in (tmp_path / "report.html").read_text()
    assert "No IPU has computed this" not in page


def test_markup_in_names_is_shown_and_not_obeyed(tmp_path: Path, scene: Scene) -> None:
    figures = evaluation()
    figures["findings"][0]["name"] = figures["subgroups"][0]["groups"][0]["value"] = HOSTILE
    hostile = scene._replace(output=tmp_path)
    assert hostile.write(evaluation=figures, versions={HOSTILE: HOSTILE}) == "report.html"
    read = Reader((tmp_path / "report.html").read_text())
    assert read.text.count("<img src=x onerror=alert(1)>") >= 4
    assert all(reference.startswith(("data:image/", "#")) for reference in read.references)


def test_the_bill_has_one_marked_place(page: str) -> None:
    example = (Path(__file__).parents[2] / "contract" / "examples" / "report-cost.html").read_text()
    block = re.compile(r"<!-- cost -->.*?<!-- /cost -->", re.DOTALL)
    assert len(block.findall(page)) == page.count("<!-- cost -->") == page.count("<!-- /cost -->") == 1
    assert block.fullmatch(example.strip())
    billed = Reader(block.sub(lambda _: example, page))
    assert "Total" in billed.text
    assert "The bill is in the job's status" not in billed.text
    section = page[page.index('id="cost"') : page.index('id="card"')]
    assert "<!-- cost -->" in section


def test_a_report_that_fails_costs_no_run(scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = scene._replace(output=tmp_path, model=tmp_path / "no-model")
    assert broken.write() is None
    assert "the report could not be written" in caplog.text
    assert not (tmp_path / "report.html").exists()


def test_figures_that_could_not_be_measured_leave_a_page(scene: Scene, tmp_path: Path) -> None:
    figures = evaluation()
    unmeasured = dict.fromkeys(("auroc", "auroc_interval", "average_precision", "f1", "sensitivity", "brier", "ece"))
    figures["macro"].update(unmeasured, findings=0)
    figures["floors"].update(metadata_auroc=None, memory_auroc=None)
    for finding in figures["findings"]:
        finding.update(unmeasured, threshold=None, roc=[], reliability=[], note="nothing to measure")
        finding["floors"].update(metadata_auroc=None, memory_auroc=None)
    figures["subgroups"] = []
    assert scene._replace(output=tmp_path).write(evaluation=figures, rows=[]) == "report.html"
    assert "Nothing could be measured." in Reader((tmp_path / "report.html").read_text()).text


def test_without_a_threshold_nothing_is_decided_and_so_nothing_missed(scene: Scene, tmp_path: Path) -> None:
    figures = evaluation()
    for finding in figures["findings"]:
        finding["threshold"] = None
    scene._replace(output=tmp_path).write(evaluation=figures)
    films = json.loads((tmp_path / "report.json").read_text())["films"]
    assert {finding["predicted"] for film in films for finding in film["findings"]} == {None}
    assert any(finding["real"] for film in films for finding in film["findings"])
    page = (tmp_path / "report.html").read_text()
    assert set(re.findall(r'<span class="mark">(.*?)</span>', page)) == {"no threshold"}
    assert "without one, as of a finding that no validation film has, nothing is decided" in page


def test_an_auroc_without_an_interval_says_why(scene: Scene, tmp_path: Path) -> None:
    figures = evaluation()
    figures["macro"]["auroc_interval"] = None
    assert scene._replace(output=tmp_path).write(evaluation=figures) == "report.html"
    text = " ".join(Reader((tmp_path / "report.html").read_text()).text.split())
    assert f"{figures['macro']['auroc']:.3f} no interval: too few patients" in text
    assert "not measurable" not in text[: text.index("The run")]


@pytest.mark.parametrize(
    ("auroc", "interval", "floors", "beaten"),
    [
        (0.8, [0.7, 0.9], (0.6, 0.69), "clearly"),
        (0.8, [0.7, 0.9], (0.6, 0.75), "perhaps"),
        (0.8, [0.7, 0.9], (0.85, None), "no"),
        (0.55, [0.45, 0.65], (None, None), "perhaps"),
        (0.45, [0.35, 0.49], (None, 0.4), "no"),
        (None, None, (0.6, 0.6), None),
    ],
)
def test_the_verdict_holds_the_interval_against_the_highest_floor(
    auroc: float | None, interval: list[float] | None, floors: tuple[float | None, float | None], beaten: str | None
) -> None:
    known = dict(zip(("metadata_auroc", "memory_auroc"), floors, strict=True))
    figures = {"macro": {"auroc": auroc, "auroc_interval": interval}, "floors": known}
    assert judge(figures)["beats_floors"] == beaten


def test_films_are_drawn_by_seed_and_most_have_a_finding() -> None:
    labels = (np.arange(200)[:, None] % 10 == np.arange(2)).astype(np.int8)
    drawn = choose_films(labels, seed=1)
    assert drawn == choose_films(labels, seed=1) != choose_films(labels, seed=2)
    assert len(set(drawn)) == FILMS
    assert labels[drawn].any(axis=1).sum() == FILMS_WITH_FINDING


@pytest.mark.parametrize(("having", "others"), [(0, 20), (20, 0), (2, 20), (20, 1), (2, 3), (0, 0)])
def test_as_many_films_are_shown_as_there_are(having: int, others: int) -> None:
    labels = np.array([[1]] * having + [[0]] * others, dtype=np.int8).reshape(-1, 1)
    assert len(set(choose_films(labels, seed=0))) == min(FILMS, having + others)


def test_what_is_there_or_predicted_is_shown_and_the_likeliest_others() -> None:
    def finding(name: str, score: float, predicted: bool, real: bool) -> dict[str, Any]:
        return {"name": name, "score": score, "threshold": 0.3, "predicted": predicted, "real": real}

    shown = worth_showing(
        [
            finding("a", 0.1, False, False),
            finding("b", 0.05, False, True),
            finding("c", 0.6, True, False),
            finding("d", 0.01, False, False),
        ]
    )
    assert [(one["name"], one["mark"]) for one in shown] == [("c", "false alarm"), ("a", ""), ("b", "missed")]


def test_attention_rolls_out_to_the_patch_that_is_looked_at() -> None:
    tokens = 5
    attention = torch.full((tokens, tokens), 0.1 / (tokens - 1))
    attention[:, 3] = 0.9
    rolled = roll_out([attention / attention.sum(dim=1, keepdim=True)] * 3)
    assert rolled.shape == (2, 2)
    assert np.unravel_index(rolled.argmax(), rolled.shape) == (1, 0), "the third of four patches"


def test_attention_of_layers_that_mix_nothing_stays_at_the_class_token() -> None:
    np.testing.assert_array_equal(roll_out([torch.eye(5)] * 2), np.zeros((2, 2)))


def test_the_maps_are_of_the_model_that_was_saved(scene: Scene) -> None:
    pixels = open_part(scene.cache, scene.trained.manifest, "test", 96).__getitems__([0, 1, 2])["pixel_values"]
    maps = attention_maps(scene.model, pixels)
    assert maps is not None
    assert maps.shape == (3, 6, 6)
    assert maps.min() == 0
    assert (maps.max(axis=(1, 2)) == 1).all()
    assert normalise(pixels).shape == (3, 3, 96, 96)
    assert np.abs(maps[0] - maps[1]).max() > 0, "each film has its own"


def test_maps_that_would_take_too_much_memory_are_left_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xray_trainer.report.attention.MOST_BYTES", 1000)
    assert attention_maps(scene.model, torch.zeros((1, 1, 96, 96), dtype=torch.uint8)) is None


def test_plots_are_drawn_alike_each_time_and_in_the_colours_of_the_page(contents: dict[str, Any]) -> None:
    for plot in [*make_plots(contents), *make_panels(contents["evaluation"]["findings"])]:
        svg = make_svg(plot)
        assert svg == make_svg(plot)
        assert "var(--blue)" in svg
        assert not re.findall(r"#[0-9a-f]{6}", svg)
        assert ElementTree.fromstring(svg).attrib["aria-label"] == plot.description


@pytest.mark.parametrize("most", [0.09, 1.0])
def test_what_is_written_on_the_axes_of_a_finding_stays_in_its_panel(contents: dict[str, Any], most: float) -> None:
    (finding, *_) = measured(contents["evaluation"]["findings"])
    bins = [{"images": 9, "mean_score": most, "share_positive": most}]
    with rc_context(STYLE):
        sheet = Figure(figsize=make_sheet([finding] * 2).inches)
        make_sheet([finding | {"reliability": bins}] * 2).draw(sheet)
        sheet.draw_without_rendering()
        for panel in sheet.subfigs:
            for axes in panel.axes:
                drawn = axes.get_tightbbox()
                assert panel.bbox.x0 <= drawn.x0 < drawn.x1 <= panel.bbox.x1
                assert panel.bbox.y0 <= drawn.y0


@pytest.mark.parametrize(("seconds", "text"), [(11, "11 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")])
def test_durations_are_told_as_people_tell_them(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_the_last_phase_lasts_until_the_page_is_made(scene: Scene) -> None:
    phases = make_contents(scene.trained, [], [], BEGIN + timedelta(seconds=100))["phases"]
    assert [(phase["seconds"], phase["finished_at"]) for phase in phases] == [(86, "2026-11-22T10:01:30Z"), (14, None)]
