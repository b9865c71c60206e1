"""An image finds its row by name or path, and never another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xray_trainer.errors import MemberError
from xray_trainer.prepare.archive import Member
from xray_trainer.prepare.labels import LabelRow
from xray_trainer.prepare.match import RowFinder

CHEXPERT = [
    f"CheXpert-v1.0-small/train/patient0000{patient}/study{study}/view1_frontal.jpg"
    for patient in (1, 2)
    for study in (1, 2)
]


def find(rows: list[str], path: str) -> str | None:
    empty = LabelRow("", frozenset(), None, "", "")
    return RowFinder(dict.fromkeys(rows, empty)).find(Member("images/", 7, path, b""))


@pytest.mark.parametrize("path", ["00000001_000.png", "images/00000001_000.png", "a/b/00000001_000.png"])
def test_a_name_is_found_in_whatever_folder(path: str) -> None:
    assert find(["00000001_000.png", "00000001_001.png"], path) == "00000001_000.png"


@pytest.mark.parametrize(
    "before", ["", "images/", "CheXpert-v1.0-small/", "images/CheXpert-v1.0-small/", "data/CheXpert-v1.0-small/"]
)
@pytest.mark.parametrize("row", CHEXPERT)
def test_a_path_is_found_with_more_and_with_fewer_folders_before_it(before: str, row: str) -> None:
    assert find(CHEXPERT, before + row.partition("/")[2]) == row


@pytest.mark.parametrize(
    "path",
    [
        "train/patient00003/study1/view1_frontal.jpg",
        "valid/patient00001/study1/view1_frontal.jpg",
        "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg",
        "train/patient00001/study1/view2_lateral.jpg",
        "train/xpatient00001/study1/view1_frontal.jpg",
    ],
)
def test_what_only_ends_alike_is_not_taken_for_the_same(path: str) -> None:
    assert find(CHEXPERT, path) is None


@pytest.mark.parametrize("path", ["view1_frontal.jpg", "images/study1/view1_frontal.jpg"])
def test_a_path_that_fits_several_rows_is_refused_without_being_told(path: str) -> None:
    with pytest.raises(MemberError) as caught:
        find(CHEXPERT, path)
    assert str(caught.value) == "images/: member 7: several rows of the labels file fit; expected its folders too"
    assert caught.value.path == path


def test_a_path_that_is_exactly_a_row_s_is_its() -> None:
    assert find(["a.png", "x/a.png", "images/x/a.png"], "images/x/a.png") == "images/x/a.png"
    with pytest.raises(MemberError, match="several rows"):
        find(["a.png", "x/a.png"], "y/x/a.png")


def ends_with(longer: str, end: str) -> bool:
    return longer == end or longer.endswith(f"/{end}")


paths = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("/".join)


@given(st.lists(paths, unique=True), paths)
def test_it_finds_what_looking_at_every_row_finds(rows: list[str], path: str) -> None:
    fitting = [row for row in rows if ends_with(row, path) or ends_with(path, row)]
    if path in rows:
        assert find(rows, path) == path
    elif len(fitting) > 1:
        with pytest.raises(MemberError):
            find(rows, path)
    else:
        assert find(rows, path) == (fitting[0] if fitting else None)
