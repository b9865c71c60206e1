"""Whether a run can mount its claims as they are, and all of them on one node. Called by admission."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, product

from xray_operator import names
from xray_operator.core.observed import NodeTerm, Volume
from xray_operator.core.spec import FlavorSpec, JobSpec, Problem

WRITABLE = frozenset({"ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"})


def volume_problems(
    namespace: str, spec: JobSpec, flavor: FlavorSpec, volumes: Mapping[str, Volume | None]
) -> list[Problem]:
    """Every claim that is missing, can't be mounted as the run needs it, or can't meet the others on a node.

    Args:
        volumes: the claims that were looked for; of others nothing is said.
    """
    known = {path: volume for path, claim in spec.claims().items() if (volume := volumes.get(claim)) is not None}
    return [
        *_missing(namespace, spec, volumes),
        *_unfit(spec, known),
        *_nowhere_together(spec, flavor, known),
    ]


def can_meet(*places: tuple[NodeTerm, ...]) -> bool:
    """Whether a node may match one term of each place; a place without terms is everywhere."""
    return any(_agree(terms) for terms in product(*(place or ({},) for place in places)))


def unreachable(
    claims: Mapping[str, str], flavor_name: str, flavor: FlavorSpec, known: Mapping[str, Volume]
) -> Iterator[Problem]:
    """Claims whose volumes lie where this flavor has no node.

    Args:
        claims: field path -> claim name.
        known: field path -> what is known of the claim.
    """
    selected: NodeTerm = {key: frozenset({value}) for key, value in flavor.node_selector.items()}
    for path, volume in known.items():
        if not can_meet(volume.nodes, (selected,)):
            expected = f"lies on {_told(volume)}, where flavor {flavor_name} has no node; move the data, or take another flavor"
            yield Problem(names.VOLUME_IMPOSSIBLE, path, claims[path], expected)


def _missing(namespace: str, spec: JobSpec, volumes: Mapping[str, Volume | None]) -> Iterator[Problem]:
    expected = f"is not a PersistentVolumeClaim in namespace {namespace}; create it and the job will start"
    for path, claim in spec.claims().items():
        if claim in volumes and volumes[claim] is None:
            yield Problem(names.CLAIM_NOT_FOUND, path, claim, expected)


def _unfit(spec: JobSpec, known: Mapping[str, Volume]) -> Iterator[Problem]:
    claims, written = spec.claims(), {spec.output.claim_name, spec.cache_claim}
    for path, volume in known.items():
        for expected in _defects(volume, written=claims[path] in written):
            yield Problem(names.VOLUME_IMPOSSIBLE, path, claims[path], expected)


def _defects(volume: Volume, *, written: bool) -> Iterator[str]:
    if volume.deleting:
        yield "is being deleted; name a claim that stays"
    if volume.phase == "Lost":
        yield "has lost its volume; name a claim that is bound"
    if volume.mode != "Filesystem":
        yield f"has volumeMode {volume.mode}; a run needs Filesystem"
    if written and not volume.access_modes & WRITABLE:
        modes = ", ".join(sorted(volume.access_modes))
        yield f"has access mode {modes} and the run writes there; name a claim with ReadWriteOnce or ReadWriteMany"


def _nowhere_together(spec: JobSpec, flavor: FlavorSpec, known: Mapping[str, Volume]) -> Iterator[Problem]:
    claims = spec.claims()
    yield from unreachable(claims, spec.flavor, flavor, known)
    for (path, volume), (other, second) in combinations(known.items(), 2):
        if not can_meet(volume.nodes, second.nodes):
            expected = (
                f"lies on {_told(volume)} and that of {other} on {_told(second)}: no node can mount both; "
                "use claims with ReadWriteMany, or two on the same node"
            )
            yield Problem(names.VOLUME_IMPOSSIBLE, path, claims[path], expected)


def _agree(terms: tuple[NodeTerm, ...]) -> bool:
    keys = {key for term in terms for key in term}
    return all(frozenset.intersection(*(term[key] for term in terms if key in term)) for key in keys)


def _told(volume: Volume) -> str:
    values = sorted({value for term in volume.nodes for values in term.values() for value in values})
    return ", ".join(values[:5])
