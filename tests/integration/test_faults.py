"""Trouble between operator and API server: the run reaches the same end, with one Job and each event once.

The operator goes on, or it ends with an error and is started again as kubelet would.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.integration import proxy as faulty
from tests.integration.cluster_access import kubectl, until
from tests.integration.conftest import install_crds, make_namespace, remove_namespace
from tests.integration.life import STOPPED, xray_job
from tests.integration.operator_process import answers, total
from tests.integration.stage import JOBS
from tests.integration.trial import HEALTH_PORT, METRICS_PORT, Trial, trial

pytestmark = pytest.mark.integration
End = dict[str, Any]
HEALTH = f"http://127.0.0.1:{HEALTH_PORT}/healthz"
READINESS = f"http://127.0.0.1:{METRICS_PORT}/readyz"
DEAF_AFTER_SECONDS = 3
PODS = "/api/v1/namespaces/{}/pods"


@pytest.fixture(scope="module")
def undisturbed(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> End:
    """The end with which all others are compared; the log of the way there is clean."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"

    async def live() -> End:
        async with trial(kubeconfig, namespace, tmp_path_factory.mktemp("undisturbed")) as tried:
            end = await tried.live()
            assert not [word for word in ("ERROR", "WARNING", "Traceback") if word in tried.log], tried.log
            assert tried.codes == []
            return end

    make_namespace(kubeconfig, namespace)
    try:
        return asyncio.run(live())
    finally:
        remove_namespace(kubeconfig, namespace)


def test_an_undisturbed_run_leaves_a_clean_log(undisturbed: End) -> None:
    assert undisturbed["status"]["state"] == "Succeeded"
    assert len(undisturbed["jobs"]) == 1


@pytest.mark.parametrize(
    ("ending", "survived"),
    [
        pytest.param(faulty.ERROR_500, False, id="that-reports-an-error"),
        pytest.param(faulty.ERROR_410, True, id="that-is-too-old"),
        pytest.param(faulty.ABORTED, True, id="that-breaks-in-the-middle-of-an-event"),
        pytest.param(faulty.CUT, False, id="that-ends-well-in-the-middle-of-an-event"),
    ],
)
async def test_a_run_outlives_a_watch(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End, ending: faulty.Ending, survived: bool
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:

        def after_write(number: int) -> bool:
            if number in (2, 7, 12):
                tried.proxy.end_watches(ending)
            return False

        tried.proxy.after_write = after_write
        assert await tried.live() == undisturbed
        assert tried.codes == [] if survived else set(tried.codes) == {1}


def refuse_at_first(status: int, concerned: Callable[[web.Request], bool], times: int) -> Callable[..., int | None]:
    """Refuses the first requests for each collection."""
    refused: Counter[tuple[str, bool]] = Counter()

    def refuse(request: web.Request) -> int | None:
        kind = (request.path, faulty.is_watch(request))
        if not concerned(request) or refused[kind] == times:
            return None
        refused[kind] += 1
        return status

    return refuse


@pytest.mark.parametrize("status", [403, 429, 500, 503])
async def test_a_run_outlives_lists_and_watches_that_are_refused_for_a_while(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End, status: int
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:

        def after_write(number: int) -> bool:
            if number == 5:
                tried.proxy.refuse = refuse_at_first(status, lambda r: faulty.is_list(r) or faulty.is_watch(r), 2)
                tried.proxy.end_watches(faulty.ERROR_410)
            return False

        tried.proxy.after_write = after_write
        assert await tried.live() == undisturbed
        assert tried.codes == []


def refuse_some(status: int, concerned: Callable[[web.Request], bool]) -> Callable[..., int | None]:
    """Refuses the first request for each kind of object, and a third of all others.

    Not each second one: a look at a job makes several writes, and always the same one would fail.
    """
    chance, known = random.Random(0), set[str]()

    def refuse(request: web.Request) -> int | None:
        kind = request.path.rsplit("/", 1)[-1]
        if not concerned(request):
            return None
        refused = kind not in known or chance.random() < 1 / 3
        known.add(kind)
        return status if refused else None

    return refuse


@pytest.mark.parametrize("status", [409, 429, 500, 503])
async def test_a_run_outlives_writes_of_which_many_fail(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End, status: int
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        tried.proxy.refuse = refuse_some(status, faulty.is_write)
        assert await tried.live() == undisturbed
        assert tried.codes == []


async def test_a_run_outlives_writes_that_are_never_answered(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    async with trial(kubeconfig, namespace, tmp_path, requestTimeoutSeconds=1) as tried:
        tried.proxy.refuse = refuse_some(faulty.SILENCE, faulty.is_write)
        assert await tried.live() == undisturbed
        assert tried.codes == []


async def test_a_run_outlives_writes_that_are_carried_out_and_whose_answers_are_lost(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        tried.proxy.after_write = lambda number: number % 2 == 1
        assert await tried.live() == undisturbed
        assert tried.codes == []


@pytest.mark.parametrize("status", [403, 422])
async def test_a_run_outlives_status_writes_and_children_that_are_refused_by_a_rule(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End, status: int
) -> None:
    def concerned(request: web.Request) -> bool:
        return faulty.is_write(request) and not request.path.endswith("/events")

    async with trial(kubeconfig, namespace, tmp_path) as tried:
        tried.proxy.refuse = refuse_some(status, concerned)
        end = await tried.live()
        refusals = [event for event in end["events"] if event["reason"] == "Rejected"]
        assert [event["count"] for event in refusals] == [1] * len(refusals)
        end["events"] = [event for event in end["events"] if event not in refusals]
        assert end == undisturbed
        assert tried.codes == []


async def test_a_run_outlives_an_api_server_that_is_away_for_20_seconds(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        job = await tried.life.create(xray_job(namespace))
        going = asyncio.create_task(tried.life.live_through(job, tried.proxy.close))
        await tried.says("Request attempt #8/15 failed")  # after 1 + 1 + 2 + 3 + 5 + 5 + 5 s
        await tried.proxy.open()
        await going
        assert await tried.end() == undisturbed
        assert tried.codes == []


async def test_an_operator_that_is_shown_an_old_list_makes_no_second_job(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        # the first lists, which will be shown again, have the new resource and nothing of the run
        await tried.life.create(xray_job(namespace))
        job = await tried.life.reached("Queued")
        tried.proxy.lagging = True
        asked_before = len(tried.proxy.asked)
        tried.operator.kill()

        async def tried_again() -> bool:
            return any(a.startswith("POST") and "/jobs?" in a for a in tried.proxy.asked[asked_before:])

        await until("the new operator tries to make the Job again", tried_again)
        tried.proxy.catch_up()
        await tried.life.live_through(job)
        assert await tried.end() == undisturbed
        assert tried.codes == [-9]


@contextlib.asynccontextmanager
async def unwatched(tried: Trial) -> AsyncIterator[None]:
    """No watch and no list is answered meanwhile; then kopf lists anew, and of what vanished it tells nobody."""
    tried.proxy.refuse = lambda request: 503 if faulty.is_list(request) or faulty.is_watch(request) else None
    tried.proxy.end_watches(faulty.ERROR_410)
    yield
    tried.proxy.refuse = lambda _: None


async def vanished(tried: Trial, *kinds: str) -> None:
    """Until the server has no child of ours of these kinds."""

    async def gone() -> bool:
        return not any([await tried.life.listed(kind) for kind in kinds])

    await until("the objects are gone", gone)


async def test_a_pod_that_vanished_unwatched_keeps_no_run_from_standing_still(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with trial(kubeconfig, namespace, tmp_path, relistResyncs=2) as tried:
        job = await tried.life.create(xray_job(namespace))
        kubelet = await tried.life.starts_training(datetime.fromisoformat(job["metadata"]["creationTimestamp"]))
        await tried.life.edit(suspend=True)
        await kubelet.is_told_to_end()
        async with unwatched(tried):
            await kubelet.obeys(60, 143, STOPPED)
            await vanished(tried, PODS)
        await tried.life.reached("Suspended")
        await tried.end()


async def test_a_job_that_vanished_unwatched_is_made_again(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    async with trial(kubeconfig, namespace, tmp_path, relistResyncs=2) as tried:
        job = await tried.life.create(xray_job(namespace))
        await tried.life.reached("Queued")
        async with unwatched(tried):
            await until("there is a pod", partial(tried.life.listed, PODS))
            deleted = kubectl(kubeconfig, "delete", "jobs", "--all", "-n", namespace, "--cascade=foreground")
            assert deleted.returncode == 0, deleted.stderr
            await vanished(tried, JOBS, PODS)
        await tried.life.live_through(job)
        assert await tried.end(runs=2) == undisturbed


async def test_a_resource_that_vanished_unwatched_with_its_children_is_no_longer_told_of(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    settings = {"relistResyncs": 2, "metricsPort": METRICS_PORT}
    async with trial(kubeconfig, namespace, tmp_path, **settings) as tried, aiohttp.ClientSession() as session:

        async def jobs_told_of(number: int) -> bool:
            return await total(session, METRICS_PORT, "xray_training_jobs") == number

        await tried.life.create(xray_job(namespace))
        await tried.life.reached("Queued")
        await until("the metrics tell of the job", partial(jobs_told_of, 1))
        async with unwatched(tried):
            await until("there is a pod", partial(tried.life.listed, PODS))
            assert kubectl(kubeconfig, "delete", "xtj", "cxr", "-n", namespace, "--timeout=20s").returncode == 0
            await vanished(tried, JOBS, PODS)
        await until("the metrics tell of no job", partial(jobs_told_of, 0))
        await tried.life.live_through(await tried.life.create(xray_job(namespace)))
        assert await tried.end(runs=2) == undisturbed


async def test_a_status_that_never_comes_back_turns_health_bad_and_the_next_operator_goes_on(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    settings = {"healthPort": HEALTH_PORT, "deafAfterSeconds": DEAF_AFTER_SECONDS}
    async with trial(kubeconfig, namespace, tmp_path, **settings) as tried, aiohttp.ClientSession() as session:
        tried.proxy.withhold = lambda line: b'"state":"Training"' in line
        job = await tried.life.create(xray_job(namespace))
        going = asyncio.create_task(tried.life.live_through(job))
        await tried.life.reached("Training")
        await until("health is bad", partial(answers, session, HEALTH, 500))
        tried.proxy.withhold = lambda _: False
        tried.operator.kill()
        await going
        assert await tried.end() == undisturbed
        assert tried.codes == [-9]


async def test_health_stays_good_while_nothing_happens_and_turns_bad_when_the_server_is_silent(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    settings = {"healthPort": HEALTH_PORT, "deafAfterSeconds": DEAF_AFTER_SECONDS, "requestTimeoutSeconds": 1}
    async with trial(kubeconfig, namespace, tmp_path, **settings) as tried, aiohttp.ClientSession() as session:
        await until("health is good", partial(answers, session, HEALTH, 200))
        idle_until = time.monotonic() + 2 * DEAF_AFTER_SECONDS

        async def idle_for_long() -> bool:
            assert await answers(session, HEALTH, 200)
            return time.monotonic() > idle_until

        await until("longer than a deaf operator would be left alone", idle_for_long)
        tried.proxy.silent = True
        await until("health is bad", partial(answers, session, HEALTH, 500))
        assert tried.codes == []
        tried.proxy.silent = False
        await until("health is good again", partial(answers, session, HEALTH, 200))


async def test_an_operator_without_its_resources_waits_for_them_and_says_so_once(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    settings = {"healthPort": HEALTH_PORT, "metricsPort": METRICS_PORT, "deafAfterSeconds": DEAF_AFTER_SECONDS}
    async with trial(kubeconfig, namespace, tmp_path, **settings) as tried, aiohttp.ClientSession() as session:
        await tried.settle()
        try:
            assert kubectl(kubeconfig, "delete", "crd", "xraytrainingjobs.xray.training").returncode == 0
            told = "not started yet: not installed: xraytrainingjobs.xray.training;"
            await tried.says(told)
            assert tried.codes == [1], "a watch of a resource that is gone ends the process"
            waited_until = time.monotonic() + 2 * DEAF_AFTER_SECONDS

            async def waited_for_long() -> bool:
                assert await answers(session, READINESS, 503)
                assert await answers(session, HEALTH, 200)
                return time.monotonic() > waited_until

            await until("longer than a deaf operator would be left alone", waited_for_long)
            assert tried.log.count(told) == 1
        finally:
            install_crds(kubeconfig)
        await until("ready", partial(answers, session, READINESS, 200))
        assert await tried.live() == undisturbed
        assert tried.codes == [1]


async def test_an_operator_that_starts_before_the_api_server_waits_for_it(
    kubeconfig: Path, namespace: str, tmp_path: Path, undisturbed: End
) -> None:
    async with trial(kubeconfig, namespace, tmp_path) as tried:
        await tried.proxy.close()
        await tried.says("not started yet: GET /apis/xray.training/v1alpha1: 0 ")
        await tried.proxy.open()
        assert await tried.live() == undisturbed
        assert tried.codes == []
