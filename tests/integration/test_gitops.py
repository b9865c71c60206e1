"""kubectl, Helm, Argo CD and Flux read a job right in every state, as their own code says, on objects of a real API server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.cluster_access import DEADLINE_SECONDS, REPOSITORY, apply, kubectl
from tests.integration.conftest import make_namespace, remove_namespace
from tests.integration.gitops import Album, Verdict, judge, live_through_states
from tests.integration.life import FLAVOR, flavor
from tests.integration.stage import operating
from xray_operator import names

pytestmark = pytest.mark.integration

KSTATUS = {
    "Pending (not seen)": "InProgress",
    "Pending (may pass)": "InProgress",
    "Pending (refused)": "Failed",
    "Queued": "InProgress",
    "Preparing": "InProgress",
    "Compiling": "Current",
    "Training": "Current",
    "Training (stalled)": "Failed",
    "Training (to be suspended)": "InProgress",
    "Suspended": "Current",
    "Evaluating": "Current",
    "Succeeded": "Current",
    "Failed": "Failed",
    "Stopped": "Failed",
    "Stopped (edited, not seen)": "InProgress",
}
"""What is said of a job whose readyWhen is Started."""
ARGO_CD = {"InProgress": "Progressing", "Current": "Healthy", "Failed": "Degraded"}


@pytest.fixture(scope="module")
def album(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Album]:
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    make_namespace(kubeconfig, namespace)
    yield asyncio.run(live_through_states(kubeconfig, namespace, tmp_path_factory.mktemp("operator")))
    remove_namespace(kubeconfig, namespace)


@pytest.fixture(scope="module")
def verdicts(album: Album) -> dict[str, Verdict]:
    return dict(zip(album.objects, judge(list(album.objects.values())), strict=True))


def test_every_state_was_seen(album: Album) -> None:
    assert album.objects.keys() == KSTATUS.keys()
    for words, seen in album.objects.items():
        assert seen["status"]["state"] == words.partition(" ")[0]
    assert {seen["status"]["state"] for seen in album.objects.values()} == set(names.STATES)


@pytest.mark.parametrize("words", KSTATUS)
def test_kstatus_says_of_a_state(words: str, verdicts: dict[str, Verdict]) -> None:
    assert verdicts[words].kstatus == KSTATUS[words], verdicts[words].message


@pytest.mark.parametrize("words", KSTATUS)
def test_argo_cd_says_what_kstatus_says_and_knows_suspended_too(words: str, verdicts: dict[str, Verdict]) -> None:
    expected = "Suspended" if words == "Suspended" else ARGO_CD[verdicts[words].kstatus]
    assert verdicts[words].argo == expected, verdicts[words].argo_message


@pytest.mark.parametrize("words", KSTATUS)
def test_kubectl_waits_for_ready_until_kstatus_says_current(
    words: str, album: Album, verdicts: dict[str, Verdict]
) -> None:
    assert album.waited[words] == (verdicts[words].kstatus == "Current")


@pytest.mark.parametrize("words", KSTATUS)
def test_flux_waits_for_the_result_where_its_expressions_ask_for_it(words: str, verdicts: dict[str, Verdict]) -> None:
    expected = {"Succeeded": "Current", "Failed": "Failed"}.get(words)
    if words in ("Pending (refused)", "Training (stalled)", "Stopped"):
        expected = "Failed"
    assert verdicts[words].flux == (expected or "InProgress")


def test_argo_cd_tells_how_far_a_run_is_and_what_it_costs(verdicts: dict[str, Verdict]) -> None:
    told = verdicts["Training"].argo_message
    assert told.startswith("Training; 40%, 52s left; ")
    assert " USD; " in told
    assert verdicts["Failed"].argo_message.startswith("Failed; ")
    assert "not a PNG" in verdicts["Failed"].argo_message


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("Pending (not seen)", {"suspend"}),
        ("Queued", {"suspend"}),
        ("Training", {"suspend"}),
        ("Training (to be suspended)", {"resume"}),
        ("Suspended", {"resume"}),
        ("Succeeded", {"rerun"}),
        ("Failed", {"rerun"}),
        ("Stopped", {"suspend", "rerun"}),
    ],
)
def test_argo_cd_offers_the_actions_that_a_state_allows(
    words: str, offered: set[str], verdicts: dict[str, Verdict]
) -> None:
    assert verdicts[words].actions.keys() == offered


def test_an_action_of_argo_cd_edits_its_field_and_nothing_else(album: Album, verdicts: dict[str, Verdict]) -> None:
    changes = {
        ("Training", "suspend"): {"suspend": True},
        ("Suspended", "resume"): {"suspend": False},
        ("Succeeded", "rerun"): {"rerun": 1},
        ("Failed", "rerun"): {"rerun": 2},
    }
    for (words, action), change in changes.items():
        before, after = album.objects[words], verdicts[words].actions[action]
        assert after == before | {"spec": before["spec"] | change}, (words, action)


def test_a_flavor_needs_no_waiting(kubeconfig: Path) -> None:
    assert apply(kubeconfig, flavor()).returncode == 0
    shown = json.loads(kubectl(kubeconfig, "get", "xaf", FLAVOR, "-o", "json").stdout)
    (verdict,) = judge([shown])
    assert (verdict.kstatus, verdict.argo, verdict.flux, verdict.actions) == ("Current", "Healthy", "", {})


async def test_a_budget_is_waited_for_until_the_operator_has_counted(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    manifest = yaml.safe_load((REPOSITORY / "examples" / "budget.yaml").read_text())
    manifest["metadata"]["namespace"] = namespace
    assert apply(kubeconfig, manifest).returncode == 0
    shown = (f"xtb/{manifest['metadata']['name']}", "-n", namespace)
    unseen = json.loads(kubectl(kubeconfig, "get", *shown, "-o", "json").stdout)
    async with operating(kubeconfig, namespace, tmp_path):
        waited = await asyncio.to_thread(
            kubectl, kubeconfig, "wait", *shown, "--for=condition=Ready", f"--timeout={DEADLINE_SECONDS:.0f}s"
        )
        assert waited.returncode == 0, waited.stderr
    seen = json.loads(kubectl(kubeconfig, "get", *shown, "-o", "json").stdout)
    told = [(verdict.kstatus, verdict.argo) for verdict in judge([unseen, seen])]
    assert told == [("InProgress", "Progressing"), ("Current", "Healthy")]
