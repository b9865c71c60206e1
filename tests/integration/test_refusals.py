"""What keeps a job from starting is read in its status, with place, value and what was expected; and it passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cluster_access import apply, kubectl
from tests.integration.life import Life, claim, flavor, xray_job
from tests.integration.operator_process import IMAGES
from tests.integration.stage import operating
from xray_operator.core.conditions import find_condition

pytestmark = pytest.mark.integration


async def refusal(life: Life, name: str, reason: str) -> str:
    """The message of Accepted=False, once it has this reason."""
    row = find_condition(await life.says("Accepted", reason, name=name), "Accepted")
    assert row["status"] == "False"
    return str(row["message"])


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
        message = await refusal(life, "unknown", "FlavorNotFound")
        assert message.startswith('spec.flavor: "vpod99" is not a flavor here; ')
        assert "integration-selected" in message
        message = await refusal(life, "not-allowed", "FlavorNotAllowed")
        assert f"is not for namespace {namespace}, which lacks the label team=radiology" in message
        message = await refusal(life, "no-claim", "ClaimNotFound")
        assert message.startswith('spec.output.claimName: "absent" is not a PersistentVolumeClaim')
        message = await refusal(life, "cannot-write", "VolumeImpossible")
        assert 'spec.output.claimName: "read-only" has access mode ReadOnlyMany and the run writes there' in message
        assert kubectl(kubeconfig, "label", "namespace", namespace, "team=radiology").returncode == 0
        assert apply(kubeconfig, claim(namespace, "absent")).returncode == 0
        await life.reached("Queued", "not-allowed")
        await life.reached("Queued", "no-claim")


async def test_what_ipus_cannot_share_is_refused_with_the_nearest_that_they_can(
    kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    assert apply(kubeconfig, flavor(), claim(namespace, "nih"), claim(namespace, "out")).returncode == 0
    async with operating(kubeconfig, namespace, tmp_path, images=IMAGES | {"ipu": "registry.example/ipu:1"}) as stage:
        life = stage.life
        await life.create(xray_job(namespace, training={"globalBatchSize": 5}))
        await life.create(xray_job(namespace, "typo", ipu={"overrides": {"matmul_proportoin": "0.2"}}))
        assert await refusal(life, "cxr", "SizingImpossible") == (
            "spec.training.globalBatchSize: 5 is no multiple of 2 of at least 6: 2 replicas of 2 IPUs share it, "
            "in micro-batches of 1, at least 3 each; nearest is 6"
        )
        message = await refusal(life, "typo", "SpecInvalid")
        assert "matmul_proportoin is no field of IPUConfig" in message
        assert message.endswith("nearest is matmul_proportion")
        await life.edit(training={"globalBatchSize": 6})
        sizing = (await life.reached("Queued"))["status"]["sizing"]
        assert (sizing["replicationFactor"], sizing["gradientAccumulationSteps"]) == (2, 3)
        assert (sizing["globalBatchSize"], sizing["learningRate"]) == (6, "0.0002")
