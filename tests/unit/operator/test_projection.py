"""A suspended job that has not begun says what it will probably cost, and says it anew only when that has changed."""

from __future__ import annotations

from typing import Any

from tests.unit.operator.builders import CONFIG, FLAVORS, PRICE, at, condition, make_flavor, make_job
from tests.unit.operator.test_estimate import attempt, finished, prepared
from tests.unit.operator.test_workers import make_operator
from xray_operator.core.history import read_finished_runs
from xray_operator.core.observed import Observed
from xray_operator.core.projection import flavor_status
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.spec import FlavorSpec
from xray_operator.errors import ClusterError
from xray_operator.index import Index

HINTS = {"trainImagesPerSecond": "70", "prepareImagesPerSecond": "10"}


def look(
    *runs: dict[str, Any], status: Any = None, now: float = 60, flavors: Any = None, suspend: bool = True, **spec: Any
) -> Decision:
    observed = Observed(flavors=flavors or FLAVORS, finished=read_finished_runs(runs))
    job = make_job().spec(suspend=suspend, **spec).status(status).build()
    return reconcile(job, observed, at(now), CONFIG)


def projected(decision: Decision) -> dict[str, Any] | None:
    assert decision.status is not None
    section: dict[str, Any] | None = decision.status.get("cost", {}).get("projected")
    return section


RUNS = [finished(attempt(training=seconds)) for seconds in (1000, 2000, 3000)]


def test_it_is_made_of_finished_runs_at_todays_price() -> None:
    assert projected(look(*RUNS)) == {
        "source": "history (3 runs)",
        "currency": "USD",
        "p50": "4.80",
        "p90": "7.17",
        "p50Seconds": 2035,
        "p90Seconds": 3035,
        "display": "about 4.80 USD, p90 7.17 USD",
    }


def test_it_is_made_of_the_flavors_hints_where_nothing_has_finished() -> None:
    flavors = {"demo-vpod4": make_flavor(hints=HINTS)}
    dataset = {"source": {"synthetic": {"images": 1000}}, "prepare": "InitContainer"}
    found = projected(look(flavors=flavors, dataset=dataset))
    assert found is not None
    assert (found["source"], found["p50Seconds"], found["display"]) == ("hints", 133, "about 0.31 USD")


def test_without_a_price_it_is_a_time() -> None:
    found = projected(look(*RUNS, flavors={"demo-vpod4": make_flavor(prices=[])}))
    assert found == {"source": "history (3 runs)", "p50Seconds": 2035, "p90Seconds": 3035, "display": "unpriced"}


def test_with_neither_nothing_is_projected() -> None:
    decision = look()
    assert projected(decision) is None
    assert decision.status is not None
    assert "cost" not in decision.status


def test_what_is_prepared_first_is_part_of_it() -> None:
    first = {"source": {"pvc": {"claimName": "nih"}}, "prepareFlavor": "cheap"}
    flavors = {"demo-vpod4": make_flavor(), "cheap": make_flavor("cpu", prices=[PRICE | {"perHour": "1"}])}
    run = finished(attempt(training=1000), spec={"dataset": first}, preparation=prepared(seconds=3600))
    found = projected(look(run, flavors=flavors, dataset=first))
    assert found is not None
    assert (found["p50"], found["p50Seconds"]) == ("3.44", 4635)


def test_repeats_on_prepared_data_do_not_make_preparing_cheap() -> None:
    """Neither in a job's projection nor in what is told at apply."""
    first = {"source": {"pvc": {"claimName": "nih"}}, "prepareFlavor": "cheap"}
    flavors = {"demo-vpod4": make_flavor(), "cheap": make_flavor("cpu", prices=[PRICE | {"perHour": "1"}])}
    jobs = [prepared("data-1", 3600), *(prepared(f"data-{n}", 6) for n in (2, 3, 4))]
    runs = [finished(attempt(training=1000), spec=CHEST | {"dataset": first}, preparation=job) for job in jobs]
    found = projected(look(*runs, flavors=flavors, dataset=first, **CHEST))
    told = flavor_status(
        "demo-vpod4", {k: spec_of(raw) for k, raw in flavors.items()}, read_finished_runs(runs), at(60)
    )
    for projection in (found, told["typicalRuns"][0]):
        assert projection is not None
        assert (projection["source"], projection["p50"], projection["p50Seconds"]) == ("history (4 runs)", "3.44", 4635)


def test_that_nothing_is_known_of_its_preparation_is_told() -> None:
    first = {"source": {"pvc": {"claimName": "nih"}}, "prepareFlavor": "cheap"}
    flavors = {"demo-vpod4": make_flavor(), "cheap": make_flavor("cpu")}
    run = finished(attempt(training=1000), spec={"dataset": first}, preparation=prepared(flavor="gone"))
    found = projected(look(run, flavors=flavors, dataset=first))
    assert found is not None
    assert found["display"] == "about 2.44 USD, without preparing"


def test_that_its_preparation_has_no_price_is_told() -> None:
    first = {"source": {"pvc": {"claimName": "nih"}}, "prepareFlavor": "cheap"}
    flavors = {"demo-vpod4": make_flavor(), "cheap": make_flavor("cpu") | {"prices": []}}
    run = finished(attempt(training=1000), spec={"dataset": first}, preparation=prepared(flavor="cheap"))
    found = projected(look(run, flavors=flavors, dataset=first))
    assert found is not None
    assert found["display"] == "about 2.44 USD + unpriced"


def test_it_is_news_when_it_changes_and_not_at_every_pass() -> None:
    status = look(*RUNS).status
    assert look(*RUNS, status=status, now=86400).status is None
    assert projected(look(*RUNS[:2], status=status)) != projected(look(*RUNS))
    dearer = {
        "demo-vpod4": make_flavor(prices=[PRICE, PRICE | {"effectiveFrom": "2026-11-23T00:00:00Z", "perHour": "17"}])
    }
    assert look(*RUNS, status=status, flavors=dearer).status is None
    later = projected(look(*RUNS, status=status, flavors=dearer, now=86400))
    assert later is not None
    assert later["p50"] == "9.61"


def test_a_job_that_is_refused_or_let_go_projects_nothing_any_more() -> None:
    status = look(*RUNS).status
    refused = look(*RUNS, status=status, flavor="gone").status
    assert refused is not None
    assert condition(refused, "Accepted")[:2] == ("False", "FlavorNotFound")
    assert "cost" not in refused
    assert look(*RUNS, status=status, suspend=False).create is not None


def test_the_index_reads_each_version_of_a_finished_job_once() -> None:
    raw = finished()
    index = Index(jobs={"a": [raw], "b": [make_job("other").raw()]})
    (first,) = index.finished_runs()
    (again,) = index.finished_runs()
    assert again is first
    raw["metadata"]["resourceVersion"] = "101"
    raw["status"]["attempts"][0]["trainingSeconds"] = 7
    (changed,) = index.finished_runs()
    assert changed.attempts[0].seconds["Training"] == 7
    raw["status"]["state"] = "Failed"
    assert index.finished_runs() == []


def test_a_status_of_somebody_elses_making_is_no_history() -> None:
    for attempts in ([{"podName": "a"}], "many", [7]):
        assert read_finished_runs([finished(attempts=attempts)]) == []


CHEST = {"model": {"config": {"hiddenSize": 64, "layers": 2, "heads": 2, "patchSize": 16}}}
HUB = {"model": {"name": "google/vit-base-patch16-224-in21k"}}


def spec_of(flavor: dict[str, Any]) -> FlavorSpec:
    return FlavorSpec.model_validate(flavor)


def test_a_flavor_says_its_price_and_what_the_newest_run_of_each_model_would_cost() -> None:
    newest = attempt(training=2000) | {"startedAt": "2026-11-22T12:00:00Z"}
    runs = read_finished_runs(
        [
            finished(newest, spec=CHEST | {"training": {"epochs": 6}}),
            finished(attempt(training=1000), spec=CHEST),
            finished(spec=HUB | {"flavor": "vpod4-vm"}),
        ]
    )
    told = flavor_status("demo-vpod4", {name: spec_of(raw) for name, raw in FLAVORS.items()}, runs, at(60))
    assert told == {
        "price": "8.50 USD an hour",
        "typicalRuns": [
            {
                "model": "2 layers of 64, 2 heads, patches of 16",
                "imageSize": 224,
                "epochs": 6,
                "images": 1000,
                "source": "history (2 runs)",
                "currency": "USD",
                "p50": "4.80",
                "p90": "4.80",
                "p50Seconds": 2035,
                "p90Seconds": 2035,
                "display": "about 4.80 USD",
            }
        ],
    }


def test_flavors_are_seen_from_everywhere_and_name_no_claim_of_a_namespace() -> None:
    told = flavor_status(
        "demo-vpod4", {"demo-vpod4": spec_of(make_flavor(prices=[]))}, read_finished_runs(RUNS), at(60)
    )
    assert told == {"price": "unpriced", "typicalRuns": []}


async def test_a_flavor_is_written_when_what_it_says_has_changed() -> None:
    written: list[tuple[str, Any]] = []

    class Flavors:
        async def merge(self, path: str, body: dict[str, Any]) -> None:
            if "broken" in path:
                raise ClusterError(path, 500, "no")
            written.append((path, body["status"]))

    operator = make_operator(Flavors(), finished(spec=CHEST))  # type: ignore[arg-type]
    operator.index.flavors = {"broken": [{"spec": make_flavor()}], "demo-vpod4": [{"spec": make_flavor()}]}
    await operator.tell_flavors()
    ((path, status),) = written
    assert path == "/apis/xray.training/v1alpha1/acceleratorflavors/demo-vpod4/status"
    operator.index.flavors = {"demo-vpod4": [{"spec": make_flavor(), "status": status}], "odd": [{"spec": {}}]}
    await operator.tell_flavors()
    assert len(written) == 1
