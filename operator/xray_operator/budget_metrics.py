"""What Prometheus sees of budgets; docs/metrics.md is its reference. Read from the index at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from xray_operator.core.accounting import section
from xray_operator.core.cost import read_amount

Raw = Mapping[str, Any]
Sums = dict[tuple[str, str, str], Decimal]

LABELS = ("namespace", "name", "currency")


class BudgetMetrics(Collector):
    """Limits, and what is left of them: of jobs with spec.budget, and of the TrainingBudgets in the current month."""

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


def _of_month(raw: Raw) -> Raw:
    status = section(raw, "status")
    return {**status, "limit": section(raw, "spec").get("limit")} if "left" in status else {}


def _sums(told: Iterable[tuple[Raw, Raw]], field: str) -> Sums:
    return {
        (raw["metadata"]["namespace"], raw["metadata"]["name"], str(budget.get("currency"))): amount
        for raw, budget in told
        if (amount := read_amount(budget.get(field))) is not None
    }


def _family(name: str, documentation: str, sums: Sums) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation, labels=LABELS)
    for key, amount in sorted(sums.items()):
        family.add_metric(key, float(amount))
    return family
