"""What a container is doing. Both containers keep one Progress; `progress_server` tells others of it."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

Clock = Callable[[], datetime]
TELL_SECONDS = 0.1
"""Between two counts of data that are told: to tell one takes 0.08 ms of the time in which images are read."""
METRICS: Mapping[str, Tuple[str, str]] = {
    "progress": ("xray_trainer_progress_ratio", "Share done of the present phase."),
    "steps": ("xray_trainer_steps", "Optimisation steps done."),
    "planned_steps": ("xray_trainer_planned_steps", "Optimisation steps of the whole run."),
    "loss": ("xray_trainer_loss", "Latest binary cross-entropy on training images."),
    "learning_rate": ("xray_trainer_learning_rate", "Latest learning rate."),
    "gradient_norm": ("xray_trainer_gradient_norm", "Latest norm of the gradient."),
    "images_per_second": ("xray_trainer_images_per_second", "Training images per second since the first step."),
    "validation_loss": ("xray_trainer_validation_loss", "Latest binary cross-entropy on validation images."),
    "validation_auroc_macro": ("xray_trainer_validation_auroc_macro", "Latest macro AUROC on validation images."),
    "images_prepared": ("xray_trainer_images_prepared", "Images that preparation has cached, or found cached."),
    "images_rejected": ("xray_trainer_images_rejected", "Images that preparation left out."),
    "archives_read": ("xray_trainer_archives_read", "Archives that preparation has read to their end."),
    "archives": ("xray_trainer_archives", "Archives that preparation reads in all."),
    "prepared_images_per_second": (
        "xray_trainer_prepared_images_per_second",
        "Images prepared per second since the reading began.",
    ),
    "source_bytes_read": (
        "xray_trainer_source_read_bytes_total",
        "Bytes of archives and image files that preparation has read.",
    ),
}
"""Value -> Prometheus name and help. There are no labels, so that none can tell a patient."""


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def timestamp(moment: datetime) -> str:
    """RFC 3339 with whole seconds and `Z`, as Kubernetes writes it."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_deadline(text: str) -> Optional[datetime]:
    """The value of RUN_UNTIL; None if it is none."""
    if text == "never":
        return datetime.max.replace(tzinfo=timezone.utc)
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None


@dataclass(frozen=True)
class Phase:
    """A stretch of the run with its begin and, once over, its end."""

    name: str
    started_at: datetime
    finished_at: Optional[datetime] = None

    def as_json(self) -> Dict[str, Optional[str]]:
        finished = timestamp(self.finished_at) if self.finished_at else None
        return {"name": self.name, "started_at": timestamp(self.started_at), "finished_at": finished}


@dataclass(frozen=True)
class DataCounts:
    """How far the reading of a data set is."""

    archives_done: int
    archives: int
    images: int
    expected_images: int
    bytes_read: int
    total_bytes: int
    images_per_second: Optional[float]
    """None until there is a rate."""

    @property
    def share(self) -> float:
        """Of the work: by bytes, whose total is known before all are read."""
        return min(1.0, self.bytes_read / max(1, self.total_bytes))

    def as_json(self) -> Dict[str, Any]:
        rate = None if self.images_per_second is None else round(self.images_per_second, 1)
        return {**asdict(self), "images_per_second": rate}

    def as_metrics(self) -> Dict[str, float]:
        """Those that `record` does not tell; keys of METRICS."""
        known: Dict[str, float] = {"archives_read": self.archives_done, "archives": self.archives}
        if self.images_per_second is not None:
            known["prepared_images_per_second"] = self.images_per_second
        return known


@dataclass(frozen=True)
class State:
    """One moment of the container; a change makes a new one."""

    phases: Tuple[Phase, ...]
    updated_at: datetime
    step: int = 0
    total_steps: int = 0
    fraction: float = 0.0
    remaining_seconds: Optional[int] = None
    fraction_found_done: float = 0.0
    """Share that an earlier attempt had done when the current phase began."""
    checkpoint: Optional[Mapping[str, Any]] = None
    """The newest that is complete on the volume: its step and time."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    trained: Mapping[str, int] = field(default_factory=dict)
    """Steps of training; the phases after it keep them."""
    data: Optional[DataCounts] = None
    """Of a data set that is being read."""

    def as_json(self) -> Dict[str, Any]:
        """All of it but the metrics that only Prometheus is told. The remaining time is null until a rate is known."""
        return {
            "phase": self.phases[-1].name,
            "started_at": timestamp(self.phases[0].started_at),
            "progress_percentage": max(0, min(100, int(100 * self.fraction))),
            "estimated_remaining_seconds": self.remaining_seconds,
            "step": self.step,
            "total_steps": self.total_steps,
            "data": self.data.as_json() if self.data else None,
            "metrics": [{"name": name, "value": f"{value:.6g}"} for name, value in self.metrics.items()],
            "checkpoint": self.checkpoint,
            "last_updated_time": timestamp(self.updated_at),
            "phases": [phase.as_json() for phase in self.phases],
        }

    def as_metrics(self) -> Dict[str, float]:
        """The values that are known; keys of METRICS."""
        read = self.data.as_metrics() if self.data else {}
        return {"progress": self.fraction, **self.trained, **read, **self.metrics}


class Progress:
    """Holds the latest State, and tells whoever follows it of each change."""

    def __init__(self, phase: str, clock: Clock = utc_now, seconds: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            seconds: a clock that nobody sets.
        """
        now = clock()
        self._device: Optional[str] = None
        self._clock = clock
        self._seconds = seconds
        self._began = self._asked = seconds()
        self._run_until: Optional[datetime] = None
        self._lock = threading.RLock()
        self._tell: Callable[[], None] = lambda: None
        self._tell_counts_at = self._began
        self._state = State(phases=(Phase(phase, now),), updated_at=now)

    @property
    def state(self) -> State:
        with self._lock:
            return self._state

    @property
    def device(self) -> Optional[str]:
        """What trains, once that is known."""
        return self._device

    @device.setter
    def device(self, device: str) -> None:
        with self._lock:
            self._device = device
            self._tell()

    def follow(self, tell: Callable[[], None]) -> None:
        """Call `tell` now, after each change but most counts of data, and after each question; one call at a time."""
        with self._lock:
            self._tell = tell
            self._tell()

    def as_json(self) -> Dict[str, Any]:
        """What `/progress` tells: the state, what trains, and the time by the clock that its own times are from.

        tests/contract/examples/progress.json shows it.
        """
        return {**self.state.as_json(), "device": self.device, "time": timestamp(self._clock())}

    def begin(self, phase: str) -> None:
        """End the current phase and begin the next, of which nothing is done yet; metrics stay."""
        now = self._clock()
        with self._lock:
            phases = (*self._finished(now), Phase(phase, now))
            kept = self._state
            self._change(
                State(phases, updated_at=now, metrics=kept.metrics, trained=kept.trained, checkpoint=kept.checkpoint)
            )

    def finish(self) -> Tuple[Phase, ...]:
        """End the current phase. Returns: all phases of the run."""
        now = self._clock()
        with self._lock:
            self._change(replace(self._state, phases=self._finished(now), updated_at=now))
            return self._state.phases

    def advance(self, step: int, total_steps: int, fraction: Optional[float] = None) -> None:
        """Record work done.

        Args:
            step: units done (optimisation steps, images).
            total_steps: units in all.
            fraction: share of the work done, if it is known better than step / total_steps.
        """
        share = fraction if fraction is not None else step / max(1, total_steps)
        self._move(share, step, total_steps)

    def resume(self, step: int, total_steps: int) -> None:
        """Begin the current phase where an earlier attempt left it: the time left follows from what is done now."""
        with self._lock:
            self._state = replace(self._state, fraction_found_done=step / max(1, total_steps))
            self.advance(step, total_steps)

    def count_data(self, data: DataCounts, remaining_seconds: Optional[int], **metrics: float) -> None:
        """Record how far a data set is read, how long the rest takes, if that is known, and what `record` takes.

        So often as images are read it is not told: see TELL_SECONDS.
        """
        now, seconds = self._clock(), self._seconds()
        with self._lock:
            self._state = replace(
                self._state,
                step=data.images,
                total_steps=data.expected_images,
                fraction=data.share,
                remaining_seconds=remaining_seconds,
                data=data,
                metrics={**self._state.metrics, **metrics},
                updated_at=now,
            )
            if seconds >= self._tell_counts_at:
                self._tell_counts_at = seconds + TELL_SECONDS
                self._tell()

    def saved(self, checkpoint: Optional[Mapping[str, Any]]) -> None:
        """Record the newest checkpoint that is complete on the volume, or that there is none."""
        now = self._clock()
        with self._lock:
            self._change(replace(self._state, checkpoint=checkpoint, updated_at=now))

    def asked(self, run_until: Optional[str] = None) -> None:
        """Somebody reads `/progress`.

        Args:
            run_until: when this container has to end by itself, or `never`; what is neither is not heard. None: not told.
        """
        self._asked = self._seconds()
        if run_until is not None and (told := read_deadline(run_until)):
            self._run_until = told
        with self._lock:
            self._tell()

    def run_until(self) -> Optional[datetime]:
        """The latest that was told; None if nothing was, the last of all days for `never`."""
        return self._run_until

    def now(self) -> datetime:
        return self._clock()

    def running_seconds(self) -> float:
        """Since the container's start."""
        return self._seconds() - self._began

    def unasked_seconds(self) -> float:
        """Since somebody asked for `/progress`, or since the start."""
        return self._seconds() - self._asked

    def lives(self) -> None:
        """Record that work goes on of which no share is told."""
        now = self._clock()
        with self._lock:
            self._change(replace(self._state, updated_at=now))

    def advance_share(self, fraction: float) -> None:
        """Record the share of the work done in a phase without steps."""
        self._move(fraction, step=0, total_steps=0)

    def _move(self, share: float, step: int, total_steps: int) -> None:
        now = self._clock()
        with self._lock:
            phase = self._state.phases[-1]
            remaining = _remaining_seconds(phase.started_at, now, share, self._state.fraction_found_done)
            training = {"steps": step, "planned_steps": total_steps} if phase.name == "Training" else {}
            self._change(
                replace(
                    self._state,
                    step=step,
                    total_steps=total_steps,
                    fraction=share,
                    remaining_seconds=remaining,
                    trained=training or self._state.trained,
                    updated_at=now,
                )
            )

    def record(self, **values: float) -> None:
        """Record the latest values of metrics; the keys are those of METRICS."""
        now = self._clock()
        with self._lock:
            self._change(replace(self._state, metrics={**self._state.metrics, **values}, updated_at=now))

    def _change(self, state: State) -> None:
        """Called with the lock held, so that the latest is told last."""
        self._state = state
        self._tell()

    def _finished(self, now: datetime) -> Tuple[Phase, ...]:
        last = self._state.phases[-1]
        return (*self._state.phases[:-1], replace(last, finished_at=last.finished_at or now))


def _remaining_seconds(started_at: datetime, now: datetime, share: float, found_done: float) -> Optional[int]:
    done = share - found_done
    if done <= 0:
        return None
    return max(0, round((now - started_at).total_seconds() * (1 - share) / done))
