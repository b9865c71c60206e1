"""From which data size on one flavor beats another, held against counting image by image."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray_operator.core.crossing import ALWAYS, Step, wins_from

COUNTED = 2600
"""More than these steps need until it is settled which of two sums of them stays below the other."""

quarters = st.integers(0, 8).map(lambda number: Fraction(number, 4))
steps = st.builds(
    Step,
    fixed=st.integers(0, 60).map(lambda number: Fraction(number, 3)),
    per_image=quarters,
    rate=st.integers(0, 4).map(Fraction),
    minimum=st.sampled_from([0, 7, 40]),
    increment=st.sampled_from([0, 1, 5, 12]),
)
runs = st.lists(steps, max_size=3)


def counted(bigger: list[Step], smaller: list[Step]) -> int | None:
    """The same by looking at every size."""
    since: int | None = None
    for images in range(COUNTED, 0, -1):
        if sum(step.at(images) for step in bigger) >= sum(step.at(images) for step in smaller):
            break
        since = images
    # of two that stay side by side one may be below for a while, again and again
    return since if since is not None and since <= COUNTED - 300 else None


@given(runs, runs, runs)
@settings(max_examples=60, deadline=None)
def test_it_is_what_counting_finds(bigger: list[Step], smaller: list[Step], both: list[Step]) -> None:
    assert wins_from(bigger + both, smaller + both) == counted(bigger, smaller)


@given(steps, st.integers(1, 200))
def test_a_step_is_the_billed_time_at_its_rate(step: Step, images: int) -> None:
    held, value = step.fixed + step.per_image * images, step.at(images)
    if not held:
        assert value == 0
        return
    assert step.lower + step.slope * images <= value <= step.upper + step.slope * images
    if step.rate and step.increment:
        billed = value / step.rate
        assert billed % step.increment == 0
        assert billed - step.increment < max(held, step.minimum) <= billed


def line(fixed: int, per_image: str, **billing: int) -> list[Step]:
    return [Step(Fraction(fixed), Fraction(per_image), **billing)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bigger", "smaller", "expected"),
    [
        (line(100, "0.01"), line(60, "0.02"), 4001),  # level at 4,000
        (line(60, "0.01"), line(60, "0.02"), ALWAYS),
        (line(100, "0.02"), line(60, "0.02"), None),
        (line(10, "0.02"), line(60, "0.02"), ALWAYS),
        (line(60, "0.02"), line(60, "0.02"), None),
        (line(0, "0.03"), line(60, "0.02"), None),  # wins up to 6,000, and not for good
        # two minutes each at 4,000 images; from there on the other one begins each of its minutes earlier
        (line(0, "0.02", increment=60), line(0, "0.03", increment=60), 4001),
        (line(0, "0.001", rate=4, minimum=3600), line(0, "0.01", rate=1), 1_440_001),
    ],
)  # fmt: skip
def test_known_crossings(bigger: list[Step], smaller: list[Step], expected: int | None) -> None:
    assert wins_from(bigger, smaller) == expected


def test_slopes_that_hardly_differ_are_no_long_walk() -> None:
    """Sizes of many millions of images, by the second, within a hair of each other."""
    nearly = Step(Fraction(161), Fraction(1, 100) - Fraction(1, 10**9), increment=1)
    found = wins_from([nearly], line(60, "0.01", increment=1))
    assert found is not None
    assert found == pytest.approx(101 * 10**9, rel=0.02)
    assert wins_from([nearly], line(60, "0.01") + line(10**7, "0")) == ALWAYS
    assert wins_from([nearly], [Step(Fraction(60), nearly.per_image + Fraction(1, 10**15))]) is None, (
        "not in this world"
    )


def test_flavors_that_stay_side_by_side() -> None:
    by_minute = {"increment": 60}
    assert wins_from(line(60, "0.01", increment=1), line(61, "0.01", increment=1)) == ALWAYS
    assert wins_from(line(60, "60", **by_minute), line(61, "60", **by_minute)) == ALWAYS
    assert wins_from(line(60, "0.01", **by_minute), line(90, "0.01", **by_minute)) is None, (
        "again and again, never for good"
    )
    assert wins_from(line(0, "0.01", minimum=600), line(30, "0.01")) == 57_001, "when the minimum is behind"
