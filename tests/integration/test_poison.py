"""Objects that somebody spoilt, on a real server: they hurt themselves at most, and never a neighbour."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.conftest import make_namespace, remove_namespace
from tests.integration.life import claim, flavor, xray_job
from tests.integration.operator_process import answers
from tests.integration.trial import HEALTH_PORT, Trial, trial

pytestmark = pytest.mark.integration
DEAF_AFTER_SECONDS = 3
KOPF = {
    "kopf.zalando.org/last-handled-configuration": "{not json",
    "kopf.zalando.org/progress": "[]",
}
"""kopf's own records, as no kopf would write them."""
LONG_AGO = "0001-01-01T00:00:00Z"
NONSENSE: dict[str, dict[str, Any]] = {
    "attempts": {"attempts": [{"podName": "nobody", "startedAt": LONG_AGO, "trainingSeconds": -5}] * 32},
    "conditions": {
        "conditions": [
            {"type": kind, "status": "True", "reason": "Nonsense", "message": "", "lastTransitionTime": LONG_AGO}
            for kind in ("Ready", "Accepted", "Nonsense")
        ]
    },
    "cost": {"cost": {"heldSeconds": -1, "total": "a lot", "phases": []}},
    "data": {"data": {"images": -1}},
    "lower-case-times": {"times": {"queued": {"startedAt": "2026-01-01t00:00:00z"}, "evaluating": {}}},
    "run": {"run": {"jobName": "nobodys", "podName": "nobody", "startedAt": "9999-12-31T23:59:59.999999999Z"}},
    "trainer": {"trainerStatus": {"progressPercentage": 100, "progress": "lots", "metrics": []}},
}


@pytest.fixture
def neighbourhood(kubeconfig: Path) -> Iterator[str]:
    """A second namespace, in which the neighbours of a test live."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    make_namespace(kubeconfig, name)
    assert apply(kubeconfig, claim(name, "nih"), claim(name, "out")).returncode == 0
    yield name
    remove_namespace(kubeconfig, name)


def annotated(manifest: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    return manifest | {"metadata": manifest["metadata"] | {"annotations": annotations}}


async def neighbour_is_served(tried: Trial, namespace: str) -> None:
    """Another job, in another namespace of the same operator, lives its whole life."""
    life = replace(tried.life, namespace=namespace)
    await life.live_through(await life.create(xray_job(namespace)))


async def health_stays_good() -> None:
    """For longer than a deaf operator would be left alone."""
    async with aiohttp.ClientSession() as session:
        health = partial(answers, session, f"http://127.0.0.1:{HEALTH_PORT}/healthz", 200)
        await until("health is good: the proxy, which is in this loop, answers again", health)
        until_moment = time.monotonic() + 2 * DEAF_AFTER_SECONDS

        async def good_for_long() -> bool:
            assert await health()
            return time.monotonic() > until_moment

        await until("health was good for long", good_for_long)


async def test_annotations_in_kopfs_name_change_nothing(
    kubeconfig: Path, namespace: str, neighbourhood: str, tmp_path: Path
) -> None:
    settings = {"namespaces": [namespace, neighbourhood], "resyncSeconds": 0.5}
    settings |= {"healthPort": HEALTH_PORT, "deafAfterSeconds": DEAF_AFTER_SECONDS}
    async with trial(kubeconfig, namespace, tmp_path, **settings) as tried:
        assert apply(kubeconfig, annotated(flavor("spoilt"), KOPF)).returncode == 0
        await tried.life.create(annotated(xray_job(namespace, "spoilt", flavor="spoilt"), KOPF))
        child = (await tried.life.reached("Queued", "spoilt"))["status"]["run"]["jobName"]
        for kind, labelled in (("job", child), ("pod", f"-l=job-name={child}")):
            annotations = [f"{key}={value}" for key, value in KOPF.items()]
            spoilt = kubectl(kubeconfig, "annotate", kind, labelled, "-n", namespace, *annotations)
            assert spoilt.returncode == 0, spoilt.stderr
        await health_stays_good()
        await neighbour_is_served(tried, neighbourhood)
        assert tried.codes == []
        assert not tried.oddities(), tried.log
    assert kubectl(kubeconfig, "delete", "acceleratorflavor", "spoilt").returncode == 0


async def test_a_finalizer_of_another_kopf_operator_is_left_alone(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    foreign = {"finalizers": ["kopf.zalando.org/KopfFinalizerMarker"]}
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        manifest = xray_job(namespace)
        job = await tried.life.create(manifest | {"metadata": manifest["metadata"] | foreign})
        end = await tried.life.live_through(job)
        assert end["metadata"]["finalizers"] == foreign["finalizers"]
        assert not [write for write in tried.proxy.writes if write.startswith("PATCH")]
        free = kubectl(
            kubeconfig, "patch", "xtj", "cxr", "-n", namespace, "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
        )
        assert free.returncode == 0, free.stderr


async def test_children_made_by_hand_under_our_labels_are_nobodys(
    kubeconfig: Path, namespace: str, neighbourhood: str, tmp_path: Path
) -> None:
    async with trial(kubeconfig, namespace, tmp_path, namespaces=[namespace, neighbourhood]) as tried:
        uid = (await tried.life.create(xray_job(namespace)))["metadata"]["uid"]
        await tried.life.reached("Queued")
        pod_spec = {"restartPolicy": "Never", "containers": [{"name": "train", "image": "registry.example/x"}]}
        for name, label in (("stranger", uid), ("nameless", "")):
            metadata = {"name": name, "namespace": neighbourhood, "labels": {"xray.training/job-uid": label}}
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": pod_spec | {"nodeName": "simulated"},
            }
            template = {"metadata": {"labels": metadata["labels"]}, "spec": pod_spec}
            job = {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "metadata": metadata,
                "spec": {"suspend": True, "template": template},
            }
            assert apply(kubeconfig, pod, job, job | {"metadata": metadata | {"namespace": namespace}}).returncode == 0
        await neighbour_is_served(tried, neighbourhood)
        job = await tried.life.job()
        assert job["status"]["state"] == "Queued"
        assert "attempts" not in job["status"]
        assert not tried.oddities(), tried.log


async def test_nonsense_in_a_status_hurts_only_that_job(
    kubeconfig: Path, namespace: str, neighbourhood: str, tmp_path: Path
) -> None:
    async with trial(kubeconfig, namespace, tmp_path, namespaces=[namespace, neighbourhood]) as tried:
        spoilt = [(await tried.life.create(xray_job(namespace, name)))["metadata"]["uid"] for name in NONSENSE]
        for name, status in NONSENSE.items():
            await tried.life.reached("Queued", name)
            words = json.dumps({"status": status})
            patch = ("patch", "xtj", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", words)
            patched = kubectl(kubeconfig, *patch)
            assert patched.returncode == 0, patched.stderr
        await neighbour_is_served(tried, neighbourhood)
        assert tried.codes == []
        assert not [line for line in tried.oddities() if not any(uid in line for uid in spoilt)], tried.log


async def test_long_and_dotted_names_are_served(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    label = "a" * 49
    long = f"{label}.{label}.{label}.{label}.{label}.abc"
    assert len(long) == 253
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        for name in (long, "chest.x-ray.v2", "0"):
            job = await tried.life.create(xray_job(namespace, name))
            await tried.life.reached("Queued", name)
            reasons = sorted(event["reason"] for event in await tried.life.events(job["metadata"]["uid"]))
            assert reasons == ["Accepted", "Created"]
        assert not tried.oddities(), tried.log
