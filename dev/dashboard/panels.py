"""What the dashboard shows: one place for Grafana's file, for the pictures and for the tests of its queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IN_NAMESPACE = 'namespace=~"$namespace"'
ON_FLAVOR = f'{IN_NAMESPACE}, flavor=~"$flavor"'


@dataclass(frozen=True)
class Query:
    promql: str
    legend: str
    """With {{label}} in it, as Grafana writes legends."""


@dataclass(frozen=True)
class Panel:
    """Lines over time, or the bars of one moment."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    """As Grafana names units."""
    kind: Literal["lines", "stack", "bars", "table"] = "lines"
    width: int = 8
    """Of 24."""


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def lines(title: str, description: str, promql: str, legend: str, unit: str = "short", width: int = 8) -> Panel:
    return Panel(title, description, (Query(promql, legend),), unit, "lines", width)


def of_runs(title: str, description: str, metric: str, unit: str = "short", width: int = 6) -> Panel:
    """A gauge with a series for each run."""
    promql = f"max by (namespace, name) ({metric}{{{IN_NAMESPACE}}})"
    return lines(title, description, promql, "{{namespace}}/{{name}}", unit, width)


def spent(title: str, description: str, by: str, metric: str = "xray_training_cost_total") -> Panel:
    """Money spent within the time that is shown, in bars."""
    promql = f"sort_desc(sum by ({by}, currency) (increase({metric}{{{ON_FLAVOR}}}[$__range])) > 0)"
    return Panel(title, description, (Query(promql, f"{{{{{by}}}}} {{{{currency}}}}"),), "short", "bars", 6)


def quantile(share: float, metric: str, by: str = "") -> str:
    buckets = f"rate({metric}_bucket[$__rate_interval])"
    return f"histogram_quantile({share}, sum by (le{by}) ({buckets}))"


OVERVIEW = Row(
    "Jobs and alerts",
    (
        Panel(
            "Jobs by state",
            "All that exist, those that are over too.",
            (Query(f"sum by (state) (xray_training_jobs{{{ON_FLAVOR}}})", "{{state}}"),),
            kind="stack",
            width=12,
        ),
        Panel(
            "Firing alerts",
            "Their runbooks: docs/alerts.md.",
            (
                Query(
                    'max by (alertname, severity, namespace, name, flavor) (ALERTS{alertname=~"XRay.+", alertstate="firing"})',
                    "{{alertname}} {{namespace}}/{{name}}",
                ),
            ),
            kind="table",
            width=12,
        ),
    ),
)
MONEY = Row(
    "Money",
    (
        spent("Spent by namespace", "In the time that is shown.", "namespace"),
        spent("Spent by flavor", "In the time that is shown; a flavor without a price has no bar.", "flavor"),
        spent("Spent by phase", "Idle is held without working.", "phase"),
        spent(
            "Lost",
            "What failed attempts had not saved, of the money spent.",
            "flavor",
            "xray_training_lost_cost_total",
        ),
        lines(
            "Money per hour",
            "At the rate of the last minutes. A minimum is billed ahead, which shows as a peak.",
            f"sum by (flavor, currency) (rate(xray_training_cost_total{{{ON_FLAVOR}}}[$__rate_interval])) * 3600",
            "{{flavor}} {{currency}}",
        ),
        lines(
            "Left of runs' budgets",
            "Share of spec.budget.limit.",
            f"min by (namespace, name, currency) (xray_training_budget_left{{{IN_NAMESPACE}}})"
            " / max by (namespace, name, currency) (xray_training_budget_limit)",
            "{{namespace}}/{{name}}",
            "percentunit",
        ),
        lines(
            "Left of namespaces' months",
            "Share of the limits of TrainingBudgets.",
            f"min by (namespace, name, currency) (xray_training_namespace_budget_left{{{IN_NAMESPACE}}})"
            " / max by (namespace, name, currency) (xray_training_namespace_budget_limit)",
            "{{namespace}}/{{name}} {{currency}}",
            "percentunit",
        ),
    ),
)
RUNS = Row(
    "Live runs",
    (
        of_runs("Progress", "Of the present phase.", "xray_training_progress_ratio", "percentunit"),
        of_runs("Images per second", "Trained on, evaluation not counted.", "xray_training_images_per_second"),
        of_runs("Loss", "Binary cross-entropy on training images.", "xray_training_loss"),
        of_runs(
            "AUROC",
            "Macro, on validation images; the held-out images have theirs in status.results.",
            "xray_training_validation_auroc_macro",
        ),
        of_runs(
            "Age of the newest checkpoint",
            "What an interruption would lose.",
            "xray_training_checkpoint_age_seconds",
            "s",
            5,
        ),
        of_runs("Stalled", "1: no progress for longer than the run's limit.", "xray_training_stalled", width=4),
        of_runs(
            "Time in the queue",
            "Of jobs that wait for their flavor; it costs nothing.",
            "xray_training_queue_age_seconds",
            "s",
            5,
        ),
        of_runs(
            "Images prepared per second",
            "While a run's data is read, before its flavor is held.",
            "xray_training_preparation_images_per_second",
            width=5,
        ),
        of_runs(
            "Failed pods of preparations",
            "Of runs whose preparation is not over; two alert, the third ends the run.",
            "xray_training_preparation_failures",
            width=5,
        ),
    ),
)
PHASES = Row(
    "How long phases take",
    (
        Panel(
            "Nine of ten runs were through within",
            "Runs that left the phase in the time that is shown; estimated between the bounds of the histogram.",
            (
                Query(
                    "histogram_quantile(0.9, sum by (le, phase, flavor) "
                    '(increase(xray_training_phase_duration_seconds_bucket{flavor=~"$flavor"}[$__range]))) > 0',
                    "{{phase}} {{flavor}}",
                ),
            ),
            "s",
            "bars",
            24,
        ),
    ),
)
OPERATOR = Row(
    "The operator",
    (
        Panel(
            "One look at one job",
            "Requests included.",
            (
                Query(quantile(0.5, "xray_training_reconcile_duration_seconds"), "half are faster"),
                Query(quantile(0.99, "xray_training_reconcile_duration_seconds"), "99 % are faster"),
            ),
            "s",
            width=6,
        ),
        Panel(
            "Jobs to be looked at, and looks that failed",
            "The first is near 0, but for bursts; the second is 0.",
            (
                Query("max by (namespace) (xray_training_queue_length)", "waiting"),
                Query("sum(increase(xray_training_reconcile_failures_total[$__rate_interval]))", "failed"),
            ),
            width=6,
        ),
        lines(
            "Requests to the API server",
            "Watches not included; <error>: no answer.",
            "sum by (code) (rate(xray_training_api_requests_total[$__rate_interval]))",
            "{{code}}",
            "reqps",
            6,
        ),
        lines(
            "Memory",
            "Resident, of the operator's process.",
            "process_resident_memory_bytes * on (namespace, pod) group_left (version) xray_training_build_info",
            "{{version}}",
            "bytes",
            6,
        ),
    ),
)
ROWS = (OVERVIEW, MONEY, RUNS, PHASES, OPERATOR)


def filled(promql: str, shown: str = "6h") -> str:
    """With what Grafana puts in for its variables when all namespaces and flavors are shown.

    Args:
        shown: the time that is, as Prometheus writes durations.
    """
    for variable, value in (("$namespace", ".*"), ("$flavor", ".*"), ("$__rate_interval", "4m"), ("$__range", shown)):
        promql = promql.replace(variable, value)
    return promql
