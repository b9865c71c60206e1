"""What every Kubernetes object has, read from its raw form. Called by whoever reads raw objects."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

Raw = Mapping[str, Any]


def read_time(text: str) -> datetime:
    """An RFC 3339 time."""
    return datetime.fromisoformat(text)


def conditions_of(raw: Raw) -> dict[str, Raw]:
    """Its conditions by type."""
    return {c["type"]: c for c in raw.get("status", {}).get("conditions", ())}


def controller_uid(raw: Raw) -> str | None:
    """The uid of the object that controls this one."""
    return _controller(raw).get("uid")


def controller_name(raw: Raw) -> str | None:
    """The name of the object that controls this one."""
    return _controller(raw).get("name")


def controller_kind(raw: Raw) -> str | None:
    """The kind of the object that controls this one."""
    return _controller(raw).get("kind")


def _controller(raw: Raw) -> Raw:
    owners = raw["metadata"].get("ownerReferences", ())
    return next((owner for owner in owners if owner.get("controller")), {})
