"""The routes about jobs, as a backend or an operator calls them."""

import asyncio
import base64
import json

import pytest
from api_calls import AS_JSON, problem_of
from patience import stopwatch
from stage import JOB, Stage, launch_body, stage

from pyvatti.sandbox.driver_plans import Plan

BASE = JOB.lower()
OTHER = "INTP00000000514"
QUICK = Plan(transfer_seconds=0.2, start_seconds=0.2, run_seconds=0.2)
REFUSAL = '{"kind": "Status", "code": 422, "reason": "Invalid", "message": "spec.color: unknown"}'
SECRETS = ("sandbox-globus-secret", "sandbox-key-password", "c2FuZGJveDprZXloYW5kbGVy")


async def test_a_launch_is_answered_201_after_the_durable_write_and_before_any_bucket():
    async with stage("slow") as on:
        on.world.storage.faults.add("*", ".*", "status", status=503)

        answer = await on.client.post("/launch", json=launch_body())

        assert (answer.status_code, answer.json()) == (201, {"id": JOB})
        assert on.world.objects("Job") == [BASE]
        assert on.world.objects("Secret") == [BASE]
        assert list(on.world.storage.buckets) == []


async def test_a_launch_must_be_declared_to_be_json():
    async with stage("slow") as on:
        text = json.dumps(launch_body())

        for declared in ({}, {"Content-Type": "text/plain"}):
            other = await on.client.post("/launch", content=text, headers=declared)
            assert problem_of(other, 415)
        assert on.world.objects("Job") == []
        answer = await on.client.post("/launch", content=text, headers=AS_JSON)

        assert answer.status_code == 201


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        pytest.param("status", {"status": 500}, id="500"),
        pytest.param("status", {"status": 403}, id="forbidden"),
        pytest.param("html", {}, id="a gateway's page"),
        pytest.param("reset", {}, id="reset"),
        pytest.param("hang", {}, id="silence"),
    ],
)
async def test_a_launch_that_cannot_be_written_is_answered_503_with_retry_after(kind, more):
    async with stage() as on:
        on.world.kube.faults.add("POST", "/jobs", kind, **more)
        async with stopwatch() as seconds:
            answer = await on.hasty.post("/launch", json=launch_body())
            assert seconds() < 2.5

        problem_of(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
        on.world.kube.faults.clear()
        assert on.world.objects("Job") == []


async def test_a_dry_run_shows_everything_redacted_and_creates_nothing():
    async with stage() as on:
        answer = await on.client.post("/launch?dry_run=true", json=launch_body())

        assert answer.status_code == 200
        shown = answer.json()
        assert shown["id"] == JOB
        assert [(item["kind"], item["metadata"]["name"]) for item in shown["manifests"]] == [
            ("Job", BASE),
            ("Secret", BASE),
            ("Secret", f"{BASE}-transfer"),
        ]
        values = [
            value
            for item in shown["manifests"][1:]
            for key in ("data", "stringData")
            for value in item.get(key, {}).values()
        ]
        assert set(values) == {"(redacted)"}
        hidden = [*SECRETS, on.world.seqera.token, on.world.backend.token]
        hidden += [base64.b64encode(value.encode()).decode() for value in hidden]
        assert [value for value in hidden if value in answer.text] == []
        for kind in ("Job", "Secret", "Pod"):
            assert on.world.objects(kind) == []
        assert list(on.world.storage.buckets) == []
        asked = [item.path for item in on.world.kube.requests if "dryRun=All" in item.path]
        assert len(asked) == 3
        assert all("fieldValidation=Strict" in path for path in asked)
        assert (await on.client.get(f"/jobs/{JOB}")).status_code == 404


async def test_a_dry_run_of_a_live_or_finished_id_is_409():
    async with stage(QUICK, jobs={OTHER.lower(): "slow"}) as on:
        await on.launch(OTHER)
        await on.launch()
        await on.until_finished()

        live = await on.client.post("/launch?dry_run=true", json=launch_body(OTHER))
        finished = await on.client.post("/launch?dry_run=true", json=launch_body())

        assert problem_of(live, 409) == f"Job {OTHER.lower()} exists already"
        assert "finished" in problem_of(finished, 409)


async def test_a_dry_run_tells_the_refusal_of_the_api_server():
    async with stage() as on:
        on.world.kube.faults.add("POST", "/jobs.*dryRun", "status", status=422, body=REFUSAL)

        answer = await on.client.post("/launch?dry_run=true", json=launch_body())

        assert "spec.color: unknown" in problem_of(answer, 503)


async def test_a_dry_run_repeats_nothing_personal_of_the_api_servers_refusal():
    body = launch_body()
    folder = body["globus_details"]["dir_path_on_guest_collection"]
    said = json.dumps(json.loads(REFUSAL) | {"message": f"no {folder} here", "reason": folder})
    async with stage() as on:
        on.world.kube.faults.add("POST", "/jobs.*dryRun", "status", status=422, body=said)

        answer = await on.client.post("/launch?dry_run=true", json=body)

        assert problem_of(answer, 503).endswith("jobs: 422: no (redacted) here")
        assert folder not in answer.text


async def pages(on: Stage, limit: int, **query: str) -> list[list[str]]:
    """Read a list to its end."""
    found, token = [], ""
    while True:
        more = {"continue": token} if token else {}
        answer = await on.client.get("/jobs", params={"limit": limit, **query, **more})
        assert answer.status_code == 200, answer.text
        found.append([job["id"] for job in answer.json()["jobs"]])
        token = answer.json()["continue"]
        if token is None:
            return found


async def test_the_list_holds_live_and_finished_jobs_newest_first():
    async with stage(QUICK, jobs={OTHER.lower(): "slow"}) as on:
        await on.launch()
        await on.until_finished()
        await asyncio.sleep(1)  # creation timestamps are whole seconds
        await on.launch(OTHER)

        listed = (await on.client.get("/jobs")).json()

        assert listed["continue"] is None
        assert [(job["id"], job["live"]) for job in listed["jobs"]] == [
            (OTHER, True),
            (JOB, False),
        ]
        assert listed["jobs"][1]["state"] == "Succeeded"
        shown = await on.show()
        assert listed["jobs"][1]["accepted_at"] == shown["accepted_at"]


async def test_pages_hold_every_job_once_in_the_order_of_the_whole_list():
    ids = [f"INTP{number:011}" for number in range(1, 8)]
    finished = ids[:3]
    lasting = {job_id.lower(): "slow" for job_id in ids[3:]}
    async with stage(QUICK, jobs=lasting, MAX_CONCURRENT_JOBS="20") as on:
        for job_id in ids:
            await on.launch(job_id)
        for job_id in finished:
            await on.until_finished(job_id)

        whole = (await pages(on, 500))[0]
        single, by_three = await pages(on, 1), await pages(on, 3)

        assert sorted(whole) == ids
        assert single == [[job_id] for job_id in whole]
        assert by_three == [whole[:3], whole[3:6], whole[6:]]


async def test_a_page_is_not_disturbed_by_jobs_that_arrive_or_finish_meanwhile():
    ids = [f"INTP{number:011}" for number in range(1, 6)]
    async with stage("slow", MAX_CONCURRENT_JOBS="20") as on:
        for job_id in ids:
            await on.launch(job_id)
        whole = (await pages(on, 500))[0]
        first = (await on.client.get("/jobs?limit=2")).json()
        await asyncio.sleep(1)  # creation timestamps are whole seconds
        await on.launch("INTP00000000099")
        await on.client.delete(f"/jobs/{whole[3]}")
        await on.until_finished(whole[3])

        rest = await on.client.get("/jobs", params={"continue": first["continue"]})

        assert [job["id"] for job in first["jobs"]] == whole[:2]
        assert [job["id"] for job in rest.json()["jobs"]] == whole[2:]


async def test_the_list_is_filtered_by_state():
    plans = {BASE: "transfer_fails", OTHER.lower(): "slow"}
    async with stage(QUICK, jobs=plans) as on:
        for job_id in (JOB, OTHER, "INTP00000000515"):
            await on.launch(job_id)
        await on.until_finished(JOB)
        await on.until_finished("INTP00000000515")
        state = (await on.show(OTHER))["state"]

        assert await pages(on, 1, state="Failed") == [[JOB]]
        assert await pages(on, 9, state="Succeeded") == [["INTP00000000515"]]
        assert await pages(on, 9, state=state) == [[OTHER]]
