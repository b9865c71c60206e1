"""What `doctor` makes of what it has seen: each function takes objects of the API and says what that means for a run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from xray_cli.rights import Right, tell
from xray_operator import names
from xray_operator.config import OperatorConfig
from xray_operator.core.cost import price_in_force
from xray_operator.core.observed import may_hold, read_volume
from xray_operator.core.spec import FlavorSpec, parse_part
from xray_operator.core.volumes import WRITABLE
from xray_operator.errors import DocumentError
from xray_operator.yaml_text import parse_only_yaml

Raw = Mapping[str, Any]

SUFFIXES: Final = {
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate(("", "k", "M", "G", "T", "P", "E"))},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
    "m": Decimal("0.001"),
}
"""https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
MOST_NAMES: Final = 8


class State(StrEnum):
    """How a check has ended."""

    OK = "ok"
    WARNING = "warning"
    """A run may do without."""
    MISSING = "missing"
    """A run needs it."""
    UNKNOWN = "unknown"
    """The user may not see it."""


@dataclass(frozen=True)
class Finding:
    """One check."""

    check: str
    state: State
    message: str


def judge_crd(known: Raw, served: Raw | None) -> Finding:
    """A CRD of the cluster beside the one that this command line has.

    Args:
        served: openAPIV3Schema of our version there; None if it is not served.
    """
    name = str(known["metadata"]["name"])
    if served is None:
        told = f"{names.VERSION} is not served; kubectl apply --server-side -f crds/"
        return Finding(name, State.MISSING, told)
    ours, theirs = set(_fields(known_schema(known), "")), set(_fields(served, ""))
    if older := sorted(ours - theirs):
        told = f"older than this kubectl-xray, without {_listed(older)}; kubectl apply --server-side -f crds/"
        return Finding(name, State.WARNING, told)
    if newer := sorted(theirs - ours):
        return Finding(name, State.WARNING, f"newer than this kubectl-xray, which doesn't know {_listed(newer)}")
    return Finding(name, State.OK, f"{names.VERSION}, with the {len(ours)} fields of this kubectl-xray")


def known_schema(crd: Raw) -> Raw:
    """Of our version; empty if it has none."""
    versions = crd["spec"]["versions"]
    found = next((each for each in versions if each["name"] == names.VERSION and each["served"]), None)
    return found["schema"]["openAPIV3Schema"] if found else {}


def judge_rights(purpose: str, wanted: Sequence[Right], lacking: Sequence[Right], *, needed: bool) -> Finding:
    """What the user may do.

    Args:
        needed: no run begins without.
    """
    if not lacking:
        return Finding(f"right to {purpose}", State.OK, tell(wanted))
    state = State.MISSING if needed else State.WARNING
    return Finding(f"right to {purpose}", state, f"you may not {tell(lacking)}")


def judge_operators(
    operators: Sequence[tuple[Raw, str | None]] | None, namespace: str, flavors: Collection[str] | None
) -> list[Finding]:
    """The operators of the cluster. One that serves the namespace is enough: what others lack is a warning then.

    Args:
        operators: the Deployment of each, and its configuration in YAML, None where the user may not read it; None for all
            if the user may not look.
        flavors: names of those that there are; None if the user may not look.
    """
    if operators is None:
        return [Finding("operator", State.UNKNOWN, "you may not list deployments; the platform team sees it")]
    if not operators:
        told = f"no Deployment has the label app.kubernetes.io/name={names.OPERATOR}; helm install xray charts/xray-operator"
        return [Finding("operator", State.MISSING, told)]
    judged = [
        [_judge_operator(deployment), *(_judge_config(_name(deployment), text, namespace, flavors) if text else ())]
        for deployment, text in operators
    ]
    enough = any(all(each.state is not State.MISSING for each in one) for one in judged)
    return [
        replace(each, state=State.WARNING) if enough and each.state is State.MISSING else each
        for one in judged
        for each in one
    ]


def judge_flavors(
    flavors: Sequence[Raw],
    labels: Mapping[str, str] | None,
    nodes: Sequence[Raw] | None,
    pods: Sequence[Raw] | None,
    now: Any,
) -> list[Finding]:
    """Each flavor, and whether there is one to run on.

    Args:
        labels: of the namespace; None, as for nodes and the pods of all namespaces: the user may not look.
        now: for the price in force.
    """
    found = [_judge_flavor(flavor, labels, nodes, pods, now) for flavor in flavors]
    usable = [each for each in found if each.state in (State.OK, State.UNKNOWN)]
    if usable:
        return found
    told = "none of them can be used; the platform team looks after them" if found else "there is none: no job can run"
    return [*found, Finding("flavors", State.MISSING, told)]


def judge_lines(
    operators: Sequence[tuple[Raw, str | None]] | None, flavors: Sequence[Raw], namespaces: Sequence[Raw] | None
) -> list[Finding]:
    """Whether several operators give out one V-IPU partition: each sees the runs of the namespaces that it serves only.

    Args:
        operators: as for judge_operators; one whose configuration can't be read is left out.
        namespaces: all of the cluster; None if the user may not look, and then a flavor is taken to be for all.
    """
    configs = {_name(deployment): _read_config(text) for deployment, text in operators or () if text}
    served = {name: config.namespaces for name, config in configs.items() if isinstance(config, OperatorConfig)}
    sharing: dict[str, list[tuple[str, FlavorSpec]]] = {}
    for flavor in flavors:
        spec = parse_part(FlavorSpec, flavor.get("spec"), "spec", names.FLAVOR_INVALID)
        if isinstance(spec, FlavorSpec) and spec.partition:
            sharing.setdefault(spec.partition.key, []).append((flavor["metadata"]["name"], spec))
    return [finding for each in sharing.values() for finding in _judge_line(dict(each), served, namespaces)]


def judge_storage(claims: Sequence[Raw], classes: Sequence[Raw] | None) -> list[Finding]:
    """The namespace's claims, for results and data; and the classes that new ones could have."""
    found = [f for f in map(_judge_claim, claims) if f]
    writable = [each for each in claims if read_volume(each, None).access_modes & WRITABLE]
    if writable:
        told = _listed([f"{each['metadata']['name']} ({_modes(each)})" for each in writable])
        shared = any("ReadWriteMany" in read_volume(each, None).access_modes for each in writable)
        more = "" if shared else "; none is ReadWriteMany, so each run is prepared and trained on one node"
        return [*found, Finding("claims", State.OK, told + more)]
    return [*found, _judge_classes(classes)]


def quantity(value: object) -> Decimal:
    """A number as Kubernetes writes resources: 4, 500m, 16Gi."""
    text = str(value)
    suffix = text.lstrip("0123456789.+-") if not text[-1:].isdigit() else ""
    return Decimal(text.removesuffix(suffix)) * SUFFIXES[suffix]


def _judge_operator(deployment: Raw) -> Finding:
    name = _name(deployment)
    version = deployment["metadata"].get("labels", {}).get("app.kubernetes.io/version", "?")
    conditions = {row["type"]: row for row in deployment.get("status", {}).get("conditions", ())}
    available = conditions.get("Available", {})
    if available.get("status") == "True":
        return Finding("operator", State.OK, f"{name}, version {version}")
    return Finding(
        "operator", State.MISSING, f"{name} is not available: {available.get('message', 'no word of it yet')}"
    )


def _name(deployment: Raw) -> str:
    return f"{deployment['metadata']['namespace']}/{deployment['metadata']['name']}"


def _judge_config(operator: str, text: str, namespace: str, flavors: Collection[str] | None) -> Iterator[Finding]:
    """An operator's configuration, as far as runs in this namespace depend on it."""
    check = f"configuration of {operator}"
    config = _read_config(text)
    if isinstance(config, str):
        yield Finding(check, State.WARNING, f"not of this version: {config}")
        return
    if config.namespaces and namespace not in config.namespaces:
        told = f"namespace {namespace} is not served; {_listed(config.namespaces)} {_be(config.namespaces)}"
        yield Finding(check, State.MISSING, told)
    if not (config.images.prepare and config.images.torch):
        yield Finding(check, State.MISSING, "images.prepare or images.torch is not set: no job is accepted")
    default = config.default_prepare_flavor
    if default and flavors is not None and default not in flavors:
        told = f"defaultPrepareFlavor {default} is not there: jobs on accelerators have to name dataset.prepareFlavor"
        yield Finding(check, State.WARNING, told)


def _judge_line(
    flavors: Mapping[str, FlavorSpec], served: Mapping[str, Sequence[str]], namespaces: Sequence[Raw] | None
) -> Iterator[Finding]:
    """What the operators see of one partition, which these flavors share."""
    labels = {each["metadata"]["name"]: each["metadata"].get("labels", {}) for each in namespaces or ()}
    allowed = {name for name in labels for spec in flavors.values() if not _not_allowed(spec, labels[name])}
    seen = {
        name: set(given or ("all namespaces",)) if namespaces is None else allowed & set(given or allowed)
        for name, given in served.items()
    }
    if len({frozenset(each) for each in seen.values() if each}) > 1:
        told = "; ".join(f"{name} sees {_listed(sorted(each))}" for name, each in seen.items() if each)
        why = f"two runs may hold its partition at once, for the operators see different namespaces: {told}"
        fix = "let each namespaceSelector match namespaces of one and the same operator"
        yield Finding(f"flavor {', '.join(flavors)}", State.WARNING, f"{why}; {fix}")


def _read_config(text: str) -> OperatorConfig | str:
    """An operator's configuration, or what is wrong with it."""
    try:
        return OperatorConfig.model_validate(parse_only_yaml(text) or {})
    except (ValidationError, DocumentError) as error:
        return " ".join(str(error).split())[:200]


def _judge_flavor(
    flavor: Raw, labels: Mapping[str, str] | None, nodes: Sequence[Raw] | None, pods: Sequence[Raw] | None, now: Any
) -> Finding:
    check = f"flavor {flavor['metadata']['name']}"
    spec = parse_part(FlavorSpec, flavor.get("spec"), "spec", names.FLAVOR_INVALID)
    if isinstance(spec, list):
        return Finding(check, State.WARNING, "; ".join(map(str, spec)))
    if told := _not_allowed(spec, labels):
        return Finding(check, State.WARNING, told)
    price = price_in_force(spec.prices, now)
    cost = f"{price.per_hour} {price.currency} an hour" if price else "unpriced"
    if nodes is None:
        return Finding(check, State.UNKNOWN, f"{cost}; you may not list nodes")
    whys = {node["metadata"]["name"]: _why_not(spec, node) for node in nodes}
    fitting = [name for name, why in whys.items() if not why]
    if not fitting:
        return Finding(check, State.WARNING, f"no node fits: {_listed(sorted({why for why in whys.values() if why}))}")
    places = f"{len(fitting)} node{'s' if len(fitting) > 1 else ''} fit{'' if len(fitting) > 1 else 's'}"
    return Finding(check, State.OK, "; ".join(filter(None, [places, _free(spec, nodes, fitting, pods), cost])))


def _not_allowed(spec: FlavorSpec, labels: Mapping[str, str] | None) -> str:
    wanted = spec.namespace_selector.match_labels if spec.namespace_selector else {}
    lacking = [f"{key}={value}" for key, value in wanted.items() if labels is not None and labels.get(key) != value]
    return f"not for this namespace, which lacks the label {', '.join(lacking)}" if lacking else ""


def _why_not(spec: FlavorSpec, node: Raw) -> str:
    """Why no run of the flavor could ever be on this node."""
    labels, room = node["metadata"].get("labels", {}), node.get("status", {}).get("allocatable", {})
    if lacking := [f"{key}={value}" for key, value in spec.node_selector.items() if labels.get(key) != value]:
        return f"no label {', '.join(lacking)}"
    if node["spec"].get("unschedulable"):
        return "cordoned"
    for taint in node["spec"].get("taints", ()):
        if taint["effect"] != "PreferNoSchedule" and not any(_tolerates(each, taint) for each in spec.tolerations):
            return f"taint {taint['key']}"
    wanted = {"cpu": spec.host.cpu, "memory": spec.host.memory, spec.resource_name: spec.accelerators}
    for resource, amount in wanted.items():
        if resource and amount is not None and quantity(amount) > quantity(room.get(resource, "0")):
            return f"{room.get(resource, 'no')} {resource} where {amount} are asked for"
    return ""


def _tolerates(toleration: Mapping[str, Any], taint: Raw) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    exists = toleration.get("operator") == "Exists"
    return toleration["key"] == taint["key"] and (exists or toleration.get("value", "") == taint.get("value", ""))


def _free(spec: FlavorSpec, nodes: Sequence[Raw], fitting: Sequence[str], pods: Sequence[Raw] | None) -> str:
    """What of the flavor's accelerators the fitting nodes have, and have left."""
    resource = spec.resource_name
    if not resource:
        return ""
    there = sum(
        int(quantity(node["status"]["allocatable"][resource])) for node in nodes if node["metadata"]["name"] in fitting
    )
    if pods is None:
        return f"{there} {resource}"
    holders = [pod for pod in pods if may_hold(pod) and pod["spec"].get("nodeName") in fitting]
    return f"{there} {resource}, {there - sum(_held(pod, resource) for pod in holders)} free"


def _held(pod: Raw, resource: str) -> int:
    containers = pod["spec"]["containers"]
    return sum(int(each.get("resources", {}).get("requests", {}).get(resource, 0)) for each in containers)


def _judge_claim(claim: Raw) -> Finding | None:
    """Only what is wrong with it."""
    volume, check = read_volume(claim, None), f"claim {claim['metadata']['name']}"
    if volume.deleting:
        return Finding(check, State.WARNING, "is being deleted")
    if volume.phase == "Lost":
        return Finding(check, State.WARNING, "has lost its volume")
    if volume.mode != "Filesystem":
        return Finding(check, State.WARNING, f"has volumeMode {volume.mode}; a run needs Filesystem")
    return None


def _judge_classes(classes: Sequence[Raw] | None) -> Finding:
    wanted = "no claim that can be written to: a run needs one for its results"
    if classes is None:
        return Finding("claims", State.MISSING, wanted)
    default = [each for each in classes if each["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true"]
    if default:
        told = f"{wanted}; storage class {default[0]['metadata']['name']} makes one by default"
        return Finding("claims", State.WARNING, told)
    others = [each["metadata"]["name"] for each in classes]
    told = f"storage classes: {_listed(others)}, none of them by default" if others else "there is no storage class"
    return Finding("claims", State.MISSING, f"{wanted}; {told}")


def _modes(claim: Raw) -> str:
    return ", ".join(sorted(read_volume(claim, None).access_modes))


def _fields(schema: Raw, path: str) -> Iterator[str]:
    """Paths of all fields below an object; what Kubernetes itself describes is left out."""
    for name, inner in schema.get("properties", {}).items():
        where = f"{path}.{name}".lstrip(".")
        if where not in ("apiVersion", "kind", "metadata"):
            yield where
            yield from _fields(inner, where)
    for held in ("items", "additionalProperties"):
        if isinstance(schema.get(held), Mapping):
            yield from _fields(schema[held], f"{path}[]")


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - MOST_NAMES} more" if len(words) > MOST_NAMES else ""
    return f"{', '.join(words[:MOST_NAMES])}{more}"


def _be(words: Sequence[str]) -> str:
    return "is" if len(words) == 1 else "are"
