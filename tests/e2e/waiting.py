"""Waiting: on a condition, and with a deadline."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from dev.demo.stack import Kube, Manifest

DEADLINE_SECONDS = 900

T = TypeVar("T")


def until(what: str, ask: Callable[[], T], seconds: float = 60) -> T:
    """The first answer that is true; fails with `what` and the last answer at the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}; last answer {answer!r}")
        time.sleep(0.3)
    return answer


def wait_for_end(kube: Kube, name: str, namespace: str) -> Manifest:
    deadline = time.monotonic() + DEADLINE_SECONDS
    job: Manifest = {}
    while time.monotonic() < deadline:
        job = kube.find("xraytrainingjob", name, namespace) or {}
        if job.get("status", {}).get("state") in ("Succeeded", "Failed"):
            return job
        time.sleep(2)
    pytest.fail(f"not ended after {DEADLINE_SECONDS} s: {json.dumps(job.get('status'), indent=1)}")
