"""The rights that the chart gives are enough for a whole run, nothing is refused on the way, and they end where they should."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.cluster_access import apply, connect, kubectl, until
from tests.integration.conftest import make_namespace, remove_namespace
from tests.integration.life import Life, claim, flavor, xray_job
from tests.integration.operator_process import OperatorProcess
from tests.integration.proxy import start_proxy
from tests.integration.release import CHART, Release, can_i, installed

pytestmark = pytest.mark.integration


@pytest.fixture
def elsewhere(kubeconfig: Path, namespace: str) -> Iterator[str]:
    """A namespace that no operator of the test serves."""
    name = f"{namespace}-elsewhere"
    make_namespace(kubeconfig, name)
    yield name
    remove_namespace(kubeconfig, name)


async def live_a_run(release: Release, folder: Path, served: list[str]) -> str:
    """A whole run with an operator that has the rights of the chart's service account; returns the operator's log."""
    namespace = release.namespace
    needed = [flavor(), claim(namespace, "nih"), claim(namespace, "out")]
    assert apply(release.kubeconfig, *needed).returncode == 0
    cluster = await connect(release.kubeconfig)
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts/{release.full_name}/token"
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": None}}
    token = (await cluster.create(account, request))["status"]["token"]
    async with start_proxy(str(release.kubeconfig)) as proxy:
        proxy.token = f"Bearer {token}"
        operator = OperatorProcess(folder, proxy.url, namespace)
        await operator.start(namespaces=served)
        try:
            life = Life(cluster, namespace, "127.79.0.1")
            await life.live_through(await life.create(xray_job(namespace)))
            return operator.log.read_text()
        finally:
            operator.kill()
            await operator.ended()
            await cluster.close()


async def test_a_run_with_the_charts_rights_in_all_namespaces(
    kubeconfig: Path, namespace: str, elsewhere: str, tmp_path: Path
) -> None:
    with installed(kubeconfig, namespace) as release:
        log = await live_a_run(release, tmp_path, [])
        assert "forbidden" not in log.lower(), log
        assert release.may("list", "xraytrainingjobs.xray.training")
        assert release.may("create", "jobs.batch", elsewhere)
        assert not release.may("get", "secrets", namespace)
        assert not release.may("create", "pods/exec", namespace)


def test_the_operator_may_neither_make_nor_edit_nor_delete_what_git_owns(kubeconfig: Path, namespace: str) -> None:
    with installed(kubeconfig, namespace) as release:
        for verb in ("create", "update", "patch", "delete", "deletecollection"):
            assert not release.may(verb, "xraytrainingjobs.xray.training", namespace)
            assert not release.may(verb, "trainingbudgets.xray.training", namespace)
            assert not release.may(verb, "acceleratorflavors.xray.training")


async def test_a_run_with_the_charts_rights_in_one_namespace(
    kubeconfig: Path, namespace: str, elsewhere: str, tmp_path: Path
) -> None:
    with installed(kubeconfig, namespace, watchNamespaces=[namespace]) as release:
        log = await live_a_run(release, tmp_path, [namespace])
        assert not [line for line in log.splitlines() if "WARNING" in line or "ERROR" in line], log
        for rule in yaml.safe_load((Path(CHART) / "rbac" / "namespaced.yaml").read_text()):
            kind, _, part = rule["resources"][0].partition("/")
            resource = f"{kind}.{rule['apiGroups'][0]}/{part}"
            for verb in rule["verbs"]:
                assert release.may(verb, resource, namespace), (verb, resource)
                assert not release.may(verb, resource, elsewhere), (verb, resource)
        assert release.may("watch", "acceleratorflavors.xray.training")


async def test_who_has_a_namespaces_edit_role_may_start_runs_there(
    kubeconfig: Path, namespace: str, elsewhere: str
) -> None:
    binding = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
    group = "rbac.authorization.k8s.io"
    bindings = [
        binding
        | {
            "metadata": {"name": role, "namespace": namespace},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": f"{role}-{namespace}"}],
        }
        for role in ("view", "edit")
    ]
    everywhere = {"metadata": {"name": f"flavors-{namespace}"}, "subjects": bindings[1]["subjects"]}
    role = {"apiGroup": group, "kind": "ClusterRole", "name": f"{namespace}-xray-operator-flavors"}
    flavors_for_editor = binding | everywhere | {"kind": "ClusterRoleBinding", "roleRef": role}
    assert apply(kubeconfig, *bindings, flavors_for_editor).returncode == 0
    viewer, editor = f"view-{namespace}", f"edit-{namespace}"
    jobs = "xraytrainingjobs.xray.training"

    async def aggregated() -> bool:
        return can_i(kubeconfig, editor, "create", jobs, namespace) and can_i(
            kubeconfig, viewer, "get", jobs, namespace
        )

    with installed(kubeconfig, namespace):
        await until("the chart's roles are part of view and edit", aggregated)
        assert can_i(kubeconfig, editor, "delete", jobs, namespace)
        assert can_i(kubeconfig, editor, "watch", jobs, namespace)
        assert not can_i(kubeconfig, editor, "create", jobs, elsewhere)
        assert not can_i(kubeconfig, editor, "update", f"{jobs}/status", namespace)
        assert can_i(kubeconfig, editor, "list", "acceleratorflavors.xray.training")
        assert not can_i(kubeconfig, editor, "create", "acceleratorflavors.xray.training")
        assert not can_i(kubeconfig, viewer, "list", "acceleratorflavors.xray.training")
        assert not can_i(kubeconfig, viewer, "create", jobs, namespace)
    assert kubectl(kubeconfig, "delete", "clusterrolebinding", f"flavors-{namespace}").returncode == 0
