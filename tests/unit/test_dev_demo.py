"""What `make demo` makes of its environment and of the job's status."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dev.cluster.state import REPOSITORY, ClusterError
from dev.demo.__main__ import Stopwatch, choose_cluster, choose_data, table
from tests.contract.schemas import crd_schema, walk

STATUS: dict[str, Any] = {
    "state": "Succeeded",
    "runsOn": "torch backend, ran on the CPU",
    "results": {
        "aurocMacro": "0.8732",
        "aurocFloor": "0.5",
        "findingsEvaluated": 14,
        "loss": "0.21",
        "lossFloor": "0.38",
    },
    "data": {"images": 800, "patients": 287, "rejected": 0},
    "cost": {"display": "0.13 USD"},
    "run": {"claimName": "results", "folder": "demo-e5be4d712665"},
    "times": {
        "evaluating": {"seconds": 2},
        "preparing": {"seconds": 8},
        "queued": {"seconds": 1},
        "training": {"seconds": 44},
    },
}
"""As the API server gives it: by the alphabet."""


def paths(value: dict[str, Any], where: str) -> Iterator[str]:
    for name, inner in value.items():
        yield f"{where}.{name}"
        if isinstance(inner, dict):
            yield from paths(inner, f"{where}.{name}")


def test_the_status_of_these_tests_is_one_that_there_is() -> None:
    assert set(paths(STATUS, "status")) <= dict(walk(crd_schema("XRayTrainingJob", "status"), "status")).keys()


def test_the_table_says_where_the_outputs_are() -> None:
    assert "claim results, folder demo-e5be4d712665" in table({"status": STATUS}, Stopwatch())


def test_the_last_line_says_where_the_report_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "report.html"
    monkeypatch.setattr("dev.demo.__main__.REPORT", page)
    assert table({"status": STATUS}, Stopwatch()).splitlines()[-1].split() == ["report", "none", "was", "written"]
    page.touch()
    assert table({"status": STATUS}, Stopwatch()).splitlines()[-1].split() == ["report", str(page)]


def test_phases_stand_in_the_order_in_which_they_were() -> None:
    rows = table({"status": STATUS}, Stopwatch()).splitlines()
    phases = [row.split(":")[1].split()[0] for row in rows if row.startswith("  of the job")]
    assert phases == ["queued", "preparing", "training", "evaluating"]


def test_what_a_job_has_prepared_is_only_verified_by_the_run() -> None:
    prepared = STATUS | {"preparation": {"seconds": 30, "cost": "0.01 USD"}}
    rows = [row for row in table({"status": prepared}, Stopwatch()).splitlines() if row.startswith("  of the job")]
    told = [re.sub(r"\s{2,}", " | ", row.strip()) for row in rows]
    assert told[0] == "of the job: data prepared, no accelerator held | 30"
    assert "of the job: verifying | 8" in told


@pytest.mark.parametrize("text", ["abc", "-5", "0", "59", "50001", "1e3", "800.0", "\u0668\u0660\u0660"])
def test_a_wrong_number_of_xrays_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ClusterError) as refused:
        choose_data({"XRAY_COUNT": text})
    assert str(refused.value) == f"XRAY_COUNT: {text!r}; expected a whole number from 60 to 50000"


@pytest.mark.parametrize(("environment", "images"), [({}, 800), ({"XRAY_COUNT": ""}, 800), ({"XRAY_COUNT": "60"}, 60)])
def test_a_right_number_of_xrays_is_taken(environment: dict[str, str], images: int) -> None:
    assert choose_data(environment).images == images


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"PROVIDER": "minikube"}, "PROVIDER: 'minikube'; expected one of auto, kubeconfig, kind, local"),
        ({"PROVIDER": "kubeconfig"}, "REGISTRY: empty; expected HOST/PATH with PROVIDER=kubeconfig"),
    ],
)
def test_a_wrong_place_for_the_cluster_is_refused(environment: dict[str, str], told: str) -> None:
    with pytest.raises(ClusterError, match=re.escape(told)):
        choose_cluster(environment)


def test_a_right_place_for_the_cluster_is_taken() -> None:
    assert choose_cluster({}) == ("auto", "")
    assert choose_cluster({"PROVIDER": "kubeconfig", "REGISTRY": "r.example/x"}) == ("kubeconfig", "r.example/x")


def test_the_readme_tells_of_every_variable_that_the_demo_reads() -> None:
    code = "".join(
        path.read_text() for folder in ("demo", "cluster") for path in (REPOSITORY / "dev" / folder).glob("*.py")
    )
    read = set(re.findall(r"environ(?:ment)?(?:\.get\(|\[)\"([A-Z0-9_]*[A-Z])\"", code)) - {"PATH"}
    assert len(read) > 5
    rows = set(re.findall(r"^\| `([A-Z0-9_]+)`", (REPOSITORY / "README.md").read_text(), re.MULTILINE))
    assert read == rows
