"""Kueue takes slots back in mid-job, told on the running service; of a real Kueue: `cluster`."""

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from stage import FAST, JOB, Stage, service_on, staged

from pyvatti.sandbox.driver_plans import Plan
from pyvatti.sandbox.kube.jobcontroller import KueueStandIn
from pyvatti.sandbox.kube.kubelet_faults import Fault
from pyvatti.sandbox.kube.resources import JOBS, PODS, SECRETS
from pyvatti.sandbox.world import World
from pyvatti.settings import Settings

BASE = JOB.lower()
NAMESPACE = "intervene-dev"
LASTS = {
    "pending": Plan(fault=Fault.UNSCHEDULABLE),
    "transferring": Plan(transfer_seconds=600),
    "running": Plan(run_seconds=600),
}
QUEUED = FAST | {"KUEUE_QUEUE": "genomes"}


def world_of(first: Plan) -> World:
    """Make a world in which the first pod follows a plan of its own, and all later ones succeed."""
    names: list[str] = []

    def plan(pod: dict[str, Any]) -> Plan:
        name = pod["metadata"]["name"]
        if name and not names:
            names.append(name)
        return first if name in names or not name else Plan()

    return World(plans=plan, speed=20.0, rate_limit=False)


@asynccontextmanager
async def queued_stage(first: Plan, **changes: str) -> AsyncIterator[tuple[Stage, KueueStandIn]]:
    async with (
        staged(QUEUED | changes, world_of(first)) as on,
        KueueStandIn(on.world.kube.store, {"genomes": 1}) as kueue,
    ):
        await on.launch()
        yield on, kueue


def phase(on: Stage) -> str:
    """Say what the only pod does."""
    for pod in on.world.kube.store.list(PODS, NAMESPACE):
        status = pod.get("status", {})
        for kind, word in (
            ("containerStatuses", "running"),
            ("initContainerStatuses", "transferring"),
        ):
            if any("running" in item.get("state", {}) for item in status.get(kind, [])):
                return word
        return "pending" if status.get("conditions") else ""
    return ""


async def until_begun(on: Stage, when: str) -> None:
    await on.until(lambda: phase(on) == when, f"its pod is {when}")
    if when == "running":
        await on.until_state("Deployed")


def names_of_runs(on: Stage) -> list[str]:
    return [row.workflow["runName"] for row in on.world.seqera.runs.all()]


@pytest.mark.parametrize("when", LASTS)
async def test_an_evicted_job_waits_and_runs_again_under_another_name(when: str):
    async with queued_stage(LASTS[when]) as (on, kueue):
        await until_begun(on, when)
        first = (await on.show())["run_name"]

        await evict(on, kueue)
        kueue.resize("genomes", 1)

        shown = await on.until_finished()
        assert (shown["state"], shown["run_name"]) == ("Succeeded", f"{first}-a2")
        assert on.told()[-1] == "succeeded"
        assert on.told().count("deployed") <= 1
        assert sorted(names_of_runs(on)) == [first, f"{first}-a2"][when != "running" :]
        assert {"Evicted", "AttemptBegins"} <= set(on.events())
        assert all(f"{BASE}-results" in item for item in on.leftovers())


async def test_while_its_queue_is_held_it_waits_beyond_every_limit_and_can_be_cancelled():
    async with queued_stage(
        LASTS["running"], TIMEOUT_SECONDS="0.5", DEPLOYED_TIMEOUT_SECONDS="60"
    ) as (on, kueue):
        await until_begun(on, "running")
        await evict(on, kueue)
        await on.until(lambda: not on.world.objects("Pod"), "the pod is gone")

        shown = await on.show()

        assert shown["state"] == "Deployed"
        assert shown["verdict"]["state"] == "Deployed"
        assert shown["waiting"]["on"] == "Kueue"
        assert shown["waiting"]["message"].startswith("evicted by Kueue at 20")
        assert f"{BASE}-transfer" in on.world.objects("Secret")

        await on.client.delete(f"/jobs/{JOB}")
        ended = await on.until_finished()
        assert ended["verdict"]["reason"] == "Cancelled"
        assert on.told() == ["deployed", "failed"]
        assert on.leftovers() == []


async def evict(on: Stage, kueue: KueueStandIn) -> None:
    """Take the slot back and wait until the service has prepared another attempt."""
    kueue.resize("genomes", 0)
    kueue.evict(NAMESPACE, BASE)
    await on.until(lambda: run_name_in_secret(on).endswith("-a2"), "another attempt is ready")


def run_name_in_secret(on: Stage) -> str:
    data = on.world.kube.store.get(SECRETS, NAMESPACE, BASE)["data"]
    return base64.b64decode(data["run-name"]).decode()


async def test_one_eviction_too_many_fails_the_job_with_that_reason():
    async with queued_stage(LASTS["transferring"], MAX_EVICTIONS="0") as (on, kueue):
        await until_begun(on, "transferring")

        kueue.evict(NAMESPACE, BASE)

        shown = await on.until_finished()
        assert shown["verdict"]["reason"] == "EvictedTooOften"
        assert on.told() == ["failed"]
        assert on.leftovers() == []


async def test_a_job_whose_request_was_deleted_does_not_wait_for_an_attempt_that_cannot_come():
    async with queued_stage(LASTS["running"]) as (on, kueue):
        await until_begun(on, "running")
        on.world.kube.store.delete(SECRETS, NAMESPACE, BASE)
        kueue.resize("genomes", 0)

        kueue.evict(NAMESPACE, BASE)

        shown = await on.until_finished()
        assert shown["verdict"]["reason"] == "PrepareAttemptRefused"
        assert f"Secret {BASE} is gone" in shown["verdict"]["message"]
        assert on.told() == ["deployed", "failed"]
        assert on.leftovers() == []


async def test_the_attempt_is_known_to_another_replica(tmp_path: Path):
    world = world_of(LASTS["running"])
    async with world, KueueStandIn(world.kube.store, {"genomes": 1}) as kueue:
        environment = world.environment(tmp_path) | QUEUED
        settings = Settings.model_validate({key.lower(): environment[key] for key in environment})
        async with service_on(world, settings) as on:
            await on.until_ready()
            await on.launch()
            await until_begun(on, "running")
            kueue.resize("genomes", 0)
            kueue.evict(NAMESPACE, BASE)
            await on.until(lambda: "Evicted" in on.events(), "the eviction is written down")
        world.kube.store.delete(SECRETS, NAMESPACE, f"{BASE}-transfer")

        async with service_on(world, settings) as on:
            await on.until_ready()
            await on.until(lambda: f"{BASE}-transfer" in world.objects("Secret"), "it is prepared")
            kueue.resize("genomes", 1)
            shown = await on.until_finished()

        assert shown["state"] == "Succeeded"
        assert shown["run_name"].endswith("-a2")
        assert on.told() == ["deployed", "succeeded"]


async def test_a_job_that_ended_before_it_was_suspended_is_judged_by_its_end():
    async with queued_stage(Plan(transfer_exit=1)) as (on, kueue):
        jobs = on.world.kube.store

        def suspend(_change: str, resource: Any, new: Any, _old: Any) -> None:
            if resource is PODS and new.get("status", {}).get("phase") == "Failed":
                kueue.resize("genomes", 0)
                jobs.mutate(JOBS, NAMESPACE, BASE, lambda job: job["spec"].update(suspend=True))

        jobs.subscribe(suspend)

        shown = await on.until_finished()
        assert shown["verdict"]["reason"] == "TransferFailed"
        assert on.told() == ["failed"]
