"""Words that users, dashboards and other programs see: labels, conditions, reasons, ports."""

from __future__ import annotations

from typing import Final

GROUP: Final = "xray.training"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
JOB_KIND: Final = "XRayTrainingJob"
JOBS: Final = "xraytrainingjobs"
FLAVORS: Final = "acceleratorflavors"
BUDGET_KIND: Final = "TrainingBudget"
BUDGETS: Final = "trainingbudgets"
OPERATOR: Final = "xray-operator"
"""Field manager, reporting component of events and value of app.kubernetes.io/managed-by."""

LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
"""Children carry the uid of their XRayTrainingJob, and those that several share their Job's name: the key under which
they are found again."""
LABEL_JOB_NAME: Final = f"{GROUP}/job-name"
LABEL_FLAVOR: Final = f"{GROUP}/flavor"
LABEL_RERUN: Final = f"{GROUP}/rerun"
LABEL_OUTPUT: Final = f"{GROUP}/output-folder"
"""Pods carry the folder that they write to: two at once would spoil it."""
LABEL_COMPARISON: Final = f"{GROUP}/comparison"
"""On the jobs that `kubectl xray compare` has made: the name of the job of which they are repeats."""
ANNOTATION_COMPARED: Final = f"{GROUP}/compared"
"""On the same: digest of what all of them do, whatever their flavor and seed."""
LABEL_PARTITION: Final = f"{GROUP}/partition"
"""Jobs and pods that hold a V-IPU partition, or wait for it, carry its key."""
ANNOTATION_TURN: Final = f"{GROUP}/turn"
"""On a suspended Job of a partition: WAITS or CLAIMS; without it the run doesn't want the partition (core.turns)."""
WAITS: Final = "Waits"
CLAIMS: Final = "Claims"
LABEL_QUEUE: Final = "kueue.x-k8s.io/queue-name"
"""Kueue's; on the resource it goes to the Job, whose suspend is Kueue's from then on."""
LABEL_QUEUE_PRIORITY: Final = "kueue.x-k8s.io/priority-class"
"""Kueue's; goes to the Job beside the queue's."""
LABEL_QUEUED_JOB: Final = "kueue.x-k8s.io/job-uid"
"""Kueue's, on the Workload that it makes for a Job."""
QUEUE_API: Final = "kueue.x-k8s.io/v1beta2"
WORKLOAD_KIND: Final = "Workload"
WORKLOADS: Final = "workloads"
IPU_JOB_API: Final = "graphcore.ai/v1alpha1"
IPU_JOB_KIND: Final = "IPUJob"
IPU_JOBS: Final = "ipujobs"
"""Of Graphcore's IPU Operator."""
SNAPSHOT_FILE: Final = "snapshot.json"
"""Key in the run's ConfigMap: what was fixed when the run started (core.plan.Snapshot)."""

TRAINS_WITH: Final = ("torch", "ipu")
"""The trainer's backends."""
PREPARE: Final = "prepare"
TRAIN: Final = "train"
PROGRESS_PORT: Final = 9400
"""The trainer serves /metrics and /progress here, in a pod with a network of its own."""
RUN_UNTIL: Final = "X-Xray-Run-Until"
"""Header with which a trainer is asked for its progress: when it has to end by itself, or NEVER. Images from before it leave
it unread."""
NEVER: Final = "never"
HOST_PORTS: Final = range(20000, 30000)
"""Of these one per run on the host's network: below those of NodePorts (30000) and of outgoing connections (32768)."""

# Conditions
ACCEPTED: Final = "Accepted"
DATA_READY: Final = "DataReady"
RUNNING: Final = "Running"
SUCCEEDED: Final = "Succeeded"
SUSPENDED: Final = "Suspended"
RECONCILING: Final = "Reconciling"
STALLED: Final = "Stalled"
READY: Final = "Ready"
BUDGET_WARNING: Final = "BudgetWarning"
"""Only where there is a budget."""

# States: one word for people
PENDING: Final = "Pending"
QUEUED: Final = "Queued"
PREPARING: Final = "Preparing"
COMPILING: Final = "Compiling"
TRAINING: Final = "Training"
EVALUATING: Final = "Evaluating"
FAILED: Final = "Failed"
STOPPED: Final = "Stopped"
STATES: Final = (PENDING, QUEUED, PREPARING, COMPILING, TRAINING, EVALUATING, SUSPENDED, SUCCEEDED, FAILED, STOPPED)
RUNNING_STATES: Final = (COMPILING, TRAINING, EVALUATING)
"""The trainer runs; it compiles on IPUs only."""
ACTIVE_STATES: Final = frozenset({PREPARING, *RUNNING_STATES})
FINAL_STATES: Final = frozenset({SUCCEEDED, FAILED})
"""A raised limit brings a stopped run back, and spec.suspend a suspended one: those are not final."""
IDLE: Final = "Idle"
ROUNDED_UP: Final = "RoundedUp"
DATA_PREPARATION: Final = "DataPreparation"
MODEL_PREPARATION: Final = "ModelPreparation"
PAID_PREPARATIONS: Final = {"preparation": DATA_PREPARATION, "modelPreparation": MODEL_PREPARATION}
"""Section of a preparation of its own -> its row in cost.phases, if the run pays for it."""
WORKING_PHASES: Final = (PREPARING, *RUNNING_STATES)
"""The phases in which a run works on its flavor, in order; waiting in the queue holds nothing."""
HELD_PHASES: Final = (*WORKING_PHASES, IDLE)
"""All in which it holds its flavor: Idle while no container works."""

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
FORMER_POD_RUNS: Final = "FormerPodRuns"
VOLUME_IMPOSSIBLE: Final = "VolumeImpossible"
SIZING_IMPOSSIBLE: Final = "SizingImpossible"
FLAVOR_UNFIT: Final = "FlavorUnfit"
BACKEND_NOT_INSTALLED: Final = "BackendNotInstalled"
PASSING: Final = frozenset(
    {
        FLAVOR_NOT_FOUND,
        CLAIM_NOT_FOUND,
        IMAGE_NOT_CONFIGURED,
        CREATION_REFUSED,
        FORMER_POD_RUNS,
        BACKEND_NOT_INSTALLED,
    }
)
"""Reasons against a start that end without an edit of the job or of its flavor."""
PREPARED: Final = "Prepared"
FINDINGS_ABSENT: Final = "FindingsAbsent"
BEYOND_ONE_HOST: Final = "BeyondOneHost"
CREATED: Final = "Created"
STARTED: Final = "Started"
RESUMED: Final = "Resumed"
COMPLETED: Final = "Completed"
RESULT_UNREAD: Final = "ResultUnread"
ADOPTED: Final = "Adopted"
EDITS_PENDING: Final = "EditsPending"
SUSPENDING: Final = "Suspending"
RELEASING: Final = "Releasing"
SUPERSEDED: Final = "Superseded"
QUEUE_LIMIT_REACHED: Final = "QueueLimitReached"
RUN_LIMIT_REACHED: Final = "RunLimitReached"
RESTART_LIMIT_REACHED: Final = "RestartLimitReached"
BUDGET_REACHED: Final = "BudgetReached"
BUDGET_TOO_LOW: Final = "BudgetTooLow"
BUDGET_UNPRICED: Final = "BudgetUnpriced"
BUDGET_CURRENCY: Final = "BudgetCurrency"
BUDGET_NEARLY_SPENT: Final = "BudgetNearlySpent"
BUDGET_EXCEEDED: Final = "BudgetExceeded"
BUDGET_SPENT: Final = "BudgetSpent"
MONTH_SPENT: Final = "MonthlyBudgetSpent"
WITHIN_BUDGET: Final = "WithinBudget"
NO_PROGRESS: Final = "NoProgress"
STALL_OVER: Final = "StallOver"
"""It moves again, or its pod is no more: the run had not stood still by our doing."""
PROGRESS_UNKNOWN: Final = "ProgressUnknown"
NODE_LOST: Final = "NodeLost"
ATTEMPT_STOPPED: Final = "AttemptStopped"
ATTEMPT_FAILED: Final = "AttemptFailed"
REJECTED: Final = "Rejected"
PARTITION_HELD: Final = "PartitionHeld"
WAITS_FOR_KUEUE: Final = "WaitsForKueue"
NO_PARTITION_FREE: Final = "NoPartitionFree"
CAPACITY_UNKNOWN: Final = "CapacityUnknown"
POD_REFUSED: Final = "PodRefused"
POD_VANISHED: Final = "PodVanished"

EXIT_REASONS: Final = {
    10: "ConfigurationInvalid",
    11: "DataCorrupt",
    12: "Diverged",
    13: "DiskFull",
    14: "PartitionNotFound",
    15: "OutOfMemory",
    16: "LimitReached",
    20: "TransportFailed",
    21: "AcceleratorNotAcquired",
    137: "Killed",
    143: "Stopped",
}
"""Meaning of the trainer's exit codes where its own words could not be read."""
FATAL_EXIT_CODES: Final = (10, 11, 12, 13, 14, 15, 16)
"""Trying again cannot help."""
LIMIT_EXIT_CODE: Final = 16
"""The trainer kept limits.runSeconds by itself, because the operator was silent."""
STOPPED_EXIT_CODE: Final = 143
"""SIGTERM: stopped from outside, usually with a checkpoint; no failure of the run."""

ENDED_FROM_OUTSIDE: Final = (137, STOPPED_EXIT_CODE)
"""By SIGKILL, or by SIGTERM before it."""

MESSAGE_CHARACTERS: Final = 1024
"""Longest condition or event message that we write (the API allows events 1024)."""


def counted(number: int, what: str) -> str:
    """For people: 1 run, 2 runs, 2,000 runs."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def short(message: str, characters: int = MESSAGE_CHARACTERS) -> str:
    """The message on one line, cut to a bound."""
    line = " ".join(message.split())
    return line if len(line) <= characters else line[: characters - 1] + "…"
