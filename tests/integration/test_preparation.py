"""The Jobs that prepare data and fetch models for several runs, on a real control plane; the test plays kubelet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.kubelet import Kubelet
from tests.integration.life import claim, example, flavor, xray_job
from tests.integration.stage import JOBS, Stage, operating

pytestmark = pytest.mark.integration
CHEAP = "integration-cpu"
DATASET = {"source": {"pvc": {"claimName": "nih", "path": "nih"}}}


def cheap_flavor() -> dict[str, Any]:
    cheap = flavor(CHEAP)
    return cheap | {"spec": {"backend": "cpu", "host": {"cpu": "1"}, "prices": cheap["spec"]["prices"]}}


async def create_two(stage: Stage, kubeconfig: Path) -> dict[str, Any]:
    """Two jobs with the same data; the Job that both own."""
    claims = [claim(stage.namespace, name) for name in ("nih", "out")]
    assert apply(kubeconfig, cheap_flavor(), *claims).returncode == 0
    jobs = [await stage.life.create(xray_job(stage.namespace, name, dataset=DATASET)) for name in ("one", "two")]
    wanted = {job["metadata"]["uid"] for job in jobs}

    async def shared() -> dict[str, Any] | None:
        found = await stage.life.listed(JOBS)
        owners = {owner["uid"] for raw in found for owner in raw["metadata"]["ownerReferences"]}
        return dict(found[0]) if owners == wanted else None

    data_job = await until("both own one Job", shared)
    assert await stage.jobs() == [data_job["metadata"]["name"]], "no run has a Job of its own yet"
    return data_job


async def kubelet_of(stage: Stage) -> Kubelet:
    """That runs the preparation's pod since three seconds ago."""
    kubelet = Kubelet(stage.life.cluster, stage.namespace, datetime.now(UTC) - timedelta(seconds=3), stage.life.ip)
    await kubelet.bind(0)
    return kubelet


async def test_two_jobs_share_a_preparation_and_the_first_pays(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with operating(kubeconfig, namespace, tmp_path, defaultPrepareFlavor=CHEAP) as stage:
        data_job = await create_two(stage, kubeconfig)
        pod = data_job["spec"]["template"]["spec"]
        assert "graphcore.ai/ipu" not in str([container["resources"] for container in pod["containers"]])
        await (await kubelet_of(stage)).data_ends(2, 0, example("prepare-result.json"))
        told = {name: (await stage.life.reached("Queued", name))["status"] for name in ("one", "two")}
        assert len(await stage.jobs()) == 3
        assert all(status["data"]["images"] == 748 for status in told.values())
        costs = sorted(status["preparation"]["cost"] for status in told.values())
        assert costs[1] == "shared"
        assert costs[0] != "shared"
        assert kubectl(kubeconfig, "delete", "xtj", "--all", "-n", namespace, "--cascade=foreground").returncode == 0

        async def gone() -> bool:
            return await stage.jobs() == []

        await until("the last owner has taken the preparation along", gone)


MODELS = {"one": "example/small", "two": "example/small", "three": "example/large"}


async def create_three(stage: Stage, kubeconfig: Path) -> dict[frozenset[str], str]:
    """Three jobs with the same data and two models; the jobs that own a Job -> what the Job is for."""
    claims = [claim(stage.namespace, name) for name in ("nih", "out")]
    assert apply(kubeconfig, cheap_flavor(), *claims).returncode == 0
    for name, model in MODELS.items():
        await stage.life.create(xray_job(stage.namespace, name, dataset=DATASET, model={"name": model}))

    async def owned() -> dict[frozenset[str], str] | None:
        found = await stage.life.listed(JOBS)
        owners = {
            frozenset(owner["name"] for owner in raw["metadata"]["ownerReferences"]): raw["metadata"]["name"]
            for raw in found
        }
        return owners if {len(names) for names in owners} == {1, 2, 3} else None

    return await until("each Job has its owners", owned)


async def test_a_finished_run_is_adopted_and_no_pod_holds_its_flavor(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with operating(kubeconfig, namespace, tmp_path, defaultPrepareFlavor=CHEAP) as stage:
        claims = [claim(namespace, name) for name in ("nih", "out")]
        assert apply(kubeconfig, cheap_flavor(), *claims).returncode == 0
        await stage.life.create(xray_job(namespace, dataset=DATASET))
        folder = (await stage.life.reached("Preparing"))["status"]["run"]["folder"]
        found = {"adopted": True, "phases": [], "output_folder": folder}
        answer = example("prepare-result.json") | example("result.json") | found
        await (await kubelet_of(stage)).data_ends(2, 0, answer)
        adopted = (await stage.life.reached("Succeeded"))["status"]
        assert (adopted["results"]["adopted"], adopted["cost"]["heldSeconds"]) == (True, 0)
        assert adopted["cost"]["total"] == adopted["preparation"]["amount"]
        assert await stage.jobs() == [adopted["preparation"]["jobName"]]


async def test_runs_of_the_same_data_and_different_models_share_the_data_alone(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with operating(kubeconfig, namespace, tmp_path, defaultPrepareFlavor=CHEAP) as stage:
        owners = await create_three(stage, kubeconfig)
        assert {names: job[:10] for names, job in owners.items()} == {
            frozenset({"one", "two", "three"}): "xray-data-",
            frozenset({"one", "two"}): "xray-model",
            frozenset({"three"}): "xray-model",
        }
        for _ in owners:
            kubelet = Kubelet(stage.life.cluster, namespace, datetime.now(UTC) - timedelta(seconds=3), stage.life.ip)
            pod = await kubelet.bind(0)
            result = "prepare-result.json" if pod.startswith("xray-data-") else "model-result.json"
            await kubelet.data_ends(2, 0, example(result))
        told = {name: (await stage.life.reached("Queued", name))["status"] for name in MODELS}
        assert len(await stage.jobs()) == 6
        commit = example("model-result.json")["model"]["commit"]
        assert {(status["model"]["commit"], status["data"]["images"]) for status in told.values()} == {(commit, 748)}
        shared = {name: status["modelPreparation"]["cost"] == "shared" for name, status in told.items()}
        assert sorted([shared["one"], shared["two"]]) == [False, True]
        assert not shared["three"]


async def test_a_preparation_that_failed_ends_all_and_a_rerun_makes_it_anew(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with operating(kubeconfig, namespace, tmp_path, defaultPrepareFlavor=CHEAP) as stage:
        former = await create_two(stage, kubeconfig)
        await (await kubelet_of(stage)).data_ends(2, 11, example("error-result.json"))
        for name in ("one", "two"):
            status = (await stage.life.reached("Failed", name))["status"]
            assert {c["reason"] for c in status["conditions"] if c["type"] == "Stalled"} == {"DataCorrupt"}
        patched = kubectl(kubeconfig, "patch", "xtj/one", "-n", namespace, "--type=merge", "-p", '{"spec":{"rerun":1}}')
        assert patched.returncode == 0, patched.stderr

        async def made_anew() -> bool:
            found = await stage.life.listed(JOBS)
            return [raw["metadata"]["name"] for raw in found] == [former["metadata"]["name"]] and (
                found[0]["metadata"]["uid"] != former["metadata"]["uid"]
            )

        await until("another preparation of the same name", made_anew)


async def until_owned(stage: Stage, **wanted: list[str]) -> None:
    """Until these are the Jobs that nobody has deleted, by what they prepare, with these owners."""

    async def owned() -> bool:
        found = [raw["metadata"] for raw in await stage.life.listed(JOBS)]
        owners = {
            metadata["name"].split("-")[1]: [owner["name"] for owner in metadata["ownerReferences"]]
            for metadata in found
            if "deletionTimestamp" not in metadata
        }
        return owners == wanted

    await until(f"Jobs of {wanted}", owned)


@pytest.mark.parametrize("others", [[], ["second"]])
async def test_a_run_that_fails_ends_its_other_preparation_or_leaves_it_to_those_who_wait_for_it(
    kubeconfig: Path, namespace: str, tmp_path: Path, others: list[str]
) -> None:
    async with operating(kubeconfig, namespace, tmp_path, defaultPrepareFlavor=CHEAP) as stage:
        claims = [claim(namespace, name) for name in ("nih", "out")]
        assert apply(kubeconfig, cheap_flavor(), *claims).returncode == 0
        await stage.life.create(xray_job(namespace, "first", dataset=DATASET, model={"name": "example/first"}))
        await until_owned(stage, data=["first"], model=["first"])
        for name in others:
            await stage.life.create(xray_job(namespace, name, dataset=DATASET))
        await until_owned(stage, data=["first", *others], model=["first"])
        pods = [(await kubelet_of(stage)) for _ in range(2)]
        (fetching,) = (kubelet for kubelet in pods if kubelet.pod.startswith("xray-model-"))
        refused = example("error-result.json") | {"exit_code": 10, "reason": "ConfigurationInvalid"}
        await fetching.data_ends(2, 10, refused)
        failed = (await stage.life.reached("Failed", "first"))["status"]
        assert "finishedAt" in failed["preparation"]
        assert (failed["preparation"]["cost"] == "shared") == bool(others)
        await until_owned(stage, model=["first"], **({"data": others} if others else {}))

        async def pays(name: str) -> bool:
            return bool((await stage.life.job(name))["status"]["preparation"]["cost"] != "shared")

        for name in others:
            await until("who is left pays", partial(pays, name))
