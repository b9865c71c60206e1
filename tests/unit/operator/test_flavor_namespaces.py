"""Who may use a flavor: the namespaces that carry every label of its namespaceSelector."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.operator.builders import (
    FLAVORS,
    condition,
    decide,
    make_flavor,
    make_pod,
    make_snapshot,
    started,
    told,
)
from xray_operator import names
from xray_operator.core.observed import Observed

TEAM = {"matchLabels": {"team": "x"}}
BOTH = {"matchLabels": {"team": "x", "vpod": "allowed"}}


@pytest.mark.parametrize(
    ("selector", "labels", "lacking"),
    [
        (None, None, ""),
        (TEAM, {"team": "x", "other": "y"}, ""),
        (BOTH, {"team": "x", "vpod": "allowed"}, ""),
        (TEAM, {}, "team=x"),
        (TEAM, None, "team=x"),
        (TEAM, {"team": "X"}, "team=x"),
        (BOTH, {"team": "x"}, "vpod=allowed"),
        (BOTH, {"vpod": "refused"}, "team=x, vpod=allowed"),
    ],
)
def test_a_namespace_must_carry_every_label(selector: Any, labels: dict[str, str] | None, lacking: str) -> None:
    flavor = make_flavor(namespaceSelector=selector) if selector else make_flavor()
    decision = decide(Observed(flavors={"demo-vpod4": flavor}, namespace_labels=labels))
    assert (decision.create is not None) == (not lacking)
    if lacking:
        reason, message = condition(told(decision), names.ACCEPTED)[1:]
        assert reason == names.FLAVOR_NOT_ALLOWED
        assert message.endswith(f"is not for namespace radiology, which lacks the label {lacking}")


def test_a_selector_is_of_one_flavor() -> None:
    flavors = FLAVORS | {"closed": make_flavor(namespaceSelector=TEAM)}
    observed = Observed(flavors=flavors, namespace_labels={})
    assert decide(observed).create is not None
    assert decide(observed, flavor="closed").create is None


def test_a_job_that_was_refused_starts_when_its_namespace_gets_the_label() -> None:
    flavors = {"demo-vpod4": make_flavor(namespaceSelector=TEAM)}
    refused = told(decide(Observed(flavors=flavors, namespace_labels={})))
    assert decide(Observed(flavors=flavors, namespace_labels={"team": "x"}), status=refused).create is not None


def test_what_has_begun_is_asked_for_no_label() -> None:
    flavor = make_flavor(namespaceSelector=TEAM)
    running = started(make_pod().scheduled(10).prepared(12, 40).trains(42), flavor=flavor, namespace_labels={})
    decision = decide(running)
    assert (told(decision)["state"], decision.delete, decision.suspend) == (names.TRAINING, None, None)
    fixed = Observed(snapshot=make_snapshot(flavor), namespace_labels={})
    made = decide(fixed).create
    assert made is not None
    assert made["kind"] == "Job", "its Job is made anew, where it was lost"
