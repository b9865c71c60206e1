"""Whose turn it is to hold a V-IPU partition that exists once. Called by status; nothing here acts.

The Job of a run on such a partition is created suspended, with the partition's key as a label. Its annotation says
`Waits` while the run wants the partition; the first that waits, by creation and uid, becomes `Claims`; the only one
that claims is let go on (`suspend: false`). So the line is the Jobs that exist, over all flavors and namespaces that
the operator watches, and there is no other state: a process that is killed between any two writes leaves a line that
the next process goes on with.

There are never two holders, however many processes decide, however old what each of them knows, and whenever they are
killed:

1. What is decided upon is LISTed for it, the Jobs with the label and then the pods, read from the API server at moments
   after the pass began; never from the watch's index, which may be behind. Where the operator serves some namespaces only,
   there is a LIST for each, and each has a moment of its own; that of the run's own namespace is the first.
2. Each step of a Job is one patch with the resourceVersion that its LIST has shown; if anything about the Job has
   changed since, it is refused, and the next pass lists anew.
3. A Job goes on only if it claims in these LISTs, and in them no other Job claims or holds and no pod is left.

Say that J1 and J2 hold at once. Each claimed without a break from the moment at which its own namespace was LISTed until
it went on (2), and has held since. J2's pass looked at J1 and saw it neither claim nor hold (3): J1's claim is younger
than that look. The look is no older than the one at J2 itself, for a run's own namespace is the first (1), and that one
showed J2's claim. So J1's claim is younger than J2's. By the same words for J1's pass, J2's claim is younger than J1's:
both can't be. Were the own namespace LISTed later, a claim would count that is younger than the look at the others, and
they may have gone on in between.

The pods of a namespace are LISTed after its Jobs: what is at rest makes no more, so that those which are left are seen.
Whoever sees another claim beside its own gives way if it is the later of the two, and waits if it is the earlier, so that
one of them is let go on.

A Job is at rest when it has not gone on yet, when it is over, or when it is suspended and its controller has said so
(the condition Suspended): before that, the controller may be about to make a pod. For the same reason nothing is
suspended again before its controller has seen it go on. A pod holds until its phase is Succeeded or Failed or it is
deleted, also when its Job is gone. What is left is a pod that the Job controller makes from a cache older than the
deletion of its Job by a person: the garbage collector takes it away in its next pass.

A Job at rest that no XRayTrainingJob controls is in no line, whatever it claims: `kubectl delete --cascade=orphan` leaves
such, and nobody would let them go on. Nothing above changes, if to claim is to claim while controlled: who controls a Job
can't change without its version. Once somebody resumes such a Job by hand, it holds as any other.

The line's order is for fairness, and only that; the safety is in the three rules. What they can't know is a holder
outside: another cluster, an operator for other namespaces, somebody who unsuspends a Job by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xray_operator import names
from xray_operator.core.observed import Entrant, HeldPod, Job, Line


@dataclass(frozen=True)
class Change:
    """What a run's Job has to become, if it is still what we have seen."""

    suspend: bool
    turn: str
    version: str


@dataclass(frozen=True)
class Turn:
    """Where a run is in the line."""

    change: Change | None = None
    told: str = ""
    """Whom it waits for, in words; empty if for nobody."""


def looking_order(namespaces: Sequence[str], own: str) -> tuple[str | None, ...]:
    """Where to LIST for a run, one after the other: its own namespace first, which the argument above needs.

    Args:
        namespaces: those that the operator serves; none: it serves all, and one LIST tells of all (None).
        own: the run's.
    """
    return tuple(sorted(namespaces, key=lambda place: place != own)) or (None,)


def find_turn(job: Job, namespace: str, line: Line | None, *, halted: bool) -> Turn:
    """What to do about the Job of a run whose flavor has a partition.

    Args:
        line: as it is now; None if nobody has looked, and then nothing begins.
        halted: whether the run has to stand still.
    """
    if halted:
        return Turn(_stand_back(job))
    mine = next((each for each in line.entrants if each.uid == job.handle.uid), None) if line else None
    if line is None or mine is None or not mine.suspended:
        return Turn()
    holder = _holder(line, mine)
    if holder is not None:
        return Turn(_become(mine, names.WAITS), f"held by {_named(holder, namespace)}")
    return _next_step(line, mine, namespace)


def _stand_back(job: Job) -> Change | None:
    """Out of the line, or out of the partition once the Job's controller has seen it go on."""
    if job.suspended:
        return Change(True, "", job.version) if job.turn else None
    return Change(True, "", job.version) if job.begun else None


def _next_step(line: Line, mine: Entrant, namespace: str) -> Turn:
    """Nobody holds the partition."""
    claimants = [each for each in line.entrants if each.turn == names.CLAIMS and each.uid != mine.uid]
    if mine.turn == names.CLAIMS:
        if not claimants:
            return Turn(Change(False, "", mine.version))
        first = min(claimants, key=lambda each: each.place)
        change = _become(mine, names.WAITS) if first.place < mine.place else None
        return Turn(change, _behind(first, namespace))
    ahead = claimants or [each for each in line.entrants if each.turn == names.WAITS and each.place < mine.place]
    if ahead:
        return Turn(_become(mine, names.WAITS), _behind(min(ahead, key=lambda each: each.place), namespace))
    return Turn(Change(True, names.CLAIMS, mine.version))


def _become(mine: Entrant, turn: str) -> Change | None:
    return None if mine.turn == turn else Change(True, turn, mine.version)


def _holder(line: Line, mine: Entrant) -> Entrant | HeldPod | None:
    holding = next((each for each in line.entrants if each.holds and each.uid != mine.uid), None)
    return holding or next(iter(line.pods), None)


def _behind(first: Entrant, namespace: str) -> str:
    return f"next is {_named(first, namespace)}"


def _named(other: Entrant | HeldPod, namespace: str) -> str:
    """Tenants don't learn each other's names."""
    return f"run {other.run}" if other.namespace == namespace else "a run of another namespace"
