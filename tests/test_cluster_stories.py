"""Whole stories whose pods run on a cluster: the sandbox's here, a real one by `make test-cluster`.

Seqera, Cloud Storage and the backend are the sandbox's in both cases.
"""

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_stage import cluster_stage
from kube_cluster import Cluster
from stage import launch_body

from pyvatti.sandbox.world import World

pytest_plugins = ("kube_fixtures",)
pytestmark = [pytest.mark.cluster, pytest.mark.needs("job-controller", "gc", "kubelet")]

STATE = "hattivatti.geneticscores.org/state"


async def test_a_job_succeeds_and_nothing_but_results_and_record_is_left(
    cluster: Cluster, tmp_path: Path
):
    async with cluster_stage(cluster, tmp_path) as on:
        assert (await on.launch()).status_code == 201
        await on.until_running()
        await on.run_is("RUNNING")
        await on.until(lambda view: view.get("state") == "Deployed")
        secret = cluster.core("secrets", f"{on.base}-transfer")
        await cluster.until_gone(secret)

        await on.run_is("SUCCEEDED", exit_status=0)

        shown = await on.until_finished()
        assert shown["state"] == "Succeeded"
        assert on.told() == ["deployed", "succeeded"]
        assert await on.left() == []
        assert list(on.world.storage.buckets) == [f"{cluster.namespace}-{on.base}-results"]
        record = await cluster.get(cluster.core("configmaps", f"{on.base}-record"))
        assert record.body["metadata"]["labels"][STATE] == "Succeeded"
        await on.until_told("Accepted", "BucketMade", "Released", "Succeeded", "BucketRemoved")


async def test_a_failed_transfer_is_told_with_its_exit_code(cluster: Cluster, tmp_path: Path):
    script = "echo could not download; exit 1"
    async with cluster_stage(cluster, tmp_path, transfer=script) as on:
        await on.launch()

        shown = await on.until_finished()

        assert shown["verdict"]["reason"] == "TransferFailed"
        assert "could not download" in shown["verdict"]["evidence"][0]["said"]
        assert on.told() == ["failed"]
        assert "TransferFailed" in (await on.until_told("Failed"))["Failed"]
        assert on.world.backend.received[-1].body["trace_exit"] == 1
        assert (await on.left(), list(on.world.storage.buckets)) == ([], [])


@pytest.mark.parametrize(
    ("script", "state", "reason"),
    [
        pytest.param("exit 1", "Failed", "DriverFailed", id="exit 1 without a word"),
        pytest.param("exit 0", "Succeeded", "SucceededUnconfirmed", id="exit 0 without a word"),
        pytest.param("nonsense-xyz", "Failed", "DriverCannotStart", id="command not found"),
    ],
)
async def test_a_driver_without_telemetry_is_judged_by_its_exit(
    cluster: Cluster, tmp_path: Path, script: str, state: str, reason: str
):
    async with cluster_stage(cluster, tmp_path, calculation=script) as on:
        await on.launch()

        shown = await on.until_finished()

        assert (shown["state"], shown["verdict"]["reason"]) == (state, reason)
        assert await on.left() == []


async def test_an_image_that_cannot_be_pulled_fails_the_job(cluster: Cluster, tmp_path: Path):
    image = "registry.invalid/none:1"
    async with cluster_stage(cluster, tmp_path, NEXTFLOW_IMAGE=image) as on:
        await on.launch()

        shown = await on.until_finished()

        assert shown["verdict"]["reason"] in ("ErrImagePull", "ImagePullBackOff")
        assert on.told() == ["failed"]
        assert (await on.left(), list(on.world.storage.buckets)) == ([], [])


async def test_a_cancelled_job_is_stopped_and_cleaned_up(cluster: Cluster, tmp_path: Path):
    async with cluster_stage(cluster, tmp_path) as on:
        await on.launch()
        await on.until_running()

        answer = await on.client.delete(f"/jobs/{on.job_id}")

        shown = await on.until_finished()
        assert answer.status_code == 202
        assert shown["verdict"]["reason"] == "Cancelled"
        assert on.told() == ["failed"]
        assert (await on.left(), list(on.world.storage.buckets)) == ([], [])


@pytest.mark.parametrize("propagation", ["Background", "Foreground", "Orphan"])
async def test_a_job_deleted_by_hand_is_a_cancellation(
    cluster: Cluster, tmp_path: Path, propagation: str
):
    async with cluster_stage(cluster, tmp_path) as on:
        await on.launch()
        await on.until_running()

        await cluster.delete(cluster.jobs(on.base), propagationPolicy=propagation)

        shown = await on.until_finished()
        assert shown["verdict"]["reason"] == "Cancelled"
        assert on.told() == ["failed"]
        assert (await on.left(), list(on.world.storage.buckets)) == ([], [])


async def test_a_job_whose_pod_a_quota_refuses_waits_and_runs_later(
    cluster: Cluster, tmp_path: Path
):
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    await cluster.made(cluster.core("resourcequotas"), quota)
    counted = cluster.core("resourcequotas", "none")
    await cluster.until(counted, lambda body: (body or {}).get("status", {}).get("hard"))
    try:
        async with cluster_stage(cluster, tmp_path) as on:
            await on.launch()
            shown = await on.until(lambda view: (view.get("waiting") or {}).get("on") == "quota")
            assert shown["state"] == "Created"

            await cluster.delete(counted)

            await on.until_running()
            await on.client.delete(f"/jobs/{on.job_id}")
            await on.until_finished()
    finally:
        await cluster.delete(counted)


async def test_a_secret_deleted_before_its_time_fails_the_job(cluster: Cluster, tmp_path: Path):
    async with cluster_stage(cluster, tmp_path, BUCKET_INTERVAL="2") as on:
        await on.launch()
        await cluster.delete(cluster.core("secrets", on.base))

        shown = await on.until_finished()

        assert shown["verdict"]["reason"] == "RequestLost"
        assert on.told() == ["failed"]
        assert (await on.left(), list(on.world.storage.buckets)) == ([], [])


async def test_a_job_runs_where_pods_must_be_restricted(cluster: Cluster, tmp_path: Path):
    space = await cluster.space({"pod-security.kubernetes.io/enforce": "restricted"})
    async with cluster_stage(replace(cluster, namespace=space), tmp_path) as on:
        assert (await on.launch()).status_code == 201
        await on.until_running()

        await on.client.delete(f"/jobs/{on.job_id}")

        assert (await on.until_finished())["verdict"]["reason"] == "Cancelled"
        assert await on.left() == []


async def test_fault_01_concurrent_launches_make_one_job(cluster: Cluster, tmp_path: Path):
    async with cluster_stage(cluster, tmp_path, MAX_CONCURRENT_JOBS="1") as on:
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(on.launch()) for _ in range(5)]

        assert [call.result().status_code for call in calls] == [201] * 5
        await on.client.delete(f"/jobs/{on.job_id}")
        await on.until_finished()
        assert on.told() == ["failed"]


async def test_a_dry_run_asks_the_api_server_and_creates_nothing(cluster: Cluster, tmp_path: Path):
    async with cluster_stage(cluster, tmp_path) as on:
        body = launch_body(on.job_id)

        answer = await on.client.post("/launch", params={"dry_run": "true"}, json=body)

        assert answer.status_code == 200, answer.text
        assert [item["kind"] for item in answer.json()["manifests"]] == ["Job", "Secret", "Secret"]
        assert await on.left() == []


async def test_fault_16_a_restart_follows_the_job_again_and_tells_nothing_twice(
    cluster: Cluster, tmp_path: Path
):
    job_id = f"INTP{secrets.randbelow(10**11):011}"
    world = World(namespace=cluster.namespace, rate_limit=False, has_cluster=False)
    same = {"INSTANCE": f"t{secrets.token_hex(4)}"}
    async with world:
        lasting = _Lasting(world)
        async with cluster_stage(cluster, tmp_path, world=lasting, job_id=job_id, **same) as on:
            await on.launch()
            await on.until_running()
            await on.run_is("RUNNING")
            await on.until(lambda view: view.get("state") == "Deployed")
        async with cluster_stage(cluster, tmp_path, world=lasting, job_id=job_id, **same) as on:
            await on.run_is("SUCCEEDED", exit_status=0)
            shown = await on.until_finished()

        assert shown["state"] == "Succeeded"
        assert on.told() == ["deployed", "succeeded"]
        assert len([item for item in world.backend.received if item.job_id == job_id]) == 2


class _Lasting(World):
    """A world that outlives a service: entering and leaving it changes nothing."""

    def __init__(self, world: World) -> None:
        self.__dict__ = world.__dict__

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Leave everything running."""
