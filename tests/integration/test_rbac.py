"""The chart's ClusterRole is enough for a whole run, and nothing is refused on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cluster_access import REPOSITORY, apply, connect, kubectl
from tests.integration.life import Life, claim, flavor, xray_job
from tests.integration.operator_process import OperatorProcess
from tests.integration.proxy import start_proxy

pytestmark = pytest.mark.integration


def chart_rules() -> list[dict[str, Any]]:
    """The rules as the chart has them; this part of the template has no template words."""
    template = (REPOSITORY / "charts" / "xray-operator" / "templates" / "rbac.yaml").read_text()
    rules = template.split("\nrules:\n", 1)[1].split("\n---", 1)[0]
    loaded: list[dict[str, Any]] = yaml.safe_load(rules)
    return loaded


def grants(namespace: str) -> list[dict[str, Any]]:
    name, api = f"operator-{namespace}", "rbac.authorization.k8s.io/v1"
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": "operator", "namespace": namespace}
    binding = {"roleRef": reference, "subjects": [subject]}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "operator", "namespace": namespace}},
        {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": name}, "rules": chart_rules()},
        {"apiVersion": api, "kind": "ClusterRoleBinding", "metadata": {"name": name}, **binding},
    ]


async def test_the_charts_role_is_enough(kubeconfig: Path, namespace: str, tmp_path: Path) -> None:
    role = grants(namespace)
    needed = [flavor(), claim(namespace, "nih"), claim(namespace, "out"), *role]
    assert apply(kubeconfig, *needed).returncode == 0
    cluster = await connect(kubeconfig)
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/operator/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": None}}
    token = (await cluster.create(account, request))["status"]["token"]
    async with start_proxy(str(kubeconfig)) as proxy:
        proxy.token = f"Bearer {token}"
        operator = OperatorProcess(tmp_path, proxy.url, namespace)
        await operator.start()
        try:
            life = Life(cluster, namespace, "127.79.0.1")
            job = await life.create(xray_job(namespace))
            await life.live_through(job)
            log = operator.log.read_text()
            assert not [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line], log
        finally:
            operator.kill()
            await operator.ended()
            await cluster.close()
            kubectl(kubeconfig, "delete", "clusterrole,clusterrolebinding", f"operator-{namespace}")
