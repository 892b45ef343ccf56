import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from neighbour_settings import QUICK, TOWER_TOKEN, settings_for

from pyvatti.errors import Denied, PyvattiError, Unavailable
from pyvatti.models import Run, RunStatus
from pyvatti.rest import Timeouts, retry_after
from pyvatti.sandbox.seqera import SeqeraStandIn
from pyvatti.seqera import Seqera

PAYLOADS = Path(__file__).parent / "data" / "payloads"
NAME = "intervene-dev-intp00000000044"
NOW = datetime(2024, 7, 10, 18, tzinfo=UTC)
LAUNCH = datetime(2024, 7, 10, 15, 30, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return LAUNCH + timedelta(minutes=minutes)


@pytest.fixture
async def world():
    async with SeqeraStandIn(token=TOWER_TOKEN, workspace=7, clock=lambda: NOW) as stand_in:
        yield stand_in


@pytest.fixture
async def door(world: SeqeraStandIn):
    async with door_to(world) as seqera:
        yield seqera


@asynccontextmanager
async def door_to(world: SeqeraStandIn, fault: str = "") -> AsyncIterator[Seqera]:
    """Give a door; only a silent neighbour is not waited for as long as in operation."""
    timeouts = QUICK if fault in ("hang", "slow") else Timeouts()
    seqera = Seqera(settings_for(tower_api_url=world.url), timeouts=timeouts, clock=lambda: NOW)
    yield seqera
    await seqera.close()


def answering(body: Any, status: Any = 200, **headers: Any):
    """Give a door whose neighbour gives one answer to everything."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def answer(_request: httpx.Request):
        return httpx.Response(status, content=content, headers=headers)

    return Seqera(settings_for(), transport=httpx.MockTransport(answer), clock=lambda: NOW)


def lists(world: SeqeraStandIn) -> int:
    return sum(item.path.startswith("/workflow?") for item in world.requests)


# Rows


@pytest.mark.parametrize(
    ("payload", "status", "exit_status"),
    [
        ("submitted", RunStatus.SUBMITTED, None),
        ("running", RunStatus.RUNNING, None),
        ("succeeded", RunStatus.SUCCEEDED, 0),
        ("failed", RunStatus.FAILED, 12),
        ("cancelled", RunStatus.CANCELLED, None),
        ("unknown", RunStatus.UNKNOWN, None),
        ("contradictory", RunStatus.SUCCEEDED, 12),
        ("two-rows-one-name", RunStatus.SUCCEEDED, 0),
    ],
)
async def test_real_answer_is_read(payload: str, status: Any, exit_status: int | None):
    body = (PAYLOADS / f"seqera-list-{payload}.json").read_bytes()

    found = await answering(body).runs({NAME: LAUNCH})

    run = found[NAME]
    assert (run.status, run.exit_status, run.workflow_id) == (status, exit_status, None)
    assert run.submitted_at == datetime(2024, 7, 10, 15, 34, 44, tzinfo=UTC)
    assert run.seen_at == NOW


async def test_real_empty_answer_is_a_definite_absence():
    body = (PAYLOADS / "seqera-list-empty.json").read_bytes()

    assert await answering(body).runs({NAME: LAUNCH}) == {}


async def test_pass_for_no_names_asks_nothing(world: SeqeraStandIn, door: Seqera):
    assert await door.runs({}) == {}
    assert lists(world) == 0


async def test_all_that_matters_of_a_row_arrives(world: SeqeraStandIn, door: Seqera):
    world.put_run(
        NAME,
        "FAILED",
        submit=at(1),
        id="4Xk2",
        exit_status=15,
        error_message="cut",
        error_report="line 1\nline 2",
    )

    found = await door.runs({NAME: LAUNCH})

    assert found == {
        NAME: Run(
            name=NAME,
            status=RunStatus.FAILED,
            submitted_at=at(1),
            seen_at=NOW,
            workflow_id="4Xk2",
            exit_status=15,
            error_message="cut",
            error_report="line 1\nline 2",
            raw_status="FAILED",
        )
    }


async def test_fault_18_submitted_row_without_start_is_read(world: SeqeraStandIn, door: Seqera):
    world.put_run(NAME, "SUBMITTED", submit=at(1), nulls=["start"])

    assert (await door.runs({NAME: LAUNCH}))[NAME].status is RunStatus.SUBMITTED


@pytest.mark.parametrize("status", ["PAUSED", "running", "", 7, ["x"], None])
async def test_fault_21_new_status_is_tolerated_and_logged_once(
    world: SeqeraStandIn, door: Seqera, status: Any
):
    world.put_run(NAME, status, submit=at(1))

    with structlog.testing.capture_logs() as logs:
        first = await door.runs({NAME: LAUNCH})
        await door.runs({NAME: LAUNCH})

    assert first[NAME].status is RunStatus.OTHER
    assert first[NAME].raw_status == ("" if status is None else str(status))
    assert [line["event"] for line in logs] == ["seqera status not known"]


@pytest.mark.parametrize(
    "row",
    [
        {"runName": NAME, "status": "RUNNING", "submit": "2024-07-10T15:31:00Z"},
        {"runName": NAME, "status": "RUNNING", "submit": None, "start": "2024-07-10T15:31:00Z"},
        {"runName": NAME, "status": "RUNNING", "dateCreated": "2024-07-10T15:31:00.5Z"},
        {"runName": NAME, "status": "RUNNING", "submit": "2024-07-10T16:31:00+01:00"},
        {"runName": NAME, "status": "RUNNING", "submit": "2024-07-10T15:31:00"},
        {
            "runName": NAME,
            "status": "RUNNING",
            "submit": "2024-07-10T15:31:00.123456789Z",
            "exitStatus": "12",
            "errorReport": {"new": "shape"},
            "errorMessage": 5,
            "id": 9,
            "unheardOf": [],
        },
    ],
)
async def test_fault_21_missing_null_and_strange_fields_are_tolerated(row: dict[str, Any]):
    run = (await answering({"workflows": [{"workflow": row}]}).runs({NAME: LAUNCH}))[NAME]

    assert run.status is RunStatus.RUNNING
    assert run.submitted_at.replace(second=0, microsecond=0) == at(1)
    assert (run.exit_status, run.error_report, run.workflow_id) == (None, "", None)


async def test_bad_rows_are_skipped_and_logged_once_each(world: SeqeraStandIn, door: Seqera):
    undated = {"workflow": {"runName": NAME, "status": "SUCCEEDED"}}
    world.strange = [None, "row", 3, [], {}, {"workflow": None}, {"workflow": []}, undated]
    world.put_run(NAME, "RUNNING", submit=at(1))

    with structlog.testing.capture_logs() as logs:
        found = await door.runs({NAME: LAUNCH})
        await door.runs({NAME: LAUNCH})

    assert found[NAME].status is RunStatus.RUNNING
    assert [line["what"] for line in logs] == [
        "row without a run name",
        f"run {NAME} without a time",
    ]


async def test_lone_surrogate_in_one_report_spoils_neither_page_nor_text():
    rows = [
        {"workflow": {"runName": "x", "submit": "2024-07-10T15:31:00Z", "errorReport": "\ud83d"}},
        {"workflow": {"runName": NAME, "submit": "2024-07-10T15:31:00Z", "status": "FAILED"}},
    ]
    found = await answering({"workflows": rows}).runs({NAME: LAUNCH, "x": LAUNCH})

    assert found[NAME].status is RunStatus.FAILED
    assert found["x"].error_report.encode() == b"?"


async def test_long_report_keeps_both_ends(world: SeqeraStandIn, door: Seqera):
    world.put_run(NAME, "FAILED", submit=at(1), error_report="first" + "x" * 10**6 + "last")

    report = (await door.runs({NAME: LAUNCH}))[NAME].error_report

    assert report.startswith("first")
    assert report.endswith("last")
    assert len(report) < 20_000


# Names and times


async def test_fault_23_row_whose_name_begins_with_ours_is_ignored(
    world: SeqeraStandIn, door: Seqera
):
    world.put_run(f"{NAME}0", "FAILED", submit=at(2))
    world.put_run(f"{NAME}-a2", "FAILED", submit=at(2))
    world.put_run(NAME.upper(), "FAILED", submit=at(2))

    assert await door.runs({NAME: LAUNCH}) == {}


@pytest.mark.parametrize("order", ["newest", "oldest", "random"])
async def test_fault_22_newest_submit_of_one_name_wins(
    world: SeqeraStandIn, door: Seqera, order: Any
):
    world.order = order
    world.put_run(NAME, "FAILED", submit=at(1))
    world.put_run(NAME, "SUCCEEDED", submit=at(30))
    world.put_run(NAME, "CANCELLED", submit=at(2))

    assert (await door.runs({NAME: LAUNCH}))[NAME].status is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("minutes", "counts"),
    [(-6, False), (-60 * 24, False), (-4, True), (0, True), (5, True)],
)
async def test_fault_22_only_rows_since_our_launch_count(
    world: SeqeraStandIn, door: Seqera, *, minutes: float, counts: bool
):
    world.put_run(NAME, "SUCCEEDED", submit=at(minutes))

    assert (NAME in await door.runs({NAME: LAUNCH})) is counts


async def test_run_that_begins_during_the_pass_does_not_make_it_longer(
    world: SeqeraStandIn, door: Seqera
):
    for number in range(100):
        world.put_run(f"run-{number}", submit=at(120 - number))
    for number in range(1000):
        world.put_run(f"old-{number}", submit=at(-3000 - number))

    async def begin() -> None:
        while not lists(world):
            await asyncio.sleep(0)
        for number in range(5):
            world.put_run(f"new-{number}", submit=at(121 + number))

    async with asyncio.TaskGroup() as group:
        group.create_task(begin())
        found = await door.runs({f"run-{number}": LAUNCH for number in range(100)})

    assert len(found) == 100
    assert lists(world) == 3


async def test_each_name_has_its_own_launch(world: SeqeraStandIn, door: Seqera):
    world.put_run("early", "RUNNING", submit=at(1))
    world.put_run("late", "FAILED", submit=at(1))

    assert set(await door.runs({"early": LAUNCH, "late": at(60)})) == {"early"}


# Paging


async def test_fault_25_a_hundred_jobs_cost_three_calls(world: SeqeraStandIn, door: Seqera):
    names = {f"run-{number}": LAUNCH for number in range(100)}
    for number, name in enumerate(names):
        world.put_run(name, submit=at(number))

    assert set(await door.runs(names)) == set(names)
    assert lists(world) == 3


async def test_fault_25_a_thousand_jobs_cost_at_most_25_calls_below_20_a_second(
    world: SeqeraStandIn,
):
    door = Seqera(settings_for(tower_api_url=world.url))
    names = {f"run-{number}": LAUNCH for number in range(1000)}
    for number in range(3000):
        world.put_run(f"run-{number}", submit=at(60 - number / 20))

    assert set(await door.runs(names)) == set(names)
    await door.close()
    times = [item.time for item in world.requests]
    assert len(times) <= 25
    assert all(later - earlier > 1.0 for earlier, later in zip(times, times[19:], strict=False))


async def test_pass_ends_where_rows_are_older_than_every_launch(world: SeqeraStandIn, door: Seqera):
    for number in range(1000):
        world.put_run(f"old-{number}", submit=at(-60 - number))
    world.put_run("here", submit=at(1))

    assert set(await door.runs({"here": LAUNCH, "not there": LAUNCH})) == {"here"}
    assert lists(world) == 1


@pytest.mark.parametrize("order", ["oldest", "random"])
@pytest.mark.parametrize("spacing", [1 / 60, 3], ids=["a second apart", "3 minutes apart"])
async def test_row_is_found_whatever_the_order(
    world: SeqeraStandIn, door: Seqera, order: Any, spacing: float
):
    world.order = order
    for number in range(150):
        world.put_run(f"old-{number}", submit=at(-60 - number * spacing))
    world.put_run(NAME, "FAILED", submit=at(1))

    assert NAME in await door.runs({NAME: LAUNCH})


async def test_newer_row_of_a_found_name_is_not_missed_in_a_disordered_list(
    world: SeqeraStandIn, door: Seqera
):
    world.order = "oldest"
    world.put_run(NAME, "FAILED", submit=at(1))
    for number in range(120):
        world.put_run(f"other-{number}", submit=at(2 + number))
    world.put_run(NAME, "SUCCEEDED", submit=at(200))

    assert (await door.runs({NAME: LAUNCH}))[NAME].status is RunStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("size", "tells_more"),
    [
        (1, True),
        (7, True),
        (49, True),
        (50, True),
        (60, True),
        (100, True),
        (50, False),
        (60, False),
    ],
)
async def test_short_and_long_pages_lose_no_row(
    world: SeqeraStandIn, door: Seqera, *, size: int, tells_more: bool
):
    count = 8 if size == 1 else 120
    for number in range(count):
        world.put_run(f"run-{number}", submit=at(number))
    world.page_size, world.tells_more = size, tells_more
    names = {f"run-{number}": LAUNCH for number in range(count)}

    assert set(await door.runs(names)) == set(names)


@pytest.mark.parametrize("count", [49, 50, 51, 98, 100])
async def test_end_of_the_list_is_found_without_totals(
    world: SeqeraStandIn, door: Seqera, count: int
):
    world.tells_more = False
    for number in range(count):
        world.put_run(f"run-{number}", submit=at(number))

    assert len(await door.runs({f"run-{number}": LAUNCH for number in range(count + 1)})) == count


async def test_row_that_vanishes_between_two_pages_hides_no_other_one(
    world: SeqeraStandIn, door: Seqera
):
    keys = [world.put_run(f"run-{number}", submit=at(-number / 60)) for number in range(60)]

    async def vanish() -> None:
        while not lists(world):
            await asyncio.sleep(0)
        world.runs.delete(keys[3], force=True)

    async with asyncio.TaskGroup() as group:
        group.create_task(vanish())
        found = await door.runs({f"run-{number}": LAUNCH for number in range(60)})

    assert set(found) >= {f"run-{number}" for number in range(60)} - {"run-3"}


async def test_server_that_ignores_the_offset_does_not_hold_us():
    calls = []
    rows = [
        {"workflow": {"runName": f"run-{number}", "submit": "2024-07-10T15:31:00Z"}}
        for number in range(60)
    ]

    async def answer(request: httpx.Request):
        calls.append(request)
        return httpx.Response(200, json={"workflows": rows})

    door = Seqera(settings_for(), transport=httpx.MockTransport(answer))

    assert set(await door.runs({"run-59": LAUNCH, "missing": LAUNCH})) == {"run-59"}
    assert len(calls) == 2


async def test_list_that_never_ends_is_an_error_and_not_absence():
    calls = 0

    async def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        stamp = (LAUNCH + timedelta(minutes=calls)).isoformat()
        row = {"workflow": {"runName": "another", "submit": stamp}}
        return httpx.Response(200, json={"workflows": [row], "hasMore": True})

    door = Seqera(settings_for(), transport=httpx.MockTransport(answer), interval=0.0)

    with pytest.raises(Unavailable, match="200 pages"):
        await door.runs({NAME: LAUNCH})
    assert calls == 200
    assert set(await door.runs({"another": LAUNCH})) == {"another"}


async def test_page_that_fails_makes_the_whole_pass_fail(world: SeqeraStandIn, door: Seqera):
    for number in range(120):
        world.put_run(f"run-{number}", submit=at(number))
    world.faults.add("GET", r"offset=96", "status", status=502)

    with pytest.raises(Unavailable):
        await door.runs({f"run-{number}": LAUNCH for number in range(120)})


async def test_request_is_as_documented(world: SeqeraStandIn, door: Seqera):
    seen = []

    async def answer(request: httpx.Request):
        seen.append(request)
        return httpx.Response(200, json={"workflows": [], "totalSize": None})

    settings = settings_for(tower_api_url="https://seqera.example.org/api/")
    await Seqera(settings, transport=httpx.MockTransport(answer)).runs({NAME: LAUNCH})

    assert str(seen[0].url) == (
        "https://seqera.example.org/api/workflow?workspaceId=7&max=50&offset=0"
    )
    assert seen[0].headers["Authorization"] == f"Bearer {TOWER_TOKEN}"


async def test_workspace_0_is_the_personal_one():
    seen = []

    async def answer(request: httpx.Request):
        seen.append(request)
        return httpx.Response(200, json={"workflows": []})

    settings = settings_for(tower_workspace=0)
    await Seqera(settings, transport=httpx.MockTransport(answer)).runs({NAME: LAUNCH})

    assert "workspaceId" not in seen[0].url.params


# Faults

FAULTS = [
    pytest.param(("status", {"status": 400}), Unavailable, None, id="400"),
    pytest.param(("status", {"status": 401}), Denied, None, id="401"),
    pytest.param(("status", {"status": 403}), Denied, None, id="403"),
    pytest.param(("status", {"status": 404}), Unavailable, None, id="404"),
    pytest.param(("status", {"status": 429}), Unavailable, None, id="429"),
    pytest.param(
        ("status", {"status": 429, "headers": {"Retry-After": "17"}}),
        Unavailable,
        17.0,
        id="429 with Retry-After",
    ),
    pytest.param(
        (
            "status",
            {
                "status": 503,
                "headers": {
                    "Retry-After": "Wed, 10 Jul 2024 18:01:00 GMT",
                    "Date": "Wed, 10 Jul 2024 18:00:00 GMT",
                },
            },
        ),
        Unavailable,
        60.0,
        id="503 with a date",
    ),
    pytest.param(("status", {"status": 500}), Unavailable, None, id="500"),
    pytest.param(("status", {"status": 504}), Unavailable, None, id="504"),
    pytest.param(
        ("status", {"status": 302, "headers": {"Location": "/login"}}),
        Unavailable,
        None,
        id="redirect",
    ),
    pytest.param(("html", {}), Unavailable, None, id="HTML 502"),
    pytest.param(("html", {"status": 200}), Unavailable, None, id="HTML 200"),
    pytest.param(("html", {"status": 405}), Unavailable, None, id="HTML 405 of the UI host"),
    pytest.param(("status", {"status": 200, "body": b"[]"}), Unavailable, None, id="list"),
    pytest.param(("status", {"status": 200, "body": b"{}"}), Unavailable, None, id="no workflows"),
    pytest.param(
        ("status", {"status": 200, "body": b'{"workflows":null}'}), Unavailable, None, id="null"
    ),
    pytest.param(("status", {"status": 200, "body": b""}), Unavailable, None, id="empty"),
    pytest.param(
        ("status", {"status": 200, "body": b"[" * 100000}), Unavailable, None, id="deep nesting"
    ),
    pytest.param(("truncate", {}), Unavailable, None, id="truncated JSON"),
    pytest.param(("reset", {}), Unavailable, None, id="reset"),
    pytest.param(("reset_body", {}), Unavailable, None, id="reset in mid-body"),
    pytest.param(("after", {}), Unavailable, None, id="answer lost"),
    pytest.param(("hang", {}), Unavailable, None, id="hang"),
    pytest.param(("slow", {"seconds": 5}), Unavailable, None, id="too slow"),
]


@pytest.mark.parametrize(("fault", "error", "pause"), FAULTS)
async def test_fault_24_failed_look_up_is_an_error_and_never_absence(
    world: SeqeraStandIn,
    fault: tuple[Any, dict[str, Any]],
    error: Any,
    pause: float | None,
):
    world.put_run(NAME, submit=at(1))
    kind, how = fault
    world.faults.add("*", ".", kind, **how)

    async with door_to(world, kind) as door:
        with pytest.raises(Unavailable) as caught:
            await door.runs({NAME: LAUNCH})

    assert type(caught.value) is error
    assert caught.value.retry_after == pause
    assert TOWER_TOKEN not in str(caught.value)


@pytest.mark.parametrize(("fault", "error", "pause"), FAULTS)
async def test_check_at_start_up_tells_the_same_errors(
    world: SeqeraStandIn,
    fault: tuple[Any, dict[str, Any]],
    error: Any,
    pause: float | None,
):
    kind, how = fault
    world.faults.add("*", ".", kind, **how)

    async with door_to(world, kind) as door:
        with pytest.raises(Unavailable) as caught:
            await door.check()

    assert type(caught.value) is error
    assert caught.value.retry_after == pause


async def test_pass_works_again_once_the_fault_is_over(world: SeqeraStandIn, door: Seqera):
    world.put_run(NAME, submit=at(1))
    world.faults.add("GET", ".", "reset", count=1)

    with pytest.raises(Unavailable):
        await door.runs({NAME: LAUNCH})
    assert NAME in await door.runs({NAME: LAUNCH})


async def test_refused_connection_is_unavailable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    door = Seqera(settings_for(tower_api_url=url), timeouts=QUICK)

    with pytest.raises(Unavailable):
        await door.runs({NAME: LAUNCH})
    await door.close()


async def test_unknown_host_is_unavailable():
    door = Seqera(settings_for(tower_api_url="https://seqera.invalid"), timeouts=QUICK)

    with pytest.raises(Unavailable):
        await door.check()
    await door.close()


async def test_answer_that_trickles_in_is_cut_by_the_total_limit():
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            for _ in range(200):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    door = Seqera(settings_for(tower_api_url=url), timeouts=QUICK)
    began = asyncio.get_running_loop().time()

    with pytest.raises(Unavailable):
        await door.runs({NAME: LAUNCH})

    assert asyncio.get_running_loop().time() - began < 9  # it would trickle for 10 s
    await door.close()
    server.close()
    await server.wait_closed()


async def test_answer_without_end_is_cut_by_its_size():
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 2**20

    async def answer(_request: httpx.Request):
        return httpx.Response(200, content=endless())

    door = Seqera(settings_for(), transport=httpx.MockTransport(answer))

    with pytest.raises(Unavailable, match="larger"):
        await door.runs({NAME: LAUNCH})


async def test_token_echoed_by_the_server_is_in_no_error():
    body = {"message": f"bad token {TOWER_TOKEN}, Bearer {TOWER_TOKEN}"}

    with pytest.raises(Denied) as caught:
        await answering(body, 401).runs({NAME: LAUNCH})

    assert TOWER_TOKEN not in str(caught.value)
    assert "(redacted)" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("x"),
        httpx.ReadTimeout("x"),
        httpx.PoolTimeout("x"),
        httpx.LocalProtocolError("x"),
        httpx.RemoteProtocolError("x"),
        httpx.DecodingError("x"),
        httpx.ProxyError("x"),
        httpx.UnsupportedProtocol("x"),
        httpx.InvalidURL("x"),
        httpx.StreamClosed(),
        TimeoutError(),
        ConnectionResetError(),
        OSError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_foreign_error_leaves_the_door(error: Any):
    async def fail(_request: httpx.Request):
        raise error

    door = Seqera(settings_for(), transport=httpx.MockTransport(fail))

    for call in (door.runs({NAME: LAUNCH}), door.check()):
        with pytest.raises(PyvattiError):
            await call


async def test_cancellation_passes_through(world: SeqeraStandIn):
    world.faults.add("GET", ".", "hang")
    patient = Seqera(settings_for(tower_api_url=world.url), timeouts=Timeouts())

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await patient.runs({NAME: LAUNCH})
    await patient.close()


# Check


async def test_check_is_content_with_a_good_token(world: SeqeraStandIn, door: Seqera):
    await door.check()

    assert [item.path for item in world.requests] == ["/workflow?workspaceId=7&max=1&offset=0"]


async def test_wrong_token_is_denied(world: SeqeraStandIn):
    settings = settings_for(tower_api_url=world.url, tower_token="another")
    door = Seqera(settings)

    with pytest.raises(Denied):
        await door.check()
    with pytest.raises(Denied):
        await door.runs({NAME: LAUNCH})
    await door.close()


async def test_wrong_workspace_is_denied(world: SeqeraStandIn):
    door = Seqera(settings_for(tower_api_url=world.url, tower_workspace=8))

    with pytest.raises(Denied):
        await door.runs({NAME: LAUNCH})
    await door.close()


async def test_line_break_after_the_token_does_no_harm(world: SeqeraStandIn):
    door = Seqera(settings_for(tower_api_url=world.url, tower_token=f"{TOWER_TOKEN}\n"))

    await door.check()
    await door.close()


# Retry-After


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "99999999999"}, 3600.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "Wed, 10 Jul 2024 18:01:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 10 Jul 9999 18:01:00 GMT"}, 3600.0),
        (
            {
                "retry-after": "Wed, 10 Jul 2024 18:01:30 -0000",
                "date": "Wed, 10 Jul 2024 18:01:00 GMT",
            },
            30.0,
        ),
    ],
)
def test_retry_after_is_read_as_seconds(headers: Any, seconds: float | None):
    assert retry_after(headers) == seconds
