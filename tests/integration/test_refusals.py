"""What keeps a job from starting is read in its status, with place, value and what was expected; and it passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster_access import apply, kubectl, until
from tests.integration.life import Life, claim, flavor, xray_job
from tests.integration.stage import operating

pytestmark = pytest.mark.integration


async def refusal(life: Life, name: str) -> tuple[str, str]:
    """Reason and message of Accepted=False, once they are there."""

    async def ask() -> Any:
        rows = (await life.job(name)).get("status", {}).get("conditions", ())
        return next((c for c in rows if c["type"] == "Accepted" and c["status"] == "False"), None)

    row = await until(f"{name} is refused", ask)
    return row["reason"], row["message"]


async def test_each_refusal_is_read_in_the_status(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    selected = flavor("integration-selected")
    selected["spec"]["namespaceSelector"] = {"matchLabels": {"team": "radiology"}}
    read_only = claim(namespace, "read-only")
    read_only["spec"]["accessModes"] = ["ReadOnlyMany"]
    objects = (flavor(), selected, read_only, claim(namespace, "nih"), claim(namespace, "out"))
    assert apply(kubeconfig, *objects).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path) as stage:
        life = stage.life
        await life.create(xray_job(namespace, "unknown", flavor="vpod99"))
        await life.create(xray_job(namespace, "not-allowed", flavor="integration-selected"))
        await life.create(xray_job(namespace, "no-claim", output={"claimName": "absent"}))
        await life.create(xray_job(namespace, "cannot-write", output={"claimName": "read-only"}))
        reason, message = await refusal(life, "unknown")
        assert reason == "FlavorNotFound"
        assert message.startswith('spec.flavor: "vpod99" is not a flavor here; ')
        assert "integration-selected" in message
        reason, message = await refusal(life, "not-allowed")
        assert reason == "FlavorNotAllowed"
        assert f"is not for namespace {namespace}, which lacks the label team=radiology" in message
        reason, message = await refusal(life, "no-claim")
        assert reason == "ClaimNotFound"
        assert message.startswith('spec.output.claimName: "absent" is not a PersistentVolumeClaim')
        reason, message = await refusal(life, "cannot-write")
        assert reason == "VolumeImpossible"
        assert 'spec.output.claimName: "read-only" has access mode ReadOnlyMany and the run writes there' in message
        assert kubectl(kubeconfig, "label", "namespace", namespace, "team=radiology").returncode == 0
        assert apply(kubeconfig, claim(namespace, "absent")).returncode == 0
        await life.reached("Queued", "not-allowed")
        await life.reached("Queued", "no-claim")
