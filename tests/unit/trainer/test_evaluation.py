"""The document that tells what a model's predictions are worth."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score  # type: ignore[import-untyped]  # ships no types

from xray_trainer.errors import DivergedError
from xray_trainer.evaluation.document import Parts, evaluate
from xray_trainer.evaluation.predictions import Predictions, write_predictions
from xray_trainer.evaluation.table import Table
from xray_trainer.findings import NIH_FINDINGS, NO_FINDING

FINDINGS = ("Edema", "Mass", "Nodule")
SIZES = {"train": 900, "validation": 300, "test": 600}
FILMS = 3


class Drawn:
    """Random images of patients with FILMS images each, and a model that is right more often than not."""

    def __init__(self, findings: tuple[str, ...] = FINDINGS, seed: int = 0, prevalence: float = 0.3) -> None:
        random = np.random.default_rng(seed)
        images = sum(SIZES.values())
        self.part = np.repeat([*SIZES], [*SIZES.values()])
        ill = (random.random((images, len(findings))) < prevalence).astype(np.int8)
        if NO_FINDING in findings:
            ill[:, -1] = ~ill[:, :-1].any(axis=1)
        self.logits = (random.normal(size=ill.shape) + ill - 1).astype(np.float32)
        self.table = Table(
            findings=findings,
            patients=np.arange(images) // FILMS,
            labels=ill,
            age_years=np.repeat(random.integers(20, 60, images // FILMS), FILMS).astype(np.float64),
            follow_up=np.tile(np.arange(FILMS), images // FILMS).astype(np.float64),
            sex=np.repeat(random.choice(["F", "M"], images // FILMS), FILMS),
            view=random.choice(["AP", "PA"], images),
        )

    def predictions(self, part: str) -> Predictions:
        chosen = self.part == part
        return Predictions(self.table.findings, self.logits[chosen], self.table.labels[chosen])

    def evaluate(self) -> dict[str, Any]:
        parts = Parts(self.table, self.part == "train", self.part == "test")
        document = evaluate(self.predictions("test"), self.predictions("validation"), parts)
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert yaml.safe_load(yaml.safe_dump(document)) == document, "plain values, none of numpy's"
        return document

    def test_column(self, name: str) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        held_out, column = self.predictions("test"), self.table.findings.index(name)
        return held_out.labels[:, column], held_out.scores[:, column]


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    return Drawn()


@pytest.fixture(scope="module")
def document(drawn: Drawn) -> dict[str, Any]:
    return drawn.evaluate()


def test_every_finding_has_its_figures(drawn: Drawn, document: dict[str, Any]) -> None:
    assert [finding["name"] for finding in document["findings"]] == list(FINDINGS)
    for finding in document["findings"]:
        labels, scores = drawn.test_column(finding["name"])
        assert (finding["positives"], finding["negatives"]) == (labels.sum(), 600 - labels.sum())
        assert finding["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)
        assert finding["auroc_interval"][0] < finding["auroc"] < finding["auroc_interval"][1]
        assert finding["floors"]["loss"] == pytest.approx(log_loss(labels, scores), abs=1e-6)
        assert finding["floors"]["prevalence_loss"] > finding["floors"]["loss"]
        found = scores >= finding["threshold"]
        assert finding["sensitivity"] == pytest.approx(found[labels == 1].mean(), abs=1e-6)
        assert sum(bin_["images"] for bin_ in finding["reliability"]) == 600
        assert finding["note"] is None


def test_the_threshold_is_that_of_the_validation_part(document: dict[str, Any]) -> None:
    """Other scores of held-out images change no threshold."""
    other = Drawn()
    other.logits[other.part == "test"] *= -1
    thresholds = [[finding["threshold"] for finding in told["findings"]] for told in (document, other.evaluate())]
    assert thresholds[0] == thresholds[1]
    assert None not in thresholds[0]


def test_the_macro_figures_are_means_of_the_findings(document: dict[str, Any]) -> None:
    macro, findings = document["macro"], document["findings"]
    assert macro["findings"] == 3
    for name in ("auroc", "average_precision", "f1", "sensitivity", "specificity", "brier", "ece"):
        assert macro[name] == pytest.approx(np.mean([finding[name] for finding in findings]), abs=2e-6), name
    assert macro["auroc_interval"][0] < macro["auroc"] < macro["auroc_interval"][1]
    assert macro["auroc_interval"][1] - macro["auroc_interval"][0] < min(
        high - low for low, high in (finding["auroc_interval"] for finding in findings)
    ), "the mean of three is known better than any"
    assert document["loss"] == pytest.approx(np.mean([finding["floors"]["loss"] for finding in findings]), abs=2e-6)
    assert (document["images"], document["patients"], document["validation_images"]) == (600, 200, 300)


def test_floors_are_told_beside_the_figures(document: dict[str, Any]) -> None:
    """Metadata are random here, and patients are new: neither is worth anything."""
    floors = document["floors"]
    assert floors["memory_auroc"] == 0.5
    assert floors["metadata_auroc"] == pytest.approx(0.5, abs=0.06)
    assert floors["loss"] > document["loss"]


def test_the_scores_decide_by_their_order_alone(document: dict[str, Any]) -> None:
    stretched = Drawn()
    stretched.logits = 3 * stretched.logits - 1
    told = stretched.evaluate()
    for name in ("auroc", "auroc_interval", "average_precision", "f1", "sensitivity"):
        assert [finding[name] for finding in told["findings"]] == [finding[name] for finding in document["findings"]], (
            name
        )
    assert told["macro"]["ece"] > document["macro"]["ece"] + 0.05


@pytest.mark.parametrize(("label", "said"), [(0, "no positives"), (1, "no negatives")])
def test_a_finding_of_one_class_says_so_in_place_of_numbers(label: int, said: str) -> None:
    drawn = Drawn()
    drawn.table.labels[drawn.part == "test", 1] = label
    document = drawn.evaluate()
    lacking = document["findings"][1]
    assert lacking["note"] == f"{said} among the held-out images: nothing to measure"
    figures = ("auroc", "auroc_interval", "average_precision", "f1", "sensitivity", "specificity", "brier", "ece")
    assert [lacking[name] for name in figures] == [None] * len(figures)
    assert (lacking["roc"], lacking["reliability"]) == ([], [])
    assert document["macro"]["findings"] == 2
    measured = [document["findings"][index]["auroc"] for index in (0, 2)]
    assert document["macro"]["auroc"] == pytest.approx(np.mean(measured), abs=1e-6)


def test_a_finding_that_no_validation_image_has_has_no_threshold() -> None:
    drawn = Drawn()
    drawn.table.labels[drawn.part == "validation", 0] = 0
    finding = drawn.evaluate()["findings"][0]
    assert finding["note"] == "no positives among the validation images: no threshold"
    assert (finding["threshold"], finding["f1"], finding["sensitivity"], finding["specificity"]) == (None,) * 4
    assert finding["auroc"] is not None


def test_a_finding_of_few_patients_has_no_interval() -> None:
    drawn = Drawn()
    drawn.table.labels[:, 2] = drawn.table.patients == drawn.table.patients[-1]
    drawn.table.labels[0, 2] = 1
    finding = drawn.evaluate()["findings"][2]
    assert finding["positives"] == FILMS
    assert finding["auroc"] is not None
    assert finding["auroc_interval"] is None
    assert "images of fewer than 5 patients with the finding: no interval" in finding["note"]


def test_a_flat_model_is_worth_nothing_and_breaks_nothing() -> None:
    drawn = Drawn()
    drawn.logits[:] = -1
    document = drawn.evaluate()
    assert (document["macro"]["auroc"], document["macro"]["auroc_interval"]) == (0.5, [0.5, 0.5])
    assert document["macro"]["sensitivity"] == 1
    assert document["findings"][0]["roc"] == [[0, 0], [1, 1]]


def groups_of(document: dict[str, Any], by: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    (found,) = [each for each in document["subgroups"] if each["by"] == by]
    return found, {group["value"]: group for group in found["groups"]}


def test_groups_are_measured_on_their_own_images(drawn: Drawn, document: dict[str, Any]) -> None:
    assert [each["by"] for each in document["subgroups"]] == ["sex", "age", "view"]
    sex, groups = groups_of(document, "sex")
    assert [*groups] == ["F", "M"]
    assert sex["findings"] == list(FINDINGS)
    of_test = drawn.table.rows(drawn.part == "test")
    for value, group in groups.items():
        of_group = of_test.sex == value
        areas, found = [], []
        for finding in document["findings"]:
            labels, scores = (column[of_group] for column in drawn.test_column(finding["name"]))
            areas.append(roc_auc_score(labels, scores))
            found.append((scores >= finding["threshold"])[labels == 1].mean())
        assert (group["images"], group["patients"]) == (of_group.sum(), of_group.sum() / FILMS)
        assert group["auroc_macro"] == pytest.approx(np.mean(areas), abs=1e-6)
        assert group["sensitivity_macro"] == pytest.approx(np.mean(found), abs=1e-6)
        assert group["auroc_interval"][0] < group["auroc_macro"] < group["auroc_interval"][1]
    aurocs = [group["auroc_macro"] for group in groups.values()]
    assert sex["auroc_gap"] == pytest.approx(max(aurocs) - min(aurocs), abs=1e-6)
    assert [*groups_of(document, "age")[1]] == ["20-39", "40-59"]


def test_a_model_that_is_worse_for_some_is_found_out() -> None:
    drawn = Drawn()
    women = drawn.table.sex == "F"
    drawn.logits[women] = np.random.default_rng(3).normal(size=drawn.logits[women].shape)
    sex, groups = groups_of(drawn.evaluate(), "sex")
    assert groups["F"]["auroc_macro"] == pytest.approx(0.5, abs=0.05)
    assert groups["M"]["auroc_macro"] > 0.7
    assert sex["auroc_gap"] > 0.15
    assert groups["F"]["auroc_interval"][1] < groups["M"]["auroc_interval"][0]


def test_a_small_group_says_so_and_is_not_compared() -> None:
    drawn = Drawn()
    drawn.table = replace(drawn.table, view=np.array(["PA"] * 1788 + ["LATERAL"] * 12))
    view, groups = groups_of(drawn.evaluate(), "view")
    assert groups["LATERAL"]["note"].startswith(
        "too small to measure: fewer than 10 images with, or without, most findings"
    )
    assert groups["LATERAL"]["auroc_macro"] is None
    assert groups["PA"]["auroc_macro"] is not None
    assert (view["auroc_gap"], view["sensitivity_gap"]) == (None, None)


def test_many_images_of_a_few_patients_are_too_few() -> None:
    """As for a finding of the whole part: a resample would often draw none of them."""
    drawn = Drawn()
    women = np.flatnonzero(drawn.table.sex == "F")
    drawn.table.labels[women, 2] = 0
    with_it = women[drawn.part[women] == "test"][:12]
    drawn.table.labels[with_it, 2] = 1
    assert len(np.unique(drawn.table.patients[with_it])) == 4
    assert groups_of(drawn.evaluate(), "sex")[0]["findings"] == ["Edema", "Mass"]


def test_unknown_values_are_no_group() -> None:
    drawn = Drawn()
    drawn.table.sex[:] = ""
    drawn.table.age_years[::2] = np.nan
    document = drawn.evaluate()
    sex, _ = groups_of(document, "sex")
    assert (sex["groups"], sex["unknown_images"], sex["auroc_gap"]) == ([], 600, None)
    assert groups_of(document, "age")[0]["unknown_images"] == 300


def test_means_are_over_what_all_groups_can_measure() -> None:
    drawn = Drawn()
    drawn.table.labels[drawn.table.sex == "F", 2] = 0
    sex, groups = groups_of(drawn.evaluate(), "sex")
    assert sex["findings"] == ["Edema", "Mass"]
    assert None not in [group["auroc_macro"] for group in groups.values()]


@pytest.mark.parametrize("lost", [np.nan, np.inf])
def test_predictions_that_are_no_numbers_are_refused(drawn: Drawn, lost: float) -> None:
    """Sorting puts them above all others: there would be an AUROC."""
    held_out = drawn.predictions("test")
    logits = held_out.logits.copy()
    logits[[3, 7], 1] = lost
    with pytest.raises(DivergedError, match="predictions for 2 of 600 images: no finite numbers"):
        replace(held_out, logits=logits)


def test_predictions_tell_scores_and_labels_and_no_name(drawn: Drawn, tmp_path: Path) -> None:
    held_out = drawn.predictions("test")
    ordinals = np.arange(len(held_out.labels)) * 2
    write_predictions(tmp_path / "predictions.csv", held_out, ordinals)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert list(rows[0]) == ["ordinal", *(f"{kind}_{name}" for kind in ("score", "label") for name in FINDINGS)]
    assert [int(row["ordinal"]) for row in rows] == ordinals.tolist()
    for name in FINDINGS:
        labels, scores = drawn.test_column(name)
        assert [int(row[f"label_{name}"]) for row in rows] == labels.tolist()
        assert [float(row[f"score_{name}"]) for row in rows] == pytest.approx(scores, abs=1e-6)


def test_the_article_s_metric_is_told_apart_where_its_15_outputs_are(document: dict[str, Any]) -> None:
    assert document["article"] is None
    drawn = Drawn((*NIH_FINDINGS, NO_FINDING), prevalence=0.1)
    told = drawn.evaluate()
    held_out = drawn.predictions("test")
    powers = np.exp(held_out.logits.astype(np.float64))
    shares = powers / powers.sum(axis=1, keepdims=True)
    areas = [roc_auc_score(held_out.labels[:, column], shares[:, column]) for column in range(15)]
    losses = [log_loss(held_out.labels[:, column], held_out.scores[:, column]) for column in range(15)]
    article = told["article"]
    assert article["auroc_macro_softmax_15"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert article["loss_15"] == pytest.approx(np.mean(losses), abs=1e-6)
    assert "not comparable" in article["label"]
    assert [finding["name"] for finding in told["findings"]] == list(NIH_FINDINGS), "No Finding is none"
    own = [roc_auc_score(held_out.labels[:, column], held_out.scores[:, column]) for column in range(14)]
    assert told["macro"]["auroc"] == pytest.approx(np.mean(own), abs=1e-6)
    assert told["loss"] == pytest.approx(np.mean(losses[:14]), abs=1e-6)
