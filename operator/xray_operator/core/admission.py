"""Whether a job may start as things are: every reason against it at once. Called by reconcile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from xray_operator import names
from xray_operator.config import OperatorConfig
from xray_operator.core.backends import backend_of
from xray_operator.core.budget import STOP_SECONDS, least_amount
from xray_operator.core.cost import price_in_force
from xray_operator.core.observed import Observed, Refusal
from xray_operator.core.partition import Sizing, model_layers, size_off_ipus, size_on_ipus
from xray_operator.core.spec import Budget, FlavorSpec, JobSpec, Price, Problem, parse_part
from xray_operator.core.volumes import unreachable, volume_problems


def find_flavor(spec: JobSpec, observed: Observed) -> FlavorSpec | list[Problem]:
    """The flavor that the job names, or why it can't be had."""
    raw = observed.flavors.get(spec.flavor)
    if raw is None:
        return [Problem(names.FLAVOR_NOT_FOUND, "spec.flavor", spec.flavor, _instead(observed.flavors))]
    return parse_part(FlavorSpec, raw, f"AcceleratorFlavor {spec.flavor} spec", names.FLAVOR_INVALID)


def find_prepare_flavor(
    spec: JobSpec, flavor: FlavorSpec, observed: Observed, config: OperatorConfig
) -> tuple[str, FlavorSpec] | list[Problem] | None:
    """The flavor of a preparation of its own, or why it can't be had; None where the init container prepares."""
    if not spec.prepares_first(flavor):
        return None
    path, name = "spec.dataset.prepareFlavor", spec.dataset.prepare_flavor or config.default_prepare_flavor
    if not name:
        expected = "is needed, for the operator has no defaultPrepareFlavor: name a cpu flavor, or set prepare to InitContainer"
        return [Problem(names.FLAVOR_NOT_FOUND, path, "", expected)]
    raw = observed.flavors.get(name)
    if raw is None:
        return [Problem(names.FLAVOR_NOT_FOUND, path, name, _instead(observed.flavors))]
    found = parse_part(FlavorSpec, raw, f"AcceleratorFlavor {name} spec", names.FLAVOR_INVALID)
    if isinstance(found, FlavorSpec) and backend_of(found.backend).holds_accelerators:
        expected = f"has backend {found.backend}; preparation holds no accelerator, so name a flavor with backend cpu"
        return [Problem(names.FLAVOR_INVALID, path, name, expected)]
    return found if isinstance(found, list) else (name, found)


def prepare_objections(
    namespace: str, spec: JobSpec, name: str, flavor: FlavorSpec, observed: Observed
) -> list[Problem]:
    """What keeps the data from being prepared on this flavor."""
    labels, claims = observed.namespace_labels or {}, spec.data_claims()
    known = {path: volume for path, claim in claims.items() if (volume := observed.volumes.get(claim)) is not None}
    return [
        *_not_allowed(namespace, "spec.dataset.prepareFlavor", name, flavor, labels),
        *unreachable(claims, name, flavor, known),
    ]


def currency_clash(
    spec: JobSpec, flavor: FlavorSpec, name: str, prepares_on: FlavorSpec, now: datetime
) -> list[Problem]:
    """Two currencies on one bill have no sum, and no rate of exchange is invented."""
    paid, prepared = price_in_force(flavor.prices, now), price_in_force(prepares_on.prices, now)
    if paid is None or prepared is None or paid.currency == prepared.currency:
        return []
    expected = (
        f"is priced in {prepared.currency}, flavor {spec.flavor} in {paid.currency}: a run is paid in one currency; "
        "prepare on another flavor, or ask the platform team"
    )
    return [Problem(names.FLAVOR_UNFIT, "spec.dataset.prepareFlavor", name, expected)]


def size_run(spec: JobSpec, flavor: FlavorSpec, config: OperatorConfig) -> Sizing | list[Problem]:
    """How the run's batches are shared out over what it holds, or why they can't be."""
    if not (backend_of(flavor.backend).holds_ipus(flavor) and config.images.ipu):
        return size_off_ipus(spec.training)
    return size_on_ipus(spec.training, spec.ipu, model_layers(spec.model), flavor.accelerators)


def objections(
    namespace: str, spec: JobSpec, flavor: FlavorSpec, observed: Observed, config: OperatorConfig
) -> list[Problem]:
    """Everything that keeps the job from starting; empty when it may."""
    return [
        *_not_allowed(namespace, "spec.flavor", spec.flavor, flavor, observed.namespace_labels or {}),
        *volume_problems(namespace, spec, flavor, observed.volumes),
        *_missing_images(config),
        *obstacles(namespace, observed),
    ]


def misfits(queue_name: str | None, spec: JobSpec, flavor: FlavorSpec) -> list[Problem]:
    """What can't be had where Kueue can't decide, or on a host of which runs get more than a pod usually has."""
    problems, backend = [], backend_of(flavor.backend)
    if queue_name and backend.no_queue:
        expected = f"can't be had on flavor {spec.flavor}: {backend.no_queue}; take the label off"
        problems.append(Problem(names.FLAVOR_UNFIT, f"metadata.labels[{names.LABEL_QUEUE}]", queue_name, expected))
    if spec.dataset.prepare == "InitContainer" and backend.shares_host:
        expected = (
            f"can't be had on flavor {spec.flavor}: foreign files would be read on its host, while the partition is held; "
            "leave prepare out"
        )
        problems.append(Problem(names.FLAVOR_UNFIT, "spec.dataset.prepare", spec.dataset.prepare, expected))
    return problems


def budget_problems(spec: JobSpec, flavor: FlavorSpec, now: datetime) -> list[Problem]:
    """Why the job's budget can't be kept on this flavor."""
    budget, price = spec.budget, price_in_force(flavor.prices, now)
    if budget is None:
        return []
    if price is None:
        expected = (
            f"can't be kept: flavor {spec.flavor} has no price; ask the platform team for one, or leave budget out"
        )
        return [Problem(names.BUDGET_UNPRICED, "spec.budget", f"{budget.limit} {budget.currency}", expected)]
    if price.currency != budget.currency:
        expected = f"is not that of flavor {spec.flavor}, which is priced in {price.currency}; write the limit in that"
        return [Problem(names.BUDGET_CURRENCY, "spec.budget.currency", budget.currency, expected)]
    return _too_low(spec.flavor, budget, price)


def _too_low(flavor: str, budget: Budget, price: Price) -> list[Problem]:
    least = least_amount(price, budget.on_exceed)
    if least <= budget.limit:
        return []
    stop = f" and a stop takes up to {STOP_SECONDS} s" if budget.on_exceed == "CheckpointAndStop" else ""
    expected = (
        f"is below what an attempt costs at least on flavor {flavor}, {least} {price.currency}: at {price.per_hour} an hour "
        f"{price.minimum_seconds} s are billed at least, in steps of {price.increment_seconds} s{stop}"
    )
    return [Problem(names.BUDGET_TOO_LOW, "spec.budget.limit", f"{budget.limit} {budget.currency}", expected)]


def obstacles(namespace: str, observed: Observed) -> list[Problem]:
    """What keeps any run from getting its children, also one that was fixed before."""
    return [
        *_former_pods(observed.former_pods),
        *_taken(observed.taken, namespace),
        *_refused(observed.refused),
        *_absent(observed.absent),
    ]


def _instead(flavors: Mapping[str, object]) -> str:
    known = sorted(flavors)
    if not known:
        return "is not a flavor here; there is none yet: ask the platform team"
    verb = "is" if len(known) == 1 else "are"
    return f"is not a flavor here; {', '.join(known[:20])} {verb}"


def _not_allowed(namespace: str, path: str, name: str, flavor: FlavorSpec, labels: Mapping[str, str]) -> list[Problem]:
    wanted = flavor.namespace_selector.match_labels if flavor.namespace_selector else {}
    lacking = [f"{key}={value}" for key, value in sorted(wanted.items()) if labels.get(key) != value]
    if not lacking:
        return []
    expected = f"is not for namespace {namespace}, which lacks the label {', '.join(lacking)}"
    return [Problem(names.FLAVOR_NOT_ALLOWED, path, name, expected)]


def _former_pods(pods: Sequence[str]) -> list[Problem]:
    """Two runs at once would spoil the folder that both write to, and hold the flavor twice."""
    if not pods:
        return []
    expected = "of an earlier run has not ended yet; the job will start when it has"
    return [Problem(names.FORMER_POD_RUNS, "", f"pod {', '.join(pods)}", expected)]


def _missing_images(config: OperatorConfig) -> list[Problem]:
    images = {"images.prepare": config.images.prepare, "images.torch": config.images.torch}
    expected = "is not set in the operator's configuration; the platform team sets it"
    return [Problem(names.IMAGE_NOT_CONFIGURED, path, image, expected) for path, image in images.items() if not image]


def _taken(child: str, namespace: str) -> list[Problem]:
    if not child:
        return []
    expected = f"exists in namespace {namespace} and is not this job's; delete it and the job will start"
    return [Problem(names.NAME_TAKEN, "", child, expected)]


def _refused(refusal: Refusal | None) -> list[Problem]:
    if refusal is None:
        return []
    expected = f"is refused by the API server, and will be tried again: {refusal.words}"
    return [Problem(names.CREATION_REFUSED, "", refusal.child, expected)]


def _absent(kind: str) -> list[Problem]:
    if not kind:
        return []
    expected = (
        "is not a kind that the API server knows: Graphcore's IPU Operator is not installed; the platform team installs it, "
        "or name another flavor"
    )
    return [Problem(names.BACKEND_NOT_INSTALLED, "", kind, expected)]
