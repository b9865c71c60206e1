"""What a run has left, in words that two runs share: two ends can be compared."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import Any

from tests.integration.life import EXAMPLES, Life

RERUN = "xray.training/rerun"
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ")
TOLD = {time for path in EXAMPLES.glob("*.json") for time in TIME.findall(path.read_text())}
"""Times in what the trainer tells: the same in each run, and on one day close to its begin."""


async def describe_end(life: Life) -> dict[str, Any]:
    """Children, status and events, without what no two runs share."""
    job = await life.job()
    jobs = await life.listed("/apis/batch/v1/namespaces/{}/jobs")
    pods = await life.listed("/api/v1/namespaces/{}/pods")
    maps = await life.listed("/api/v1/namespaces/{}/configmaps")
    events = await life.events(job["metadata"]["uid"])
    end = {
        "jobs": [{**child(raw), "spec": raw["spec"]} for raw in jobs],
        "configMaps": sorted(
            ({**child(raw), "data": record(raw)} for raw in maps), key=lambda raw: raw["labels"][RERUN]
        ),
        "pods": [raw["metadata"]["labels"] for raw in pods],
        "status": without_moments(job["status"]),
        "events": sorted(
            ({k: event[k] for k in ("reason", "type", "message", "count")} for event in events),
            key=lambda event: event["reason"],
        ),
    }
    own = {job["metadata"]["uid"]: "UID", life.namespace: "NAMESPACE", life.ip: "IP"}
    own |= {raw["metadata"]["uid"]: "JOB-UID" for raw in jobs} | {raw["metadata"]["name"]: "POD" for raw in pods}
    own |= {raw["metadata"]["name"]: f"CHILD-{raw['metadata']['labels'][RERUN]}" for raw in maps}
    own |= {digest(raw): f"RECORD-{raw['metadata']['labels'][RERUN]}" for raw in maps}
    runs = [*job["status"].get("formerRuns", ()), job["status"]["run"]]
    own |= {run["folder"]: f"FOLDER-{number}" for number, run in enumerate(runs)}
    return replaced(end, own, datetime.fromisoformat(job["metadata"]["creationTimestamp"]))


def child(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: raw["metadata"][key] for key in ("name", "labels", "ownerReferences")}


def record(config_map: dict[str, Any]) -> dict[str, Any]:
    """What was fixed at the start, without the moment."""
    snapshot = json.loads(config_map["data"]["snapshot.json"])
    assert snapshot.pop("startedAt")
    return config_map["data"] | {"snapshot.json": snapshot}


def digest(config_map: dict[str, Any]) -> str:
    """Of the record; it holds the moment of the start."""
    return f"sha256:{hashlib.sha256(config_map['data']['snapshot.json'].encode()).hexdigest()}"


def without_moments(status: dict[str, Any]) -> dict[str, Any]:
    """Without the moments at which the operator happened to look."""
    conditions = [{k: v for k, v in c.items() if k != "lastTransitionTime"} for c in status["conditions"]]
    run = {k: v for k, v in status["run"].items() if k != "startedAt"}
    return status | {"conditions": conditions, "run": run}


def replaced(end: dict[str, Any], own: dict[str, str], begin: datetime) -> dict[str, Any]:
    """Own words replaced by common ones, and times of this run by seconds since its begin."""
    text = json.dumps(end)
    for word in sorted(own, key=len, reverse=True):
        text = text.replace(word, own[word])

    def since(match: re.Match[str]) -> str:
        if match[0] in TOLD:
            return match[0]
        seconds = (datetime.fromisoformat(match[0]) - begin).total_seconds()
        return f"+{seconds:.0f}s" if -10 <= seconds < 3600 else match[0]

    document: dict[str, Any] = json.loads(TIME.sub(since, text))
    return document
