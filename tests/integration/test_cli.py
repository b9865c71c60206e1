"""`kubectl xray` against a real API server: what it prints, what it writes, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.integration import proxy as faulty
from tests.integration.cluster_access import REPOSITORY, apply, kubectl
from tests.integration.command_line import COMMAND, CommandLine, parts_of, write_kubeconfig
from tests.integration.life import JOBS, Kubelet, Life, claim, example, xray_job
from tests.integration.proxy import Proxy, start_proxy
from tests.integration.stage import Stage, operating
from xray_operator.cluster.client import Cluster

pytestmark = pytest.mark.integration

NAMES = ("cxr-a", "cxr-b", "cxr-c")
OUT_OF_MEMORY = example("error-result.json") | {
    "exit_code": 15,
    "reason": "OutOfMemory",
    "message": "15 GB are too few",
}


@pytest.fixture
def xray(kubeconfig: Path, namespace: str, tmp_path: Path) -> CommandLine:
    """An administrator whose context names the test's namespace."""
    return CommandLine(write_kubeconfig(tmp_path / "user", *parts_of(kubeconfig), namespace))


@pytest.fixture
def jobs(kubeconfig: Path, namespace: str) -> Iterator[list[dict[str, Any]]]:
    """Three jobs that no operator looks at; the second has trained, the third has a status of its own making."""
    made = [xray_job(namespace, name) for name in NAMES]
    made[0]["metadata"]["labels"] = {"team": "chest"}
    assert apply(kubeconfig, *made).returncode == 0
    set_status(kubeconfig, namespace, "cxr-b", TRAINING)
    set_status(kubeconfig, namespace, "cxr-c", SUCCEEDED)
    return iter([made])


def set_status(kubeconfig: Path, namespace: str, name: str, status: dict[str, Any]) -> None:
    patch = ["patch", "xtj", name, "-n", namespace, "--subresource=status", "--type=merge", "-p"]
    done = kubectl(kubeconfig, *patch, json.dumps({"status": status}))
    assert done.returncode == 0, done.stderr


def ready(reason: str, message: str, status: str = "True") -> list[dict[str, Any]]:
    moment = {"lastTransitionTime": "2026-11-22T10:00:00Z"}
    return [{"type": "Ready", "status": status, "reason": reason, "message": message, **moment}]


TRAINING = {
    "observedGeneration": 1,
    "state": "Training",
    "conditions": ready("Started", "trains on 4 IPUs"),
    "trainerStatus": {
        "progressPercentage": 40,
        "progress": "40%",
        "eta": "4m10s",
        "metrics": [{"name": "loss", "value": "0.2207"}, {"name": "validation_auroc_macro", "value": "0.7123"}],
    },
    "cost": {"priced": True, "display": "0.28 USD"},
}
SUCCEEDED = {
    "observedGeneration": 1,
    "state": "Succeeded",
    "conditions": ready("Completed", "AUROC 0.7681"),
    "results": {"aurocMacro": "0.7681", "loss": "0.1875"},
}


@pytest.mark.usefixtures("jobs")
async def test_the_list_is_kubectls(xray: CommandLine, kubeconfig: Path, namespace: str) -> None:
    for wide in ([], ["-o", "wide"]):
        ours = (await xray("list", *wide)).rows
        theirs = kubectl(kubeconfig, "get", "xtj", "-n", namespace, *wide).stdout
        age = ours[0].index("AGE")
        assert len(ours) == 4
        for mine, line in zip(ours, theirs.splitlines(), strict=True):
            assert [w for w in mine if not is_age(w)] == [w for w in line.split() if not is_age(w)], age
    everywhere = (await xray("list", "-A")).rows
    assert everywhere[0][:3] == ["NAMESPACE", "NAME", "STATE"]
    assert [namespace, "cxr-b", "Training"] in [row[:3] for row in everywhere]


def is_age(word: str) -> bool:
    return word.endswith("s") and word[:-1].isdigit()


@pytest.mark.usefixtures("jobs")
async def test_some_of_the_list(xray: CommandLine) -> None:
    async def names(*words: str) -> list[str]:
        return [row[0].partition("/")[2] for row in (await xray("list", "-o", "name", *words)).rows]

    assert await names() == list(NAMES)
    assert await names("--state", "training", "--state", "Succeeded") == ["cxr-b", "cxr-c"]
    assert await names("-l", "team=chest") == ["cxr-a"]
    table = await xray("list", "--state=Succeeded")
    assert [row[0] for row in table.rows] == ["NAME", "cxr-c"]
    none = await xray("list", "--state=Failed")
    assert (none.code, none.out) == (0, "")
    assert none.err.startswith("No jobs found in test-")
    wrong = await xray("list", "--state", "Sleeping")
    assert wrong.code == 1
    assert '"Sleeping" is no state; there are Pending, ' in wrong.err


@pytest.mark.usefixtures("jobs")
async def test_another_context_of_another_kubeconfig(xray: CommandLine, kubeconfig: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(xray.kubeconfig.read_text())
    elsewhere = {"cluster": "test", "user": "test", "namespace": "default"}
    document["contexts"].append({"name": "elsewhere", "context": elsewhere})
    document["current-context"] = "elsewhere"
    (tmp_path / "two").write_text(yaml.safe_dump(document))
    nowhere, words = CommandLine(Path(os.devnull)), ("list", "-o", "name", "--kubeconfig", str(tmp_path / "two"))
    everywhere = [row[0].partition("/")[2] for row in (await nowhere(*words, "--context", "test")).rows]
    assert everywhere == list(NAMES)
    theirs = kubectl(kubeconfig, "get", "xtj", "-n", "default", "-o", "name").stdout
    assert (await nowhere(*words)).out == theirs


@pytest.mark.usefixtures("jobs")
async def test_objects_are_kubectls(xray: CommandLine, kubeconfig: Path, namespace: str) -> None:
    ours = json.loads((await xray("list", "-o", "json")).out)
    theirs = json.loads(kubectl(kubeconfig, "get", "xtj", "-n", namespace, "-o", "json").stdout)
    assert ours == theirs
    assert yaml.safe_load((await xray("list", "-o", "yaml")).out) == theirs


@pytest.mark.usefixtures("jobs")
async def test_colours_are_for_terminals(xray: CommandLine) -> None:
    assert "\x1b" not in (await xray("list")).out
    shown = await on_a_terminal(xray, "list")
    assert "\x1b[36mTraining\x1b[0m" in shown
    assert "\x1b[32mSucceeded\x1b[0m" in shown
    assert "\x1b" not in await on_a_terminal(replace(xray, environment={"NO_COLOR": "1"}), "list")


@pytest.mark.usefixtures("jobs")
async def test_a_bar_on_a_terminal(xray: CommandLine) -> None:
    shown = await on_a_terminal(xray, "watch", "cxr-c")
    assert "\u2501\u2501\u2501" in shown
    assert "loss 0.1875  AUROC 0.7681" in shown
    assert "cxr-c: Succeeded: AUROC 0.7681" in shown


async def on_a_terminal(xray: CommandLine, *words: str, columns: int = 80) -> str:
    """What a terminal is sent by a command."""
    environment = os.environ | {"KUBECONFIG": str(xray.kubeconfig), "COLUMNS": str(columns), "TERM": "xterm-256color"}
    environment |= {"PYTHONPATH": str(REPOSITORY / "operator")} | xray.environment
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(*COMMAND, *words, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    told = await asyncio.to_thread(read_all, ours)
    await process.wait()
    return told


def read_all(terminal: int) -> str:
    told = b""
    while True:
        try:
            told += (more := os.read(terminal, 65536))
        except OSError:  # how Linux says that nobody writes there any more
            more = b""
        if not more:
            os.close(terminal)
            return told.decode()


@pytest.mark.usefixtures("jobs")
def test_a_reader_that_has_seen_enough(xray: CommandLine) -> None:
    environment = os.environ | {"KUBECONFIG": str(xray.kubeconfig), "PYTHONPATH": str(REPOSITORY / "operator")}
    line = f"set -o pipefail; {' '.join(COMMAND)} list -o yaml | head -1 | sed p"
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("apiVersion: v1\napiVersion: v1\n", "")


async def test_a_job_out_of_a_file_and_out_of_flags(xray: CommandLine, namespace: str, cluster: Cluster) -> None:
    made = await xray("submit", "-f", str(REPOSITORY / "examples" / "synthetic.yaml"))
    assert (made.code, made.out) == (0, "xraytrainingjob.xray.training/synthetic created\n")
    again = await xray("submit", "-f", str(REPOSITORY / "examples" / "synthetic.yaml"))
    told = 'xraytrainingjobs.xray.training "synthetic" already exists'
    assert (
        again.err
        == f'Error from server (AlreadyExists): error when creating "{REPOSITORY}/examples/synthetic.yaml": {told}\n'
    )
    assert (again.code, again.out) == (1, "")

    text = (REPOSITORY / "examples" / "synthetic.yaml").read_text()
    over = ["--name", "other", "--flavor", "vpod16-bm", "--learning-rate", "1e-3", "--max-time", "1h30m"]
    piped = await xray("submit", "-f", "-", *over, "-o", "json", stdin=text)
    spec = json.loads(piped.out)["spec"]
    assert (spec["flavor"], spec["training"]["learningRate"], spec["limits"]["runSeconds"]) == (
        "vpod16-bm",
        "1e-3",
        5400,
    )
    assert spec["model"]["config"]["hiddenSize"] == 64

    flags = [
        "--name=vit",
        "--flavor=vpod4-vm",
        "--claim=nih",
        "--path=all",
        "--results=out",
        "--epochs=5",
        "--batch-size=64",
    ]
    assert (await xray("submit", *flags, "--seed=7", "-o", "name")).out == "xraytrainingjob.xray.training/vit\n"
    stored = (await cluster.get(f"{JOBS.format(namespace)}/vit"))["spec"]
    assert stored["model"] == {"name": "google/vit-base-patch16-224-in21k"}
    assert stored["dataset"]["source"] == {"pvc": {"claimName": "nih", "path": "all"}}
    assert {**stored["training"], "epochs": 5, "globalBatchSize": 64, "seed": 7} == stored["training"]
    assert stored["output"] == {"claimName": "out"}
    own = ["--name=own", "--model=acme/vit-chest", "--revision=v2", "-o", "yaml"]
    made = yaml.safe_load((await xray("submit", *flags[1:], *own)).out)
    assert made["spec"]["model"] == {"name": "acme/vit-chest", "revision": "v2"}


async def test_dry_runs_store_nothing(xray: CommandLine) -> None:
    good = ["submit", "--name=a", "--flavor=x", "--synthetic=60", "--results=out"]
    bad = ["submit", "--name=a", "--flavor=x", "--synthetic=9", "--epochs=0", "--results=out"]
    assert (await xray(*good, "--dry-run=client")).out == "xraytrainingjob.xray.training/a created (dry run)\n"
    assert (await xray(*good, "--dry-run=server")).out == "xraytrainingjob.xray.training/a created (server dry run)\n"
    here = await xray(*bad, "--dry-run=client")
    assert (here.code, here.out) == (1, "")
    assert 'XRayTrainingJob "a": spec.dataset.source.synthetic.images: 9 is refused' in here.err
    assert 'XRayTrainingJob "a": spec.training.epochs: 0 is refused' in here.err
    there = await xray(*bad, "--dry-run=server")
    assert (there.code, there.out) == (1, "")
    assert there.err.startswith('The XRayTrainingJob "a" is invalid:\n* spec.')
    assert (await xray("list")).out == ""
    nowhere = CommandLine(Path("/dev/null"))
    assert (await nowhere(*good, "-n", "any", "--dry-run=client")).code == 0, "it needs no cluster"


@pytest.mark.parametrize(
    ("words", "stdin", "told"),
    [
        (["-f", "absent.yaml"], "", 'error: the path "absent.yaml" does not exist\n'),
        (["-f", "-"], "", "error: no objects in stdin\n"),
        (["-f", "-"], "a: [", "error: error parsing stdin: line "),
        (["-f", "-"], "kind: Pod\napiVersion: v1", "error: stdin: Pod of v1 in place of XRayTrainingJob of"),
        (["--name", "a"], "", "error: give a file by -f, or what is missing: --flavor, --claim (or --synthetic), --results\n"),
        (["-f", "-"], "{apiVersion: xray.training/v1alpha1, kind: XRayTrainingJob, metadata: {name: a}, spec: {flavour: x}}",
         'Error from server (BadRequest): error when creating "stdin": XRayTrainingJob in version "v1alpha1" cannot be'),
        (["-f", "-", "-n", "here"], "{apiVersion: xray.training/v1alpha1, kind: XRayTrainingJob, metadata: {namespace: b}}",
         'error: the namespace from the provided object "b" does not match the namespace "here".'),
        (["--epochs", "three"], "", "error: Invalid value for '--epochs'"),
    ],
)  # fmt: skip
async def test_what_submit_refuses(xray: CommandLine, words: list[str], stdin: str, told: str) -> None:
    done = await xray("submit", *words, stdin=stdin)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(told)


@pytest_asyncio.fixture
async def stage(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Stage]:
    """The operator, and what the usual job needs."""
    assert apply(kubeconfig, claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as played:
        yield played


async def test_waiting_for_a_run_and_telling_of_it(xray: CommandLine, stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(xray_job(stage.namespace)))
    async with xray.running("submit", "-f", str(tmp_path / "job.yaml"), "--wait") as waiting:
        await waiting.says("xraytrainingjob.xray.training/cxr created")
        await waiting.says("cxr: Queued: ")
        job = await stage.life.job()
        await stage.life.live_through(job)
        done = await waiting.ended()
        assert (done.code, done.err) == (0, "")
        told = done.out.splitlines()
        assert [
            line
            for line in told
            if line.startswith("cxr: Training 40%, loss 0.2207, ") and line.endswith(" USD, 52s left")
        ]
        assert [line for line in told if line.startswith("cxr: Preparing 70%")]
        assert told[-1].startswith("cxr: Succeeded: AUROC 0.5124 (95 % interval ")
        assert (await xray("watch", "cxr")).out == told[-1] + "\n", "who comes back is told the same"

        described = (await xray("describe", "cxr")).out
        for words in (
            "Name:       cxr\n",
            "State:      Succeeded\n",
            "  Flavor:       integration-vpod4\n",
            "  Data:         pvc (claimName nih, path nih)\n",
            "  AUROC:         0.5124 [0.4708, 0.5561], mean of 13 findings on ",
            "\n  Atelectasis   0.5311   17\n",
            "\n  Hernia        -        0\n",
        ):
            assert words in described
        cost = (await stage.life.job())["status"]["cost"]
        assert f"    Total:  {cost['total']} USD\n" in described
        sections = [line for line in described.splitlines() if line.endswith(":") and not line.startswith(" ")]
        assert sections == [
            f"{name}:"
            for name in ("Asked", "Conditions", "Timeline", "Attempts", "Data", "Sizing", "Cost", "Results", "Events")
        ]
        events = described.partition("\nEvents:\n")[2]
        told = [line.partition(":")[0].split()[-1] for line in events.splitlines()]
        assert (told[0], told[-1]) == ("Accepted", "Succeeded")
        assert set(told) == {"Accepted", "Created", "DataReady", "FindingsAbsent", "Training", "Succeeded"}
        narrow = await on_a_terminal(xray, "describe", "cxr")
        wide = [line for line in narrow.replace("\r", "").splitlines() if len(line) > 80]
        assert not [line for line in wide if "sha256:" not in line], "texts are wrapped"


async def test_waiting_for_a_run_that_fails(xray: CommandLine, stage: Stage) -> None:
    job = await stage.life.create(xray_job(stage.namespace))
    async with xray.running("watch", "cxr") as watching:
        await watching.says("cxr: ")
        kubelet = await fails(stage.life, job)
        done = await watching.ended()
        assert done.code == 1
        assert done.out.splitlines()[-1].startswith("cxr: Failed: ")
        assert "15 GB are too few" in done.out.splitlines()[-1]
        described = (await xray("describe", "cxr")).out
        attempts = described.partition("\nAttempts:\n")[2].partition("\n\n")[0]
        assert attempts.split("\n")[1].split()[:2] == ["1", kubelet.pod]
        assert attempts.split("\n")[1].split()[-2:] == ["OutOfMemory", "15"]
        (attempt,) = (await stage.life.job())["status"]["attempts"]
        assert attempts.split("\n")[1].split()[4:6] == [attempt["amount"], attempt["lostAmount"]]
        assert float(attempt["lostAmount"]) > 0


async def fails(life: Life, job: dict[str, Any]) -> Kubelet:
    from datetime import datetime

    begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    kubelet = Kubelet(life.cluster, life.namespace, begin, life.ip)
    await life.reached("Queued")
    await kubelet.bind(5)
    await kubelet.prepare_starts(6)
    await kubelet.prepare_ends(20, 0, example("prepare-result.json"))
    await kubelet.train_starts(21)
    await kubelet.train_ends(90, 15, OUT_OF_MEMORY)
    await life.reached("Failed")
    return kubelet


async def test_who_stops_waiting_stops_no_run(xray: CommandLine, namespace: str) -> None:
    flags = ["--name=vit", "--flavor=x", "--synthetic=60", "--results=out"]
    async with xray.running("submit", *flags, "--wait") as waiting:
        await waiting.says("vit: Pending: Waiting for the operator")
        waiting.interrupt()
        done = await waiting.ended()
        assert (done.code, done.err) == (
            130,
            f"\nThe run goes on. To come back: kubectl xray watch -n {namespace} vit\n",
        )
        assert (await xray("list", "-o", "name")).out == "xraytrainingjob.xray.training/vit\n"


@pytest.mark.usefixtures("jobs")
async def test_a_job_that_is_deleted_is_waited_for_no_longer(
    xray: CommandLine, kubeconfig: Path, namespace: str
) -> None:
    async with xray.running("watch", "cxr-a", "cxr-b") as watching:
        await watching.says("cxr-b: Training 40%, loss 0.2207, AUROC 0.7123, 0.28 USD, 4m10s left")
        assert kubectl(kubeconfig, "delete", "xtj", "cxr-a", "-n", namespace).returncode == 0
        done = await watching.ended()
        assert (done.code, done.err) == (1, 'error: the job "cxr-a" was deleted\n')
        assert (await xray("watch", "nobody")).err == (
            'Error from server (NotFound): xraytrainingjobs.xray.training "nobody" not found\n'
        )


Break = Callable[[Proxy], Awaitable[None]]


async def gone(proxy: Proxy) -> None:
    proxy.end_watches(faulty.ERROR_410)


async def dropped(proxy: Proxy) -> None:
    proxy.end_watches(faulty.ABORTED)


async def away(proxy: Proxy) -> None:
    await proxy.close()
    await proxy.open()


async def busy(proxy: Proxy) -> None:
    answers = iter([503, 500])
    proxy.refuse = lambda _: next(answers, None)
    proxy.end_watches(faulty.CUT)


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("break_it", [gone, dropped, away, busy])
async def test_watching_over_broken_watches(kubeconfig: Path, namespace: str, tmp_path: Path, break_it: Break) -> None:
    async with start_proxy(str(kubeconfig)) as proxy:
        xray = CommandLine(write_kubeconfig(tmp_path / "kubeconfig", {"server": proxy.url}, {}, namespace))
        async with xray.running("watch") as watching:
            await watching.says("cxr-c   Succeeded")
            set_status(kubeconfig, namespace, "cxr-a", {"state": "Queued"})
            await watching.says("cxr-a   Queued")
            await break_it(proxy)
            set_status(kubeconfig, namespace, "cxr-a", {"state": "Preparing"})
            await watching.says("cxr-a   Preparing")
            assert kubectl(kubeconfig, "delete", "xtj", "cxr-b", "-n", namespace).returncode == 0
            await watching.says("cxr-b   Deleted")
            watching.interrupt()
            done = await watching.ended()
    assert done.code == 130
    assert [row[:2] for row in done.rows] == [
        ["NAME", "STATE"],
        ["cxr-a", "Pending"],
        ["cxr-b", "Training"],
        ["cxr-c", "Succeeded"],
        ["cxr-a", "Queued"],
        ["cxr-a", "Preparing"],
        ["cxr-b", "Deleted"],
    ], "each row once"


@pytest.mark.usefixtures("jobs")
async def test_watching_some_of_all_namespaces(xray: CommandLine, kubeconfig: Path, namespace: str) -> None:
    own = xray_job(namespace, "own")
    own["metadata"]["labels"] = {"watched-by": namespace}
    assert apply(kubeconfig, own).returncode == 0
    async with xray.running("watch", "-A", "-l", f"watched-by={namespace}") as watching:
        await watching.says("Pending")
        set_status(kubeconfig, namespace, "cxr-a", {"state": "Queued"})
        set_status(kubeconfig, namespace, "own", {"state": "Preparing"})
        await watching.says("Preparing")
        watching.interrupt()
        done = await watching.ended()
    assert done.code == 130
    assert [row[:3] for row in done.rows] == [
        ["NAMESPACE", "NAME", "STATE"],
        [namespace, "own", "Pending"],
        [namespace, "own", "Preparing"],
    ]


@pytest.mark.usefixtures("jobs")
async def test_suspend_resume_and_rerun(xray: CommandLine, cluster: Cluster, namespace: str) -> None:
    async def spec(name: str) -> dict[str, Any]:
        found: dict[str, Any] = (await cluster.get(f"{JOBS.format(namespace)}/{name}"))["spec"]
        return found

    job = "xraytrainingjob.xray.training/cxr"
    both = await xray("suspend", "cxr-a", "cxr-b")
    assert both.out == f"{job}-a suspended\n{job}-b suspended\n"
    assert (await spec("cxr-b"))["suspend"] is True
    assert (await xray("suspend", "cxr-a")).out == f"{job}-a unchanged\n"
    assert (await xray("rerun", "cxr-b")).out == (
        f"{job}-b runs again (rerun 1); it is suspended, and waits for kubectl xray resume\n"
    )
    assert (await xray("resume", "cxr-b")).out == f"{job}-b resumed\n"
    assert (await xray("resume", "cxr-b")).out == f"{job}-b unchanged\n"
    assert ((await spec("cxr-b"))["suspend"], (await spec("cxr-b"))["rerun"]) == (False, 1)
    finished = await xray("suspend", "cxr-c", "nobody", "cxr-b")
    assert finished.code == 1
    assert finished.err.splitlines() == [
        f"error: {job}-c has succeeded: there is nothing to suspend",
        'Error from server (NotFound): xraytrainingjobs.xray.training "nobody" not found',
    ]
    assert finished.out == f"{job}-b suspended\n"
    assert (await xray("rerun", "cxr-c")).out == f"{job}-c runs again (rerun 1)\n"


async def test_a_run_that_was_stopped_at_a_limit_is_not_resumed(
    xray: CommandLine, kubeconfig: Path, namespace: str
) -> None:
    assert apply(kubeconfig, xray_job(namespace)).returncode == 0
    set_status(kubeconfig, namespace, "cxr", {"state": "Stopped"})
    done = await xray("resume", "cxr")
    assert done.code == 1
    assert done.err == (
        "error: xraytrainingjob.xray.training/cxr was stopped at a limit: raise spec.limits or spec.budget, and it goes on\n"
    )


@pytest.mark.usefixtures("jobs")
async def test_a_change_at_the_same_time(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    """The operator's status writes are no reason to give up; another user's rerun is."""
    async with start_proxy(str(kubeconfig)) as proxy:
        xray = CommandLine(write_kubeconfig(tmp_path / "kubeconfig", {"server": proxy.url}, {}, namespace))

        def meanwhile(change: dict[str, Any], *more: str) -> None:
            def refuse(request: Any) -> None:
                if request.method == "PATCH" and request.query.get("fieldManager") == "kubectl-xray":
                    proxy.refuse = lambda _: None
                    patch = ["patch", "xtj", "cxr-b", "-n", namespace, "--type=merge", "-p", json.dumps(change)]
                    assert kubectl(kubeconfig, *patch, *more).returncode == 0

            proxy.refuse = refuse

        meanwhile({"status": {"state": "Evaluating"}}, "--subresource=status")
        assert (await xray("rerun", "cxr-b")).out == "xraytrainingjob.xray.training/cxr-b runs again (rerun 1)\n"
        meanwhile({"spec": {"rerun": 2}})
        done = await xray("rerun", "cxr-b")
    assert done.code == 1
    assert done.err.startswith(
        "error: xraytrainingjob.xray.training/cxr-b was changed by somebody else at the same time"
    )


@pytest.mark.parametrize(
    ("metadata", "owner"),
    [
        (
            {"annotations": {"argocd.argoproj.io/tracking-id": "films:xray.training/XRayTrainingJob:chest/cxr"}},
            "Argo CD (application films)",
        ),
        (
            {"labels": {"kustomize.toolkit.fluxcd.io/name": "films", "kustomize.toolkit.fluxcd.io/namespace": "flux"}},
            "Flux (Kustomization flux/films)",
        ),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "films"}}, "Flux (HelmRelease films)"),
    ],
)
async def test_what_git_owns(
    xray: CommandLine, kubeconfig: Path, namespace: str, metadata: dict[str, Any], owner: str
) -> None:
    job = xray_job(namespace)
    job["metadata"] |= metadata
    assert apply(kubeconfig, job).returncode == 0
    warning = f"Warning: {owner} owns xraytrainingjob.xray.training/cxr and may revert the change: set spec.{{}} in git instead"
    refused = await xray("suspend", "cxr")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.splitlines() == [
        warning.format("suspend: true"),
        "error: xraytrainingjob.xray.training/cxr was not changed; --yes changes it all the same",
    ]
    meant = await xray("rerun", "--yes", "cxr")
    assert (meant.code, meant.out) == (0, "xraytrainingjob.xray.training/cxr runs again (rerun 1)\n")
    assert meant.err == warning.format("rerun: 1") + "\n"


@pytest.mark.usefixtures("jobs")
async def test_someone_without_rights(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    """Refusals are the server's, with their words; what a right is missing for in passing is left out."""
    stranger = CommandLine(account(kubeconfig, namespace, "stranger", tmp_path))
    user = f"system:serviceaccount:{namespace}:stranger"
    commands = {
        "list": ["list"],
        "watch": ["list"],
        "describe cxr-a": ["get", ' "cxr-a"'],
        "suspend cxr-a": ["get", ' "cxr-a"'],
        "submit --name=x --flavor=y --synthetic=60 --results=out": ["create"],
    }
    for words, (verb, *name) in commands.items():
        done = await stranger(*words.split())
        assert (done.code, done.out) == (1, "")
        assert done.err == (
            f"Error from server (Forbidden): xraytrainingjobs.xray.training{''.join(name)} is forbidden: "
            f'User "{user}" cannot {verb} resource "xraytrainingjobs" in API group "xray.training" '
            f'in the namespace "{namespace}"\n'
        )
    reader = CommandLine(account(kubeconfig, namespace, "reader", tmp_path, ["get", "list"]))
    assert len((await reader("list")).rows) == 4
    assert "\nEvents:\n  may not be listed with your rights\n" in (await reader("describe", "cxr-b")).out
    assert "cannot patch resource" in (await reader("suspend", "cxr-a")).err


def account(kubeconfig: Path, namespace: str, name: str, folder: Path, verbs: list[str] | None = None) -> Path:
    """A kubeconfig of a service account that has these rights on jobs of the namespace."""
    metadata = {"name": name, "namespace": namespace}
    objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]
    if verbs:
        api = "rbac.authorization.k8s.io"
        rule = {"apiGroups": ["xray.training"], "resources": ["xraytrainingjobs"], "verbs": verbs}
        subject = {"kind": "ServiceAccount", **metadata}
        role = {"apiGroup": api, "kind": "Role", "name": name}
        objects.append({"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]})
        binding = {"apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": metadata, "roleRef": role}
        objects.append(binding | {"subjects": [subject]})
    assert apply(kubeconfig, *objects).returncode == 0
    token = kubectl(kubeconfig, "create", "token", name, "-n", namespace).stdout.strip()
    return write_kubeconfig(folder / name, parts_of(kubeconfig)[0], {"token": token}, namespace)


async def test_a_server_that_cannot_be_asked(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    cluster, user = parts_of(kubeconfig)

    async def told(cluster: dict[str, Any], user: dict[str, Any], *words: str) -> str:
        path = write_kubeconfig(tmp_path / "kubeconfig", cluster, user, namespace)
        done = await CommandLine(path)("list", *words)
        assert (done.code, done.out) == (1, "")
        return done.err

    assert await told(cluster, {"token": "forged"}) == "error: You must be logged in to the server (Unauthorized)\n"
    assert await told({"server": "http://127.0.0.1:1"}, {}) == (
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?\n"
    )
    assert (await told({"server": cluster["server"]}, user)).startswith("Unable to connect to the server: ")
    assert "certificate verify failed" in await told({"server": cluster["server"]}, user)
    assert await told(cluster, user, "--context", "other") == 'error: context "other" does not exist\n'
    assert await told(cluster, user, "--kubeconfig", "/absent") == "error: stat /absent: no such file or directory\n"
    async with start_proxy(str(kubeconfig)) as proxy:
        proxy.silent = True
        assert "in time" in await told({"server": proxy.url}, {}, "--request-timeout", "1s")


async def test_options_that_do_not_exist(xray: CommandLine) -> None:
    wrong = await xray("list", "--frobnicate")
    assert (wrong.code, wrong.out) == (1, "")
    assert wrong.err == "error: No such option: --frobnicate\nSee 'kubectl xray list --help' for usage.\n"
    unknown = await xray("lst")
    assert unknown.code == 1
    assert unknown.err.startswith("error: No such command 'lst'.")
    bare = await xray()
    assert (bare.code, bare.err) == (0, "")
    assert "  submit  " in bare.out


@pytest.mark.usefixtures("jobs")
async def test_words_are_completed(xray: CommandLine, namespace: str) -> None:
    def asked(*words: str) -> str:
        code = "from xray_cli.__main__ import complete_for_kubectl; complete_for_kubectl()"
        environment = os.environ | {"KUBECONFIG": str(xray.kubeconfig), "PYTHONPATH": str(REPOSITORY / "operator")}
        command = [COMMAND[0], "-c", code, *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert asked("su").splitlines() == [
        "submit\tSubmit jobs out of files or flags.",
        "suspend\tStop runs with a checkpoint.",
        ":4",
    ]
    assert asked("describe", "").splitlines() == ["cxr-a\tPending", "cxr-b\tTraining", "cxr-c\tSucceeded", ":4"]
    assert asked("describe", "cxr-b", "-n", "default", "").splitlines() == [":4"]
    assert namespace in asked("list", "-n", namespace[:7]).splitlines()
    assert asked("list", "--context", "").splitlines() == ["test", ":4"]
    assert asked("list", "--state", "Tr").splitlines() == ["Training", ":4"]
    assert asked("describe", "--kubeconfig", "/absent", "").splitlines() == [":4"], "no answer is no suggestion"


@pytest.mark.usefixtures("jobs")
async def test_bash_completes(xray: CommandLine, tmp_path: Path) -> None:
    script = (await xray("completion", "bash")).out
    (tmp_path / "kubectl-xray").write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    (tmp_path / "kubectl-xray").chmod(0o755)
    ask = 'COMP_WORDS=(kubectl-xray describe cxr-); COMP_CWORD=2; _kubectl_xray_completion kubectl-xray; echo "${COMPREPLY[@]}"'
    environment = os.environ | {"KUBECONFIG": str(xray.kubeconfig), "PYTHONPATH": str(REPOSITORY / "operator")}
    environment["PATH"] = f"{tmp_path}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == list(NAMES)
    for shell in ("zsh", "fish"):
        assert "kubectl-xray" in (await xray("completion", shell)).out
