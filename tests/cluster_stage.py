"""A stage for stories on any cluster: the service here, its pods there, the neighbours here.

On a real cluster the driver is a shell script in PYVATTI_TEST_IMAGE, put into the Job by the same
means an operator has: a template of their own in TEMPLATES_DIR.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from kube_cluster import SPEED, Body, Cluster, environment
from stage import FAST, launch_body

from pyvatti.demo import run_stack
from pyvatti.sandbox.world import World
from pyvatti.settings import PACKAGED_TEMPLATES

PATIENCE = 180.0  # seconds
LOOK = 0.05  # seconds between two looks
SCRIPT = re.compile(
    r'            - \|\n(?:              .*\n)*?              exec nextflow "\$@"\n'
)
IMAGE_LINE = "          image: {{ settings.nextflow_image | yaml }}\n"
RUNS_ON = "trap 'exit 143' TERM; sleep 600 & wait"
BRIEF = {
    "POLL_INTERVAL": "1",
    "BUCKET_INTERVAL": "0.05",
    "FAILED_GRACE": "3",
    "COMPLETE_GRACE": "3",
    "TELEMETRY_GRACE": "60",
    "HANG_GRACE": "10",
    "IMAGE_GRACE": "3",
    "DRIVER_SERVICE_ACCOUNT": "default",
    "DRIVER_CPU": "10m",
    "DRIVER_MEMORY": "32Mi",
    "DRIVER_STORAGE": "32Mi",
}


def driver_templates(folder: Path, transfer: str, calculation: str, *, whole: bool) -> Path:
    """Write a job template whose containers run these scripts instead of Nextflow.

    `whole` replaces the packaged scripts; otherwise only their last line, so that the check for
    credentials runs on a real kubelet. An image the nodes have is never pulled, for a test image
    may exist nowhere else.
    """
    text = (PACKAGED_TEMPLATES / "job.yaml.j2").read_text()
    assert text.count(IMAGE_LINE) == 2
    text = text.replace(IMAGE_LINE, f"{IMAGE_LINE}          imagePullPolicy: IfNotPresent\n")
    for script in (transfer, calculation):
        found = SCRIPT.search(text)
        assert found is not None
        old = found.group()
        new = f"            - {yaml.safe_dump(script, width=10**6).splitlines()[0]}\n"
        if not whole:
            new = old.replace('exec nextflow "$@"', script)
        text = text.replace(old, new, 1)
    folder.mkdir(exist_ok=True)
    (folder / "job.yaml.j2").write_text(text)
    return folder


@dataclass(slots=True)
class ClusterStage:
    """One service with one job on a cluster."""

    cluster: Cluster
    world: World
    client: httpx.AsyncClient
    job_id: str

    @property
    def base(self) -> str:
        """Name of the Job."""
        return self.job_id.lower()

    async def launch(self) -> httpx.Response:
        """Launch the job."""
        return await self.client.post("/launch", json=launch_body(self.job_id))

    async def show(self) -> dict[str, Any]:
        """Give what the API says of the job."""
        shown: dict[str, Any] = (await self.client.get(f"/jobs/{self.job_id}")).json()
        return shown

    async def until(self, wanted: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until the API's view of the job is as wanted."""
        shown: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                while not wanted(shown):
                    await asyncio.sleep(LOOK)
                    shown = await self.show()
        except TimeoutError:
            raise AssertionError(f"never as wanted: {shown}") from None
        return shown

    async def until_finished(self) -> dict[str, Any]:
        """Wait until the job is cleaned up."""
        shown = await self.until(lambda view: view.get("live") is False)
        await self.cluster.until_gone(self.cluster.jobs(self.base), PATIENCE)
        return shown

    async def until_running(self) -> Body:
        """Wait until the main container runs; gives the pod."""
        selector = f"batch.kubernetes.io/job-name={self.base}"
        return await self.cluster.until_any(
            self.cluster.core("pods"), _main_runs, PATIENCE, labelSelector=selector
        )

    async def run_is(self, status: str, **fields: Any) -> None:
        """Let Seqera say so of the run: one row, which changes. No pod reaches the stand-in."""
        name = (await self.show())["run_name"]
        self.world.seqera.put_run(name, status, id=self.base, **fields)

    def told(self) -> list[str]:
        """Give the events the backend took, in order."""
        return self.world.backend.delivered(self.job_id)

    async def events(self) -> dict[str, str]:
        """Give the notes of Events by reason, chosen as `kubectl events --for job/…` does."""
        fields = (
            "involvedObject.kind=Job,involvedObject.apiVersion=batch/v1,"
            f"involvedObject.name={self.base}"
        )
        answer = await self.cluster.get(self.cluster.core("events"), fieldSelector=fields)
        return {item["reason"]: item["message"] for item in answer.body["items"]}

    async def until_told(self, *reasons: str) -> dict[str, str]:
        """Wait until Events of these reasons are about the job; gives the notes of all."""
        shown: dict[str, str] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                while not shown.keys() >= set(reasons):
                    await asyncio.sleep(LOOK)
                    shown = await self.events()
        except TimeoutError:
            raise AssertionError(f"never told {reasons}: {shown}") from None
        return shown

    async def left(self) -> list[str]:
        """Name what is left of the job in the cluster, apart from its record."""
        found = []
        selector = f"hattivatti.geneticscores.org/job-id={self.base}"
        for path in (self.cluster.jobs(), self.cluster.core("pods"), self.cluster.core("secrets")):
            answer = await self.cluster.get(path, labelSelector=selector)
            found += [item["metadata"]["name"] for item in answer.body["items"]]
        return found


def _main_runs(pod: Body) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return any("running" in item.get("state", {}) for item in statuses)


@asynccontextmanager
async def cluster_stage(
    cluster: Cluster,
    folder: Path,
    *,
    transfer: str = "exit 0",
    calculation: str = RUNS_ON,
    world: World | None = None,
    job_id: str = "",
    **changes: str,
) -> AsyncIterator[ClusterStage]:
    """Run the service against the cluster; scripts are those of the driver's two containers."""
    is_real = cluster.access.kubeconfig is not None
    image = cluster.image
    pace = BRIEF if is_real else BRIEF | FAST | {"TELEMETRY_GRACE": "60"}
    settings = pace | {
        "KUBECONFIG": str(kubeconfig_of(cluster, folder)),
        "NAMESPACE": cluster.namespace,
        "INSTANCE": f"t{secrets.token_hex(4)}",
        "NEXTFLOW_IMAGE": image,
        "NEXTFLOW_VERSION": "25.10.4",
        "TEMPLATES_DIR": str(
            driver_templates(folder / "templates", transfer, calculation, whole=not is_real)
        ),
    }
    own = World(namespace=cluster.namespace, rate_limit=False, has_cluster=False)
    job_id = job_id or f"INTP{secrets.randbelow(10**11):011}"
    async with run_stack(settings | changes, world or own) as running:
        yield ClusterStage(cluster, running.world, running.client, job_id)


def kubeconfig_of(cluster: Cluster, folder: Path) -> Path:
    """Give a kubeconfig whose current context is the cluster's."""
    path = folder / "kubeconfig"
    access = cluster.access
    if access.kubeconfig is not None:
        config = yaml.safe_load(access.kubeconfig.read_text())
        config["current-context"] = (
            environment().get("PYVATTI_TEST_CONTEXT") or config["current-context"]
        )
        for entries, keys in (("clusters", ("certificate-authority",)), ("users", _USER_FILES)):
            for entry in config[entries]:
                _make_absolute(entry[entries[:-1]], keys, access.kubeconfig.parent)
    else:
        config = _sandbox_kubeconfig(cluster)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


_USER_FILES = ("client-certificate", "client-key", "tokenFile")


def _make_absolute(entry: dict[str, Any], keys: tuple[str, ...], folder: Path) -> None:
    for key in keys:
        if entry.get(key):
            entry[key] = str((folder / entry[key]).absolute())


def _sandbox_kubeconfig(cluster: Cluster) -> dict[str, Any]:
    token = cluster.access.headers["Authorization"].removeprefix("Bearer ")
    names = {"cluster": "sandbox", "user": "sandbox"}
    target = {"server": cluster.access.url, "insecure-skip-tls-verify": True}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "contexts": [{"name": "sandbox", "context": names}],
        "clusters": [{"name": "sandbox", "cluster": target}],
        "users": [{"name": "sandbox", "user": {"token": token}}],
    }


__all__ = ["RUNS_ON", "SPEED", "ClusterStage", "cluster_stage", "kubeconfig_of"]
