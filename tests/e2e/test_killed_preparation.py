"""A preparation whose process is killed twice, from the node, comes to the same bytes as one that nobody disturbs."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from dev.demo.stack import Kube, Manifest, claim, pod_on_claim
from tests.e2e.places import CLAIM, folder, generate_set, tiny_run
from tests.e2e.processes import process_of
from tests.e2e.waiting import until, wait_for_end
from xray_operator.core.run_file import CACHE_MOUNT

pytestmark = pytest.mark.e2e

FLAVOR = "demo-vpod4"
CALM = "calm"
"""The cache claim of the preparation that is left alone."""
ARCHIVES, IMAGES_PER_ARCHIVE = 2, 500
IMAGE_SIZE = 512
"""As large as may be, so that shards are of few images: 64 MiB hold 196 of 585 x 585."""
SHARDS = ARCHIVES * -(-IMAGES_PER_ARCHIVE // 196)
KILLS = 2
"""As many as the Job's backoffLimit forgives."""
STEP_SECONDS = 300


@pytest.fixture(scope="module")
def place(kube: Kube, module_namespace: str, prepare_image: str) -> str:
    """A namespace with a generated set in the folder `xrays` of its claim."""
    claim(kube, module_namespace, CALM)
    images = ARCHIVES * IMAGES_PER_ARCHIVE
    generate_set(kube, module_namespace, prepare_image, "xrays", images=images, size=64, archives=ARCHIVES)
    return module_namespace


def start(kube: Kube, namespace: str, name: str, cache: str) -> None:
    kube.apply(tiny_run(namespace, name, FLAVOR, folder("xrays"), imageSize=IMAGE_SIZE, cache={"claimName": cache}))


def status_of(kube: Kube, namespace: str, name: str) -> Manifest:
    found: Manifest = (kube.find("xraytrainingjob", name, namespace) or {}).get("status", {})
    return found


def condition(status: Manifest, kind: str) -> Manifest:
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def prepared(kube: Kube, namespace: str, name: str) -> Manifest:
    """What is told of the data, once they are ready."""

    def data() -> Manifest:
        status = status_of(kube, namespace, name)
        return dict(status["data"]) if condition(status, "DataReady").get("status") == "True" else {}

    return until("the data are ready", data, STEP_SECONDS)


def data_pods(kube: Kube, namespace: str, name: str) -> list[Manifest]:
    """Of the Job that prepares a run's data, the oldest first."""
    job = status_of(kube, namespace, name).get("preparation", {}).get("jobName")
    pods = kube.items("pods", namespace, f"job-name={job}")
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def process_of_attempt(kube: Kube, namespace: str, name: str, attempt: int) -> int:
    """Args:
    attempt: from 1.
    """

    def find() -> int:
        pods = data_pods(kube, namespace, name)
        return (process_of(pods[attempt - 1], "prepare-data") if len(pods) >= attempt else None) or 0

    return until(f"attempt {attempt} runs", find, STEP_SECONDS)


def kill_with(shards: int, process: int) -> None:
    """When so many shards are there, as the process itself sees its cache volume."""
    volume, deadline = Path(f"/proc/{process}/root{CACHE_MOUNT}"), time.monotonic() + STEP_SECONDS
    while len(list(volume.glob("xray-cache/.staged-*/*.arrow"))) < shards:
        assert Path(f"/proc/{process}").exists(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)  # between two looks
    os.kill(process, signal.SIGKILL)


def digests(kube: Kube, namespace: str, cache: str, image: str) -> dict[str, str]:
    """File -> SHA-256 of what lies on a cache claim, but for the Job's own note."""
    with pod_on_claim(kube, namespace, cache, image) as place:
        pod = place.partition("/")[2].partition(":")[0]
        listing = "cd /claim/xray-cache && find . -type f -exec sha256sum {} +"
        lines = kube.kubectl("exec", "-n", namespace, pod, "--", "sh", "-c", listing).splitlines()
    found = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    return {name: digest for name, digest in found.items() if not name.startswith("./xray-data-")}


def held_seconds(pods: list[Manifest]) -> int:
    """Between a pod's node and its end, all together."""
    spans = []
    for pod in pods:
        scheduled = next(c["lastTransitionTime"] for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")
        ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
        spans.append(datetime.fromisoformat(ended) - datetime.fromisoformat(scheduled))
    return round(sum(span.total_seconds() for span in spans))


def failed_attempt(status: Manifest) -> str:
    """What is told of an attempt at preparation that just has failed; nothing if none has."""
    assert status["state"] == "Preparing", status
    running = condition(status, "Running")
    return str(running["message"]) if running["reason"] == "AttemptFailed" else ""


def test_a_preparation_killed_at_random_shards_comes_to_the_same_bytes(
    kube: Kube, place: str, prepare_image: str
) -> None:
    start(kube, place, "calm", CALM)
    calm = prepared(kube, place, "calm")
    kube.kubectl("delete", "xtj", "calm", "-n", place, "--timeout=120s")

    seed = random.randrange(1000)
    print(f"seed {seed}")
    start(kube, place, "killed", CLAIM)
    for attempt, shards in enumerate(sorted(random.Random(seed).sample(range(1, SHARDS), KILLS)), start=1):
        kill_with(shards, process_of_attempt(kube, place, "killed", attempt))
        told = until("the failed attempt is told", lambda: failed_attempt(status_of(kube, place, "killed")))
        assert "exit code 137" in told
    status = wait_for_end(kube, "killed", place)["status"]
    assert status["state"] == "Succeeded", status["conditions"]
    assert status["data"] == calm

    job = kube.find("job", status["preparation"]["jobName"], place) or {}
    assert (job["status"]["failed"], job["status"]["succeeded"]) == (KILLS, 1)
    assert status["preparation"]["seconds"] == held_seconds(data_pods(kube, place, "killed")), "killed or not"
    events = [each["message"] for each in kube.items("events", place) if each["reason"] == "AttemptFailed"]
    assert len(events) == KILLS, events
    left = digests(kube, place, CLAIM, prepare_image)
    assert {Path(name).name for name in left} >= {"manifest.json", *(f"{p}-00000.arrow" for p in ("train", "test"))}
    assert left == digests(kube, place, CALM, prepare_image)
