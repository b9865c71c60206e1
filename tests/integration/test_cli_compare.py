"""`kubectl xray compare` on a real control plane, with the operator; kubelet and trainer are played."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.command_line import CommandLine, parts_of, write_kubeconfig
from tests.integration.kubelet import Kubelet
from tests.integration.life import FLAVOR, claim, example, flavor, xray_job
from tests.integration.stage import Stage, operating

pytestmark = pytest.mark.integration

BIG = "integration-compare"
TRAINS = {f"cxr-{FLAVOR}-1": 70, f"cxr-{FLAVOR}-2": 90, f"cxr-{BIG}-1": 30, f"cxr-{BIG}-2": 35}
"""Seconds of each job."""


@pytest_asyncio.fixture
async def stage(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """The operator, the claims, and a second flavor that is billed by the minute."""
    big = flavor(BIG)
    big["spec"]["prices"][0] |= {"perHour": "17", "incrementSeconds": 60}
    big["spec"]["accelerators"] = 16
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out"), big).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as played:
        yield played
    kubectl(kubeconfig, "delete", "acceleratorflavor", BIG)


@pytest.fixture
def xray(kubeconfig: Path, namespace: str, tmp_path: Path) -> CommandLine:
    return CommandLine(write_kubeconfig(tmp_path / "user", *parts_of(kubeconfig), namespace))


@pytest.fixture
def words(namespace: str, tmp_path: Path) -> list[str]:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(xray_job(namespace, training={"seed": 40})))
    return ["compare", "-f", str(file), "--flavors", f"{FLAVOR},{BIG}", "--repeat", "2"]


async def live(stage: Stage, state: str = "Succeeded", code: int = 0, result: str = "result.json") -> str:
    """The next pod's whole life; the name of its job, which has ended."""
    life = stage.life
    kubelet = Kubelet(life.cluster, stage.namespace, datetime.now().astimezone(), life.ip)
    pod = await kubelet.bind(-200)
    name = next(name for name in TRAINS if pod.startswith(f"{name}-"))
    await kubelet.prepare_starts(-198)
    await kubelet.prepare_ends(-180, 0, example("prepare-result.json"))
    await kubelet.train_starts(-179)
    await kubelet.train_ends(-179 + TRAINS[name], code, example(result))
    await life.reached(state, name)
    return name


async def jobs(stage: Stage) -> dict[str, dict[str, Any]]:
    path = f"/apis/xray.training/v1alpha1/namespaces/{stage.namespace}/xraytrainingjobs"
    return {item["metadata"]["name"]: item for item in (await stage.life.cluster.get(path))["items"]}


async def test_a_comparison_is_taken_up_again_and_pays_once(
    stage: Stage, xray: CommandLine, words: list[str], tmp_path: Path
) -> None:
    async with xray.running(*words) as first:
        ended = await live(stage)
        assert ended in (f"cxr-{FLAVOR}-1", f"cxr-{BIG}-1")

        async def next_one_is_begun() -> bool:
            return len(await jobs(stage)) == 3

        await until("the second repeat of that flavor is begun", next_one_is_begun)
        assert (await jobs(stage)).keys() == {f"cxr-{FLAVOR}-1", f"cxr-{BIG}-1", ended.replace("-1", "-2")}, (
            "one at a time"
        )
        first.interrupt()
        left = await first.ended()
        assert left.code == 130
        assert left.err.endswith("What has begun goes on. The same command takes the comparison up again.\n")

        async with xray.running(*words, "-o", "json", "--dataset-scale", "500") as again:
            assert {await live(stage), await live(stage), await live(stage)} == TRAINS.keys() - {ended}
            done = await again.ended()
            assert done.code == 0, done.err
            told, there, made = json.loads(done.out), await jobs(stage), await stage.jobs()
            assert there.keys() == TRAINS.keys()
            assert len(made) == 4, "a Job each"
            assert {name: job["spec"]["training"]["seed"] for name, job in there.items()} == {
                name: 39 + int(name[-1]) for name in TRAINS
            }
            bills = {name: job["status"]["cost"] for name, job in there.items()}
            assert {run["name"]: run["total"] for run in told["runs"]} == {
                name: bill["total"] for name, bill in bills.items()
            }
            for row in told["rows"][:2]:
                ours = sorted(
                    (bills[f"cxr-{row['flavor']}-{number}"] for number in (1, 2)), key=lambda bill: bill["heldSeconds"]
                )
                assert (row["source"], row["runs"], row["scaled"], row["currency"]) == ("measured", 2, False, "USD")
                total = row["total"]
                assert [total["seconds"]["least"], total["seconds"]["most"]] == [bill["heldSeconds"] for bill in ours]
                assert [total["amount"]["least"], total["amount"]["most"]] == [bill["total"] for bill in ours]
            assert [row["scaled"] for row in told["rows"]] == [False, False, True, True]
            assert told["rows"][2]["images"] == 500 * example("prepare-result.json")["images"]
            assert told["crossings"][0]["bigger"] == BIG

            table = await xray(*words)
            assert table.code == 0
            spent = sum(Decimal(bill["total"]) for bill in bills.values()).quantize(Decimal("0.01"))
            assert table.out.endswith(f"Paid so far for 4 measured jobs: {spent} USD.\n")
            assert "measured (2 runs)" in table.out
            assert await stage.jobs() == made, "nothing was run again"
            changed = await xray(*words[:2], str(edited(tmp_path)), *words[3:])
            assert (changed.code, changed.out) == (1, "")
            assert "did something else than the job asks for now" in changed.err
            assert await stage.jobs() == made

            simulated = await xray(*words[: words.index("--repeat")], "--simulate", "-o", "csv")
            assert simulated.code == 0, simulated.err
            rows = list(csv.DictReader(io.StringIO(simulated.out)))
            assert [(row["flavor"], row["source"], row["runs"]) for row in rows] == [
                (FLAVOR, "history", "2"),
                (BIG, "history", "2"),
            ]
            assert rows[1]["total_amount_most"] == told["rows"][1]["total"]["amount"]["most"], "at the same price"


def edited(folder: Path) -> Path:
    job = yaml.safe_load((folder / "job.yaml").read_text())
    job["spec"]["training"]["epochs"] = 9
    file = folder / "edited.yaml"
    file.write_text(yaml.safe_dump(job))
    return file


async def test_a_flavor_where_the_job_fails_is_paid_there_once(
    stage: Stage, xray: CommandLine, words: list[str]
) -> None:
    one = words.index(f"{FLAVOR},{BIG}")
    async with xray.running(*words[:one], FLAVOR, *words[one + 1 :]) as running:
        failed = await live(stage, "Failed", 15, "error-result.json")
        done = await running.ended()
        assert done.code == 1
        assert done.err == "error: no job of cxr has succeeded by its own work: there is nothing to compare\n"
        assert (await jobs(stage)).keys() == {failed}


async def test_what_stands_in_the_way_is_told_before_anything_is_paid(
    stage: Stage, xray: CommandLine, words: list[str]
) -> None:
    absent = await xray(*words[:4], f"{FLAVOR},boeing")
    assert absent.code == 1
    assert absent.err.startswith("error: no AcceleratorFlavor boeing; there are ")
    await stage.life.create(xray_job(stage.namespace, f"cxr-{FLAVOR}-1", suspend=True))
    taken = await xray(*words)
    assert taken.code == 1
    assert taken.err == (
        f'error: the job "cxr-{FLAVOR}-1" is there and is none of this comparison: compare under another metadata.name\n'
    )
