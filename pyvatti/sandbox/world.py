"""The whole stand-in world in one place: cluster, Seqera, Cloud Storage and backend on loopback.

Knows how a service is pointed at it, and nothing of how the service works.
"""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from pyvatti.sandbox.backend import BackendStandIn
from pyvatti.sandbox.driver import DriverRuntime
from pyvatti.sandbox.driver_plans import PLANS, Plan, Plans, faults_of
from pyvatti.sandbox.kube.jobcontroller import JobController
from pyvatti.sandbox.kube.kubelet import Kubelet
from pyvatti.sandbox.kube.kubelet_runtime import Runtime
from pyvatti.sandbox.kube.resources import NAMESPACES, RESOURCES, SERVICEACCOUNTS
from pyvatti.sandbox.kube.standin import KubeStandIn
from pyvatti.sandbox.seqera import SeqeraStandIn
from pyvatti.sandbox.storage import StorageStandIn

Body = dict[str, Any]

PROJECT = "intervene"
LOCATION = "europe-west2"
WORKSPACE = 7
DRIVER_ACCOUNT = "nextflow"


def succeed(_pod: Body) -> Plan:
    """Let every driver succeed."""
    return PLANS["success"]


class World:
    """`async with World(...) as world` starts everything; `environment` points a service at it.

    `plans` choose what a job's driver does and suffers; `speed` divides the delays of cluster and
    driver; `rate_limit` makes Cloud Storage refuse bucket calls above its documented rate.
    Without `has_cluster` only the neighbours are started: the cluster is somebody else's. `other`
    runs the containers that are no driver. `beside` is a world that runs: Cloud Storage and Seqera
    are the same for both, as for two clusters of one project.
    """

    def __init__(  # noqa: PLR0913 - one keyword per choice
        self,
        *,
        namespace: str = "intervene-dev",
        speed: float = 1.0,
        plans: Plans = succeed,
        rate_limit: bool = True,
        has_cluster: bool = True,
        other: Runtime | None = None,
        beside: "World | None" = None,
    ) -> None:
        self.namespace = namespace
        self.kube = KubeStandIn(namespace=namespace, speed=speed)
        self.storage: StorageStandIn = (
            beside.storage if beside else StorageStandIn(project=PROJECT, rate_limit=rate_limit)
        )
        self.seqera: SeqeraStandIn = beside.seqera if beside else SeqeraStandIn(workspace=WORKSPACE)
        self.backend = BackendStandIn()
        self.service_token: str | None = None  # the service's own; None: the administrator's
        self._speed, self._plans = speed, plans
        self._has_cluster, self._other, self._beside = has_cluster, other, beside
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        for stand_in in () if self._beside else (self.storage, self.seqera):
            await enter(stand_in)
        await enter(self.backend)
        if self._has_cluster:
            await self._start_cluster()
        return self

    async def _start_cluster(self) -> None:
        enter = self._stack.enter_async_context
        await enter(self.kube)
        runtime = DriverRuntime(
            storage_url=self.storage.url,
            seqera_url=self.seqera.url,
            plans=self._plans,
            speed=self._speed,
            other=self._other,
        )
        store, logs = self.kube.store, self.kube.logs
        for account in (DRIVER_ACCOUNT, "pyvatti"):
            body = {"metadata": {"name": account}}
            store.create(SERVICEACCOUNTS, self.namespace, body)
        faults = faults_of(self._plans)
        await enter(JobController(store, speed=self._speed, faults=faults))
        await enter(Kubelet(store, logs, runtime, speed=self._speed, faults=faults))

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def environment(self, folder: Path) -> dict[str, str]:
        """Write the kubeconfig into a folder and give the service's environment variables."""
        cluster = {}
        if self._has_cluster:
            kubeconfig = folder / "kubeconfig"
            kubeconfig.touch(mode=0o600)
            kubeconfig.write_text(self.kube.kubeconfig(self.service_token))
            cluster["KUBECONFIG"] = str(kubeconfig)
        return cluster | {
            "NAMESPACE": self.namespace,
            "API_AUTH": "none",
            "HOST": "127.0.0.1",
            "STORAGE_EMULATOR_HOST": self.storage.url,
            "GCP_PROJECT": PROJECT,
            "GCP_LOCATION": LOCATION,
            "TOWER_API_URL": self.seqera.url,
            "TOWER_TOKEN": self.seqera.token,
            "TOWER_WORKSPACE": str(WORKSPACE),
            "NOTIFY_URL": self.backend.url,
            "NOTIFY_TOKEN": self.backend.token,
            "GLOBUS_DOMAIN": "https://g-sandbox.data.globus.org",
            "GLOBUS_CLIENT_ID": "sandbox-client",
            "GLOBUS_CLIENT_SECRET": "sandbox-globus-secret",
            "GLOBUS_SCOPES": "https://auth.globus.org/scopes/sandbox/https",
            "KEY_HANDLER_TOKEN": "c2FuZGJveDprZXloYW5kbGVy",
            "KEY_HANDLER_PASSWORD": "sandbox-key-password",
            "KEY_HANDLER_URL": "https://keys.example.org/key-handler",
        }

    @property
    def namespace_uid(self) -> str:
        """The uid of our namespace, which tells an installation from all others."""
        uid: str = self.kube.store.get(NAMESPACES, "", self.namespace)["metadata"]["uid"]
        return uid

    def work_bucket(self, base: str) -> str:
        """Name the work bucket a job has now, whatever its Job's uid; empty where it has none."""
        prefix = f"{self.namespace}-{base}-work-"
        return next((name for name in self.storage.buckets if name.startswith(prefix)), "")

    def objects(self, kind: str) -> list[str]:
        """Name the objects of a kind (`Job`, `Secret`, ...) in our namespace."""
        resource = next(item for item in RESOURCES if item.kind == kind)
        return [item["metadata"]["name"] for item in self.kube.store.list(resource, self.namespace)]
