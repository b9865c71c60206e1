"""Runs on the real node are stopped at random steps, each in several ways; they end as one that nobody disturbs.

Three stops by default; XRAY_CHAOS_KILLS=20 (`make chaos`) makes twenty. XRAY_CHAOS_FLAVOR names the flavor, XRAY_CHAOS_IMAGE
what trains on a flavor with IPUs: the torch image, or the one for IPUs.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest

from dev.demo.stack import SYSTEM_NAMESPACE, Kube, Manifest, claim, pod_on_claim, restricted_pod, run_pod_job
from tests.chaos.settings import FLAVOR, IMAGE, KILLS
from tests.e2e.places import CLAIM, tiny_run
from tests.e2e.processes import process_of, progress_of
from tests.e2e.waiting import until, wait_for_end

pytestmark = pytest.mark.e2e

EVERY_STEPS = 10
EPOCHS = 40
LEFT_STEPS = 120
"""After the last stop: seconds pass between a wish to stop and the signal, and a run that is over can't be stopped."""
MODEL = {"hiddenSize": 64, "layers": 2, "heads": 2, "patchSize": 16}
"""Tiny, but slow enough that a step can be waited for."""
STEP_SECONDS = 180
"""For one step of the story: a pod starts, or ends."""


@dataclass(frozen=True)
class Run:
    """One job, and what can be seen and done about it."""

    kube: Kube
    namespace: str
    name: str
    prepare_image: str

    def start(self) -> None:
        source = {"synthetic": {"images": 200, "seed": 3, "size": 64}}
        manifest = tiny_run(self.namespace, self.name, FLAVOR, source, prepare="InitContainer")
        manifest["spec"] |= {"model": {"config": MODEL}, "training": {"epochs": EPOCHS, "globalBatchSize": 16}}
        manifest["spec"] |= {"checkpoint": {"everySteps": EVERY_STEPS}}
        if IMAGE == "ipu":
            manifest["spec"] |= {"ipu": {"ipusPerReplica": 2}}  # for two layers
        self.kube.apply(manifest)

    def status(self) -> Manifest:
        return dict((self.kube.find("xraytrainingjob", self.name, self.namespace) or {}).get("status", {}))

    def edit(self, **spec: object) -> None:
        body = json.dumps({"spec": spec})
        self.kube.kubectl("patch", "xtj", self.name, "-n", self.namespace, "--type=merge", "-p", body)

    def pods(self) -> list[Manifest]:
        return self.kube.items("pods", self.namespace, f"xray.training/job-name={self.name}")

    def end(self) -> Manifest:
        return dict(wait_for_end(self.kube, self.name, self.namespace)["status"])

    def on_claim(self, command: str) -> str:
        """What a shell says in the run's folder."""
        folder = self.status()["run"]["folder"]
        with pod_on_claim(self.kube, self.namespace, CLAIM, self.prepare_image) as place:
            pod = place.partition("/")[2].partition(":")[0]
            shell = ("sh", "-c", f"cd /claim/{folder} && {command}")
            return self.kube.kubectl("exec", "-n", self.namespace, pod, "--", *shell)


@dataclass(frozen=True)
class Attempt:
    """A pod that trains."""

    pod: Manifest
    process: int

    def wait_for_step(self, step: int) -> int:
        """Until the trainer has told of this step, or a later one."""
        deadline = time.monotonic() + STEP_SECONDS
        while (told := progress_of(self.pod)).get("step", 0) < step:
            assert told.get("phase") != "Evaluating", f"step {step} was over before anybody saw it"
            assert time.monotonic() < deadline, told
            time.sleep(0.005)  # between two looks
        assert told["phase"] == "Training", f"step {step} was over before anybody saw it"
        return int(told["step"])


def attempt_after(run: Run, seen: set[str]) -> Attempt:
    """The next attempt's pod, when it trains."""

    def ask() -> Attempt | None:
        pods = run.pods()
        fresh = [pod for pod in pods if pod["metadata"]["name"] not in seen and "podIP" in pod["status"]]
        running = [pod for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]
        assert len(running) < 2, "two pods of one run at once"
        process = process_of(fresh[0], "train") if fresh else None
        return Attempt(fresh[0], process) if process else None

    attempt = until(f"another pod of {run.name} trains", ask, STEP_SECONDS)
    assert attempt is not None
    seen.add(attempt.pod["metadata"]["name"])
    return attempt


def kill(_: Run, attempt: Attempt, __: random.Random) -> None:
    os.kill(attempt.process, signal.SIGKILL)


def delete(run: Run, attempt: Attempt, _: random.Random) -> None:
    run.kube.kubectl("delete", "pod", attempt.pod["metadata"]["name"], "-n", run.namespace, "--wait=false")


def suspend(run: Run, _: Attempt, __: random.Random) -> None:
    suspend_and_do(run, lambda: None)


def suspend_and_break(run: Run, _: Attempt, chance: random.Random) -> None:
    """Somebody, or a disk, cuts a file of the newest checkpoint."""

    def damage() -> None:
        files = run.on_claim("ls $(ls -d checkpoints/step-* | tail -n 1)/*").split()
        run.on_claim(f"truncate -s 7 {chance.choice(files)}")

    suspend_and_do(run, damage)


def suspend_and_do(run: Run, act: Callable[[], None]) -> None:
    run.edit(suspend=True)
    until(f"{run.name} is suspended", lambda: run.status().get("state") == "Suspended", STEP_SECONDS)
    assert [pod for pod in run.pods() if pod["status"]["phase"] in ("Pending", "Running")] == []
    hold_all_accelerators(run)
    act()
    run.edit(suspend=False)


def hold_all_accelerators(run: Run) -> None:
    """Another pod gets as many as the run had: none of them is held."""
    flavor = (run.kube.find("acceleratorflavor", FLAVOR) or {})["spec"]
    pod = restricted_pod(run.prepare_image, ["-c", "pass"], {}, ["python3"])
    if "resourceName" in flavor:
        pod["containers"][0]["resources"] = {"limits": {flavor["resourceName"]: str(flavor["accelerators"])}}
    run_pod_job(run.kube, run.namespace, f"holds-all-{time.monotonic_ns()}", pod, STEP_SECONDS)


Way = Callable[[Run, Attempt, random.Random], None]
WAYS: tuple[Way, ...] = (kill, suspend_and_break, delete, kill, suspend)
"""Of one run; a Job forgives two kills."""


@dataclass(frozen=True)
class Stop:
    """What was done to a run."""

    way: Way
    step: int
    """The last that the trainer has told of."""
    operator_too: bool

    def __str__(self) -> str:
        return f"{self.way.__name__} at step {self.step}{', and the operator' if self.operator_too else ''}"


@contextmanager
def operator_killed(kube: Kube) -> Iterator[Callable[[], None]]:
    """A function that kills the operator's process; its pod goes afterwards, so that another comes at once."""
    pods = kube.items("pods", SYSTEM_NAMESPACE, "app.kubernetes.io/name=xray-operator")
    (pod,) = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    process = process_of(pod, "xray_operator")
    assert process is not None, "the operator runs"
    yield partial(os.kill, process, signal.SIGKILL)
    kube.kubectl("delete", "pod", pod["metadata"]["name"], "-n", SYSTEM_NAMESPACE, "--grace-period=0", "--force")


def disturb(run: Run, ways: list[Way], steps: int, chance: random.Random) -> list[Stop]:
    """Stop the run in these ways at random steps, the later the later."""
    run.start()
    seen: set[str] = set()
    stops = []
    # not where it has to suspend the run first: that would be over before
    operator_dies_at = chance.choice([number for number, way in enumerate(ways) if way in (kill, delete)])
    for number, step in enumerate(sorted(chance.sample(range(EVERY_STEPS + 1, steps - LEFT_STEPS), len(ways)))):
        attempt = attempt_after(run, seen)
        operator_too = number == operator_dies_at
        with operator_killed(run.kube) if operator_too else nullcontext(lambda: None) as kill_operator:
            stop = Stop(ways[number], attempt.wait_for_step(step), operator_too)
            kill_operator()
            stop.way(run, attempt, chance)
        stops.append(stop)
    return stops


def resumptions(log: str) -> Iterator[tuple[int, int]]:
    """(the newest checkpoint that had been saved before, the one that was gone on from), from train.log."""
    saved = 0
    for word, step in re.findall(r"(checkpoint of step|going on from the checkpoint of step) (\d+)", log):
        if word.startswith("going on"):
            yield saved, int(step)
        saved = int(step)


def lost_steps(run: Run, stops: list[Stop]) -> list[int]:
    """Steps that were done twice, for each stop; and each resumed from the newest checkpoint that verified."""
    found = list(resumptions(run.on_claim("cat train.log")))
    assert len(found) == len(stops), "each stop was resumed from a checkpoint"
    lost = []
    for stop, (saved, resumed) in zip(stops, found, strict=True):
        broken = stop.way is suspend_and_break
        assert resumed < saved if broken else resumed >= saved, f"{stop}: saved {saved}, resumed from {resumed}"
        lost.append(max(stop.step, saved) - resumed)
        print(f"{run.name}: {stop}: resumed from step {resumed}, {lost[-1]} steps lost")
    return lost


def check_attempts(status: Manifest, stops: list[Stop]) -> None:
    """One after the other, and each ended as it was ended."""
    rows = status["attempts"]
    assert len(rows) == len(stops) + 1, rows
    assert all(before.get("finishedAt", "") <= after["startedAt"] for before, after in pairwise(rows)), rows
    codes = [row.get("exitCode") for row in rows[:-1]]
    wanted = [137 if stop.way is kill else 143 for stop in stops]
    unseen = [stop.operator_too and stop.way is not kill for stop in stops]
    assert [None if hidden else code for hidden, code in zip(unseen, codes, strict=True)] == [
        None if hidden else code for hidden, code in zip(unseen, wanted, strict=True)
    ], rows


@pytest.fixture(scope="module")
def calm(kube: Kube, module_namespace: str, prepare_image: str) -> tuple[Manifest, int]:
    """Results and steps of the run that nobody disturbs."""
    claim(kube, module_namespace, CLAIM)
    run = Run(kube, module_namespace, "calm", prepare_image)
    run.start()
    status = run.end()
    assert status["state"] == "Succeeded", status["conditions"]
    return status["results"], int(re.findall(r"step \d+ of (\d+)", run.on_claim("cat train.log"))[-1])


def test_runs_that_are_stopped_at_random_steps_end_as_one_that_nobody_disturbs(
    kube: Kube, module_namespace: str, prepare_image: str, calm: tuple[Manifest, int]
) -> None:
    results, steps = calm
    seed = int(os.environ.get("XRAY_CHAOS_SEED", random.randrange(10000)))
    print(f"\nXRAY_CHAOS_SEED={seed}; {steps} steps, a checkpoint every {EVERY_STEPS}")
    chance, lost, equal = random.Random(seed), [], 0
    for begin in range(0, KILLS, len(WAYS)):
        ways = list(WAYS[: KILLS - begin])
        chance.shuffle(ways)
        run = Run(kube, module_namespace, f"disturbed-{begin}", prepare_image)
        stops = disturb(run, ways, steps, chance)
        status = run.end()
        assert status["state"] == "Succeeded", status["conditions"]
        lost += lost_steps(run, stops)
        check_attempts(status, stops)
        equal += status["results"]["modelDigest"] == results["modelDigest"]
        assert without(status["results"], "resumedFromStep") == without(results, "resumedFromStep")
    print(f"{len(lost)} stops, all resumed, at most {max(lost)} steps lost; {equal} runs ended with the same model")
    assert len(lost) == KILLS
    assert max(lost) <= EVERY_STEPS


def without(results: Manifest, key: str) -> Manifest:
    return {name: value for name, value in results.items() if name != key}
