"""`kubectl xray logs` and `report` on a real node, with a user's own rights."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.demo.stack import Kube, Manifest, claim, restricted_pod, run_pod_job
from tests.command_line import command, environment, xray
from tests.e2e.places import CLAIM, cpu_flavor, folder, tiny_run
from tests.e2e.waiting import until, wait_for_end
from tests.kubeconfigs import with_token

pytestmark = pytest.mark.e2e

FLAVOR, NAME = "e2e-cli", "cxr"
PRICE = {"effectiveFrom": "2026-01-01T00:00:00Z", "currency": "USD", "perHour": "3.60", "source": "an example"}


class User:
    """Somebody with a kubeconfig."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.kubeconfig, self.namespace = kubeconfig, namespace

    def xray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return xray(self.kubeconfig, *arguments, "-n", self.namespace, seconds=600)

    @contextlib.contextmanager
    def starts(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; it is over at the end of the block."""
        words = command(*arguments, "-n", self.namespace)
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, env=environment(self.kubeconfig), **pipes) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture(scope="module")
def admin(kube: Kube, module_namespace: str) -> User:
    return User(Path(kube.environment["KUBECONFIG"]), module_namespace)


@pytest.fixture(scope="module")
def followed(kube: Kube, admin: User, prepare_image: str) -> Iterator[tuple[Manifest, str, str]]:
    """A run at its end, and what `logs -f` has printed of it on stdout and stderr from before it had a pod."""
    namespace = admin.namespace
    claim(kube, namespace, CLAIM)
    arguments = ["synthesize", "--out", "/data/good", "--images", "60", "--seed", "3", "--size", "256"]
    run_pod_job(kube, namespace, "generate", restricted_pod(prepare_image, arguments, {CLAIM: "/data"}), 300)
    with cpu_flavor(kube, FLAVOR, PRICE):
        kube.apply(tiny_run(namespace, NAME, FLAVOR, folder("good"), prepare="Job", prepareFlavor=FLAVOR))
        with admin.starts("logs", NAME, "-f") as process:
            out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        yield wait_for_end(kube, NAME, namespace), out, err


def readers(kube: Kube, namespace: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in kube.items("pods", namespace, "app.kubernetes.io/name=xray-reader")]


def test_follow_goes_from_pod_to_pod_until_the_run_ends(followed: tuple[Manifest, str, str]) -> None:
    job, out, _ = followed
    status = job["status"]
    assert status["state"] == "Succeeded", status["conditions"]
    heads = [found.group(1) for line in out.splitlines() if (found := re.match(r"\[pod/(\S+)\] ", line))]
    assert len(heads) == len(out.splitlines())
    order = list(dict.fromkeys(heads))
    assert len(order) == 3
    assert order[0].startswith(f"{status['preparation']['jobName']}-")
    assert order[0].endswith("/prepare")
    assert order[1:] == [f"{status['run']['podName']}/prepare", f"{status['run']['podName']}/train"]
    assert heads == sorted(heads, key=order.index), "one after the other"


def test_the_same_is_printed_afterwards(admin: User, followed: tuple[Manifest, str, str]) -> None:
    _, out, _ = followed
    done = admin.xray("logs", NAME)
    assert (done.returncode, done.stdout) == (0, out)
    last = admin.xray("logs", NAME, "-c", "train", "--tail", "2")
    assert [line.partition("] ")[2] for line in out.splitlines()][-2:] == last.stdout.splitlines()
    first = admin.xray("logs", NAME, "--attempt", "1", "-c", "train")
    assert first.stdout.splitlines()[-2:] == last.stdout.splitlines()
    prepared = admin.xray("logs", NAME, "-c", "prepare")
    assert prepared.stdout.splitlines() == [
        line.partition("] ")[2] for line in out.splitlines() if line.partition("] ")[0].endswith("/prepare")
    ]


def test_the_report_comes_whole_and_the_pod_goes(
    kube: Kube, admin: User, followed: tuple[Manifest, str, str], tmp_path: Path
) -> None:
    status = followed[0]["status"]
    done = admin.xray("report", NAME, "--all", "-o", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"reading folder {status['run']['folder']} of claim {CLAIM} through pod xray-reader-")
    printed = {Path(line).relative_to(tmp_path).as_posix() for line in done.stdout.splitlines()}
    assert {"report.html", "report.json", "loss.png", "result.json", "train.log", "model/model.safetensors"} <= printed
    assert printed == {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    weights = hashlib.sha256((tmp_path / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert f"sha256:{weights}" == status["results"]["modelDigest"]
    assert json.loads((tmp_path / "result.json").read_text())["model_digest"] == status["results"]["modelDigest"]
    assert status == json.loads((tmp_path / "report.json").read_text())["status"]
    page = (tmp_path / "report.html").read_text()
    assert f"<strong>{status['cost']['total']} USD</strong>" in page
    assert "The bill is in the job's status" not in page
    until("no reader is left", lambda: not readers(kube, admin.namespace))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_interrupted_leaves_no_pod(
    kube: Kube, admin: User, followed: tuple[Manifest, str, str], tmp_path: Path, number: signal.Signals
) -> None:
    assert followed
    with admin.starts("report", NAME, "-o", str(tmp_path)) as process:
        until("a reader is there", lambda: readers(kube, admin.namespace))
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    until("no reader is left", lambda: not readers(kube, admin.namespace))


def test_a_user_with_the_rights_that_the_refusal_names_gets_the_report(
    kube: Kube, admin: User, followed: tuple[Manifest, str, str], tmp_path: Path
) -> None:
    assert followed
    namespace = admin.namespace
    kube.kubectl("-n", namespace, "create", "serviceaccount", "reader")
    account = f"--serviceaccount={namespace}:reader"
    kube.kubectl("-n", namespace, "create", "role", "jobs", "--verb=get", "--resource=xraytrainingjobs.xray.training")
    kube.kubectl("-n", namespace, "create", "rolebinding", "jobs", "--role=jobs", account)
    token = kube.kubectl("-n", namespace, "create", "token", "reader").strip()
    user = User(with_token(admin.kubeconfig, token, namespace, tmp_path / "kubeconfig"), namespace)
    refused = user.xray("report", NAME, "-o", str(tmp_path / "report"))
    assert refused.returncode == 1
    assert (
        "you may not create, get, delete pods; get, create pods/exec; get persistentvolumeclaims in namespace"
        in refused.stderr
    )
    advice = next(line.split() for line in refused.stderr.splitlines() if " create role " in line)
    kube.kubectl(*advice[1:])
    kube.kubectl("-n", namespace, "create", "rolebinding", "xray-reader", "--role=xray-reader", account)
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    words = ("report", NAME, "-n", namespace, "-o", str(tmp_path / "report"), "--open")
    done = xray(user.kubeconfig, *words, more={"BROWSER": f"{browser} %s"}, seconds=600)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "opened").read_text() == f"{(tmp_path / 'report' / 'report.html').as_uri()}\n"
    assert (tmp_path / "report" / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_what_training_said_outlives_its_pod(kube: Kube, admin: User, followed: tuple[Manifest, str, str]) -> None:
    job, out, _ = followed
    kube.kubectl("-n", admin.namespace, "delete", "pod", job["status"]["run"]["podName"])
    gone = admin.xray("logs", NAME, "-c", "train")
    assert (gone.returncode, gone.stdout) == (1, "")
    assert gone.stderr == f"error: the pods of {NAME} are gone; --previous brings what training said in them\n"
    kept = admin.xray("logs", NAME, "-c", "train", "--previous")
    assert kept.returncode == 0, kept.stderr
    assert "the pod's log is gone: this is train.log of all attempts" in kept.stderr
    said = [line.partition("] ")[2] for line in out.splitlines() if "/train] " in line]
    assert kept.stdout.splitlines()[-1] == said[-1]
    assert set(kept.stdout.splitlines()) <= set(said)
    assert admin.xray("logs", NAME, "-p", "--tail", "1").stdout.splitlines() == said[-1:]
    until("no reader is left", lambda: not readers(kube, admin.namespace))
