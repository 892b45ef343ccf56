"""The project's own image as real pods, from `helm install` to `helm uninstall`.

PYVATTI_TEST_SERVICE_IMAGE names the image (REPOSITORY:TAG), which the nodes have or can pull, and
PYVATTI_TEST_HOST an address of this machine that pods reach: the neighbours answer there.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from chart_tools import CHART, HELM_4
from cluster_stage import BRIEF, LOOK, RUNS_ON, ClusterStage, driver_templates, kubeconfig_of
from helm_release import PLAIN, run_helm, values_for
from kube_cluster import PATIENCE, Body, Cluster
from neighbour_lines import Line

from pyvatti.sandbox.world import World

pytest_plugins = ("kube_fixtures",)
IMAGE = os.environ.get("PYVATTI_TEST_SERVICE_IMAGE", "")
HOST = os.environ.get("PYVATTI_TEST_HOST", "")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.needs("job-controller", "gc", "kubelet"),
    pytest.mark.skipif(not IMAGE, reason="no image to install: PYVATTI_TEST_SERVICE_IMAGE"),
    pytest.mark.skipif(not HOST, reason="no address for pods to reach: PYVATTI_TEST_HOST"),
]
NAME = "hattivatti"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(slots=True)
class Operator:
    """Whoever installs the chart in one namespace; the neighbours are stand-ins."""

    home: Cluster
    folder: Path
    variables: dict[str, str]

    async def helm(self, *arguments: str) -> str:
        """Run Helm in the namespace."""
        kubeconfig = kubeconfig_of(self.home, self.folder)
        return await run_helm(HELM_4, kubeconfig, *arguments, namespace=self.home.namespace)

    async def install(self, **config: Any) -> None:
        """Install or upgrade two replicas of the image, and wait until they are ready."""
        repository, _, tag = IMAGE.rpartition(":")
        template = driver_templates(self.folder / "templates", "exit 0", RUNS_ON, whole=False)
        changes: dict[str, Any] = {
            "replicas": 2,
            "image": {"repository": repository, "tag": tag},
            "templates": {"files": {"job.yaml.j2": (template / "job.yaml.j2").read_text()}},
            "config": {"allowHttp": True, **config},
        }
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values_for(self.variables, "default", PLAIN | changes)))
        options = ("--values", str(file), "--wait", "--timeout", "100s")
        await self.helm("upgrade", "--install", NAME, str(CHART), *options)

    async def pods(self) -> list[Body]:
        """Give the service's pods that are not being deleted."""
        selector = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component=service"
        found = (await self.home.get(self.home.core("pods"), labelSelector=selector)).body["items"]
        return [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]

    async def leader(self, *, but: str = "") -> str:
        """Wait until a pod leads that stays and is not the one named `but`; gives its name."""
        async with asyncio.timeout(PATIENCE):
            while True:
                lease = (await self.home.get(self.home.leases(NAME))).body
                holder = lease.get("spec", {}).get("holderIdentity") or ""
                for pod in await self.pods():
                    name: str = pod["metadata"]["name"]
                    if name != but and holder.startswith(name):
                        return name
                await asyncio.sleep(LOOK)


@asynccontextmanager
async def installed(cluster: Cluster, folder: Path) -> AsyncIterator[tuple[Operator, ClusterStage]]:
    """Install the chart into a restricted namespace; the API is reached through its Service."""
    home = replace(cluster, namespace=await cluster.space(RESTRICTED))
    async with AsyncExitStack() as stack:
        world = World(namespace=home.namespace, rate_limit=False, has_cluster=False)
        await stack.enter_async_context(world)
        variables = world.environment(folder) | BRIEF
        variables |= {
            "NEXTFLOW_IMAGE": home.image,
            "NEXTFLOW_VERSION": "25.10.4",
            "BUCKET_INTERVAL": "0.1",
        }
        del variables["DRIVER_SERVICE_ACCOUNT"]  # the chart's own
        for url in (world.storage.url, world.seqera.url, world.backend.url):
            line = await stack.enter_async_context(Line(urlsplit(url).port or 0, HOST))
            here = f"http://{HOST}:{line.port}"
            variables = {key: text.replace(url, here) for key, text in variables.items()}
        operator = Operator(home, folder, variables)
        await operator.install()
        client = httpx.AsyncClient(
            base_url=f"{home.access.url}{home.core('services', f'{NAME}:http', 'proxy')}",
            headers=home.access.headers,
            verify=home.access.ssl or True,
            timeout=PATIENCE,
        )
        await stack.enter_async_context(client)
        yield operator, ClusterStage(home, world, client, f"INTP{secrets.randbelow(10**11):011}")


async def test_own_image_serves_from_install_to_uninstall(cluster: Cluster, tmp_path: Path):
    async with installed(cluster, tmp_path) as (operator, on):
        await operator.helm("test", NAME)
        assert (await on.launch()).status_code == 201
        await on.until_running()
        await on.run_is("RUNNING")
        await on.until(lambda view: view.get("state") == "Deployed")

        before = {pod["metadata"]["name"] for pod in await operator.pods()}
        await operator.install(logLevel="debug")  # under a running job
        names = {pod["metadata"]["name"] for pod in await operator.pods()}
        assert (len(names), names & before) == (2, set())
        leader = await operator.leader()
        await operator.home.delete(operator.home.core("pods", leader))
        await operator.leader(but=leader)
        await on.run_is("SUCCEEDED", exit_status=0)
        shown = await on.until_finished()

        assert shown["state"] == "Succeeded"
        assert on.told() == ["deployed", "succeeded"]
        report = (await on.client.get(f"/jobs/{on.job_id}/deletion")).json()
        assert report["complete"], report
        assert await on.left() == []
        results = f"{operator.home.namespace}-{on.base}-results"
        assert list(on.world.storage.buckets) == [results]

        await operator.helm("uninstall", NAME, "--wait")
        assert await operator.pods() == []
