"""A comparison runs what is missing and no more, and its tables say what they stand on."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.command_line import REPOSITORY, xray
from tests.unit.operator.builders import make_flavor
from tests.unit.operator.test_estimate import attempt, finished, prepared
from xray_cli.comparing import Trial, check_same, make_trial, measured, simulated
from xray_cli.comparison_picture import draw, marked, title
from xray_cli.comparison_tables import Comparison, as_csv, document, paid, size, source_of, tell
from xray_cli.errors import CommandError
from xray_cli.follow import Change
from xray_cli.knowledge import Knowledge, read_hints
from xray_cli.repeating import Running
from xray_cli.standing import Standing
from xray_operator import names
from xray_operator.core.comparison import HINT, HISTORY, MEASURED
from xray_operator.core.history import read_finished_runs

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "36"}
CHEAP = PRICE | {"perHour": "3.6"}
DATASET = {"source": {"pvc": {"claimName": "nih"}}, "prepareFlavor": "cheap"}
SPEC = {"dataset": DATASET}

Raw = dict[str, Any]


def knowing(*jobs: Raw, **flavors: Raw) -> Knowledge:
    big = make_flavor(prices=[PRICE | {"perHour": "72"}]) | {"accelerators": 16}
    small = make_flavor(prices=[PRICE]) | {"accelerators": 4}
    specs = {"small": small, "big": big, "cheap": make_flavor("cpu", prices=[CHEAP])}
    return Knowledge(specs | flavors, read_finished_runs(jobs), "this cluster")


def job(**spec: Any) -> Raw:
    return {key: value for key, value in finished(spec=SPEC | spec).items() if key != "status"}


def trial(repeats: int = 2, **spec: Any) -> Trial:
    return make_trial(job(**spec), ["small", "big"], repeats)


def names_of(of: Trial) -> list[str]:
    return [manifest["metadata"]["name"] for manifest in of.manifests]


def test_each_flavor_and_repeat_is_a_job_of_its_own() -> None:
    made = trial(training={"seed": 7})
    assert names_of(made) == ["cxr-small-1", "cxr-small-2", "cxr-big-1", "cxr-big-2"]
    for manifest in made.manifests:
        assert manifest["metadata"]["labels"][names.LABEL_COMPARISON] == "cxr"
        flavor, number = manifest["metadata"]["name"].split("-")[1:]
        assert (manifest["spec"]["flavor"], manifest["spec"]["training"]["seed"]) == (flavor, 6 + int(number))
    assert trial().manifests[1]["spec"]["training"]["seed"] == 1338, "after the default of the first"


def test_a_job_that_would_be_refused_or_has_no_name_is_not_begun() -> None:
    with pytest.raises(CommandError, match=r"spec\.training\.epochs"):
        trial(training={"epochs": 0})
    nameless = job()
    del nameless["metadata"]["name"]
    with pytest.raises(CommandError, match=r"give the job a metadata\.name"):
        make_trial(nameless, ["small"], 1)


def test_jobs_of_another_manifest_are_no_repeats() -> None:
    there = trial().manifests
    check_same(trial(3, suspend=True), there)
    with pytest.raises(CommandError, match=r"cxr-big-1, cxr-small-1 did something else"):
        check_same(trial(1, training={"epochs": 9}), there)


def test_figures_are_of_jobs_that_did_what_is_asked_for_now_on_the_flavors_that_are_asked_for() -> None:
    there = trial(2).manifests
    assert [made.is_repeat(job) for made in (trial(1), trial(1, training={"epochs": 9})) for job in there[:1]] == [
        True,
        False,
    ]
    small = make_trial(job(), ["small"], 1)
    assert [small.is_repeat(manifest) for manifest in there] == [True, True, False, False]


class Shown:
    """What was shown of the jobs."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def show(self, standing: Standing) -> None:
        self.told.append(f"{standing.name} {standing.state}")


class Server:
    """Stores the jobs that are created, and tells of them what a test says."""

    def __init__(self) -> None:
        self.created: list[str] = []
        self.objects: dict[str, Raw] = {}

    def create(self, manifest: Raw) -> Raw:
        name = manifest["metadata"]["name"]
        self.created.append(name)
        metadata = {**manifest["metadata"], "generation": 1}
        self.objects[name] = {**manifest, "metadata": metadata}
        return self.objects[name]

    def ends(self, name: str, state: str = names.SUCCEEDED) -> Change:
        stalled = [{"type": names.STALLED, "status": "True"}] if state != names.SUCCEEDED else []
        status = {"observedGeneration": 1, "state": state, "conditions": stalled}
        self.objects[name] = {**self.objects[name], "status": status}
        return Change(self.objects[name])

    @property
    def all(self) -> list[Change]:
        return [Change(item) for item in self.objects.values()]


def test_one_at_a_time_on_each_flavor_until_all_have_succeeded() -> None:
    server, shown = Server(), Shown()
    running = Running(trial(), server.create, shown)
    assert running.goes_on([])
    assert server.created == ["cxr-small-1", "cxr-big-1"]
    assert running.goes_on([])
    assert running.goes_on([server.ends("cxr-big-1")])
    assert server.created[2:] == ["cxr-big-2"]
    assert running.goes_on([server.ends("cxr-big-2")])
    assert running.goes_on([server.ends("cxr-small-1")])
    assert server.created[3:] == ["cxr-small-2"]
    assert not running.goes_on([server.ends("cxr-small-2")])
    assert "cxr-small-2 Succeeded" in shown.told


def test_what_is_there_is_not_run_again() -> None:
    server = Server()
    first = Running(trial(), server.create, Shown())
    first.goes_on([])
    first.goes_on([server.ends("cxr-small-1")])
    again = Running(trial(), server.create, Shown())
    assert again.goes_on(server.all)
    assert server.created == ["cxr-small-1", "cxr-big-1", "cxr-small-2"], "nothing new"
    assert again.goes_on([server.ends("cxr-small-2")])
    assert again.goes_on([server.ends("cxr-big-1")])
    assert not again.goes_on([server.ends("cxr-big-2")])
    more = Running(trial(3), server.create, Shown())
    assert more.goes_on(server.all)
    assert server.created[4:] == ["cxr-small-3", "cxr-big-3"]


def test_a_flavor_on_which_the_job_fails_is_not_tried_further() -> None:
    server = Server()
    running = Running(trial(3), server.create, Shown())
    running.goes_on([])
    assert running.goes_on([server.ends("cxr-big-1", names.FAILED)])
    assert server.created == ["cxr-small-1", "cxr-big-1"]
    assert running.goes_on([server.ends("cxr-small-1")])
    assert running.goes_on([server.ends("cxr-small-2")])
    assert not running.goes_on([server.ends("cxr-small-3")])
    assert "cxr-big-2" not in server.created


def test_a_job_that_is_deleted_meanwhile_ends_the_wait() -> None:
    server = Server()
    running = Running(trial(), server.create, Shown())
    running.goes_on([])
    with pytest.raises(CommandError, match='"cxr-big-1" was deleted'):
        running.goes_on([Change(server.objects["cxr-big-1"], deleted=True)])


def ran(manifest: Raw, training: int, *, perHour: str, preparation: Raw | None = None) -> Raw:
    """A repeat at its end, with a bill."""
    seconds = 20 + 5 + training + 10
    total = Decimal(perHour) * seconds / 3600
    shared = {**(preparation or prepared()), "price": CHEAP}
    told = finished(
        attempt(training=training),
        run={"flavor": manifest["spec"]["flavor"]},
        cost={
            "price": PRICE | {"perHour": perHour},
            "total": f"{total:.4f}",
            "currency": "USD",
            "heldSeconds": seconds,
        },
        preparation=shared,
    )["status"]
    metadata = {**manifest["metadata"], "generation": 1}
    return {**manifest, "metadata": metadata, "status": {**told, "observedGeneration": 1}}


def all_ran() -> tuple[Trial, list[Raw]]:
    made = trial()
    small, big = made.runs["small"], made.runs["big"]
    again = prepared("data-2", 4)
    return made, [
        ran(small[0], 100, perHour="36"),
        ran(small[1], 110, perHour="36", preparation=again),
        ran(big[0], 40, perHour="72", preparation=again),
        ran(big[1], 50, perHour="72", preparation=again),
    ]


def test_measured_rows_are_what_the_jobs_were_billed() -> None:
    made, jobs = all_ran()
    comparison = Comparison("cxr", 1000, 500, measured(made, jobs, knowing()), ())
    small, big, small_500, _ = comparison.rows
    assert (small.source, small.runs, small.scaled, small_500.scaled) == (MEASURED, 2, False, True)
    assert small.training.amount is not None
    assert small.training.amount.mean * 2 == sum(Decimal(each["status"]["cost"]["total"]) for each in jobs[:2])
    assert (small.preparation.seconds.mean, big.preparation.seconds.mean) == (600, 600), "shared, and told of each"
    assert big.training.amount is not None
    assert (big.training.amount.least, big.training.amount.most) == (Decimal("1.5000"), Decimal("1.7000"))
    assert small_500.total.seconds.mean == 500 * 600 + 500 * 115 + 25
    (crossing,) = comparison.crossings
    assert (crossing.bigger, crossing.smaller, crossing.time) == ("big", "small", 1)
    assert paid(jobs) == "Paid so far for 4 measured jobs: 6.00 USD."
    assert paid([jobs[0] | {"status": {}}]) == "Paid so far for 1 measured job: unpriced."
    runs = document(comparison, jobs)["runs"]
    assert [each["total"] for each in runs] == [each["status"]["cost"]["total"] for each in jobs]


def test_a_flavor_where_nothing_has_succeeded_has_no_row() -> None:
    made, jobs = all_ran()
    (entry,) = measured(made, jobs[:2], knowing())
    assert entry.flavor == "small"


def forecast(known: Knowledge, *hints: str, flavor: str = "small", images: int | None = None, **spec: Any) -> Any:
    return simulated(job(**spec), flavor, known, read_hints(hints), images, NOW)


def on(flavor: str, **more: Any) -> Raw:
    return finished(attempt(**more), spec={**SPEC, "flavor": flavor}, preparation=prepared())


def test_history_goes_before_hints() -> None:
    known = knowing(on("small", training=100), on("small", training=120), on("big", training=50))
    told = forecast(known, "small:trainImagesPerSecond=1")
    assert (told.entry.source, len(told.entry.courses), told.images, told.note) == (HISTORY, 2, 1000, "")
    row = told.entry.row(1000)
    assert source_of(row) == "history (2 runs)"
    assert (row.preparation.seconds.mean, row.training.seconds.mean) == (600, 145)
    assert source_of(told.entry.row(2000)) == "history (2 runs), scaled"


def test_hints_where_nothing_has_finished() -> None:
    hints = ("small:trainImagesPerSecond=100,startSeconds=30", "cheap:prepareImagesPerSecond=20")
    told = forecast(knowing(), *hints, images=1000)
    assert (told.entry.source, told.images, told.note) == (HINT, 1000, "")
    row = told.entry.row(1000)
    assert source_of(row) == "hint"
    assert (row.preparation.seconds.mean, row.training.seconds.mean) == (50, 30 + 21 + 2)
    blind = forecast(knowing(), hints[0], images=1000)
    assert blind.note == (
        "small without preparing the data: --hint cheap:prepareImagesPerSecond=N tells how fast that is"
    )


def test_that_the_flavor_that_prepares_is_assumed_is_told() -> None:
    told = {
        source: forecast(
            known, "small:trainImagesPerSecond=100", images=1000, dataset=DATASET | {"prepareFlavor": None}
        )
        for source, known in ((HISTORY, knowing(on("small"))), (HINT, knowing()))
    }
    assert {source: each.entry.source for source, each in told.items()} == {HISTORY: HISTORY, HINT: HINT}
    assert {each.assumption for each in told.values()} == {
        "The job names no prepareFlavor: prepare-cpu, the chart's default, is taken to be the operator's."
    }
    assert forecast(knowing(on("small"))).assumption == ""


def test_a_hinted_flavor_is_prepared_for_as_others_were() -> None:
    told = forecast(knowing(on("big")), "small:trainImagesPerSecond=100")
    assert (told.entry.source, told.images, told.note) == (HINT, 1000, "")
    assert told.entry.row(1000).preparation.seconds.mean == 600


def test_with_neither_it_says_what_to_give() -> None:
    with pytest.raises(
        CommandError, match=r"on flavor small in this cluster, and the hints don't suffice: give how many images"
    ):
        forecast(knowing())


def test_sizes_in_words() -> None:
    assert [size(each) for each in (None, 1, 12_001)] == ["never", "always", "from 12,001"]


def comparison_of(entries: Iterable[Any], scale: int = 1) -> Comparison:
    return Comparison("cxr", 1000, scale, list(entries), ["a note"])


def test_the_tables() -> None:
    made, jobs = all_ran()
    lines = list(tell(comparison_of(measured(made, jobs, knowing()), 500)))
    rows = [" ".join(line.split()) for line in lines]
    assert rows[0] == "cxr: 1,000 images"
    assert (
        "small 10 min 0 s 0.60 USD 2 min 20 s ± 7 s 1.40 ± 0.07 USD 12 min 20 s ± 7 s 2.00 ± 0.07 USD measured (2 runs)"
        in rows
    )
    assert "cxr: 500,000 images, if there were 500 times as many" in rows
    assert any(row.endswith("measured (2 runs), scaled") for row in rows)
    # level at 5,000 images: 1.15 more for each thousand against 1.10, and 0.25 against 0.50 whatever their number
    (crossing,) = [row.split() for row in rows if row.startswith("big small")]
    assert crossing[2] == "always"
    assert crossing[3:5] == crossing[5:7]
    assert int(crossing[4].replace(",", "")) == pytest.approx(5000, rel=0.1)
    assert any("± is the standard deviation of the repeats" in row for row in rows)
    assert rows[-1] == "a note"


def test_the_head_says_what_each_cost_is_of() -> None:
    head = next(
        line for line in tell(comparison_of([forecast(knowing(on("small"))).entry])) if line.startswith("FLAVOR")
    )
    assert re.split(" {3,}", head)[1:-1] == [
        *("PREPARATION", "ITS COST"),
        *("TRAINING", "ITS COST"),
        *("TOTAL TIME", "TOTAL COST"),
    ]


ROUNDED = "Times and amounts are rounded one by one: a total may differ from the sum of its parts in the last digit."


@pytest.mark.parametrize(
    ("training", "preparing", "price", "told"),
    [
        (100, 600, "36", False),
        (100, 14, "36.12", True),  # 0.0140 and 1.3545 are 1.3685
        (3615, 3650, "36", True),  # 1 h 0 min 50 s and as much are 2 h 1 min 40 s
        (3570, 3610, "36", False),
    ],
)
def test_figures_that_do_not_add_up_to_the_eye_are_explained(
    training: int, preparing: int, price: str, told: bool
) -> None:
    run = finished(
        attempt(training=training), spec={**SPEC, "flavor": "small"}, preparation=prepared(seconds=preparing)
    )
    known = knowing(run, small=make_flavor(prices=[PRICE | {"perHour": price}]) | {"accelerators": 4})
    assert (ROUNDED in tell(comparison_of([forecast(known).entry]))) is told


def test_thousands_are_set_apart_in_amounts_too() -> None:
    known = knowing(on("small", training=100_000), on("small", training=300_000))
    (row,) = [line for line in tell(comparison_of([forecast(known).entry])) if line.startswith("small")]
    assert "2,000.35 ± 1,414.21 USD" in row
    assert paid([{"status": {"cost": {"total": "12345.6700", "currency": "USD"}}}]).endswith(": 12,345.67 USD.")


def test_a_single_image() -> None:
    told = tell(Comparison("cxr", 1, 1, [forecast(knowing(on("small"))).entry]))
    assert next(iter(told)) == "cxr: 1 image"


def test_a_total_without_its_preparation_is_not_passed_off_as_the_whole() -> None:
    known = knowing(on("small"), cheap=make_flavor("cpu") | {"prices": []})
    (row,) = (line for line in tell(comparison_of([forecast(known).entry])) if line.startswith("small"))
    assert " USD + unpriced " in row
    assert row.count("unpriced") == 2, "beside that of the preparation itself"


def test_a_single_flavor_without_a_price() -> None:
    unpriced = knowing(on("small"), small=make_flavor() | {"accelerators": 4, "prices": []})
    lines = list(tell(comparison_of([forecast(unpriced).entry])))
    assert sum(line.count("unpriced") for line in lines) == 3
    assert not any("bigger" in line for line in lines)
    known = knowing(on("small"), on("big", training=50), small=unpriced.flavors["small"])
    both = [forecast(known, flavor=flavor).entry for flavor in ("small", "big")]
    rows = [line.split() for line in tell(comparison_of(both))]
    assert ["big", "small", "always", "unpriced", "unpriced"] in rows


def test_csv_and_json_have_the_same_rows() -> None:
    made, jobs = all_ran()
    comparison = comparison_of(measured(made, jobs, knowing()), 500)
    lines = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    rows = document(comparison, jobs)["rows"]
    assert len(lines) == len(rows) == 4
    for line, row in zip(lines, rows, strict=True):
        assert (line["flavor"], line["source"], int(line["images"])) == (row["flavor"], "measured", row["images"])
        assert json.loads(line["scaled"]) is row["scaled"]
        assert line["training_amount_mean"] == row["training"]["amount"]["mean"]
        assert float(line["total_seconds_deviation"]) == row["total"]["seconds"]["deviation"]
    json.dumps(document(comparison, jobs))


@pytest.mark.parametrize("prices", [[PRICE], []])
def test_a_picture_of_what_was_measured(tmp_path: Path, prices: list[Raw]) -> None:
    """With whiskers; and without amounts where a flavor has no price, at half the panels."""
    known = knowing(on("small", training=100), on("small", training=120), on("big", training=50))
    known.flavors["small"]["prices"] = prices  # type: ignore[index]
    entries = [forecast(known, flavor=flavor).entry for flavor in ("small", "big")]
    draw(comparison_of(entries, 500), tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_says_where_its_figures_come_from_and_which_flavor_wins_from_where() -> None:
    made, jobs = all_ran()
    entries = measured(made, jobs, knowing())
    assert title(comparison_of(entries)) == "cxr: 1,000 images, from runs of this comparison"
    hint = forecast(knowing(), "small:trainImagesPerSecond=100", images=1000).entry
    history = forecast(knowing(on("big")), flavor="big").entry
    assert title(comparison_of([hint, history])) == "cxr: 1,000 images, from finished runs and hints"
    comparison = comparison_of(entries)
    (crossing,) = comparison.crossings
    assert marked(comparison, "money") == {"big": {"small": crossing.money}}
    assert marked(comparison, "time") == {}, "always"


def test_a_picture_that_can_t_be_written() -> None:
    entries = [forecast(knowing(on("small"))).entry]
    with pytest.raises(CommandError, match=r'the path "/nowhere/at/all\.png" cannot be written: No such file'):
        draw(comparison_of(entries), Path("/nowhere/at/all.png"))


PUBLIC = (
    *("compare", "-f", str(REPOSITORY / "examples" / "nih-vit-base.yaml"), "--simulate", "--images", "112120"),
    *("--from", str(REPOSITORY / "examples" / "compare" / "flavors.yaml"), "--dataset-scale", "500"),
)


def test_simulation_from_files_alone(tmp_path: Path) -> None:
    picture = tmp_path / "comparison.png"
    done = xray(None, *PUBLIC, "--flavors", "vpod4-vm,vpod16-bm", "-o", "json", "--png", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [(row["flavor"], row["source"], row["images"]) for row in told["rows"]] == [
        ("vpod4-vm", "hint", 112120),
        ("vpod16-bm", "hint", 112120),
        ("vpod4-vm", "hint", 56060000),
        ("vpod16-bm", "hint", 56060000),
    ]
    assert told["crossings"][0]["bigger"] == "vpod16-bm"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--flavors", "vpod4-vm,boeing"), "error: no AcceleratorFlavor boeing; there are prepare-cpu, vpod16-bm, "),
        (("--flavors", ","), "error: Invalid value for --flavors: names no flavor"),
    ],
)  # fmt: skip
def test_what_compare_refuses(words: tuple[str, ...], told: str) -> None:
    done = xray(None, *PUBLIC, *words)
    assert done.returncode == 1
    assert done.stderr.startswith(told), done.stderr


def test_hints_are_for_simulations_and_one_job_for_a_comparison(tmp_path: Path) -> None:
    words = [word for word in PUBLIC if word != "--simulate"]
    refused = xray(None, *words, "--flavors", "vpod4-vm")
    assert refused.stderr.startswith("error: --hint and --from are for --simulate")
    repeated = xray(None, *PUBLIC, "--flavors", "vpod4-vm", "--repeat", "10")
    assert (repeated.returncode, repeated.stdout) == (1, "")
    assert repeated.stderr == "error: --repeat is of jobs that are run: with --simulate none is\n"
    two = tmp_path / "two.yaml"
    two.write_text(yaml.safe_dump_all([job(), job()]))
    flavors = ["--from", str(REPOSITORY / "examples" / "compare" / "flavors.yaml"), "--flavors", "vpod4-vm"]
    assert (
        "has 2 jobs; one is compared at a time" in xray(None, "compare", "-f", str(two), "--simulate", *flavors).stderr
    )


def test_without_matplotlib_a_picture_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['matplotlib'] = None\n")
    done = xray(
        None,
        *PUBLIC,
        "--flavors",
        "vpod4-vm",
        "--png",
        "c.png",
        more={"PYTHONPATH": f"{tmp_path}:{REPOSITORY / 'operator'}"},
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --png needs matplotlib: pip install 'xray-operator[cli,pictures]'\n"
