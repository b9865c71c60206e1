"""`kubectl xray cost` and `quote`, as processes, on a real API server: of jobs whose status is set by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.command_line import xray
from tests.integration.cluster_access import apply, kubectl
from tests.integration.life import flavor, xray_job
from tests.kubeconfigs import with_token

pytestmark = pytest.mark.integration
BEGAN = "2026-11-22T10:00:00Z"
PHASES = [
    {"name": "Queued", "seconds": 0, "amount": "0.0000"},
    {"name": "Preparing", "seconds": 10, "amount": "0.0236"},
    {"name": "Training", "seconds": 708, "amount": "1.6717"},
    {"name": "DataPreparation", "seconds": 6300, "amount": "0.3500"},
]
COST = {
    "priced": True,
    "currency": "USD",
    "heldSeconds": 718,
    "billedSeconds": 718,
    "total": "2.0453",
    "phases": PHASES,
}
UNPRICED = {"priced": False, "heldSeconds": 30, "phases": [{"name": "Training", "seconds": 30}]}


def finished(kubeconfig: Path, namespace: str, name: str, status: dict[str, Any], **spec: Any) -> None:
    """A job that no operator looks at, and how it has ended."""
    assert apply(kubeconfig, xray_job(namespace, name, **spec)).returncode == 0
    told = {"state": "Succeeded", "run": {"flavor": "integration-vpod4", "startedAt": BEGAN}, **status}
    words = ["patch", "xtj", name, "-n", namespace, "--subresource=status", "--type=merge"]
    done = kubectl(kubeconfig, *words, "-p", json.dumps({"status": told}))
    assert done.returncode == 0, done.stderr


@pytest.fixture
def spent(kubeconfig: Path, namespace: str) -> str:
    """Namespace with three runs: priced, a rerun in euros that was estimated, and unpriced."""
    former = {"rerun": 0, "state": "Stopped", "flavor": "old", "startedAt": "2026-10-01T00:00:00Z"}
    euros = COST | {"currency": "EUR", "estimated": True}
    finished(kubeconfig, namespace, "cxr-a", {"cost": COST})
    finished(
        kubeconfig, namespace, "cxr-b", {"cost": COST, "rerun": 1, "formerRuns": [former | {"bill": _bill(euros)}]}
    )
    finished(kubeconfig, namespace, "cxr-c", {"cost": UNPRICED})
    return namespace


def _bill(cost: dict[str, Any]) -> dict[str, Any]:
    return {name: told for name, told in cost.items() if name != "priced"}


def test_the_table_says_what_each_run_has_cost(kubeconfig: Path, spent: str) -> None:
    done = xray(kubeconfig, "cost", "-n", spent)
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = [line.split() for line in done.stdout.partition("\n\n")[0].splitlines()]
    assert head == ["NAMESPACE", "NAME", "RERUN", "STATE", "FLAVOR", "BEGAN", "HELD", "LOST", "COST"]
    assert [(row[1], row[2], row[-2:]) for row in rows] == [
        ("cxr-a", "0", ["2.0453", "USD"]),
        ("cxr-b", "0", ["~2.0453", "EUR"]),
        ("cxr-b", "1", ["2.0453", "USD"]),
        ("cxr-c", "0", ["s", "unpriced"]),
    ]
    assert "Total of 2 runs: 4.0906 USD\n" in done.stdout
    assert "Total of 1 run: ~2.0453 EUR\n" in done.stdout
    assert "Total of 1 run: unpriced, 30 s held\n" in done.stdout


def test_by_phase_month_and_name(kubeconfig: Path, spent: str) -> None:
    done = xray(kubeconfig, "cost", "-n", spent, "cxr-a", "--phases")
    head, row = [line.split() for line in done.stdout.splitlines()[:2]]
    assert head[-6:] == ["HELD", "PREPARING", "TRAINING", "DATAPREPARATION", "LOST", "COST"]
    assert row[-5:] == ["0.0236", "1.6717", "0.3500", "2.0453", "USD"]
    told = json.loads(xray(kubeconfig, "cost", "-n", spent, "--per", "month", "-o", "json").stdout)
    assert [(row["month"], row["currency"], row["total"]) for row in told["items"]] == [
        ("2026-10", "EUR", "2.0453"),
        ("2026-11", None, None),
        ("2026-11", "USD", "4.0906"),
    ]
    october = xray(kubeconfig, "cost", "-A", "--month", "2026-10", "--per", "namespace", "-o", "json")
    assert [row["total"] for row in json.loads(october.stdout)["items"] if row["namespace"] == spent] == ["2.0453"]


def test_csv_has_the_same_columns_for_every_run(kubeconfig: Path, spent: str) -> None:
    done = xray(kubeconfig, "cost", "-n", spent, "-o", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["total"] for row in rows] == ["2.0453", "2.0453", "2.0453", ""]
    assert rows[0]["DataPreparationAmount"] == "0.3500"
    assert (rows[3]["TrainingSeconds"], rows[3]["TrainingAmount"], rows[3]["currency"]) == ("30", "", "")
    assert rows[1]["estimated"] == "True"


def test_who_has_spent_nothing_and_who_asks_wrongly(kubeconfig: Path, namespace: str) -> None:
    done = xray(kubeconfig, "cost", "-n", namespace)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No run has cost anything.\n")
    wrong = xray(kubeconfig, "cost", "--month", "November")
    assert wrong.returncode == 1
    assert '"November" is no month like 2026-11' in wrong.stderr


def attempt(training: int) -> dict[str, Any]:
    seconds = {"idleSeconds": 20, "preparingSeconds": 5, "trainingSeconds": training, "evaluatingSeconds": 10}
    return {"podName": "cxr-1", "startedAt": BEGAN, "finishedAt": "2026-11-22T11:00:00Z", **seconds}


def quoted(kubeconfig: Path, namespace: str, *words: str, job: dict[str, Any]) -> Any:
    done = xray(kubeconfig, "quote", "-n", namespace, "-f", "-", "-o", "json", *words, stdin=json.dumps(job))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (item,) = json.loads(done.stdout)["items"]
    return item


def test_a_quote_from_the_clusters_finished_runs(kubeconfig: Path, namespace: str) -> None:
    mine = flavor(f"quote-{namespace}")
    name = mine["metadata"]["name"]
    assert apply(kubeconfig, mine).returncode == 0
    for number, training in enumerate((100, 200, 300)):
        status = {"attempts": [attempt(training)], "data": {"images": 1000}, "cost": COST}
        finished(kubeconfig, namespace, f"cxr-{number}", status, flavor=name)
    job = xray_job(namespace, "next", flavor=name)
    item = quoted(kubeconfig, namespace, job=job)
    assert (item["source"], item["images"], item["perHour"]) == ("history (3 runs)", 1000, "8.50")
    assert item["total"]["seconds"] == {"p50": 235, "p90": 335}
    assert item["total"]["amount"] == {"p50": "0.5549", "p90": "0.7910"}
    on_another = quoted(kubeconfig, namespace, "--flavor", name, job=xray_job(namespace, "next"))
    assert on_another["total"] == item["total"]
    item = quoted(kubeconfig, namespace, "--epochs", "6", "--images", "2000", job=job)
    assert {row["name"]: row["seconds"]["p50"] for row in item["phases"]}["Training"] == 800
    other = xray_job(namespace, "next", flavor=name, dataset=job["spec"]["dataset"] | {"imageSize": 64})
    done = xray(kubeconfig, "quote", "-n", namespace, "-f", "-", stdin=json.dumps(other))
    assert done.returncode == 1
    assert f"at 64 pixels has finished on flavor {name} in this cluster, and the hints don't suffice" in done.stderr
    hint = f"{name}:trainImagesPerSecond=10,prepareImagesPerSecond=10"
    item = quoted(kubeconfig, namespace, "--images", "1000", "--hint", hint, job=other)
    assert item["source"] == "hints"
    kubectl(kubeconfig, "delete", "acceleratorflavor", name)


def test_hints_are_part_of_a_flavor_and_checked_at_apply(kubeconfig: Path, namespace: str) -> None:
    mine = flavor(f"hints-{namespace}")
    mine["spec"]["hints"] = {"trainImagesPerSecond": "0", "startSeconds": 30}
    refused = apply(kubeconfig, mine)
    assert "spec.hints.trainImagesPerSecond" in refused.stderr
    mine["spec"]["hints"] = {"trainImagesPerSecond": "10", "prepareImagesPerSecond": "0.5", "startSeconds": 30}
    assert apply(kubeconfig, mine).returncode == 0
    item = quoted(kubeconfig, namespace, "--images", "100", job=xray_job(namespace, flavor=mine["metadata"]["name"]))
    assert {row["name"]: row["seconds"]["p50"] for row in item["phases"]} == {
        "Preparing": 200,
        "Training": 21,
        "Evaluating": 2,
        "Idle": 30,
    }
    kubectl(kubeconfig, "delete", "acceleratorflavor", mine["metadata"]["name"])


def test_who_may_list_one_namespace_is_told_what_is_known_there(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    assert kubectl(kubeconfig, "create", "serviceaccount", "tenant", "-n", namespace).returncode == 0
    subject = f"--serviceaccount={namespace}:tenant"
    rules = [
        ["create", "role", "jobs", "-n", namespace, "--verb=list", "--resource=xraytrainingjobs.xray.training"],
        ["create", "rolebinding", "jobs", "-n", namespace, "--role=jobs", subject],
        ["create", "clusterrole", f"f-{namespace}", "--verb=list", "--resource=acceleratorflavors.xray.training"],
        ["create", "clusterrolebinding", f"f-{namespace}", f"--clusterrole=f-{namespace}", subject],
    ]
    for rule in rules:
        assert kubectl(kubeconfig, *rule).returncode == 0
    token = kubectl(kubeconfig, "create", "token", "tenant", "-n", namespace).stdout.strip()
    user = with_token(kubeconfig, token, namespace, tmp_path / "tenant")
    mine = flavor(f"tenant-{namespace}")
    assert apply(kubeconfig, mine).returncode == 0
    job = xray_job(namespace, flavor=mine["metadata"]["name"])
    done = xray(user, "quote", "-f", "-", stdin=json.dumps(job))
    assert f"has finished on flavor {mine['metadata']['name']} in namespace {namespace}" in done.stderr
    kubectl(kubeconfig, "delete", "acceleratorflavor", mine["metadata"]["name"])
    kubectl(kubeconfig, "delete", "clusterrole,clusterrolebinding", f"f-{namespace}")
