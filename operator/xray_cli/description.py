"""Everything about one job as text: `describe`. Pure: objects in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from xray_cli.billing import duration, told_total
from xray_cli.output import Row, Table
from xray_cli.standing import read_standing
from xray_operator.core.attempts import Attempt, attempts_from_status
from xray_operator.core.conditions import find_condition
from xray_operator.names import ACTIVE_STATES, HELD_PHASES, QUEUED, READY, counted

Raw = Mapping[str, Any]
Pairs = Iterable[tuple[str, object]]

INDENT: Final = "  "
NARROWEST: Final = 30
"""Characters that a wrapped value is given at least."""


@dataclass(frozen=True)
class Page:
    """How wide it is, and when it is looked at."""

    width: int | None
    """Characters in a line; None: lines are not wrapped."""
    now: datetime

    def pairs(self, rows: Pairs, indent: str = "") -> list[str]:
        """Names and values, each value wrapped beside its name; those without a value are left out."""
        told = [(f"{name}:", str(value)) for name, value in rows if value not in (None, "", [], {})]
        widest = max((len(name) for name, _ in told), default=0)
        return [line for name, value in told for line in self._wrap(f"{indent}{name:{widest}}  ", value)]

    def _wrap(self, before: str, value: str) -> list[str]:
        if self.width is None:
            return [before + " ".join(value.split())]
        room = max(self.width, len(before) + NARROWEST)
        return textwrap.wrap(
            " ".join(value.split()),
            room,
            initial_indent=before,
            subsequent_indent=" " * len(before),
            break_long_words=False,
            break_on_hyphens=False,
        )

    def grid(self, head: Row, rows: Sequence[Row]) -> list[str]:
        """A table, and of its columns those that have anything to say."""
        used = [place for place in range(len(head)) if any(row[place] for row in rows)]
        table = Table([head[place] for place in used])
        return [INDENT + line for line in table.lines([row[place] for place in used] for row in rows)]

    def age(self, moment: str) -> str:
        """Since when; of what the CRD's defaults say, nothing."""
        begin = datetime.fromisoformat(moment)
        return age_between(begin, self.now) if begin.timestamp() else ""


def describe_job(job: Raw, events: Sequence[Raw] | None, page: Page) -> list[str]:
    """The lines.

    Args:
        events: of the job; None: they may not be seen.
    """
    status = job.get("status", {})
    sections = {
        "Asked": asked(job["spec"], page),
        "Conditions": conditions(status, page),
        "Timeline": timeline(status, page),
        "Attempts": attempts(status, page),
        "Data": data(status, page),
        "Sizing": sizing(status, page),
        "Cost": cost(status, page),
        "Results": results(status, page),
        "Earlier runs": former_runs(status, page),
        "Events": ["  may not be listed with your rights"] if events is None else list_events(events, page),
    }
    lines = summary(job, page)
    for title, body in sections.items():
        if body:
            lines += ["", f"{title}:", *body]
    return lines


def summary(job: Raw, page: Page) -> list[str]:
    metadata, status, standing = job["metadata"], job.get("status", {}), read_standing(job)
    share = "" if standing.percentage is None or standing.state not in ACTIVE_STATES else f" {standing.percentage}%"
    left = f", {standing.eta} left" if standing.eta else ""
    run = status.get("run", {})
    place = f"{run['folder']} on claim {run['claimName']}" if "folder" in run and "claimName" in run else None
    rows = (
        ("Name", metadata["name"]),
        ("Namespace", metadata["namespace"]),
        ("State", f"{standing.state}{share}{left}"),
        ("Because", standing.message),
        ("Created", f"{metadata['creationTimestamp']} ({page.age(metadata['creationTimestamp'])} ago)"),
        ("Labels", _labels(metadata.get("labels"))),
        ("Runs on", status.get("runsOn")),
        ("Rerun", status.get("rerun") or None),
        ("Outputs", place),
        (f"{run.get('jobKind', 'Job')}, pod", ", ".join(filter(None, (run.get("jobName"), run.get("podName"))))),
        ("Images", ", ".join(filter(None, (run.get("prepareImage"), run.get("trainImage"))))),
    )
    return page.pairs(rows)


def asked(spec: Raw, page: Page) -> list[str]:
    """The spec, in a dozen lines; `-o yaml` of list has all of it."""
    training, dataset = spec.get("training", {}), spec["dataset"]
    rows = (
        ("Flavor", spec["flavor"]),
        ("Model", _model(spec["model"])),
        ("Data", _source(dataset["source"])),
        ("Split", _split(dataset.get("split", {}))),
        ("Image size", dataset.get("imageSize")),
        ("Training", _words(training)),
        ("IPUs", _words(spec.get("ipu", {}))),
        ("Checkpoints", _words(spec.get("checkpoint", {}))),
        ("Limits", _words(spec.get("limits", {}))),
        ("Budget", _words(spec.get("budget", {}))),
        ("Suspend", "true" if spec.get("suspend") else None),
        ("Results to", f"claim {spec['output']['claimName']}"),
    )
    return page.pairs(rows, INDENT)


def _model(model: Raw) -> str:
    if "config" in model:
        return f"from scratch: {_words(model['config'])}"
    where = f" on claim {model['claimName']}" if "claimName" in model else f" at {model.get('revision', 'main')}"
    return f"{model['name']}{where}"


def _source(source: Raw) -> str:
    kind, settings = next(iter(source.items()), ("", {}))
    return f"{kind} ({_words(settings)})" if settings else kind


def _split(split: Raw) -> str:
    return _words({"by": split.get("by"), "seed": split.get("seed"), **split.get("fractions", {})})


def _words(section: Raw) -> str:
    """name value, name value: plain values only."""
    told = ((name, value) for name, value in section.items() if value not in (None, {}, []))
    return ", ".join(f"{name} {_shown(value)}" for name, value in told)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(map(str, value)) + "]"
    return f"({_words(value)})" if isinstance(value, Mapping) else str(value)


def _labels(labels: Raw | None) -> str:
    return ", ".join(f"{name}={value}" for name, value in (labels or {}).items())


def conditions(status: Raw, page: Page) -> list[str]:
    """A line each, and each message once."""
    rows = [
        (row["type"], row["status"], row["reason"], page.age(row["lastTransitionTime"]))
        for row in _listed(status, "conditions")
    ]
    lines = page.grid(("Type", "Status", "Reason", "Since"), rows) if rows else []
    told = find_condition(status, READY).get("message")  # the summary has it
    messages = [
        (row["type"], row["message"]) for row in _listed(status, "conditions") if row["message"] not in ("", told)
    ]
    once = {message: kind for kind, message in reversed(messages)}
    return lines + page.pairs(((kind, message) for kind, message in messages if once[message] == kind), INDENT * 2)


def timeline(status: Raw, page: Page) -> list[str]:
    """What went on when, before the flavor was held and while."""
    times = status.get("times", {})
    spans = [
        ("Data preparation", status.get("preparation")),
        ("Model preparation", status.get("modelPreparation")),
        *((phase, times.get(phase.lower())) for phase in (QUEUED, *HELD_PHASES)),
    ]
    rows = sorted((_span(name, span) for name, span in spans if span), key=lambda row: row[1])
    return page.grid(("Phase", "Started", "Seconds", "Cost", "Flavor"), rows) if rows else []


def _span(name: str, span: Raw) -> Row:
    seconds = str(span.get("seconds", "")) if "finishedAt" in span else "goes on"
    return name, span.get("startedAt", ""), seconds, span.get("cost", ""), span.get("flavor", "")


def attempts(status: Raw, page: Page) -> list[str]:
    """The pods of the run: what each held, what that cost and how much of it was lost, and why it ended."""
    rows = _listed(status, "attempts")
    if not rows:
        return []
    parsed = list(zip(rows, attempts_from_status(rows), strict=True))
    told = [_attempt(place, *each) for place, each in enumerate(parsed, 1)]
    lines = page.grid(("Attempt", "Pod", "Started", "Held", "Cost", "Lost", "Ended", "Exit code"), told)
    reasons = [(f"Attempt {place}", each.failure.message) for place, (_, each) in enumerate(parsed, 1) if each.failure]
    return lines + page.pairs(reasons, INDENT * 2)


def _attempt(place: int, row: Raw, attempt: Attempt) -> Row:
    failure = attempt.failure
    ended = failure.reason if failure else ("done" if attempt.finished else "goes on")
    code = "" if failure is None or failure.exit_code is None else str(failure.exit_code)
    held = f"{'about ' if attempt.estimated else ''}{sum(attempt.seconds.values())}s"
    bill = (row.get("amount", ""), row.get("lostAmount", ""))
    return str(place), attempt.pod_name, row["startedAt"], held, *bill, ended, code


def data(status: Raw, page: Page) -> list[str]:
    found, model = status.get("data", {}), status.get("model")
    rows = [(name, _count(found.get(key))) for name, key in DATA.items()]
    fetched = f"{model['name']} at commit {model['commit']}" if model and "commit" in model else None
    absent = ", ".join(found.get("absentFindings", ()))
    return page.pairs((*rows, ("Findings that no image has", absent), ("Model", fetched)), INDENT)


DATA: Final = {
    "Images": "images",
    "Patients": "patients",
    "Rejected": "rejected",
    "To train on": "trainImages",
    "To validate": "validationImages",
    "Held out": "testImages",
    "Archives done": "archivesDone",
    "Digest": "digest",
    "Split digest": "splitDigest",
}


def _count(value: object) -> object:
    return f"{value:,}" if isinstance(value, int) else value


def sizing(status: Raw, page: Page) -> list[str]:
    return page.pairs((("Effective", _words(status.get("sizing", {}))),), INDENT)


def cost(status: Raw, page: Page) -> list[str]:
    """The bill: what was held in which phase, and what of the total it is."""
    section = status.get("cost", {})
    rows = [(row["name"], f"{row['seconds']}s", row.get("amount", "")) for row in _listed(section, "phases")]
    if projected := section.get("projected"):
        told = f"{projected['display']} in {duration(projected['p50Seconds'])}, from {projected['source']}"
        return page.pairs((("Projected", told),), INDENT)
    if not rows:
        return []
    price = f" ({section['perHour']} {section['currency']} per hour)" if section.get("priced") else ""
    billed = f", {section['billedSeconds']}s billed" if "billedSeconds" in section else ""
    held = f"{section.get('heldSeconds', 0)}s{billed}{price}"
    # what the run pays of them is a phase of its own
    unpaid = [
        (name, told["cost"])
        for key, name in PREPARATIONS.items()
        if (told := status.get(key, {})).get("cost") and "amount" not in told
    ]
    left = status.get("budget", {}).get("display")
    lost = f"{section['lostAmount']} {section['currency']}, in Training" if "lostAmount" in section else None
    return page.grid(("Phase", "Held", "Amount"), rows) + page.pairs(
        (("Held", held), ("Total", told_total(section)), ("Budget", left), ("Lost", lost), *unpaid), INDENT * 2
    )


PREPARATIONS: Final = {"preparation": "Data preparation", "modelPreparation": "Model preparation"}


def results(status: Raw, page: Page) -> list[str]:
    """What was measured on held-out patients."""
    found = status.get("results")
    if not found:
        return []
    floor = f" (of a guess that sees no image: {found['lossFloor']})" if "lossFloor" in found else ""
    interval = f" [{', '.join(found['aurocInterval'])}]" if found.get("aurocInterval") else ""
    images = found.get("images") or status.get("data", {}).get("testImages")
    over = f", mean of {counted(found.get('findingsEvaluated', 0), 'finding')}" + (
        f" on {images:,} held-out images" if images else ""
    )
    rows = (
        ("AUROC", f"{found['aurocMacro']}{interval}{over}" if "aurocMacro" in found else "not computable"),
        ("AUROC floor", f"{found['aurocFloor']}, without looking at a film" if "aurocFloor" in found else None),
        ("Loss", f"{found['loss']}{floor}" if "loss" in found else None),
        ("Report", found.get("report")),
        ("Model", found.get("model")),
        ("Model digest", found.get("modelDigest")),
        ("Adopted", "found finished on the claim; nothing was computed again" if found.get("adopted") else None),
        ("Resumed from step", found.get("resumedFromStep")),
    )
    findings = [(row["name"], row.get("auroc", "-"), str(row["positives"])) for row in _listed(found, "findings")]
    return page.pairs(rows, INDENT) + (page.grid(("Finding", "AUROC", "Positives"), findings) if findings else [])


def former_runs(status: Raw, page: Page) -> list[str]:
    rows = [
        (str(row["rerun"]), row["state"], row.get("aurocMacro", ""), row.get("cost", ""), row.get("folder", ""))
        for row in _listed(status, "formerRuns")
    ]
    return page.grid(("Rerun", "State", "AUROC", "Cost", "Folder"), rows) if rows else []


def list_events(events: Sequence[Raw], page: Page) -> list[str]:
    """Oldest first."""
    # times are whole seconds; versions grow (KEP-5504)
    ordered = sorted(events, key=lambda event: (_told_at(event), int(event["metadata"]["resourceVersion"])))
    return page.pairs(((_heading(event, page), event["message"]) for event in ordered), INDENT)


def _heading(event: Raw, page: Page) -> str:
    warning = "Warning " if event["type"] != "Normal" else ""
    return f"{page.age(_told_at(event)):>5} {warning}{event['reason']}"


def _told_at(event: Raw) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def _listed(section: Raw, name: str) -> list[Raw]:
    return list(section.get(name) or ())


def age_between(then: datetime, now: datetime) -> str:
    """As `kubectl get` shows an age: 45s, 3m4s, 12m, 5h10m, 3d2h, 120d."""
    seconds = max(int((now - then).total_seconds()), 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    return _two(days, "d", hours % 24, "h") if days < 8 else f"{days}d"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"
