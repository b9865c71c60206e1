"""What tools make of a job in every state, by their own libraries; the job is captured as the API server has it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dev.cluster.tools import gitops
from tests.integration.cluster_access import REPOSITORY, apply, connect, kubectl, until
from tests.integration.kubelet import Kubelet, at
from tests.integration.life import STOPPED, Life, Trainer, claim, example, flavor, next_second, xray_job
from tests.integration.stage import IP, operating

ARGO_CD = REPOSITORY / "examples" / "argo-cd"
FLUX = REPOSITORY / "examples" / "flux"
CLOSED = "integration-closed"
"""A flavor that no namespace may use."""
LIMIT_SECONDS = 30
"""The shortest limits.noProgressSeconds."""
STANDS_STILL = {"last_updated_time": "2026-11-22T10:00:39Z", "time": "2026-11-22T10:01:40Z"}
"""For 61 seconds, by the trainer's own clock."""


@dataclass(frozen=True)
class Verdict:
    """What each tool says of one object."""

    kstatus: str
    message: str
    """Of kstatus."""
    flux: str
    """By the expressions of examples/flux/results.yaml."""
    argo: str
    argo_message: str
    actions: dict[str, dict[str, Any]]
    """Action of Argo CD that is offered -> the object that it makes."""


def judge(objects: list[dict[str, Any]]) -> list[Verdict]:
    """Ask kstatus, Flux and Argo CD, as the examples configure them."""
    configured = ["-argocd-cm", str(ARGO_CD / "argocd-cm.yaml"), "-kustomization", str(FLUX / "results.yaml")]
    asked = subprocess.run(
        [str(gitops()), *configured], input=json.dumps(objects), capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    return [
        Verdict(
            told["kstatus"],
            told["message"],
            told["flux"],
            told["argo"]["status"],
            told["argo"]["message"],
            told["argo"]["actions"],
        )
        for told in json.loads(asked.stdout)
    ]


@dataclass
class Album:
    """A job in every state, under words for it, and whether `kubectl wait --for=condition=Ready` returned at once."""

    kubeconfig: Path
    namespace: str
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    waited: dict[str, bool] = field(default_factory=dict)

    def take(self, words: str, name: str = "cxr") -> None:
        """As it is now; the operator has nothing to write about it."""
        where = ("-n", self.namespace)
        wait = ("wait", f"xtj/{name}", *where, "--for=condition=Ready", "--timeout=0")
        self.waited[words] = kubectl(self.kubeconfig, *wait).returncode == 0
        shown = kubectl(self.kubeconfig, "get", "xtj", name, *where, "-o", "json")
        assert shown.returncode == 0, shown.stderr
        self.objects[words] = json.loads(shown.stdout)


async def live_through_states(kubeconfig: Path, namespace: str, folder: Path) -> Album:
    """A job from before an operator has seen it, through three runs; returns what was seen on the way."""
    album = Album(kubeconfig, namespace)
    closed = flavor(CLOSED)
    closed["spec"]["namespaceSelector"] = {"matchLabels": {"nobody": "has-this"}}
    assert apply(kubeconfig, closed).returncode == 0
    cluster = await connect(kubeconfig)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        life = Life(cluster, namespace, IP)
        job = await life.create(xray_job(namespace, limits={"noProgressSeconds": LIMIT_SECONDS}))
        album.take("Pending (not seen)")
        async with operating(kubeconfig, namespace, folder) as stage:
            await _refused(stage.life, album)
            begin = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
            await _suspended(stage.life, album, begin)
            await _succeeded(stage.life, album, begin)
            await _failed(stage.life, album, begin)
            await _stopped(stage.life, album)
        await life.edit(limits={"queueSeconds": 9})
        album.take("Stopped (edited, not seen)")
    return album


async def _refused(life: Life, album: Album) -> None:
    await life.says("Accepted", "ClaimNotFound")
    album.take("Pending (may pass)")
    await life.create(xray_job(life.namespace, "refused", flavor=CLOSED))
    await life.says("Accepted", "FlavorNotAllowed", name="refused")
    album.take("Pending (refused)", "refused")
    assert apply(album.kubeconfig, claim(life.namespace, "nih"), claim(life.namespace, "out")).returncode == 0


async def _suspended(life: Life, album: Album, begin: datetime) -> None:
    progress = example("progress.json") | {"phases": []}
    compiling = {"name": "Compiling", "started_at": at(begin, -79), "finished_at": None}
    kubelet = Kubelet(life.cluster, life.namespace, begin, life.ip)
    await life.reached("Queued")
    album.take("Queued")
    trainer = Trainer(progress | {"phases": [compiling]})
    async with trainer.serve(life.ip):
        await kubelet.bind(-95)
        await kubelet.prepare_starts(-94)
        await life.reached("Preparing")
        album.take("Preparing")
        await kubelet.prepare_ends(-80, 0, example("prepare-result.json"))
        await kubelet.train_starts(-79)
        await life.reached("Compiling")
        album.take("Compiling")
        trainer.answer = progress | {"phases": [compiling | {"finished_at": at(begin, -60)}]}
        await life.reached("Training")
        album.take("Training")
        moving, trainer.answer = trainer.answer, trainer.answer | STANDS_STILL
        await life.says("Stalled", "NoProgress")
        album.take("Training (stalled)")
        trainer.answer = moving
        await life.says("Stalled", "StallOver")
        await life.edit(suspend=True)
        await kubelet.is_told_to_end()
        await _seen(life)
        album.take("Training (to be suspended)")
        await kubelet.obeys(-40, 143, STOPPED)
    await life.reached("Suspended")
    album.take("Suspended")
    await next_second()
    await life.edit(suspend=False)


async def _succeeded(life: Life, album: Album, begin: datetime) -> None:
    evaluating = {"name": "Evaluating", "started_at": at(begin, 150), "finished_at": None}
    trainer = Trainer(example("progress.json") | {"phases": []})
    async with trainer.serve(life.ip):
        kubelet = await life.starts_training(begin, 100)
        trainer.answer |= {"phases": [evaluating]}
        await life.reached("Evaluating")
        album.take("Evaluating")
        await kubelet.train_ends(160, 0, example("result.json") | {"phases": []})
    await life.reached("Succeeded")
    album.take("Succeeded")


async def _failed(life: Life, album: Album, begin: datetime) -> None:
    await life.edit(rerun=1)
    kubelet = Kubelet(life.cluster, life.namespace, begin, life.ip)
    await kubelet.bind(305)
    await kubelet.prepare_starts(306)
    await kubelet.prepare_ends(320, 11, example("error-result.json"))
    await life.reached("Failed")
    album.take("Failed")


async def _stopped(life: Life, album: Album) -> None:
    await life.edit(rerun=2, limits={"queueSeconds": 1})
    await life.reached("Stopped")
    await _seen(life)
    album.take("Stopped")


async def _seen(life: Life) -> None:
    """Until the operator has told of the last edit."""

    async def seen() -> bool:
        job = await life.job()
        return bool(job["status"]["observedGeneration"] == job["metadata"]["generation"])

    await until("the edit is seen", seen)
