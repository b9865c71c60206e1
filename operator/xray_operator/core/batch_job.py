"""A pod's template -> the spec of the batch/v1 Job that tries it, and what counts as a failure there."""

from __future__ import annotations

from typing import Any, Final

from xray_operator import names

GRACE_SECONDS: Final = 120
"""From SIGTERM to SIGKILL: one training step and saving a checkpoint of ViT-base."""
BACKOFF_LIMIT: Final = 2
"""Failures that may pass by themselves are tried three times in all."""


def job_spec(template: dict[str, Any]) -> dict[str, Any]:
    """One pod at a time; failures that can't pass end the Job."""
    return {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": BACKOFF_LIMIT,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": _failure_rules()},
        "template": template,
    }


def _failure_rules() -> list[dict[str, Any]]:
    # the order matters: a pod that was disrupted may also carry an exit code
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    fatal = {"operator": "In", "values": list(names.FATAL_EXIT_CODES)}
    stopped = {"operator": "In", "values": [names.STOPPED_EXIT_CODE]}
    return [
        {"action": "Ignore", "onPodConditions": [disrupted]},
        {"action": "Ignore", "onExitCodes": stopped},
        {"action": "FailJob", "onExitCodes": fatal},
    ]
