"""Words that users, dashboards and other programs see: labels, conditions, reasons, ports."""

from __future__ import annotations

import hashlib
from typing import Final

GROUP: Final = "xray.training"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
JOB_KIND: Final = "XRayTrainingJob"
JOBS: Final = "xraytrainingjobs"
FLAVORS: Final = "acceleratorflavors"
OPERATOR: Final = "xray-operator"
"""Field manager, reporting component of events and value of app.kubernetes.io/managed-by."""

LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
"""Children carry the uid of their XRayTrainingJob: the key under which they are found again."""
LABEL_JOB_NAME: Final = f"{GROUP}/job-name"
LABEL_FLAVOR: Final = f"{GROUP}/flavor"
SNAPSHOT: Final = f"{GROUP}/snapshot"
"""Annotation with what was fixed when the run started (core.plan.Snapshot as JSON)."""

PREPARE: Final = "prepare"
TRAIN: Final = "train"
PROGRESS_PORT: Final = 9400
"""The trainer serves /metrics and /progress here."""

# Conditions
ACCEPTED: Final = "Accepted"
DATA_READY: Final = "DataReady"
RUNNING: Final = "Running"
SUCCEEDED: Final = "Succeeded"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
READY: Final = "Ready"
CONDITIONS: Final = (ACCEPTED, DATA_READY, RUNNING, SUCCEEDED, RECONCILING, STALLED, READY)

# States: one word for people
PENDING: Final = "Pending"
QUEUED: Final = "Queued"
PREPARING: Final = "Preparing"
TRAINING: Final = "Training"
EVALUATING: Final = "Evaluating"
FAILED: Final = "Failed"
STATES: Final = (PENDING, QUEUED, PREPARING, TRAINING, EVALUATING, SUCCEEDED, FAILED)
ACTIVE_STATES: Final = frozenset({PREPARING, TRAINING, EVALUATING})
FINAL_STATES: Final = frozenset({SUCCEEDED, FAILED})
HELD_PHASES: Final = (PREPARING, TRAINING, EVALUATING)
"""The phases in which a run holds its flavor, in order; waiting in the queue holds nothing."""

# Reasons
SPEC_INVALID: Final = "SpecInvalid"
FLAVOR_NOT_FOUND: Final = "FlavorNotFound"
FLAVOR_INVALID: Final = "FlavorInvalid"
FLAVOR_NOT_ALLOWED: Final = "FlavorNotAllowed"
CLAIM_NOT_FOUND: Final = "ClaimNotFound"
IMAGE_NOT_CONFIGURED: Final = "ImageNotConfigured"
NAME_TAKEN: Final = "NameTaken"
CREATION_REFUSED: Final = "CreationRefused"
RECORD_UNREADABLE: Final = "RecordUnreadable"
PASSING: Final = frozenset({FLAVOR_NOT_FOUND, CLAIM_NOT_FOUND, IMAGE_NOT_CONFIGURED, CREATION_REFUSED})
"""Reasons against a start that end without an edit of the job or of its flavor."""
PREPARED: Final = "Prepared"
STARTED: Final = "Started"
COMPLETED: Final = "Completed"
RESULT_UNREAD: Final = "ResultUnread"
ATTEMPT_FAILED: Final = "AttemptFailed"
REJECTED: Final = "Rejected"

EXIT_REASONS: Final = {
    10: "ConfigurationInvalid",
    11: "DataCorrupt",
    12: "Diverged",
    13: "DiskFull",
    14: "PartitionNotFound",
    15: "OutOfMemory",
    20: "TransportFailed",
    21: "AcceleratorNotAcquired",
    137: "Killed",
    143: "Stopped",
}
"""Meaning of the trainer's exit codes where its own words could not be read."""
FATAL_EXIT_CODES: Final = (10, 11, 12, 13, 14, 15)
"""Trying again cannot help."""

MESSAGE_CHARACTERS: Final = 1024
"""Longest condition or event message that we write (the API allows events 1024)."""


def child_name(namespace: str, name: str, uid: str) -> str:
    """Name of a run's Job, ConfigMap and output folder: at most 36 characters, the longest that gets IPUs.

    The hash holds the uid, so that a job that was deleted and created again never meets its former children.
    """
    digest = hashlib.sha256(f"{namespace}/{name}/{uid}".encode()).hexdigest()
    return f"{name[:28].replace('.', '-').rstrip('-')}-{digest[:7]}"


def short(message: str, characters: int = MESSAGE_CHARACTERS) -> str:
    """The message on one line, cut to a bound."""
    line = " ".join(message.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"
