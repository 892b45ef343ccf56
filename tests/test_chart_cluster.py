"""The chart installed by a real Helm on a cluster: the sandbox's here, a real one by test-cluster.

No pod of the Deployment is started (its image is in no registry a test may count on): the service
runs here from the installed variables, with a token that the API server issued for its account.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_tools import CHART, HELM_3, HELM_4, Source
from cluster_stage import BRIEF, ClusterStage, kubeconfig_of
from helm_release import PLAIN, TOKEN_REQUEST, run_helm, serving, values_for, variables_of
from kube_cluster import Body, Cluster
from stage import launch_body

from pyvatti.sandbox.world import World

pytest_plugins = ("kube_fixtures",)
pytestmark = pytest.mark.cluster

HELMS = [pytest.param(HELM_3, id="helm 3"), pytest.param(HELM_4, id="helm 4")]
# (API, resource) of what the chart installs under the release's own name
KINDS = {
    "Deployment": ("apps/v1", "deployments"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "Role": ("rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io/v1", "rolebindings"),
    "ConfigMap": ("v1", "configmaps"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
}


@dataclass(slots=True)
class Installation:
    """One release on the cluster and the neighbours its service is pointed at."""

    cluster: Cluster
    folder: Path
    world: World
    name: str
    source: Source

    async def helm(self, *arguments: str) -> str:
        """Run Helm as whoever the tests are."""
        kubeconfig = kubeconfig_of(self.cluster, self.folder)
        return await run_helm(self.source, kubeconfig, *arguments, namespace=self.cluster.namespace)

    async def install(self, scenario: str, **changes: Any) -> None:
        """Install or upgrade with the values of chart/ci/SCENARIO and some changes."""
        image = {"NEXTFLOW_IMAGE": self.cluster.image, "NEXTFLOW_VERSION": "25.10.4"}
        given = self.world.environment(self.folder) | BRIEF | image | {"BUCKET_INTERVAL": "0.1"}
        del given["DRIVER_SERVICE_ACCOUNT"]  # the chart's own
        file = self.folder / "values.yaml"
        file.write_text(
            yaml.safe_dump(values_for(given, scenario, PLAIN | {"replicas": 0} | changes))
        )
        await self.helm("upgrade", "--install", self.name, str(CHART), "--values", str(file))

    async def find(self, kind: str, name: str = "") -> Body | None:
        """Give an object of the release, None if absent."""
        answer = await self.cluster.get(self.cluster.path(*KINDS[kind], name or self.name))
        assert answer.status in (200, 404), answer.body
        return answer.body if answer.status == 200 else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ClusterStage]:
        """Run the service as its account."""
        objects = {
            plural: (await self.cluster.get(self.cluster.path(api, plural, self.name))).body
            for api, plural in (*KINDS.values(), ("v1", "secrets"))
        }
        given = variables_of(
            objects["deployments"],
            lambda _name: objects["configmaps"],
            lambda _name: objects["secrets"],
        )
        kubeconfig = await self._kubeconfig()
        async with serving(given | {"KUBECONFIG": str(kubeconfig)}, self.world) as on:
            job_id = f"INTP{secrets.randbelow(10**11):011}"
            yield ClusterStage(self.cluster, self.world, on.client, job_id)

    async def _kubeconfig(self) -> Path:
        path = self.cluster.core("serviceaccounts", self.name, "token")
        answer = await self.cluster.post(path, TOKEN_REQUEST)
        assert answer.status == 201, answer.body
        config = yaml.safe_load(kubeconfig_of(self.cluster, self.folder).read_text())
        user = {"name": "service", "user": {"token": answer.body["status"]["token"]}}
        for entry in config["contexts"]:
            entry["context"]["user"] = "service"
        file = self.folder / "service.kubeconfig"
        file.touch(mode=0o600)
        file.write_text(yaml.safe_dump(config | {"users": [user]}))
        return file


@pytest.fixture
async def installation(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path
) -> AsyncIterator[Installation]:
    """A release of the least values; removed afterwards with what it leaves."""
    world = World(namespace=cluster.namespace, rate_limit=False, has_cluster=False)
    source = getattr(request, "param", HELM_4)
    async with world:
        made = Installation(cluster, tmp_path, world, f"t{secrets.token_hex(4)}", source)
        await made.install("default")
        yield made
        if await made.find("Deployment") is not None:
            await made.helm("uninstall", made.name)
        await cluster.delete(cluster.core("serviceaccounts", f"{made.name}-driver"))
        await cluster.delete(cluster.leases(made.name))


@pytest.mark.parametrize("installation", HELMS, indirect=True)
async def test_installed_service_is_ready_with_the_rights_of_its_account(
    installation: Installation,
):
    async with installation.running() as on:
        body = launch_body(on.job_id)
        rehearsed = await on.client.post("/launch", params={"dry_run": "true"}, json=body)
        listed = await on.client.get("/jobs")
        await installation.cluster.until(installation.cluster.leases(installation.name), bool)

    assert rehearsed.status_code == 200, rehearsed.text
    assert listed.status_code == 200, listed.text


@pytest.mark.parametrize("installation", HELMS, indirect=True)
async def test_release_is_upgraded_in_place_rolled_back_and_removed(installation: Installation):
    async def uids() -> list[str]:
        found = [await installation.find(kind) for kind in KINDS]
        return [item["metadata"]["uid"] for item in found if item is not None]

    before = await uids()
    for scenario in ("high-availability", "ingress", "templates", "secret-refs"):
        await installation.install(scenario)
        assert await uids() == before
    await installation.helm("rollback", installation.name, "1")

    assert await uids() == before
    await installation.helm("uninstall", installation.name)
    assert [kind for kind in KINDS if await installation.find(kind) is not None] == []
    assert await installation.find("ServiceAccount", f"{installation.name}-driver") is not None
    await installation.install("default")  # takes over what stayed


@pytest.mark.needs("job-controller", "gc", "kubelet")
async def test_installed_service_brings_a_job_to_its_end(installation: Installation):
    async with installation.running() as on:
        assert (await on.launch()).status_code == 201

        shown = await on.until_finished()  # the image knows no Nextflow

        assert shown["state"] == "Failed"
        assert on.told() == ["failed"]
        assert (await on.left(), list(on.world.storage.buckets)) == ([], [])


@pytest.mark.needs("job-controller", "gc", "policies")
async def test_a_job_comes_to_its_end_under_the_admission_policy(installation: Installation):
    cluster = installation.cluster
    policy = {"enabled": True, "allowed": [await cluster.whoami()]}
    await installation.install("default", admissionPolicy=policy)
    async with installation.running() as on:
        assert (await on.launch()).status_code == 201
        selector = f"batch.kubernetes.io/job-name={on.base}"
        await cluster.until_any(cluster.core("pods"), bool, labelSelector=selector)
        assert (await on.client.delete(f"/jobs/{on.job_id}")).status_code == 202

        shown = await on.until_finished()

    assert shown["state"] == "Failed"
    assert (await on.left(), list(on.world.storage.buckets)) == ([], [])
