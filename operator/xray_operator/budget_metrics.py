"""What Prometheus sees of budgets; docs/metrics.md is its reference. Read from the index at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xray_operator.core.accounting import section
from xray_operator.core.conditions import find_condition
from xray_operator.core.cost import read_amount
from xray_operator.core.observed import sound_status
from xray_operator.names import BUDGET_WARNING

Raw = Mapping[str, Any]
Sums = dict[tuple[str, str, str], Decimal]

LABELS = ("namespace", "name", "currency")


class BudgetMetrics(Collector):
    """Limits, what is left, and whether that is little: of jobs with spec.budget, and of TrainingBudgets in this month."""

    def __init__(self, jobs: Callable[[], Iterable[Raw]], budgets: Callable[[], Iterable[Raw]]) -> None:
        self._jobs = jobs
        self._budgets = budgets

    def collect(self) -> Iterator[Metric]:
        of_jobs = [(job, section(section(job, "status"), "budget")) for job in self._jobs()]
        told = "status.budget.{} of a job that exists, in the currency's major unit."
        for field in ("limit", "left"):
            yield _family(f"xray_training_budget_{field}", told.format(field), _sums(of_jobs, field))
        of_months = [(budget, _of_month(budget)) for budget in self._budgets()]
        told = "{} of a TrainingBudget in the current month, in the currency's major unit."
        for field in ("limit", "left"):
            name = f"xray_training_namespace_budget_{field}"
            yield _family(name, told.format(field.capitalize()), _sums(of_months, field))
        told = "1 from warnAtPercent of {} on, 0 before."
        yield _family("xray_training_budget_warning", told.format("a job's budget"), _warnings(of_jobs))
        yield _family("xray_training_namespace_budget_warning", told.format("a TrainingBudget"), _warnings(of_months))


def _of_month(raw: Raw) -> Raw:
    status = section(raw, "status")
    return {**status, "limit": section(raw, "spec").get("limit")} if "left" in status else {}


def _sums(told: Iterable[tuple[Raw, Raw]], field: str) -> Sums:
    return {
        _labels(raw, budget): amount for raw, budget in told if (amount := read_amount(budget.get(field))) is not None
    }


def _warnings(told: Iterable[tuple[Raw, Raw]]) -> Sums:
    return {
        _labels(raw, budget): Decimal(_condition(raw).get("status") == "True")
        for raw, budget in told
        if "left" in budget
    }


def _condition(raw: Raw) -> Raw:
    return find_condition(sound_status(raw.get("status")), BUDGET_WARNING)


def _labels(raw: Raw, budget: Raw) -> tuple[str, str, str]:
    return raw["metadata"]["namespace"], raw["metadata"]["name"], str(budget.get("currency"))


def _family(name: str, documentation: str, sums: Sums) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=LABELS)
    for key, amount in sorted(sums.items()):
        family.add_metric(key, float(amount))
    return family
