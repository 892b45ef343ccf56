"""Accepts that meet others, through the whole service: what was answered is kept, once."""

import asyncio
import json

from stage import JOB, Stage, launch_body, stage

from pyvatti import labels
from pyvatti.sandbox.kube.resources import JOBS, SECRETS

BASE = JOB.lower()
NO_RECORD = json.dumps(
    {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": "NotFound",
        "code": 404,
        "details": {"name": f"{BASE}-record"},
    }
)


def calls(on: Stage) -> list[str]:
    """Give what the service asked about the job's objects, in order; Events and watches apart."""
    return [
        f"{item.method} {item.resource}"
        for item in on.world.kube.requests
        if item.resource in ("jobs.batch", "secrets", "configmaps")
        and (BASE in item.path or item.method == "POST")
    ]


async def test_an_accept_makes_five_calls():
    async with stage(MAX_CONCURRENT_JOBS="1") as on:
        await on.until_ready()
        slow = on.world.kube.faults.add("GET", f"/jobs/{BASE}", "slow", count=1, seconds=0.3)
        async with asyncio.TaskGroup() as group:
            group.create_task(on.launch())
            await on.until(lambda: slow.hits == 1, "the last look is under way")
            made = calls(on)

    assert made[:4] == ["GET configmaps", "POST jobs.batch", "GET configmaps", "POST secrets"]
    assert set(made[4:]) <= {"GET jobs.batch", "GET secrets"}


async def test_a_repeat_that_fails_never_takes_back_what_another_is_completing():
    async with stage() as on:
        faults = on.world.kube.faults
        slow = faults.add("POST", "/secrets", "slow", count=1, seconds=0.8)
        async with asyncio.TaskGroup() as group:
            first = group.create_task(on.client.post("/launch", json=launch_body()))
            await on.until(lambda: slow.hits == 1, "its Secret is under way")
            faults.add("POST", "/secrets", "status", count=1, status=429)
            second = await on.client.post("/launch", json=launch_body())

        assert (first.result().status_code, second.status_code) == (201, 503)
        assert (await on.until_finished())["state"] == "Succeeded"
        assert on.told().count("succeeded") == 1


async def test_a_finished_id_is_refused_before_a_job_is_made():
    async with stage() as on:
        await on.launch()
        await on.until_finished()
        before = on.writes()

        answers = [await on.client.post("/launch", json=launch_body()) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [409] * 3
        assert on.writes() == before


async def test_a_finished_id_that_is_found_late_is_withdrawn_and_nothing_is_told_of_it():
    async with stage() as on:
        await on.launch()
        await on.until_finished()
        kept, told = on.world.storage.leftovers(), on.told()
        faults, store = on.world.kube.faults, on.world.kube.store
        faults.add("GET", f"/{BASE}-record", "status", count=1, status=404, body=NO_RECORD)
        slow = faults.add("GET", f"/{BASE}-record", "slow", count=1, seconds=0.3)
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(on.client.post("/launch", json=launch_body()))
            await on.until(lambda: slow.hits == 1, "the Job is made")
            made = store.get(JOBS, on.world.namespace, BASE)["metadata"]

        assert answer.result().status_code == 409
        assert labels.ACCEPT in made["annotations"]
        await on.until(lambda: not on.world.objects("Job"), "the new Job is withdrawn")
        assert store.find(SECRETS, on.world.namespace, BASE) is None
        assert on.world.storage.leftovers() == kept
        assert on.told() == told
        assert (await on.show())["state"] == "Succeeded"


async def test_two_people_who_redeliver_at_once_tell_once():
    async with stage("transfer_fails") as on:
        on.world.backend.known = set()
        await on.launch()
        await on.until_finished()
        on.world.backend.known = None
        before = len(on.world.backend.received)

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(on.client.post(f"/jobs/{JOB}/redeliver")) for _ in range(3)]

        assert len(on.world.backend.received) == before + 1
        assert {task.result().status_code for task in asked} <= {200, 503}
        assert on.told() == ["failed"]
        assert (await on.show())["deliveries"][0]["delivery"] == "delivered"
