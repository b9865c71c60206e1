"""`kubectl xray compare` on a real node: two flavors, two repeats, and the figures are those of the jobs' bills."""

from __future__ import annotations

import json
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from dev.demo.stack import Kube, claim
from tests.command_line import xray
from tests.e2e.places import CLAIM, cpu_flavor, tiny_run
from xray_operator import names

pytestmark = pytest.mark.e2e

SMALL, BIG = "e2e-compare-small", "e2e-compare-big"
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "36", "source": "an example"}
BY_THE_MINUTE = PRICE | {"perHour": "72", "minimumSeconds": 30, "incrementSeconds": 60}


def test_the_measured_rows_are_what_the_jobs_cost(kube: Kube, module_namespace: str, tmp_path: Path) -> None:
    claim(kube, module_namespace, CLAIM)
    source = {"synthetic": {"images": 60, "size": 256}}
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump(tiny_run(module_namespace, "cxr", SMALL, source, prepare="Job", prepareFlavor=SMALL))
    )
    compare = ["compare", "-f", str(tmp_path / "job.yaml"), "--flavors", f"{SMALL},{BIG}", "--repeat", "2"]
    kubeconfig = Path(kube.environment["KUBECONFIG"])
    with ExitStack() as flavors:
        flavors.enter_context(cpu_flavor(kube, SMALL, PRICE))
        flavors.enter_context(cpu_flavor(kube, BIG, BY_THE_MINUTE))
        done = xray(kubeconfig, *compare, "-o", "json", "-n", module_namespace, seconds=900)
        again = xray(kubeconfig, *compare, "-n", module_namespace)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    jobs = {job["metadata"]["name"]: job for job in kube.items("xraytrainingjobs", module_namespace)}
    assert jobs.keys() == {f"cxr-{flavor}-{number}" for flavor in (SMALL, BIG) for number in (1, 2)}
    bills = {name: job["status"]["cost"] for name, job in jobs.items()}
    assert {run["name"]: run["total"] for run in told["runs"]} == {name: bill["total"] for name, bill in bills.items()}
    for row in told["rows"]:
        ours = [bills[f"cxr-{row['flavor']}-{number}"] for number in (1, 2)]
        training, held, amounts = (
            row["training"],
            [bill["heldSeconds"] for bill in ours],
            [on_flavor(bill) for bill in ours],
        )
        assert (row["source"], row["runs"], row["images"]) == ("measured", 2, 60)
        assert [training["seconds"]["least"], training["seconds"]["most"]] == [min(held), max(held)]
        assert [Decimal(training["amount"][each]) for each in ("least", "most")] == [min(amounts), max(amounts)]
    (prepared,) = {row["preparation"]["seconds"]["mean"] for row in told["rows"]}
    assert prepared == max(job["status"]["preparation"]["seconds"] for job in jobs.values())
    assert again.returncode == 0, again.stderr
    spent = sum(Decimal(bill["total"]) for bill in bills.values()).quantize(Decimal("0.01"))
    assert again.stdout.endswith(f"Paid so far for 4 measured jobs: {spent} USD.\n")
    assert len(kube.items("xraytrainingjobs", module_namespace)) == 4


def on_flavor(bill: dict[str, object]) -> Decimal:
    """Without what Jobs of their own have prepared."""
    phases = bill["phases"]
    assert isinstance(phases, list)
    paid = names.PAID_PREPARATIONS.values()
    return sum((Decimal(row["amount"]) for row in phases if row["name"] not in paid), Decimal(0))
