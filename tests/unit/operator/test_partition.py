"""Batches and layers are shared out so that IPUs can take them, and what is refused comes with what would not be."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.operator.builders import (
    FLAVORS,
    WITH_IPUS,
    condition,
    decide,
    example,
    make_flavor,
    make_job,
    make_pod,
    reasons,
    started,
    told,
)
from xray_operator import names
from xray_operator.core.backends.base import PARTITION_SIZES
from xray_operator.core.observed import Observed, Unreadable
from xray_operator.core.partition import (
    LAYERS,
    Sizing,
    largest_divisor,
    model_layers,
    size_off_ipus,
    size_on_ipus,
    spread,
    too_few_images,
    warmup_steps,
)
from xray_operator.core.spec import Ipu, JobSpec, Model, Problem, Training, parse_part

Wish = dict[str, Any]

counts = st.sampled_from(PARTITION_SIZES)
depths = st.none() | st.integers(1, 48)


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    """What spec.training and spec.ipu let through, with batches that often fit and often don't."""
    micro = draw(st.none() | st.sampled_from([1, 2, 3, 4, 8, 32, 1000, 1024]))
    batch = draw(st.integers(1, 16384 // (micro or 1)) | st.sampled_from([1, 2, 8]).map(lambda n: min(n, 16)))
    ipus = draw(st.none() | counts)
    places = draw(st.none() | (st.just(ipus) if ipus else counts))
    layers = draw(st.lists(st.integers(1, 48), min_size=places, max_size=places)) if places else None
    name = draw(st.sampled_from(["matmul_proportion", "inference_matmul_proportion"]))
    shares = draw(st.none() | st.lists(st.sampled_from([0.0, 0.2, 1.0]), min_size=1, max_size=8))
    return {
        "training": {"globalBatchSize": batch * (micro or 1), "microBatchSize": micro},
        "ipu": {
            "ipusPerReplica": ipus,
            "layersPerIpu": layers,
            "scaling": draw(st.sampled_from(["Keep", "Linear", "SquareRoot"])),
            "overrides": {} if shares is None else {name: json.dumps(shares)},
        },
    }


def size(wish: Wish, layers: int | None, accelerators: int) -> Sizing | list[Problem]:
    training, ipu = Training.model_validate(wish["training"]), Ipu.model_validate(wish["ipu"])
    return size_on_ipus(training, ipu, layers, accelerators)


def suggestions(problem: Problem) -> list[Any]:
    """The values that the message calls nearest."""
    words = re.fullmatch(r".*; nearest (?:is|are) (.+?)(?: and (.+))?", str(problem))
    assert words, problem
    return [json.loads(word) for word in words.groups() if word]


def with_value(wish: Wish, path: str, value: Any) -> Wish:
    """The wish with another value at a path of the job."""
    _, section, field, *rest = path.split(".")
    inner = wish[section][field] | {rest[0]: json.dumps(value)} if rest else value
    return wish | {section: wish[section] | {field: inner}}


@given(wishes(), depths, counts)
def test_what_is_taken_fits(wish: Wish, layers: int | None, accelerators: int) -> None:
    sizing = size(wish, layers, accelerators)
    if isinstance(sizing, list):
        return
    training, ipu = wish["training"], wish["ipu"]
    stages = sizing.ipus_per_replica
    assert stages in PARTITION_SIZES
    assert stages * sizing.replication_factor == accelerators
    assert stages == ipu["ipusPerReplica"] or not ipu["ipusPerReplica"]
    assert sizing.micro_batch_size == (training["microBatchSize"] or 1)
    assert sizing.gradient_accumulation_steps >= 2 * stages - 1
    assert layers is None or stages <= layers
    if sizing.layers_per_ipu:
        assert len(sizing.layers_per_ipu) == stages
        assert min(sizing.layers_per_ipu) >= 1
        assert sum(sizing.layers_per_ipu) == (layers or sum(ipu["layersPerIpu"]))
    else:
        assert layers is None
    factor = 1 if ipu["scaling"] == "Keep" else sizing.replication_factor
    product = sizing.micro_batch_size * sizing.replication_factor * sizing.gradient_accumulation_steps
    assert sizing.global_batch_size == product == training["globalBatchSize"] * factor


@given(wishes(), depths, counts)
def test_what_is_refused_is_possible_once_the_nearest_is_taken(
    wish: Wish, layers: int | None, accelerators: int
) -> None:
    problems = size(wish, layers, accelerators)
    if isinstance(problems, Sizing):
        return
    assert len({problem.path for problem in problems}) == len(problems)
    for which in (0, -1):
        corrected = wish
        for problem in problems:
            corrected = with_value(corrected, problem.path, suggestions(problem)[which])
        assert isinstance(size(corrected, layers, accelerators), Sizing), (problems, corrected)


@given(st.sampled_from([360, 840, 5040, 15120]), st.integers(1, 1024), counts)
def test_nothing_between_a_micro_batch_and_its_nearest_is_possible(batch: int, limit: int, accelerators: int) -> None:
    """Of batches that have many divisors."""
    micro = largest_divisor(batch, limit)
    wish = {"training": {"globalBatchSize": batch, "microBatchSize": micro}, "ipu": {}}
    problems = size(wish, 12, accelerators)
    if isinstance(problems, Sizing) or [problem.path for problem in problems] != ["spec.training.microBatchSize"]:
        return
    (near,) = suggestions(problems[0])
    for other in range(max(micro - abs(micro - near) + 1, 1), min(micro + abs(micro - near), 1025)):
        if batch % other == 0:
            assert isinstance(size(with_value(wish, problems[0].path, other), 12, accelerators), list)


@given(st.lists(st.integers(1, 48), min_size=4, max_size=4), st.integers(4, 48))
def test_as_few_layers_as_can_be_are_moved(counts: list[int], layers: int) -> None:
    problems = size({"training": {}, "ipu": {"layersPerIpu": counts}}, layers, 4)
    if isinstance(problems, list):
        (near,) = suggestions(problems[0])
        moved = sum(abs(one - other) for one, other in zip(counts, near, strict=True))
        assert moved == abs(sum(counts) - layers)


@given(wishes(), depths, counts, st.integers(0, 300))
def test_too_few_images_for_a_batch_are_told_the_largest_that_they_fill(
    wish: Wish, layers: int | None, accelerators: int, images: int
) -> None:
    sizing = size(wish, layers, accelerators)
    if isinstance(sizing, list):
        return
    problem = too_few_images(sizing, Training.model_validate(wish["training"]), images)
    assert (problem is None) == (images >= sizing.global_batch_size)
    if problem is None:
        return
    filled = []
    for batch in range(sizing.micro_batch_size, images + 1, sizing.micro_batch_size):
        other = size(with_value(wish, problem.path, batch), layers, accelerators)
        if isinstance(other, Sizing) and other.global_batch_size <= images:
            filled.append(batch)
    assert filled[-1:] == (suggestions(problem) if "nearest" in str(problem) else [])


@given(wishes(), depths, counts)
def test_nothing_between_a_batch_and_its_nearest_is_possible(wish: Wish, layers: int | None, accelerators: int) -> None:
    problems = size(wish, layers, accelerators)
    if isinstance(problems, Sizing) or [problem.path for problem in problems] != ["spec.training.globalBatchSize"]:
        return
    batch, micro = wish["training"]["globalBatchSize"], wish["training"]["microBatchSize"] or 1
    distance = min(abs(batch - near) for near in suggestions(problems[0]))
    for other in range(max(batch - distance + 1, 1), min(batch + distance, 16385)):
        if other % micro == 0:
            assert isinstance(size(with_value(wish, problems[0].path, other), layers, accelerators), list)


@given(counts, st.sampled_from([None, 12]), st.sampled_from(["Keep", "Linear", "SquareRoot"]))
def test_the_defaults_run_on_every_partition(accelerators: int, layers: int | None, scaling: str) -> None:
    sizing = size({"training": {}, "ipu": {"scaling": scaling}}, layers, accelerators)
    assert isinstance(sizing, Sizing), sizing


@pytest.mark.parametrize(
    ("accelerators", "scaling", "expected"),
    [
        (4, "Keep", (4, 1, 128, 128, "0.0002")),
        (16, "Keep", (4, 4, 32, 128, "0.0002")),
        (64, "Keep", (4, 16, 8, 128, "0.0002")),
        (1, "Keep", (1, 1, 128, 128, "0.0002")),
        (4, "Linear", (4, 1, 128, 128, "0.0002")),
        (16, "Linear", (4, 4, 128, 512, "0.0008")),
        (16, "SquareRoot", (4, 4, 128, 512, "0.0004")),
        (8, "SquareRoot", (4, 2, 128, 256, "0.000282842712")),
    ],
)
def test_the_tutorial_on_other_partitions(accelerators: int, scaling: str, expected: tuple[Any, ...]) -> None:
    sizing = size({"training": {}, "ipu": {"scaling": scaling}}, 12, accelerators)
    assert isinstance(sizing, Sizing)
    shared = (sizing.ipus_per_replica, sizing.replication_factor, sizing.gradient_accumulation_steps)
    assert (*shared, sizing.global_batch_size, sizing.learning_rate) == (*expected[:-1], Decimal(expected[-1]))
    assert sizing.layers_per_ipu == spread(12, sizing.ipus_per_replica or 0)


@pytest.mark.parametrize(
    ("wish", "accelerators", "words"),
    [
        (
            {"training": {"globalBatchSize": 24}},
            16,
            "spec.training.globalBatchSize: 24 is no multiple of 4 of at least 28: 4 replicas of 4 IPUs share it, "
            "in micro-batches of 1, at least 7 each; nearest is 28",
        ),
        (
            {"training": {"globalBatchSize": 30}},
            16,
            "spec.training.globalBatchSize: 30 is no multiple of 4 of at least 28: 4 replicas of 4 IPUs share it, "
            "in micro-batches of 1, at least 7 each; nearest are 28 and 32",
        ),
        (
            {"training": {"microBatchSize": 8}},
            16,
            "spec.training.microBatchSize: 8 is impossible with globalBatchSize 128: 4 replicas of 4 IPUs share it, "
            "and fill their pipelines with 7 micro-batches; nearest is 4",
        ),
        (
            {"training": {"globalBatchSize": 360, "microBatchSize": 8}},
            16,
            "spec.training.microBatchSize: 8 is impossible with globalBatchSize 360: 4 replicas of 4 IPUs share it, "
            "and fill their pipelines with 7 micro-batches; nearest is 9",
        ),
        (
            {"ipu": {"ipusPerReplica": 8}},
            4,
            "spec.ipu.ipusPerReplica: 8 does not divide the flavor's 4 IPUs; nearest is 4",
        ),
        (
            {"ipu": {"ipusPerReplica": 16}},
            16,
            "spec.ipu.ipusPerReplica: 16 is more than the 12 layers of the model; nearest is 8",
        ),
        (
            {"ipu": {"layersPerIpu": [3, 3, 3, 4]}},
            4,
            "spec.ipu.layersPerIpu: [3, 3, 3, 4] has 4 entries that add up to 13; expected 4, one for each IPU of a "
            "replica, that add up to the 12 layers of the model; nearest is [3, 3, 3, 3]",
        ),
        (
            {"ipu": {"overrides": {"matmul_proportion": "[0.1, 0.2]"}}},
            4,
            "spec.ipu.overrides.matmul_proportion: [0.1, 0.2] has not 4 entries, one for each IPU of a replica; "
            "nearest is 0.2",
        ),
        (
            {"ipu": {"overrides": {"matmul_proportion": "[0.1, 0.2]"}}},
            1,
            "spec.ipu.overrides.matmul_proportion: [0.1, 0.2] has not 1 entries, one for each IPU of a replica; "
            "nearest is [0.1]",
        ),
    ],
)
def test_the_words_of_a_refusal(wish: Wish, accelerators: int, words: str) -> None:
    problems = size({"training": {}, "ipu": {}} | wish, 12, accelerators)
    assert isinstance(problems, list)
    assert [str(problem) for problem in problems] == [words]


@pytest.mark.parametrize(
    ("wish", "nearest"),
    [
        ({"training": {"globalBatchSize": 128, "microBatchSize": 3}}, "[126, 129]; a flavor of IPUs may need another"),
        ({"training": {"globalBatchSize": 2, "microBatchSize": 3}}, "[3]; a flavor of IPUs may need another"),
        (
            {"training": {"globalBatchSize": 16384, "microBatchSize": 1000}},
            "[16000]; a flavor of IPUs may need another",
        ),
        ({"ipu": {"layersPerIpu": [4, 4, 4]}}, "[2, 4]"),
        ({"ipu": {"layersPerIpu": [1] * 33}}, "[32, 64]"),
        ({"ipu": {"ipusPerReplica": 4, "layersPerIpu": [6, 6]}}, "[4]"),
        (
            {
                "model": {"config": {"hiddenSize": 64, "layers": 3, "heads": 2, "patchSize": 16}},
                "ipu": {"ipusPerReplica": 8},
            },
            "2",
        ),
    ],
)
def test_what_fields_of_the_job_alone_decide_is_refused_with_the_nearest_too(wish: Wish, nearest: str) -> None:
    (problem,) = parse_part(JobSpec, make_job().spec(**wish).raw()["spec"], "spec", names.SPEC_INVALID)
    assert str(problem).endswith(f"; nearest: {nearest}")


def test_everything_that_is_wrong_is_told_at_once() -> None:
    wish = {
        "training": {"globalBatchSize": 3},
        "ipu": {"ipusPerReplica": 8, "layersPerIpu": [1] * 8, "overrides": {"matmul_proportion": "[0.1]"}},
    }
    problems = size(wish, 12, 4)
    assert isinstance(problems, list)
    assert [problem.path.rpartition(".")[2] for problem in problems] == [
        "ipusPerReplica",
        "layersPerIpu",
        "matmul_proportion",
        "globalBatchSize",
    ]


def test_a_run_that_cannot_be_sized_is_refused_until_somebody_edits_it() -> None:
    observed = Observed(flavors=FLAVORS)
    spec = {"training": {"globalBatchSize": 6}}
    status = told(decide(observed, config=WITH_IPUS, **spec))
    assert condition(status, "Accepted")[:2] == ("False", "SizingImpossible")
    assert condition(status, "Accepted")[2].startswith("spec.training.globalBatchSize: 6 is no multiple")
    assert condition(status, "Stalled")[0] == "True"
    assert decide(observed, **spec).create, "without an image for IPUs the torch image takes any batch"
    on_gpu = Observed(flavors={"demo-vpod4": make_flavor("gpu")})
    assert decide(on_gpu, config=WITH_IPUS, **spec).create


def test_the_status_of_a_run_tells_its_sizing_and_the_steps_once_there_are_images() -> None:
    job = make_job().spec(model={"name": "google/vit-base-patch16-224-in21k"}, ipu={"scaling": "SquareRoot"})
    flavor = make_flavor(accelerators=8)
    queued = told(decide(started(make_pod(), job=job, flavor=flavor, config=WITH_IPUS)))["sizing"]
    assert queued == {
        "ipusPerReplica": 4,
        "layersPerIpu": [3, 3, 3, 3],
        "replicationFactor": 2,
        "gradientAccumulationSteps": 128,
        "microBatchSize": 1,
        "globalBatchSize": 256,
        "learningRate": "0.000282842712",
    }
    images = json.loads(example("prepare-result.json"))["train_images"]
    trains = make_pod().scheduled(10).prepared(12, 40).trains(42)
    status = told(decide(started(trains, job=job, flavor=flavor, config=WITH_IPUS)))
    per_epoch = images // 256
    steps = {"stepsPerEpoch": per_epoch, "totalSteps": 3 * per_epoch, "warmupSteps": -(-3 * per_epoch // 4)}
    assert status["sizing"] == queued | steps
    refused = decide(Observed(unreadable=Unreadable("gone")), status=status)
    assert told(refused)["sizing"] == status["sizing"], "what was told of a run that began stays"


@pytest.mark.parametrize(("accelerators", "warned"), [(16, []), (32, ["Warning"])])
def test_a_partition_that_usually_has_several_hosts_is_accepted_with_a_warning(
    accelerators: int, warned: list[str]
) -> None:
    trains = make_pod().scheduled(10).prepared(12, 40).trains(42)
    observed = started(trains, flavor=make_flavor(accelerators=accelerators), config=WITH_IPUS)
    decision = decide(observed)
    events = [event for event in decision.events if event["reason"] == "BeyondOneHost"]
    assert [event["type"] for event in events] == warned
    status, _, message = condition(told(decision), "Accepted")
    assert (status, "reaches all of the 32 IPUs" in message) == ("True", bool(warned))
    assert all(event["message"] in message for event in events)
    assert "BeyondOneHost" not in reasons(decide(observed, told(decision), now=260)), "once"


def test_ipus_that_no_run_computes_on_are_no_reason_to_warn() -> None:
    decision = decide(started(flavor=make_flavor(accelerators=32)))
    assert "BeyondOneHost" not in reasons(decision), "the torch image trains on the host's cores"


def test_an_edit_of_spec_ipu_waits_for_the_next_rerun() -> None:
    trains = make_pod().scheduled(10).prepared(12, 40).trains(42)
    status = told(decide(started(trains, config=WITH_IPUS), ipu={"scaling": "Linear"}))
    assert condition(status, "Accepted")[1] == "EditsPending"
    assert "spec.ipu.scaling" in condition(status, "Accepted")[2]
    assert status["sizing"]["globalBatchSize"] == 128


def test_off_ipus_no_replicas_are_told() -> None:
    images = json.loads(example("prepare-result.json"))["train_images"]
    status = told(decide(started(make_pod().scheduled(10).prepared(12, 40).trains(42))))
    per_epoch = -(-images // 128)
    assert status["sizing"] == {
        "gradientAccumulationSteps": 4,
        "microBatchSize": 32,
        "globalBatchSize": 128,
        "learningRate": "0.0002",
        "stepsPerEpoch": per_epoch,
        "totalSteps": 3 * per_epoch,
        "warmupSteps": -(-3 * per_epoch // 4),
    }


@given(st.integers(1, 48), counts)
def test_layers_are_spread_evenly_with_more_of_them_at_the_end(layers: int, ipus: int) -> None:
    placed = spread(layers, ipus)
    assert len(placed) == ipus
    assert sum(placed) == layers
    assert list(placed) == sorted(placed)
    assert placed[-1] - placed[0] <= 1


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ({"name": "google/vit-base-patch16-224-in21k"}, 12),
        ({"name": "google/vit-large-patch16-224"}, 24),
        ({"name": "google/vit-base-patch16-224-in21k", "claimName": "models"}, None),
        ({"name": "somebody/vit"}, None),
        ({"config": {"hiddenSize": 64, "layers": 2, "heads": 2, "patchSize": 16}}, 2),
    ],
)
def test_the_depth_of_a_model_is_known_before_it_is_read(model: dict[str, Any], layers: int | None) -> None:
    assert model_layers(Model.model_validate(model)) == layers


def test_the_table_of_models_is_of_vision_transformers() -> None:
    assert set(LAYERS.values()) == {12, 24, 32}
    assert all(("large" in name) == (layers == 24) for name, layers in LAYERS.items())
    assert all(("huge" in name) == (layers == 32) for name, layers in LAYERS.items())


@given(st.integers(1, 16384), st.integers(0, 200_000), st.integers(1, 10))
def test_images_that_fill_no_batch_are_left_out_on_ipus_only(batch: int, images: int, epochs: int) -> None:
    off = size_off_ipus(Training.model_validate({"globalBatchSize": batch}))
    on = off.model_copy(update={"ipus_per_replica": 1})
    per_epoch, total = on.steps(images, epochs)
    assert per_epoch * batch <= images < (per_epoch + 1) * batch
    assert total == per_epoch * epochs
    assert off.steps(images, epochs)[0] in (per_epoch, per_epoch + 1)


def test_warm_up_is_rounded_up() -> None:
    assert warmup_steps(Decimal("0.25"), 2496) == 624
    assert warmup_steps(Decimal("0.25"), 2497) == 625
    assert warmup_steps(Decimal(0), 100) == 0
