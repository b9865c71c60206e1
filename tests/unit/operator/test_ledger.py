"""The bill against a ledger that books every second by itself: whatever happens to a run, and whenever the operator looks, is
silent or begins anew, the difference is 0.

The ledger's clerk writes down, each time the operator looks, in which phase every second of every attempt was, as far as
anybody can know by then. He knows nothing of intervals, of divisions or of what the operator remembers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.unit.operator.builders import (
    CONFIG,
    UID,
    PodBuilder,
    at,
    example,
    make_flavor,
    make_job,
    make_pod,
    make_progress,
    started,
    train_result,
)
from tests.unit.operator.test_preparation import FIXED, PREPARATION, data_job, decide_first, seen
from xray_operator import names
from xray_operator.core.accounting import spent
from xray_operator.core.attempts import render_time
from xray_operator.core.observed import Observed
from xray_operator.core.plan import Snapshot
from xray_operator.core.reconcile import Decision, reconcile
from xray_operator.core.spec import Price

Status = dict[str, Any]
ALWAYS = CONFIG.model_copy(update={"status_refresh_seconds": 0.0})
"""Each look is written down."""
FOREVER = 10**9


@dataclass(frozen=True)
class Life:
    """What really happens to one pod; seconds from the moment that it has a node."""

    pause: int
    """Since the end of the one before."""
    pull: int
    prepare: int
    wait: int
    course: tuple[tuple[str, int], ...]
    """The trainer's phases, one after the other."""
    end: str
    saves: tuple[int, ...] = ()
    """Seconds of the trainer's life at which it saves a checkpoint."""

    @property
    def begins(self) -> tuple[int, int, int]:
        """Of prepare, of the wait after it, of train."""
        return self.pull, self.pull + self.prepare, self.pull + self.prepare + self.wait

    @property
    def seconds(self) -> int:
        if self.end == "prepare fails":
            return self.begins[1]
        return self.begins[2] + sum(length for _, length in self.course)

    def spans(self, until: int) -> list[tuple[str, int, int | None]]:
        """What the trainer can tell at this second of its life."""
        found: list[tuple[str, int, int | None]] = []
        begin = 0
        for phase, length in self.course:
            if begin <= until:
                found.append((phase, begin, begin + length if begin + length <= until else None))
            begin += length
        return found


def truth(life: Life, second: int, heard: int) -> str:
    """The phase of one second, by the pod's time stamps and what the trainer had told at second `heard` of its life."""
    prepares, waits, trains = life.begins
    if second < trains or life.end == "prepare fails":
        return "Preparing" if prepares <= second < waits else "Idle"
    told_by_then = life.spans(heard) if heard >= 0 else []
    worked = second - trains
    if worked < heard:
        return next(phase for phase, begin, end in told_by_then if begin <= worked < (FOREVER if end is None else end))
    return "Evaluating" if any(phase == "Evaluating" for phase, _, _ in told_by_then) else "Training"


@dataclass
class Page:
    """The clerk's page of one attempt."""

    life: Life
    name: str
    begin: int
    heard: int = -1
    seen: bool = False
    booked: list[str] = field(default_factory=list)
    """Phase of each second."""
    closed: bool = False
    failed: bool = False
    estimated: bool = False
    lost: int = 0


@dataclass
class World:
    """A run as it really goes, and the clerk who watches beside the operator."""

    lives: Sequence[Life]
    traceless: frozenset[int]
    """Of pods that vanish, those of which not even the last state is known."""
    begin: int
    pages: list[Page] = field(default_factory=list)
    checkpoints: set[int] = field(default_factory=set)
    """Seconds at which those were saved that anybody has told of."""

    def __post_init__(self) -> None:
        moment = self.begin
        for number, life in enumerate(self.lives):
            moment += life.pause
            self.pages.append(Page(life, f"cxr-{number}", moment))
            moment += life.seconds
        self.end = moment

    def saved(self, second: int) -> list[tuple[int, int]]:
        """(Step, second) of the checkpoints that there are by now, oldest first."""
        moments = [p.begin + p.life.begins[2] + each for p in self.pages for each in p.life.saves]
        return list(enumerate((m for m in sorted(moments) if m <= second), 1))

    def checkpoint(self, second: int) -> dict[str, Any] | None:
        saved = self.saved(second)
        return {"step": saved[-1][0], "time": render_time(at(saved[-1][1]))} if saved else None

    def pod(self, number: int, second: int) -> PodBuilder | None:
        """The pod as the API server shows it, or showed it last; None before it is there."""
        page, life = self.pages[number], self.lives[number]
        since = second - page.begin
        over = since >= life.seconds
        if since < 0:
            return make_pod(page.name, page.begin) if number == 0 or self._ended(number - 1, second) else None
        shown = min(since, life.seconds - 1) if over and life.end == "vanishes" else since
        return self._shown(make_pod(page.name, page.begin).scheduled(page.begin), page, shown)

    def _shown(self, pod: PodBuilder, page: Page, since: int) -> PodBuilder:
        life, begin = page.life, page.begin
        prepares, waits, trains = (begin + each for each in life.begins)
        second, end = begin + since, begin + life.seconds
        over = second >= end and life.end != "vanishes"
        if second >= waits and (life.end != "prepare fails"):
            pod = pod.prepared(prepares, waits)
        elif over and life.end == "prepare fails":
            return pod.prepared(prepares, waits, 20, "")
        elif second >= prepares:
            pod = pod.prepares(prepares)
        if over and life.end == "fails":
            told_at_end = {"exit_code": 21, "reason": "Lost", "message": "x", "checkpoint": self.checkpoint(end)}
            return pod.trained(trains, end, 21, json.dumps(told_at_end))
        if over and life.end == "is killed":
            return pod.trained(trains, end, 137, "no words")
        if over and life.end == "succeeds":
            return pod.trained(trains, end, 0, train_result(phases=self.phases(page, life.seconds)))
        if second >= trains:
            pod = pod.trains(trains)
        return pod.disrupted(end) if over else pod

    def phases(self, page: Page, since: int) -> list[dict[str, Any]]:
        begin = page.begin + page.life.begins[2]
        return [
            {
                "name": phase,
                "started_at": render_time(at(begin + first)),
                "finished_at": None if last is None else render_time(at(begin + last)),
            }
            for phase, first, last in page.life.spans(since - page.life.begins[2])
        ]

    def _ended(self, number: int, second: int) -> bool:
        return second >= self.pages[number].begin + self.lives[number].seconds

    def look(
        self, second: int, *, answers: bool, flavor: Mapping[str, Any], snapshot: Snapshot | None = None
    ) -> Observed:
        """What the operator sees."""
        here, gone = [], []
        for number, life in enumerate(self.lives):
            pod = self.pod(number, second)
            if pod is None:
                continue
            vanished = life.end == "vanishes" and self._ended(number, second)
            if not vanished:
                here.append(pod)
            elif number not in self.traceless:
                gone.append(pod)
        last = self.pages[-1]
        done = last.life.end == "succeeds" and self._ended(len(self.lives) - 1, second)
        progress = self._progress(second) if answers else None
        observed = started(*here, gone=gone, end="Complete" if done else "", flavor=dict(flavor), progress=progress)
        if snapshot is None or observed.job is None:
            return observed
        return replace(observed, snapshot=snapshot, job=replace(observed.job, snapshot=snapshot))

    def trainer(self, second: int) -> Page | None:
        """The page of the trainer that runs."""
        for page in self.pages:
            if page.begin + page.life.begins[2] <= second < page.begin + page.life.seconds:
                return None if page.life.end == "prepare fails" else page
        return None

    def _progress(self, second: int) -> Any:
        page = self.trainer(second)
        if page is None:
            return None
        return make_progress(
            phases=self.phases(page, second - page.begin),
            checkpoint=self.checkpoint(second),
            last_updated_time=render_time(at(second)),
        )

    def book(self, second: int, state: str, latest: str, *, answers: bool) -> None:
        """The clerk's part of a look.

        Args:
            state, latest: what status said before it, of which pod.
        """
        before = set(self.checkpoints)
        if answers and (running := self.trainer(second)):
            running.heard = second - running.begin - running.life.begins[2]
            self.checkpoints |= {moment for _, moment in self.saved(second)[-1:]}
        for number, page in enumerate(self.pages):
            if page.closed or second < page.begin:
                continue
            life, since = page.life, second - page.begin
            over = since >= life.seconds
            traceless = over and life.end == "vanishes" and number in self.traceless
            if traceless:
                if not page.seen:
                    page.closed = True  # nobody has ever seen it, nor will
                    continue
                seen_before = len(page.booked)
                working = state if page.name == latest and state in names.WORKING_PHASES else "Idle"
                page.booked += [working] * (since - seen_before)
            else:
                heard = FOREVER if over and life.end == "succeeds" else page.heard
                until = since if life.end == "vanishes" else min(since, life.seconds)
                page.booked = [truth(life, each, heard) for each in range(until)]
            page.seen = True
            page.closed, page.failed = over, over and life.end != "succeeds"
            page.estimated = over and life.end in ("vanishes", "is lost")
            # of a pod without a trace nothing is learnt any more
            page.lost = self._lost(page, before if traceless else self.checkpoints) if page.failed else 0

    def _lost(self, page: Page, checkpoints: set[int]) -> int:
        """Seconds of Training after the newest checkpoint that anybody had told of."""
        end = page.begin + len(page.booked)
        told_of = {moment for moment in checkpoints if moment <= end}
        if page.life.end == "fails":
            told_of |= {moment for _, moment in self.saved(page.begin + page.life.seconds)[-1:]}
        newest = max(told_of, default=0)
        return sum(phase == "Training" and page.begin + each >= newest for each, phase in enumerate(page.booked))


LENGTH = st.integers(1, 12)
PHASES = st.sampled_from(
    [
        ("Training",),
        ("Compiling", "Training"),
        ("Training", "Compiling", "Training", "Compiling", "Training"),
        ("Training", "Evaluating"),
        ("Compiling", "Training", "Compiling", "Training", "Evaluating", "Compiling", "Evaluating"),
    ]
)
COURSES = PHASES.flatmap(lambda phases: st.tuples(*(st.tuples(st.just(phase), LENGTH) for phase in phases)))
FAILURES = ("fails", "is killed", "is lost", "vanishes", "prepare fails")


def lives(ends: st.SearchStrategy[str]) -> st.SearchStrategy[Life]:
    return st.builds(
        Life,
        pause=st.integers(1, 9),
        pull=st.integers(1, 9),
        prepare=st.integers(1, 9),
        wait=st.integers(0, 5),
        course=COURSES,
        end=ends,
        saves=st.lists(st.integers(1, 40), max_size=3, unique=True).map(tuple),
    ).map(lambda life: replace(life, saves=tuple(s for s in life.saves if s < life.seconds - life.begins[2])))


RUNS = st.tuples(
    st.lists(lives(st.sampled_from(FAILURES)), max_size=4), lives(st.sampled_from(("succeeds", *FAILURES)))
).map(lambda parts: [*parts[0], parts[1]])
PRICES = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "effectiveFrom": st.just("2026-01-01T00:00:00Z"),
            "currency": st.just("USD"),
            "perHour": st.decimals(0, 10**4, places=3).map(str),
            "minimumSeconds": st.sampled_from([0, 0, 7, 60]),
            "incrementSeconds": st.sampled_from([1, 1, 10, 3600]),
        }
    ),
)


def exact(amount: Fraction) -> Fraction:
    """Rounded once, to four places, half to even."""
    return Fraction(round(amount * 10000), 10000)


def dues(seconds: Iterable[int], price: Price) -> Fraction:
    """The price of attempts of so many seconds, by counting."""
    billed = 0
    for held in seconds:
        ticks = 0
        while held and (ticks < held or ticks < price.minimum_seconds or ticks % price.increment_seconds):
            ticks += 1
        billed += ticks
    return Fraction(price.per_hour) / 3600 * billed


def check(
    status: Status,
    pages: Sequence[Page],
    paid: Price | None,
    prepared: Fraction = Fraction(0),
    *,
    estimated: bool = False,
) -> None:
    """The status against the ledger.

    Args:
        prepared: what the run has paid before; whether that is estimated.
    """
    booked = [page for page in pages if page.seen]
    counts = Counter(phase for page in booked for phase in page.booked)
    rows = {row["name"]: row for row in status["cost"]["phases"]}
    assert {phase: rows.get(phase, {"seconds": 0})["seconds"] for phase in names.HELD_PHASES} == {
        phase: counts[phase] for phase in names.HELD_PHASES
    }
    assert rows["Queued"]["seconds"] == 0
    attempts = status.get("attempts", [])
    told_of = [
        (
            row["podName"],
            sum(row.get(f"{phase.lower()}Seconds", 0) for phase in names.HELD_PHASES),
            row.get("lostSeconds", 0),
            row.get("estimated", False),
        )
        for row in attempts
    ]
    assert told_of == [(page.name, len(page.booked), page.lost, page.estimated) for page in booked]
    assert status["cost"]["heldSeconds"] == sum(counts.values())
    assert status["cost"].get("lostSeconds", 0) == sum(page.lost for page in booked) <= counts["Training"]
    assert status["cost"].get("estimated", False) == (estimated or any(page.estimated for page in booked))
    if paid is None:
        assert "total" not in status["cost"]
        assert not any("amount" in row for row in (*rows.values(), *attempts))
        return
    own = exact(dues((len(page.booked) for page in booked), paid))
    assert Fraction(status["cost"]["total"]) == own + prepared
    amounts = {name: Fraction(row.get("amount", 0)) for name, row in rows.items()}
    assert sum(amounts.values()) == own + prepared
    assert sum(Fraction(row["amount"]) for row in attempts) == own
    lost = Fraction(status["cost"].get("lostAmount", 0))
    assert lost <= amounts["Training"]
    for name, seconds in [("Training", counts["Training"]), ("Idle", counts["Idle"])]:
        assert abs(amounts[name] - Fraction(paid.per_hour) * seconds / 3600) < Fraction(3, 20000)


@dataclass
class Looks:
    """An operator that writes down what it sees; nothing but the status stays from one look to the next."""

    status: Status = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)

    def look(self, observed: Observed, second: int) -> None:
        self.write(reconcile(make_job().status(self.status).build(), observed, at(second), ALWAYS))

    def prepare(self, observed: Observed, second: int) -> None:
        """A look at a run that has no Job yet."""
        self.write(decide_first(observed, self.status, now=second, config=ALWAYS))

    def write(self, decision: Decision) -> None:
        if decision.status is not None:
            for amount in spent(self.status, decision.status).values():
                assert amount >= 0
                self.counted["all"] += amount  # type: ignore[assignment]
            self.status = decision.status


A_LATER_POD_VANISHES = [
    Life(1, 1, 1, 0, (("Compiling", 1), ("Training", 1)), "fails"),
    Life(1, 1, 1, 0, (("Training", 1),), "vanishes"),
]
"""Of the first one nothing is heard but what it told at second 6: what was written down then must stay."""


def test_what_a_trainer_told_stays_when_a_later_pod_has_vanished() -> None:
    world, operator = World(A_LATER_POD_VANISHES, frozenset([1]), begin=2), Looks()
    for second, answers in ((6, True), (8, False), (30, False)):
        operator.look(world.look(second, answers=answers, flavor=make_flavor()), second)
    assert operator.status["attempts"][0]["compilingSeconds"] == 1


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(run=RUNS, price=PRICES, data=st.data())
def test_the_bill_is_that_of_a_ledger_which_books_every_second(
    run: list[Life], price: dict[str, Any] | None, data: st.DataObject
) -> None:
    traceless = data.draw(st.frozensets(st.integers(0, len(run) - 1)))
    world, operator = World(run, traceless, begin=2), Looks()
    flavor = make_flavor(prices=[price] if price else [])
    moments = data.draw(st.lists(st.integers(1, world.end + 9), max_size=12, unique=True).map(sorted))
    for second in [*moments, world.end + 10]:
        answers = data.draw(st.booleans())
        state, latest = operator.status.get("state", ""), operator.status.get("run", {}).get("podName", "")
        observed = world.look(second, answers=answers, flavor=flavor)
        operator.look(observed, second)
        world.book(second, state, latest, answers=answers)
        paid = Price.model_validate(price) if price else None
        check(operator.status, world.pages, paid)
        twice = reconcile(make_job().status(operator.status).build(), observed, at(second), CONFIG)
        assert twice.status is None, "the same look says nothing new"
    for life in run:
        event(life.end)
    if price:
        assert Fraction(operator.counted["all"]).limit_denominator(10**6) == Fraction(operator.status["cost"]["total"])


@dataclass(frozen=True)
class Work:
    """What really happens to one pod of a preparation."""

    pause: int
    pull: int
    length: int
    end: str


WORKS = st.lists(
    st.builds(
        Work,
        pause=st.integers(1, 5),
        pull=st.integers(1, 5),
        length=st.integers(1, 12),
        end=st.sampled_from(["fails", "vanishes"]),
    ),
    max_size=3,
)


@dataclass
class Preparing:
    """A preparation as it really goes, its last pod with success, and the clerk."""

    works: Sequence[Work]
    payer: bool
    booked: dict[int, list[str]] = field(default_factory=dict)
    """By pod: the phase of each second."""
    closed: set[int] = field(default_factory=set)

    def life(self, number: int) -> tuple[int, int, int]:
        """When a pod has a node, begins to work and ends."""
        begin = (
            10 + sum(each.pause + each.pull + each.length for each in self.works[:number]) + self.works[number].pause
        )
        works = begin + self.works[number].pull
        return begin, works, works + self.works[number].length

    @property
    def end(self) -> int:
        return self.life(len(self.works) - 1)[2]

    @property
    def estimated(self) -> bool:
        return any(self.works[number].end == "vanishes" for number in self.booked.keys() & self.closed)

    def look(self, second: int, snapshot: Snapshot) -> Observed:
        shown = (self.pod(number, second) for number in range(len(self.works)))
        owners = (UID, "another") if self.payer else ("another", UID)
        over = "Complete" if second >= self.end else ""
        job = data_job(*(pod for pod in shown if pod), owners=owners, over=over, at_second=self.end)
        return seen(job, snapshot=snapshot)

    def pod(self, number: int, second: int) -> PodBuilder | None:
        (begin, works, end), how = self.life(number), self.works[number].end
        pod = make_pod(f"data-{number}", begin).scheduled(begin).owned_by("data-uid")
        if second < begin or (second >= end and how == "vanishes"):
            return None
        if second >= end and how == "fails":
            return pod.prepared(works, end, 137, "killed")
        if second >= end:
            return pod.prepared(works, end, 0, example("prepare-result.json")).phase("Succeeded")
        return pod.prepares(works) if second >= works else pod

    def book(self, second: int) -> None:
        for number, work in enumerate(self.works):
            begin, works, end = self.life(number)
            if second < begin or number in self.closed:
                continue
            if second < end or work.end != "vanishes":
                self.booked[number] = [
                    "Idle" if each < works else "Preparing" for each in range(begin, min(second, end))
                ]
            elif number in self.booked:
                self.booked[number] += ["Preparing"] * (second - begin - len(self.booked[number]))
            self.closed |= {number} if second >= end else set()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(works=WORKS, payer=st.booleans(), run=RUNS, price=PRICES, cheaper=PRICES, data=st.data())
def test_a_preparation_is_in_the_bill_of_the_run_that_pays_for_it_at_its_own_price(
    works: list[Work],
    payer: bool,
    run: list[Life],
    price: dict[str, Any] | None,
    cheaper: dict[str, Any] | None,
    data: st.DataObject,
) -> None:
    world, operator, due = Preparing([*works, Work(1, 2, 9, "succeeds")], payer), Looks(), Fraction(0)
    paid, prepared_at = (Price.model_validate(each) if each else None for each in (price, cheaper))
    assert PREPARATION is not None
    prepares_on = PREPARATION.model_copy(update={"price": prepared_at})
    snapshot = FIXED.model_copy(update={"price": paid, "preparation": prepares_on})
    moments = data.draw(st.lists(st.integers(1, world.end), max_size=10, unique=True).map(sorted))
    for second in [*moments, world.end + 1]:
        operator.prepare(world.look(second, snapshot), second)
        world.book(second)
        section = operator.status.get("preparation", {"seconds": 0})
        counts = Counter(phase for booked in world.booked.values() for phase in booked)
        assert section["seconds"] == sum(counts.values())
        assert sum(row.get("idleSeconds", 0) for row in section.get("attempts", ())) == counts["Idle"]
        if payer and prepared_at:
            due = exact(dues(map(len, world.booked.values()), prepared_at))
        assert Fraction(section.get("amount", 0)) == due
        check(operator.status, (), paid, due, estimated=world.estimated and payer)
    assert ("DataPreparation" in {row["name"] for row in operator.status["cost"]["phases"]}) == payer
    life = World(run, frozenset(), begin=world.end + 5)
    for second in sorted(data.draw(st.sets(st.integers(life.begin, life.end), max_size=4)) | {life.end + 1}):
        observed = life.look(second, answers=False, flavor=make_flavor(), snapshot=snapshot)
        state, latest = operator.status["state"], operator.status["run"].get("podName", "")
        operator.look(observed, second)
        life.book(second, state, latest, answers=False)
        check(operator.status, life.pages, paid, due, estimated=world.estimated and payer)
    if paid:
        assert Fraction(operator.counted["all"]).limit_denominator(10**6) == Fraction(operator.status["cost"]["total"])
