"""What flavors and runs are both made of. Read by core.spec, kept in snapshots, rendered by core.backends."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Cores = Annotated[str, Field(max_length=16, pattern=r"^([0-9]{1,4}(\.[0-9]{1,3})?|[0-9]{1,6}m)$")]
Bytes = Annotated[str, Field(max_length=16, pattern=r"^[0-9]{1,12}(\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)?$")]


class Part(BaseModel):
    """Base of all parts: camelCase outside, immutable; unknown fields are left alone (a newer CRD)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Host(Part):
    """What a run's containers ask of the host."""

    cpu: Cores | Annotated[int, Field(ge=0, le=9999)] | None = None
    memory: Bytes | None = None
    shared_memory: Bytes | None = None
