"""Waiting for a run's end, on its state and with a deadline."""

from __future__ import annotations

import json
import time

import pytest

from dev.demo.stack import Kube, Manifest

DEADLINE_SECONDS = 900


def wait_for_end(kube: Kube, name: str, namespace: str) -> Manifest:
    deadline = time.monotonic() + DEADLINE_SECONDS
    job: Manifest = {}
    while time.monotonic() < deadline:
        job = kube.find("xraytrainingjob", name, namespace) or {}
        if job.get("status", {}).get("state") in ("Succeeded", "Failed"):
            return job
        time.sleep(2)
    pytest.fail(f"not ended after {DEADLINE_SECONDS} s: {json.dumps(job.get('status'), indent=1)}")
