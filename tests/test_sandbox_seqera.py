"""What a driver and a follower would see of Seqera, asked by plain HTTP."""

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from pyvatti.sandbox.seqera import SeqeraStandIn

PAYLOADS = Path(__file__).parent / "data" / "payloads"
NOW = datetime(2024, 7, 10, 18, tzinfo=UTC)
NAME = "intervene-dev-intp00000000044"
SESSION = "6278c211-1d46-461c-87f6-15ddd32e7139"
TOKEN = "sandbox-seqera-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def world() -> AsyncIterator[SeqeraStandIn]:
    async with SeqeraStandIn(clock=lambda: NOW) as stand_in:
        yield stand_in


@pytest.fixture
async def client(world: SeqeraStandIn) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url, headers=BEARER) as http:
        yield http


async def reserve(client: httpx.AsyncClient, name: str = NAME) -> str:
    body = {"sessionId": SESSION, "runName": name, "projectName": "x", "instant": 1}
    answer = await client.post("/trace/create", json=body)
    assert answer.status_code == 200
    return str(answer.json()["workflowId"])


async def begin(client: httpx.AsyncClient, key: str, name: str = NAME) -> httpx.Response:
    workflow = {
        "id": key,
        "runName": name,
        "sessionId": SESSION,
        "start": "2024-07-10T17:59:00Z",
        "params": {"pgs_id": "PGS000001"},
        "workDir": "gs://work",
        "success": False,
    }
    body = {"workflow": workflow, "processNames": ["A:B"], "towerLaunch": False, "instant": 1}
    return await client.put(f"/trace/{key}/begin", json=body)


async def run(client: httpx.AsyncClient) -> str:
    key = await reserve(client)
    assert (await begin(client, key)).status_code == 200
    return key


async def complete(client: httpx.AsyncClient, key: str, **said: Any) -> httpx.Response:
    body = {"workflow": said, "metrics": [], "progress": {}, "instant": 2}
    return await client.put(f"/trace/{key}/complete", json=body)


async def heartbeat(client: httpx.AsyncClient, key: str) -> httpx.Response:
    return await client.put(f"/trace/{key}/heartbeat", json={"progress": {}, "instant": 2})


async def rows(client: httpx.AsyncClient, **query: str | int) -> list[dict[str, Any]]:
    answer = await client.get("/workflow", params=query)
    assert answer.status_code == 200, answer.text
    return [element["workflow"] for element in answer.json()["workflows"]]


async def names(client: httpx.AsyncClient, search: str) -> set[str]:
    return {row["runName"] for row in await rows(client, search=search)}


# Trace protocol


async def test_run_has_no_row_before_it_begins(world: SeqeraStandIn, client: httpx.AsyncClient):
    key = await reserve(client)

    assert len(key) <= 16
    assert await rows(client) == []
    assert world.status_of(NAME) is None


async def test_run_that_began_is_running(client: httpx.AsyncClient):
    key = await reserve(client)
    answer = await begin(client, key)

    assert answer.json()["status"] == "OK"
    (row,) = await rows(client)
    assert (row["id"], row["runName"], row["status"]) == (key, NAME, "RUNNING")
    assert (row["submit"], row["start"]) == ("2024-07-10T17:59:00Z",) * 2
    assert (row["complete"], row["success"], row["exitStatus"]) == (None, None, None)


async def test_same_session_and_name_may_not_begin_again(client: httpx.AsyncClient):
    await run(client)

    assert (await begin(client, await reserve(client))).status_code == 400
    other = await begin(client, await reserve(client), f"{NAME}-a2")
    assert other.status_code == 200


async def test_success_and_failure_are_told_by_complete(client: httpx.AsyncClient):
    key = await run(client)
    await complete(
        client,
        key,
        success=False,
        exitStatus=14,
        complete="2024-07-10T18:30:00Z",
        duration=5,
        errorMessage="x" * 300,
        errorReport="y" * 1000,
    )

    (row,) = await rows(client)
    assert (row["status"], row["success"], row["exitStatus"]) == ("FAILED", False, 14)
    assert row["complete"] == "2024-07-10T18:30:00Z"
    assert (len(row["errorMessage"]), len(row["errorReport"])) == (255, 1000)

    second = await reserve(client, "other")
    await begin(client, second, "other")
    await complete(client, second, success=True, exitStatus=0)
    assert {row["status"] for row in await rows(client)} == {"FAILED", "SUCCEEDED"}


@pytest.mark.parametrize("call", ["progress", "heartbeat", "complete", "begin"])
async def test_calls_for_an_unknown_run_are_refused(client: httpx.AsyncClient, call: str):
    answer = await client.put(f"/trace/nobody/{call}", json={"workflow": {}})

    assert answer.status_code == 404


async def test_calls_after_the_end_are_refused(client: httpx.AsyncClient):
    key = await run(client)
    await complete(client, key, success=True)

    assert (await heartbeat(client, key)).status_code == 400
    assert (await complete(client, key, success=False)).status_code == 400
    assert [row["status"] for row in await rows(client)] == ["SUCCEEDED"]


async def test_silence_makes_a_run_unknown_and_a_word_brings_it_back(
    world: SeqeraStandIn, client: httpx.AsyncClient
):
    key = await run(client)
    seen = [world.status_of(NAME)]
    for seconds in (190, 1):
        world.advance(seconds)
        seen.append(world.status_of(NAME))
    (silent,) = await rows(client)
    await heartbeat(client, key)
    seen.append(world.status_of(NAME))

    assert seen == ["RUNNING", "RUNNING", "UNKNOWN", "RUNNING"]
    assert (silent["complete"], silent["exitStatus"]) == (None, None)
    assert silent["duration"] is not None


async def test_heartbeats_keep_a_run_running(world: SeqeraStandIn, client: httpx.AsyncClient):
    key = await run(client)
    for call in range(10):
        world.advance(100)
        body = {"progress": {"running": call}, "tasks": [], "instant": 1}
        await client.put(f"/trace/{key}/progress", json=body)

    assert world.status_of(NAME) == "RUNNING"
    answer = await client.get(f"/workflow/{key}/progress")
    assert answer.json()["progress"]["workflowProgress"]["running"] == 9


async def test_day_of_silence_fills_complete(world: SeqeraStandIn, client: httpx.AsyncClient):
    await run(client)
    world.advance(24 * 3600 + 1)

    (row,) = await rows(client)
    assert (row["status"], row["complete"]) == ("UNKNOWN", "2024-07-11T18:00:00Z")
    assert row["exitStatus"] is None


async def test_run_that_fell_silent_can_still_end(world: SeqeraStandIn, client: httpx.AsyncClient):
    key = await run(client)
    world.advance(3600)
    await complete(client, key, success=True, exitStatus=0)

    assert world.status_of(NAME) == "SUCCEEDED"


# Access


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        ("Basic " + base64.b64encode(f"@token:{TOKEN}".encode()).decode(), 200),
        ("Bearer wrong", 401),
        ("Basic " + base64.b64encode(f"user:{TOKEN}".encode()).decode(), 401),
        (TOKEN, 401),
        ("", 401),
    ],
)
async def test_token_opens_as_bearer_and_as_basic(
    world: SeqeraStandIn, authorization: str, status: int
):
    headers = {"Authorization": authorization}
    async with httpx.AsyncClient(base_url=world.url, headers=headers) as client:
        assert (await client.get("/user-info")).status_code == status
        assert (await client.get("/workflow")).status_code == status
        assert (await client.get("/service-info")).status_code == 200


async def test_other_workspace_is_forbidden(world: SeqeraStandIn, client: httpx.AsyncClient):
    world.workspace = 7

    assert (await client.get("/workflow?workspaceId=7")).status_code == 200
    assert (await client.get("/workflow?workspaceId=8")).status_code == 403


async def test_user_and_workspaces_are_shown(world: SeqeraStandIn, client: httpx.AsyncClient):
    world.workspace = 7
    user = (await client.get("/user-info")).json()["user"]
    places = (await client.get(f"/user/{user['id']}/workspaces")).json()["orgsAndWorkspaces"]

    assert [place["workspaceId"] for place in places] == [7]


# List


async def test_rows_are_newest_first_and_paged(world: SeqeraStandIn, client: httpx.AsyncClient):
    for minute in (5, 1, 9, 3):
        world.put_run(f"run-{minute}", submit=NOW.replace(minute=minute))

    assert [row["runName"] for row in await rows(client)] == ["run-9", "run-5", "run-3", "run-1"]
    page = (await client.get("/workflow?max=2&offset=1")).json()
    assert [item["workflow"]["runName"] for item in page["workflows"]] == ["run-5", "run-3"]
    assert (page["hasMore"], page["totalSize"]) == (True, None)


async def test_total_is_told_only_when_asked_for(world: SeqeraStandIn, client: httpx.AsyncClient):
    world.put_run(NAME)

    answer = (await client.get("/workflow?includeTotalSize=true")).json()

    assert (answer["totalSize"], answer["hasMore"]) == (1, False)


async def test_page_has_50_rows_unless_asked_otherwise(
    world: SeqeraStandIn, client: httpx.AsyncClient
):
    for number in range(120):
        world.put_run(f"run-{number}")

    assert len(await rows(client)) == 50
    assert len(await rows(client, max=100)) == 100
    assert len(await rows(client, max=100, offset=100)) == 20


@pytest.mark.parametrize("query", ["max=101", "max=x", "max=-1", "offset=-1", "offset=x"])
async def test_bad_page_is_refused(client: httpx.AsyncClient, query: str):
    answer = await client.get(f"/workflow?{query}")

    assert answer.status_code == 400
    assert "Error ID" in answer.json()["message"]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        (f"runName:{NAME}", {NAME}),
        (f"runName:{NAME[:-1]}", set()),
        (NAME[:-1], {NAME, f"{NAME}0"}),
        ("intervene*044", {NAME, f"{NAME}0"}),
        ("nothing", set()),
        ("status:FAILED", {"old"}),
        ("status:FAILED status:RUNNING", set()),
        ("after:2024-07-09", {NAME, f"{NAME}0"}),
        ("before:2024-07-09", {"old"}),
        (f"after:2024-07-09 {NAME}0", {f"{NAME}0"}),
        ("projectName:gdp-public/pgsc_calc status:RUNNING", {NAME, f"{NAME}0"}),
        ("label:x", set()),
        ("", {NAME, f"{NAME}0", "old"}),
    ],
)
async def test_search_filters(
    world: SeqeraStandIn, client: httpx.AsyncClient, search: str, found: set[str]
):
    world.put_run(NAME)
    world.put_run(f"{NAME}0")
    world.put_run("old", "FAILED", submit=NOW.replace(day=1))

    assert await names(client, search) == found


@pytest.mark.parametrize("status", ["SUBMITTED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED"])
async def test_seeded_row_has_the_fields_of_a_real_one(
    world: SeqeraStandIn, client: httpx.AsyncClient, status: str
):
    payload = orjson.loads((PAYLOADS / f"seqera-list-{status.lower()}.json").read_bytes())
    real = payload["workflows"][0]["workflow"]
    world.put_run(NAME, status, exit_status=real["exitStatus"])

    (row,) = await rows(client)
    assert set(row) == set(real)
    always_null = {key for key, value in real.items() if value is None} & {"id", "params", "start"}
    assert all(row[key] is None for key in always_null)
    assert {key: row[key] for key in ("status", "success", "exitStatus", "runName")} == {
        key: real[key] for key in ("status", "success", "exitStatus", "runName")
    }


async def test_list_hides_what_a_single_run_shows(client: httpx.AsyncClient):
    key = await run(client)

    (row,) = await rows(client)
    single = (await client.get(f"/workflow/{key}")).json()
    assert (row["params"], row["workDir"]) == (None, None)
    assert single["workflow"]["params"] == {"pgs_id": "PGS000001"}
    assert set(single["jobInfo"]) == {"status", "message", "exitCode"}


async def test_unknown_run_is_not_found(client: httpx.AsyncClient):
    assert (await client.get("/workflow/nobody")).status_code == 404


# Cancel, delete, validate


async def test_cancel_needs_force_and_is_final(world: SeqeraStandIn, client: httpx.AsyncClient):
    key = await run(client)

    refused = await client.post(f"/workflow/{key}/cancel", json={})
    taken = await client.post(f"/workflow/{key}/cancel?force=true", json={})
    again = await client.post(f"/workflow/{key}/cancel?force=true", json={})

    assert [answer.status_code for answer in (refused, taken, again)] == [400, 204, 400]
    assert world.status_of(NAME) == "CANCELLED"
    assert (await heartbeat(client, key)).status_code == 400


async def test_active_run_is_deleted_by_force_only(client: httpx.AsyncClient):
    key = await run(client)

    assert (await client.delete(f"/workflow/{key}")).status_code == 400
    assert (await client.delete(f"/workflow/{key}?force=true")).status_code == 204
    assert await rows(client) == []


async def test_validate_knows_taken_pairs(client: httpx.AsyncClient):
    await run(client)
    query = f"/workflow/validate?sessionId={SESSION}&runName="

    assert (await client.get(f"{query}{NAME}")).status_code == 409
    assert (await client.get(f"{query}other")).status_code == 204
    assert (await client.get("/workflow/validate")).status_code == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"runName":"x"}', b"\xff"])
async def test_bad_trace_body_is_refused(client: httpx.AsyncClient, body: bytes):
    assert (await client.post("/trace/create", content=body)).status_code == 400


async def test_requests_are_logged_with_faults_as_they_went_out(
    world: SeqeraStandIn, client: httpx.AsyncClient
):
    world.faults.add("GET", "^/workflow", "status", count=1, status=502)
    world.faults.add("GET", "^/user-info", "reset", count=1)
    await client.get("/workflow?max=1")
    with pytest.raises(httpx.HTTPError):
        await client.get("/user-info")
    await client.get("/workflow")

    logged = [(item.method, item.path, item.status) for item in world.requests]
    assert logged == [
        ("GET", "/workflow?max=1", 502),
        ("GET", "/user-info", 0),
        ("GET", "/workflow", 200),
    ]
    assert world.requests[0].user_agent.startswith("python-httpx")
