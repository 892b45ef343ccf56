"""Slots are taken back: by a real Kueue where the cluster has one (`make test-cluster`), by hand.

By hand is how Kueue does it: it suspends the Job and resumes it; all else is the Job controller's.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cluster_stage import LOOK, RUNS_ON, ClusterStage, cluster_stage
from kube_cluster import PATIENCE, Body, Cluster

pytest_plugins = ("kube_fixtures",)
pytestmark = [pytest.mark.cluster, pytest.mark.needs("job-controller", "gc", "kubelet")]
by_kueue = pytest.mark.needs("kueue")

API = "/apis/kueue.x-k8s.io/v1beta2"
QUEUE = "genomes"
ONE_DRIVER = {"cpu": "15m", "memory": "48Mi", "ephemeral-storage": "48Mi"}
PLENTY = {"cpu": "1000", "memory": "100Gi", "ephemeral-storage": "100Gi"}


@dataclass(slots=True)
class Queue:
    """A ClusterQueue of a test's own, and its LocalQueue in a namespace of its own."""

    cluster: Cluster
    name: str

    async def stop(self, policy: str) -> None:
        """Hold it, drain it too (`HoldAndDrain`), or let it go on (`None`)."""
        path = f"{API}/clusterqueues/{self.name}"
        answer = await self.cluster.patch(path, {"spec": {"stopPolicy": policy}})
        assert answer.status == 200, answer.body

    async def activate(self, base: str, *, active: bool) -> None:
        """Activate the Workload of a Job, or deactivate it."""
        workloads = self.cluster.path("kueue.x-k8s.io/v1beta2", "workloads")
        items = (await self.cluster.get(workloads)).body["items"]
        (name,) = [
            item["metadata"]["name"]
            for item in items
            if item["metadata"]["ownerReferences"][0]["name"] == base
        ]
        answer = await self.cluster.patch(f"{workloads}/{name}", {"spec": {"active": active}})
        assert answer.status == 200, answer.body


@asynccontextmanager
async def queue_of(cluster: Cluster, quota: dict[str, str]) -> AsyncIterator[Queue]:
    space = await cluster.space()
    name = f"pyvatti-test-{secrets.token_hex(4)}"
    own = replace(cluster, namespace=space)
    resources = [{"name": kind, "nominalQuota": amount} for kind, amount in quota.items()]
    group = {"coveredResources": list(quota), "flavors": [{"name": name, "resources": resources}]}
    spec = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}},
        "preemption": {"withinClusterQueue": "LowerPriority"},
        "resourceGroups": [group],
    }
    await cluster.made(f"{API}/resourceflavors", body("ResourceFlavor", name))
    await cluster.made(f"{API}/clusterqueues", body("ClusterQueue", name) | {"spec": spec})
    local = own.path("kueue.x-k8s.io/v1beta2", "localqueues")
    await cluster.made(local, body("LocalQueue", QUEUE) | {"spec": {"clusterQueue": name}})
    try:
        yield Queue(own, name)
    finally:
        for plural in ("clusterqueues", "resourceflavors"):
            await cluster.delete(f"{API}/{plural}/{name}")


def body(kind: str, name: str) -> Body:
    """Give an object of Kueue's API, which is a custom one: it must say what it is."""
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": kind, "metadata": {"name": name}}


def says(*words: str) -> Callable[[dict[str, Any]], bool]:
    """Ask whether all words are in what a job says it waits for."""

    def is_said(view: dict[str, Any]) -> bool:
        message = (view.get("waiting") or {}).get("message", "")
        return all(word in message for word in words)

    return is_said


def other_attempt(number: int) -> Callable[[dict[str, Any]], bool]:
    return lambda view: str(view.get("run_name", "")).endswith(f"-a{number}")


async def pod_of(on: ClusterStage, wanted: Callable[[Body], bool]) -> Body:
    """Wait for a pod of the job that does so and is not on its way out."""
    selector = f"batch.kubernetes.io/job-name={on.base}"
    return await on.cluster.until_any(
        on.cluster.core("pods"),
        lambda pod: "deletionTimestamp" not in pod["metadata"] and wanted(pod),
        labelSelector=selector,
    )


def runs(kind: str) -> Callable[[Body], bool]:
    return lambda pod: any(
        "running" in item.get("state", {}) for item in pod.get("status", {}).get(kind) or []
    )


def cannot_be_scheduled(pod: Body) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return any((item["type"], item["status"]) == ("PodScheduled", "False") for item in conditions)


async def suspend(on: ClusterStage, *, suspended: bool) -> None:
    answer = await on.cluster.patch(on.cluster.jobs(on.base), {"spec": {"suspend": suspended}})
    assert answer.status == 200, answer.body


async def test_a_job_that_is_suspended_in_mid_run_begins_anew_when_it_is_resumed(
    cluster: Cluster, tmp_path: Path
):
    async with cluster_stage(cluster, tmp_path, calculation=TELLS) as on:
        await on.launch()
        await pod_of(on, runs("containerStatuses"))
        await on.run_is("RUNNING")
        await on.until(lambda view: view.get("state") == "Deployed")
        await cluster.until_gone(cluster.core("secrets", f"{on.base}-transfer"))

        await suspend(on, suspended=True)

        shown = await on.until(says("suspended its Job at 20", "nobody resumed it yet"))
        assert (shown["state"], shown["run_name"][-3:]) == ("Deployed", "-a2")
        await cluster.until(cluster.core("secrets", f"{on.base}-transfer"), bool)
        await suspend(on, suspended=False)
        assert (await succeed(on))["state"] == "Succeeded"
        assert on.told() == ["deployed", "succeeded"]
        assert await on.left() == []


TELLS = f"echo my run is $RUN_NAME; {RUNS_ON}"
LASTS = "trap 'exit 143' TERM; sleep 20 & wait $!"


async def succeed(on: ClusterStage) -> dict[str, Any]:
    """Wait until the driver of this attempt runs, under the name it should; let it succeed."""
    pod = await pod_of(on, runs("containerStatuses"))
    await on.run_is("RUNNING")
    name = (await on.until(lambda view: view.get("state") == "Deployed"))["run_name"]
    log = on.cluster.core("pods", pod["metadata"]["name"], "log")
    async with asyncio.timeout(PATIENCE):
        while f"my run is {name}" not in str(
            (await on.cluster.get(log, container="calculation")).body
        ):
            await asyncio.sleep(LOOK)
    await on.run_is("SUCCEEDED", exit_status=0)
    return await on.until_finished()


@by_kueue
@pytest.mark.parametrize(
    ("transfer", "kind"),
    [
        pytest.param(LASTS, "initContainerStatuses", id="transferring"),
        pytest.param("exit 0", "containerStatuses", id="running"),
    ],
)
async def test_a_drained_queue_evicts_a_job_which_runs_again_when_it_goes_on(
    cluster: Cluster, tmp_path: Path, transfer: str, kind: str
):
    async with (
        queue_of(cluster, PLENTY) as queue,
        cluster_stage(
            queue.cluster, tmp_path, transfer=transfer, calculation=TELLS, KUEUE_QUEUE=QUEUE
        ) as on,
    ):
        assert (await on.launch()).status_code == 201
        await pod_of(on, runs(kind))
        if kind == "containerStatuses":
            await on.run_is("RUNNING")
            await on.until(lambda view: view.get("state") == "Deployed")

        await queue.stop("HoldAndDrain")

        shown = await on.until(says("evicted by Kueue at", "has not admitted it again", "stopped"))
        assert shown["run_name"].endswith("-a2")
        assert shown["state"] == ("Deployed" if kind == "containerStatuses" else "Created")
        await queue.stop("None")
        ended = await succeed(on)
        assert (ended["state"], ended["run_name"]) == ("Succeeded", shown["run_name"])
        assert on.told() == ["deployed", "succeeded"]
        assert await on.left() == []
        await on.until_told("Evicted", "AttemptBegins")


@by_kueue
async def test_a_job_is_evicted_before_its_pod_has_a_node(cluster: Cluster, tmp_path: Path):
    async with (
        queue_of(cluster, PLENTY) as queue,
        cluster_stage(queue.cluster, tmp_path, KUEUE_QUEUE=QUEUE, DRIVER_CPU="500") as on,
    ):
        await on.launch()
        await pod_of(on, cannot_be_scheduled)

        await queue.stop("HoldAndDrain")

        await on.until(says("evicted by Kueue at", "has not admitted it again"))
        await queue.stop("None")
        await on.until(says("attempt 2, evicted by Kueue at"))
        await on.client.delete(f"/jobs/{on.job_id}")
        assert (await on.until_finished())["verdict"]["reason"] == "Cancelled"
        assert await on.left() == []


@by_kueue
async def test_a_workload_of_higher_priority_takes_the_slot_for_a_while(
    cluster: Cluster, tmp_path: Path
):
    async with (
        queue_of(cluster, ONE_DRIVER) as queue,
        cluster_stage(queue.cluster, tmp_path, calculation=TELLS, KUEUE_QUEUE=QUEUE) as on,
    ):
        await on.launch()
        await pod_of(on, runs("containerStatuses"))
        await on.run_is("RUNNING")
        await on.until(lambda view: view.get("state") == "Deployed")
        classes = f"{API}/workloadpriorityclasses"
        await cluster.made(classes, body("WorkloadPriorityClass", queue.name) | {"value": 1000})
        try:
            await cluster.made(queue.cluster.jobs(), more_important(queue))

            shown = await on.until(other_attempt(2))

            await on.until(says("evicted by Kueue at", "Preempted"))
            assert shown["state"] == "Deployed"
            assert (await succeed(on))["state"] == "Succeeded"  # once the other has ended
            assert on.told() == ["deployed", "succeeded"]
        finally:
            await cluster.delete(f"{classes}/{queue.name}")


def more_important(queue: Queue) -> Body:
    """Give a Job that needs the whole quota for some seconds."""
    container = {
        "name": "a",
        "image": queue.cluster.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "5"],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi", "ephemeral-storage": "32Mi"}},
    }
    marks = {
        "kueue.x-k8s.io/queue-name": QUEUE,
        "kueue.x-k8s.io/priority-class": queue.name,
    }
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"suspend": True, "backoffLimit": 0, "template": template}
    return {"metadata": {"name": "more-important", "labels": marks}, "spec": spec}


@by_kueue
async def test_a_queue_that_stays_held_is_waited_for_and_says_so(cluster: Cluster, tmp_path: Path):
    async with (
        queue_of(cluster, PLENTY) as queue,
        cluster_stage(queue.cluster, tmp_path, KUEUE_QUEUE=QUEUE, TIMEOUT_SECONDS="2") as on,
    ):
        await queue.stop("Hold")
        await on.launch()

        shown = await on.until(says(f"queue {QUEUE} has not admitted it yet:", "ClusterQueue"))

        assert shown["state"] == "Requested"
        await on.client.delete(f"/jobs/{on.job_id}")
        assert (await on.until_finished())["verdict"]["reason"] == "Cancelled"
        assert await on.left() == []


@by_kueue
async def test_a_deactivated_workload_is_waited_for_until_somebody_activates_it(
    cluster: Cluster, tmp_path: Path
):
    async with (
        queue_of(cluster, PLENTY) as queue,
        cluster_stage(queue.cluster, tmp_path, calculation=TELLS, KUEUE_QUEUE=QUEUE) as on,
    ):
        await on.launch()
        await pod_of(on, runs("containerStatuses"))

        await queue.activate(on.base, active=False)

        await on.until(says("evicted by Kueue at", "deactivated"))
        await queue.activate(on.base, active=True)
        assert (await succeed(on))["state"] == "Succeeded"


@by_kueue
async def test_one_eviction_too_many_ends_the_job(cluster: Cluster, tmp_path: Path):
    async with (
        queue_of(cluster, PLENTY) as queue,
        cluster_stage(queue.cluster, tmp_path, KUEUE_QUEUE=QUEUE, MAX_EVICTIONS="0") as on,
    ):
        await on.launch()
        await pod_of(on, runs("containerStatuses"))

        await queue.stop("HoldAndDrain")

        shown = await on.until_finished()
        assert shown["verdict"]["reason"] == "EvictedTooOften"
        assert on.told()[-1] == "failed"
        assert (await on.left(), list(on.world.storage.buckets)) == ([], [])
