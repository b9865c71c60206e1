"""Long-running processes of a cluster: start, find again, stop. Used by control_plane.py and node.py.

A process counts as ours only if pid, kernel start time and boot all match what was recorded when it was
started. A pid that someone else got meanwhile is never signalled, and nothing is ever looked up by its
name.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dev.cluster.state import Cluster, ClusterError, read_json, say, write_json

KEPT_LOGS = 3
"""Logs of earlier starts that stay beside the present one: enough to see what came before a crash loop."""


def stat_fields(stat: str) -> tuple[str, str]:
    """State (R, S, Z, ...) and start time in ticks since boot of a /proc/PID/stat: its fields 3 and 22.

    The program's name before them may itself hold blanks and parentheses.
    """
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def _ticks_of(pid: str) -> str | None:
    """Start time of a live process; None if there is none (a zombie is none)."""
    try:
        state, ticks = stat_fields(Path("/proc", pid, "stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else ticks


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def is_ours(record: Mapping[str, str], boot: str, ticks: str | None) -> bool:
    """Whether what has the recorded pid now, started at `ticks` (None: nothing), is the recorded process."""
    return ticks is not None and record.get("boot") == boot and record.get("ticks") == ticks


def _record_path(cluster: Cluster, name: str) -> Path:
    return cluster.processes / f"{name}.json"


def running_pid(cluster: Cluster, name: str) -> int | None:
    record = read_json(_record_path(cluster, name))
    if record and is_ours(record, boot_id(), _ticks_of(record["pid"])):
        return int(record["pid"])
    return None


def started_at(cluster: Cluster, name: str) -> str:
    """When the recorded process was started, as Kubernetes writes times, or ""."""
    return read_json(_record_path(cluster, name)).get("started", "")


def names_of(cluster: Cluster) -> list[str]:
    return sorted(path.stem for path in cluster.processes.glob("*.json"))


def log_path(cluster: Cluster, name: str) -> Path:
    return cluster.logs / f"{name}.log"


def rotate(log: Path) -> None:
    for number in range(KEPT_LOGS, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        newer = log.with_name(f"{log.name}.{number - 1}") if number > 1 else log
        if newer.exists():
            newer.rename(older)


def _fingerprint(argv: Sequence[str], files: Sequence[Path]) -> str:
    text = "\0".join([*argv, *(path.read_text() for path in files)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def ensure(cluster: Cluster, name: str, argv: Sequence[str], configs: Sequence[Path] = ()) -> bool:
    """Have the process run with exactly this command line and these configuration files.

    Returns: True if it was (re)started, False if it ran already.
    """
    fingerprint = _fingerprint(argv, configs)
    if running_pid(cluster, name) is not None:
        if read_json(_record_path(cluster, name)).get("fingerprint") == fingerprint:
            return False
        stop(cluster, name)
    cluster.logs.mkdir(parents=True, exist_ok=True)
    log = log_path(cluster, name)
    rotate(log)
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=cluster.root,
        )
    record = {
        "pid": str(process.pid),
        "ticks": _ticks_of(str(process.pid)) or "",
        "boot": boot_id(),
        "fingerprint": fingerprint,
        "started": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    write_json(_record_path(cluster, name), record)
    return True


def stop(cluster: Cluster, name: str, grace_seconds: float = 20.0) -> None:
    """Ask the process to end, insist after the grace, forget it. One that is not ours is left alone."""
    pid = running_pid(cluster, name)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_seconds
        while running_pid(cluster, name) is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        if running_pid(cluster, name) is not None:
            say(f"{name}: still there {grace_seconds:.0f} s after SIGTERM, killing it")
            os.kill(pid, signal.SIGKILL)
    _record_path(cluster, name).unlink(missing_ok=True)


def wait_for(cluster: Cluster, name: str, ready: Callable[[], str], timeout_seconds: float) -> None:
    """Wait until `ready` returns "" (else what is missing yet); give up at once if the process ended.

    Raises: ClusterError with the end of the log.
    """
    deadline = time.monotonic() + timeout_seconds
    missing = ready()
    while missing:
        if running_pid(cluster, name) is None:
            raise ClusterError(
                f"{name} ended while starting; the end of {log_path(cluster, name)}:\n{_tail(cluster, name)}"
            )
        if time.monotonic() > deadline:
            raise ClusterError(f"{name}: {missing}, after {timeout_seconds:.0f} s; see {log_path(cluster, name)}")
        time.sleep(0.1)
        missing = ready()


def _tail(cluster: Cluster, name: str) -> str:
    return "\n".join(log_path(cluster, name).read_text(errors="replace").splitlines()[-8:])
