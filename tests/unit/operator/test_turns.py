"""A partition has never two holders, whatever the moment at which anybody looks, acts, lags or is killed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.operator.builders import make_flavor, make_job, make_run
from xray_operator import names
from xray_operator.core.attempts import render_time
from xray_operator.core.manifests import build_job
from xray_operator.core.observed import Job, JobHandle, Line, read_job, read_line
from xray_operator.core.plan import Plan
from xray_operator.core.turns import Change, Turn, find_turn, looking_order

NAMES = ("one", "two", "three")
POD4 = make_flavor(
    "vipuPartition",
    accelerators=4,
    partition={"host": "10.3.0.1", "id": "vpod4"},
    nodeSelector={"xray.example/vpod": "vpod4"},
)
HOME = "radiology"
Decide = Callable[..., Turn]
Order = Callable[[Sequence[str], str], Sequence[str | None]]


def plan_of(name: str) -> Plan:
    return make_run(make_job(name).spec(dataset={"source": {"pvc": {"claimName": "nih"}}}), POD4)


PLANS = {name: plan_of(name) for name in NAMES}


@dataclass
class Process:
    """One that decides: it has looked at a run, then at the Jobs, then at the pods, and acts last.

    Jobs and pods are LISTed namespace by namespace, and anything may happen between two of these LISTs.
    """

    run: str = ""
    known: Any = None
    halted: bool = False
    lists: list[tuple[str, str | None]] = field(default_factory=list)
    """Those that it has still to make."""
    found: dict[str, list[Any]] = field(default_factory=dict)
    change: Change | None = None


@dataclass
class World:
    """An API server with three Jobs at one partition, their controller, and processes that decide."""

    decide: Decide = find_turn
    order: Order = looking_order
    homes: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, HOME))
    """The namespace of each run."""
    version: int = 1
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    former: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """All that a Job has ever been: what somebody may still believe."""
    pods: list[dict[str, Any]] = field(default_factory=list)
    halted: dict[str, bool] = field(default_factory=dict)
    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The Job controller's cache."""
    processes: list[Process] = field(default_factory=lambda: [Process(), Process(), Process()])
    holders: list[str] = field(default_factory=list)
    """Who went on, in order."""

    def create(self, name: str) -> None:
        if name not in self.jobs:
            raw = build_job(PLANS[name])
            # within a second, in any order of their uids
            raw["metadata"] |= {
                "namespace": self.homes[name],
                "uid": f"uid-{name}",
                "creationTimestamp": render_time(datetime(2026, 1, 1, tzinfo=UTC)),
            }
            raw["status"] = {}
            self.halted[name] = False
            self._store(name, raw)
            self.seen[name] = raw

    def look(self, process: Process, name: str, age: int, lag: bool) -> None:
        """The index may be behind, and so may be what is known of the wish."""
        if name in self.jobs:
            history = self.former[name]
            process.run, process.known = name, history[max(len(history) - 1 - age, 0)]
            process.halted = self.halted[name] is not lag
            if "ownerReferences" not in process.known["metadata"]:
                process.run, process.lists, process.change = "", [], None
                return
            places = self.order(sorted(set(self.homes.values())), self.homes[name])
            process.lists = [(kind, place) for kind in ("Job", "Pod") for place in places]
            process.found, process.change = {"Job": [], "Pod": []}, None

    def list_next(self, process: Process) -> None:
        """In the next namespace; after the last of these LISTs it decides."""
        if not process.lists:
            return
        kind, place = process.lists.pop(0)
        there = self.jobs.values() if kind == "Job" else self.pods
        process.found[kind] += [copy.deepcopy(raw) for raw in there if raw["metadata"]["namespace"] == place]
        if not process.lists:
            line = read_line(process.found["Job"], process.found["Pod"])
            known = view(process.run, process.known)
            process.change = self.decide(known, self.homes[process.run], line, halted=process.halted).change

    def decides(self, process: Process, name: str) -> None:
        """Undisturbed, up to the act."""
        self.look(process, name, 0, lag=False)
        while process.lists:
            self.list_next(process)

    def act(self, process: Process) -> None:
        change, process.change = process.change, None
        if change is None:
            return
        raw = copy.deepcopy(self.jobs[process.run])
        if raw["metadata"]["resourceVersion"] != change.version:
            return
        raw["spec"]["suspend"] = change.suspend
        raw["metadata"]["annotations"] = {names.ANNOTATION_TURN: change.turn} if change.turn else {}
        if not change.suspend:
            self.holders.append(process.run)
        self._store(process.run, raw)

    def controller_reads(self, name: str) -> None:
        if name in self.jobs:
            self.seen[name] = self.jobs[name]

    def controller_acts(self, name: str) -> None:
        """Pods first, as its cache has it; then status, which is refused if the cache is old."""
        if name not in self.jobs:
            return
        raw = copy.deepcopy(self.seen[name])
        suspended, status = raw["spec"]["suspend"], raw["status"]
        pods = [pod for pod in self.pods if pod["run"] == name]
        if any(pod["status"]["phase"] == "Succeeded" for pod in pods):
            status["conditions"] = [{"type": "Complete", "status": "True"}]
        elif suspended:
            self.pods = [pod for pod in self.pods if pod["run"] != name or pod["status"]["phase"] == "Running"]
            if any(pod["run"] == name for pod in self.pods):
                return  # they are told to end; it says nothing before they have
            status["conditions"] = [{"type": "Suspended", "status": "True"}]
        else:
            if not any(pod["status"]["phase"] in ("Pending", "Running") for pod in pods):
                self._make_pod(name)
            status |= {"startTime": "now", "conditions": [{"type": "Suspended", "status": "False"}]}
        if self.seen[name] is self.jobs[name] and status != self.jobs[name]["status"]:
            self._store(name, raw)

    def orphan(self, name: str) -> None:
        """`kubectl delete xtj NAME --cascade=orphan`."""
        if name in self.jobs and self.is_run(name):
            raw = copy.deepcopy(self.jobs[name])
            del raw["metadata"]["ownerReferences"]
            self._store(name, raw)

    def is_run(self, name: str) -> bool:
        return "ownerReferences" in self.jobs[name]["metadata"]

    def kubelet(self, name: str, phase: str) -> None:
        for pod in self.pods:
            if pod["run"] == name and pod["status"]["phase"] in ("Pending", "Running"):
                pod["status"]["phase"] = phase

    def check(self) -> None:
        holding = {
            name
            for name, raw in self.jobs.items()
            if not raw["spec"]["suspend"] and raw["status"].get("conditions", [{}])[0].get("type") != "Complete"
        }
        holding |= {pod["run"] for pod in self.pods if pod["status"]["phase"] in ("Pending", "Running")}
        assert len(holding) < 2, f"{holding} hold at once"

    def step(self, what: int, who: int, name: str, age: int, flag: bool) -> None:
        process = self.processes[who]
        steps: tuple[Callable[[], None], ...] = (
            lambda: self.create(name),
            lambda: self.look(process, name, age, lag=flag and age == 3),
            lambda: self.list_next(process),
            lambda: self.act(process),
            lambda: self.controller_reads(name),
            lambda: self.controller_acts(name),
            lambda: self.kubelet(name, "Running"),
            lambda: self.kubelet(name, "Succeeded" if flag else "Failed"),
            lambda: self.halted.update({name: flag and age == 0}) if name in self.halted else None,
            lambda: self.orphan(name) if flag and age == 0 else None,
            lambda: self.processes.__setitem__(who, Process()),
            # without these nobody would ever come to hold anything
            lambda: self.decides(process, name),
            lambda: (self.decides(process, name), self.act(process))[0],
            lambda: (self.controller_reads(name), self.controller_acts(name))[0],
        )
        steps[what]()
        self.check()

    def pass_over(self, name: str) -> None:
        """One undisturbed look of the operator, and of everybody else after it."""
        process = Process()
        self.decides(process, name)
        self.act(process)
        self.controller_reads(name)
        self.controller_acts(name)
        self.check()

    def _store(self, name: str, raw: dict[str, Any]) -> None:
        self.version += 1
        raw["metadata"]["resourceVersion"] = str(self.version)
        self.jobs[name] = raw
        self.former.setdefault(name, []).append(raw)

    def _make_pod(self, name: str) -> None:
        metadata = {
            "namespace": self.homes[name],
            "labels": {names.LABEL_JOB_NAME: name},
            "ownerReferences": [{"uid": f"uid-{name}", "controller": True}],
        }
        self.pods.append({"run": name, "metadata": metadata, "status": {"phase": "Pending"}})


def view(name: str, raw: dict[str, Any]) -> Job:
    handle = JobHandle(raw["metadata"]["namespace"], raw["metadata"]["name"], raw["metadata"]["uid"], 0, deleting=False)
    return read_job(raw, handle, PLANS[name].snapshot)


STEPS = st.lists(
    st.tuples(st.integers(0, 13), st.integers(0, 2), st.sampled_from(NAMES), st.integers(0, 3), st.booleans()),
    min_size=20,
    max_size=120,
)


PLACES = st.fixed_dictionaries({name: st.sampled_from(("east", "west")) for name in NAMES})


def live(steps: Any, homes: Mapping[str, str]) -> World:
    world = World(homes=homes)
    for name in NAMES[:2]:
        world.create(name)
    for step in steps:
        world.step(*step)
    return world


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, PLACES)
def test_there_are_never_two_holders_and_the_line_always_goes_on(steps: Any, homes: Mapping[str, str]) -> None:
    world = live(steps, homes)
    for name in NAMES:
        world.create(name)
        world.halted[name] = False
    for _ in range(12):
        for name in NAMES:
            world.pass_over(name)
            world.kubelet(name, "Succeeded")
    runs = [raw for name, raw in world.jobs.items() if world.is_run(name)]
    assert all(raw["status"]["conditions"][0]["type"] == "Complete" for raw in runs)


def goes_on_without_a_claim(job: Job, namespace: str, line: Line, *, halted: bool) -> Turn:
    turn = find_turn(job, namespace, line, halted=halted)
    claims = turn.change is not None and turn.change.turn == names.CLAIMS
    return Turn(Change(False, "", turn.change.version)) if turn.change and claims else turn


def goes_on_beside_a_claim(job: Job, namespace: str, line: Line, *, halted: bool) -> Turn:
    mine = [each for each in line.entrants if each.uid == job.handle.uid]
    others = [each for each in line.entrants if each.turn != names.CLAIMS and each not in mine]
    return find_turn(job, namespace, Line(tuple(mine + others), line.pods), halted=halted)


def overtake(decide: Decide) -> World:
    """A process is about to let a run go on when an earlier one comes, which another process looks after."""
    world = World(decide)
    slow, quick, _ = world.processes
    world.create("two")
    while slow.change is None or slow.change.suspend:
        world.act(slow)
        world.decides(slow, "two")
    world.create("one")
    for _ in range(4):
        world.decides(quick, "one")
        world.act(quick)
    world.act(slow)
    world.check()
    return world


def test_who_comes_while_another_is_about_to_go_on_waits() -> None:
    assert overtake(find_turn).holders == ["two"]


@pytest.mark.parametrize("wrong", [goes_on_without_a_claim, goes_on_beside_a_claim])
def test_a_rule_less_and_there_are_two_holders(wrong: Decide) -> None:
    with pytest.raises(AssertionError, match="hold at once"):
        overtake(wrong)


def stall_between_two_lists(order: Order) -> World:
    """A claim of two is on its way from a killed process; meanwhile another LISTs for two, and a third lets one go on."""
    world = World(order=order, homes={"one": "east", "two": "west", "three": "east"})
    killed, slow, quick = world.processes
    world.create("one")
    world.create("two")
    world.halted["one"] = True
    world.pass_over("one")
    world.decides(killed, "two")
    world.look(slow, "two", 0, lag=False)
    world.list_next(slow)
    world.halted["one"] = False
    while not world.holders:
        world.decides(quick, "one")
        world.act(quick)
    world.act(killed)
    while slow.lists:
        world.list_next(slow)
    world.act(slow)
    world.check()
    return world


def test_who_lists_namespace_by_namespace_looks_at_its_own_claim_first() -> None:
    assert stall_between_two_lists(looking_order).holders == ["one"]


def test_were_its_own_claim_looked_at_later_there_would_be_two_holders() -> None:
    with pytest.raises(AssertionError, match="hold at once"):
        stall_between_two_lists(lambda namespaces, _: namespaces)


def test_first_come_is_first_served_and_everybody_is_told_whom_they_wait_for() -> None:
    world = World()
    for name in NAMES:
        world.create(name)
    order = sorted(NAMES, key=lambda name: f"uid-{name}")
    while len(world.holders) < 1:
        for name in reversed(order):
            world.pass_over(name)
    assert world.holders == order[:1]
    line = read_line(world.jobs.values(), world.pods)
    waiting = view(order[1], world.jobs[order[1]])
    assert find_turn(waiting, HOME, line, halted=False).told == f"held by run {order[0]}"
    assert find_turn(waiting, "elsewhere", line, halted=False).told == "held by a run of another namespace"
    world.kubelet(order[0], "Succeeded")
    while len(world.holders) < 3:
        for name in reversed(order):
            world.pass_over(name)
            world.kubelet(name, "Succeeded")
    assert world.holders == order


def test_a_run_that_stands_still_lets_others_pass_and_a_pod_without_its_job_holds() -> None:
    world = World()
    world.create("one")
    world.create("two")
    world.halted["one"] = True
    world.pass_over("one")
    assert world.jobs["one"]["metadata"]["annotations"] == {}
    world._make_pod("three")
    for _ in range(3):
        world.pass_over("two")
    assert world.jobs["two"]["spec"]["suspend"], "the pod of a Job that is gone still holds"
    world.pods.clear()
    for _ in range(3):
        world.pass_over("two")
    assert not world.jobs["two"]["spec"]["suspend"]


@pytest.mark.parametrize("turn", [names.WAITS, names.CLAIMS])
def test_a_job_that_its_run_has_left_keeps_nobody_waiting(turn: str) -> None:
    world = World()
    world.create("one")
    world.create("two")
    if turn == names.CLAIMS:
        world.pass_over("one")
    assert world.jobs["one"]["metadata"]["annotations"] == {names.ANNOTATION_TURN: turn}
    world.orphan("one")
    for _ in range(2):
        world.pass_over("two")
    assert world.holders == ["two"]


def test_a_job_that_its_run_has_left_is_let_go_on_by_nobody_who_still_believes_in_it() -> None:
    world = World()
    late = world.processes[0]
    world.create("one")
    world.pass_over("one")
    world.orphan("one")
    world.look(late, "one", 1, lag=False)
    while late.lists:
        world.list_next(late)
    assert late.change is None


def test_a_job_that_its_run_has_left_holds_once_it_goes_on() -> None:
    world = World()
    world.create("one")
    world.create("two")
    let_go_on(world, "one")
    world.orphan("one")
    for _ in range(3):
        world.pass_over("two")
    world.controller_reads("one")
    world.controller_acts("one")
    for _ in range(3):
        world.pass_over("two")
    assert world.holders == ["one"]
    world.kubelet("one", "Succeeded")
    world.controller_reads("one")
    world.controller_acts("one")
    for _ in range(2):
        world.pass_over("two")
    assert world.holders == ["one", "two"]


def let_go_on(world: World, name: str) -> None:
    """Without a look of the Job's controller."""
    for _ in range(4):
        world.decides(world.processes[0], name)
        world.act(world.processes[0])
    assert not world.jobs[name]["spec"]["suspend"]


def stand_back_while_the_controller_is_behind(world: World) -> None:
    """Its controller has read one, and acts when two has had every chance to go on."""
    world.controller_reads("one")
    world.halted["one"] = True
    world.decides(world.processes[0], "one")
    world.act(world.processes[0])
    for _ in range(4):
        world.decides(world.processes[1], "two")
        world.act(world.processes[1])
        world.check()
    world.controller_acts("one")
    world.check()


@pytest.mark.parametrize("suspended_before", [False, True])
def test_what_its_controller_has_not_seen_go_on_is_not_suspended_again(suspended_before: bool) -> None:
    """It may be about to make the pod, and would not say that it has seen the suspension."""
    world = World()
    world.create("one")
    if suspended_before:
        let_go_on(world, "one")
        for halted in (False, True):
            world.halted["one"] = halted
            world.pass_over("one")
            world.kubelet("one", "Failed")
        world.pass_over("one")
        world.halted["one"] = False
    let_go_on(world, "one")
    world.create("two")
    stand_back_while_the_controller_is_behind(world)
    assert set(world.holders) == {"one"}


def test_what_is_suspended_holds_until_its_controller_says_so() -> None:
    """Its pod has failed, and the controller may be about to make another."""
    world = World()
    world.create("one")
    world.create("two")
    let_go_on(world, "one")
    world.controller_reads("one")
    world.controller_acts("one")
    world.kubelet("one", "Failed")
    stand_back_while_the_controller_is_behind(world)
    assert world.holders == ["one"]


def test_of_two_that_claim_at_once_the_later_gives_way() -> None:
    world = World()
    for process, name in zip(world.processes, ("two", "one"), strict=False):
        world.create(name)
        world.decides(process, name)
    for process in world.processes:
        world.act(process)
    assert [raw["metadata"]["annotations"] for raw in world.jobs.values()] == [
        {names.ANNOTATION_TURN: names.CLAIMS}
    ] * 2
    for name in ("one", "two", "one"):
        world.pass_over(name)
    assert world.holders == ["one"]
