"""The bill of a run as its status has it, put into the report, whose writer knows no prices. Called by report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from xray_operator import names
from xray_operator.core.cost import UNPRICED, UNPRICED_PART

BLOCK: Final = re.compile(r"(<!-- cost -->)(.*?)(<!-- /cost -->)", re.DOTALL)
"""Of the page that the trainer writes; markup and class names of its tables are the page's too."""

TOTAL: Final = "Total"
LOST: Final = (
    "Lost: the part of an attempt's cost after the last checkpoint before it failed, which was worked off again."
)
ESTIMATED: Final = "the end of an attempt was not told; it counts until that was seen."
"""Of a pod that vanished, of one on a lost node, of an IPUJob that was deleted."""


def with_bill(page: str, status: Mapping[str, Any]) -> str:
    """The page with the bill in its block; a page without one as it is."""
    bill = "\n".join(bill_lines(status))
    return BLOCK.sub(lambda found: f"{found[1]}\n{bill}\n{found[3]}", page, count=1)


def bill_lines(status: Mapping[str, Any]) -> Iterator[str]:
    """The bill as HTML: what the status tells and no figure beyond it. What has no price is unpriced."""
    cost = status.get("cost", {})
    total = told_total(cost)
    flavor = status.get("run", {}).get("flavor", "")
    price = f" at {_amount(cost.get('perHour'), cost)} an hour" if cost.get("priced") else ", which has no price"
    yield f'<p class="bill">This run held flavor {escape(flavor)}{escape(price)}: <strong>{escape(total)}</strong>.</p>'
    yield from _table("Cost by phase", ("Phase", "Held", "Cost"), _phases(cost, total))
    yield from _preparations(status)
    attempts = status.get("attempts", ())
    if attempts:
        yield "<h3>Attempts</h3>"
        yield from _table("Attempts", ("Attempt", "From", "Held", "Cost", "Lost", "Ended"), _attempts(attempts, cost))
        if cost.get("lostSeconds"):
            yield f'<p class="small soft">{LOST}</p>'
    if cost.get("estimated"):
        yield f'<p class="small soft">Estimated: {ESTIMATED}</p>'
    if former := status.get("formerRuns", ()):
        told = "; ".join(
            f"rerun {run['rerun']}: {run.get('state', '')}, {run.get('cost', 'no cost')}" for run in former
        )
        yield f'<p class="small soft">Runs before this one, not part of it: {escape(told)}.</p>'


def told_total(cost: Mapping[str, Any]) -> str:
    """In full, and that something comes on top which has no price."""
    if not cost.get("priced"):
        return UNPRICED
    lacking = any("amount" not in phase for phase in cost.get("phases", ()))
    return f"{_amount(cost.get('total'), cost)}{UNPRICED_PART if lacking else ''}"


def duration(seconds: int) -> str:
    """Seconds in words: 44 s, 3 min 4 s, 1 h 2 min."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _phases(cost: Mapping[str, Any], total: str) -> Iterator[Sequence[str]]:
    held, billed = cost.get("heldSeconds", 0), cost.get("billedSeconds")
    rounded = f", billed as {duration(billed)}" if billed not in (None, held) else ""
    yield TOTAL, f"{duration(held)}{rounded}", total
    for phase in cost.get("phases", ()):
        amount = _amount(phase["amount"], cost) if "amount" in phase else "unpriced"
        yield phase["name"], duration(phase["seconds"]), amount


def _preparations(status: Mapping[str, Any]) -> Iterator[str]:
    """What Jobs of their own have held, before the flavor was held; where the run pays them, the total has them."""
    for section, what in (("preparation", "Preparing the data"), ("modelPreparation", "Fetching the model")):
        if told := status.get(section):
            held = f"{what} held flavor {told.get('flavor', '')} for {duration(told.get('seconds', 0))}"
            yield f'<p class="small soft">{escape(f"{held}, {_paid(told)}.")}</p>'


def _paid(preparation: Mapping[str, Any]) -> str:
    cost = preparation.get("cost", "unpriced")
    if "amount" in preparation:
        return f"for {cost}, which the total includes"
    return "which another run pays that shares it" if cost == "shared" else f"which is {cost}"


def _attempts(attempts: Iterable[Mapping[str, Any]], cost: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for number, attempt in enumerate(attempts, 1):
        held = sum(attempt.get(f"{phase.lower()}Seconds", 0) for phase in names.HELD_PHASES)
        code = f", exit code {attempt['exitCode']}" if "exitCode" in attempt else ""
        ended = f"{attempt['reason']}{code}" if "reason" in attempt else attempt.get("finishedAt", "goes on")
        amounts = (_amount(attempt[key], cost) if key in attempt else "" for key in ("amount", "lostAmount"))
        yield str(number), attempt["startedAt"], duration(held), *amounts, ended


def _table(label: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
    yield '<table class="cost">'
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    yield f"<thead><tr>{heads}</tr></thead>"
    yield "<tbody>"
    for first, *others in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        kind = ' class="total"' if first == TOTAL else ""
        yield f'<tr{kind}><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody>"
    yield "</table>"
    yield "</div>"


def _amount(amount: object, cost: Mapping[str, Any]) -> str:
    return f"{amount} {cost.get('currency', '')}".strip()
