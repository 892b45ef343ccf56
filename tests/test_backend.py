import asyncio
import base64
import hmac
import json
import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from neighbour_settings import NOTIFY_TOKEN, QUICK, SIGNING_SECRET, settings_for
from standardwebhooks import Webhook, WebhookVerificationError

from pyvatti.backend import Answer, Backend
from pyvatti.lifecycle.clock import utc_now
from pyvatti.models import Event, Notice
from pyvatti.sandbox.backend import BackendStandIn

PAYLOADS = Path(__file__).parent / "data" / "payloads"
ID = "INTP00000000513"
UID = "5a8f1f6e-0000-4000-8000-000000000513"
AT = datetime(2024, 9, 18, 16, 50, 30, tzinfo=UTC)
CLUSTER_PATH = "/pipeline-manager/integration/pipeline/{id}/status"


def notice(event: Event = Event.SUCCEEDED, sequence: int = 2, **changes: Any) -> Notice:
    values = {"sequence": sequence, "event": event, "at": AT}
    if event is Event.FAILED:
        values |= {"trace_name": "A:B (1)", "trace_exit": 15}
    return Notice(**(values | changes))


@pytest.fixture
async def world():
    async with BackendStandIn(token=NOTIFY_TOKEN) as stand_in:
        yield stand_in


@pytest.fixture
async def door(world: BackendStandIn):
    backend = Backend(settings_for(notify_url=world.url), clock=utc_now)
    yield backend
    await backend.close()


@pytest.fixture
async def hasty(world: BackendStandIn):
    backend = Backend(settings_for(notify_url=world.url), timeouts=QUICK, clock=utc_now)
    yield backend
    await backend.close()


async def sent(told: Notice, job_id: str = ID, **settings: Any) -> httpx.Request:
    """Give the request that tells an event."""
    seen = []

    async def answer(request: httpx.Request):
        seen.append(request)
        return httpx.Response(200)

    door = Backend(settings_for(**settings), clock=utc_now, transport=httpx.MockTransport(answer))
    await door.tell(job_id, UID, told)
    return seen[0]


# The request


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (
            "deployed",
            notice(Event.DEPLOYED, at=datetime(2024, 9, 18, 15, 20, 0, 123456, tzinfo=UTC)),
        ),
        ("succeeded", notice(Event.SUCCEEDED)),
        (
            "failed",
            notice(
                Event.FAILED,
                trace_name="PGSCATALOG_PGSCCALC:PGSCCALC:MATCH:MATCH_COMBINE (1)",
                trace_exit=15,
            ),
        ),
    ],
)
async def test_body_is_the_documented_one(payload: str, told: int):
    expected = json.loads((PAYLOADS / f"status-ok-{payload}.json").read_text())

    body = json.loads((await sent(told)).content)

    assert body == {key: value for key, value in expected.items() if value is not None}


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        pytest.param(
            "https://gate.example.org",
            None,
            f"https://gate.example.org/bff/pipeline-manager/integration/pipeline/{ID}/status",
            id="no path",
        ),
        pytest.param(
            "https://gate.example.org/",
            None,
            f"https://gate.example.org/bff/pipeline-manager/integration/pipeline/{ID}/status",
            id="final slash",
        ),
        pytest.param(
            "https://example.org/gate",
            None,
            f"https://example.org/gate/bff/pipeline-manager/integration/pipeline/{ID}/status",
            id="path",
        ),
        pytest.param(
            "https://example.org/gate/",
            None,
            f"https://example.org/gate/bff/pipeline-manager/integration/pipeline/{ID}/status",
            id="path and final slash",
        ),
        pytest.param(
            "http://pipeline-manager.intervene-dev.svc.cluster.local:8080",
            CLUSTER_PATH,
            "http://pipeline-manager.intervene-dev.svc.cluster.local:8080"
            f"/pipeline-manager/integration/pipeline/{ID}/status",
            id="in cluster",
        ),
    ],
)
async def test_fault_38_url_is_right_for_every_notify_url(
    url: str, path: str | None, expected: str
):
    settings = {"notify_url": url} | ({"notify_status_path": path} if path else {})

    request = await sent(notice(), **settings)

    assert (request.method, str(request.url)) == ("PATCH", expected)


async def test_fault_38_token_is_sent_as_it_is():
    request = await sent(notice())

    assert request.headers["Authorization"] == f"Basic {NOTIFY_TOKEN}"
    assert request.headers["Content-Type"] == "application/json"


async def test_event_has_an_identity_for_receivers_that_deduplicate():
    request = await sent(notice(sequence=3))

    assert request.headers["X-Hattivatti-Event-Id"] == f"{UID}-3"
    assert request.headers["X-Hattivatti-Sequence"] == "3"
    assert not [name for name in request.headers if name.startswith("webhook")]


async def test_signature_is_of_standard_webhooks_over_the_very_bytes_sent():
    key = Webhook(SIGNING_SECRET)
    told = notice(Event.FAILED, trace_name="\ud83d é \U0001f600")

    requests = [await sent(told, notify_signing_secret=SIGNING_SECRET) for _ in range(2)]

    for request in requests:
        assert key.verify(request.content, dict(request.headers))["event"] == "failed"
        with pytest.raises(WebhookVerificationError):
            key.verify(request.content + b" ", dict(request.headers))
        with pytest.raises(WebhookVerificationError):
            Webhook("whsec_" + "B" * 32).verify(request.content, dict(request.headers))
    ids = {request.headers["webhook-id"] for request in requests}
    assert ids == {f"{UID}-2"}
    assert "." not in ids.pop()  # it delimits what is signed


async def test_signature_is_the_one_the_specification_computes():
    at = datetime(2023, 1, 19, 0, 0, 31, 900_000, tzinfo=UTC)
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request):
        seen.append(request)
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    settings = settings_for(notify_signing_secret=SIGNING_SECRET)
    await Backend(settings, clock=lambda: at, transport=transport).tell(ID, UID, notice())

    headers = seen[0].headers
    assert headers["webhook-timestamp"] == "1674086431"
    signed = f"{headers['webhook-id']}.1674086431.".encode() + seen[0].content
    key = base64.b64decode(SIGNING_SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


async def test_id_is_upper_case_on_the_wire():
    request = await sent(notice(), job_id=ID.lower())

    assert f"/{ID}/" in str(request.url)
    assert json.loads(request.content)["run_name"] == ID


@pytest.mark.parametrize("code", [None, 0, -1, 1, 127, 128, 137, 143, 255, 50001])
async def test_fault_33_failed_always_carries_an_integer_a_java_byte_holds(code: int | None):
    request = await sent(notice(Event.FAILED, trace_exit=code, trace_name=None))

    body = json.loads(request.content)
    assert type(body["trace_exit"]) is int
    assert 0 <= body["trace_exit"] <= 127
    assert body["trace_name"]


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (AT, "2024-09-18T16:50:30.000000Z"),
        (AT.replace(microsecond=5), "2024-09-18T16:50:30.000005Z"),
        (
            AT.astimezone(timezone(timedelta(hours=9))),
            "2024-09-18T16:50:30.000000Z",
        ),
        (AT.replace(tzinfo=None), "2024-09-18T16:50:30.000000Z"),
    ],
    ids=["UTC", "microseconds", "another zone", "naive"],
)
async def test_time_is_utc_with_six_digits_and_z(moment: datetime, written: str):
    body = json.loads((await sent(notice(at=moment))).content)

    assert body["utc_time"] == written


PROGRAM = """
import asyncio, sys, time
from datetime import UTC, datetime
from neighbour_settings import settings_for
from pyvatti.backend import Backend
from pyvatti.lifecycle.clock import utc_now
from pyvatti.models import Event, Notice

async def main():
    door = Backend(settings_for(notify_url=sys.argv[1]), clock=utc_now)
    at = datetime.fromtimestamp(1726678230.5, UTC)
    for event in (Event.DEPLOYED, Event.FAILED):
        notice = Notice(sequence=1, event=event, at=at, trace_exit=1)
        reply = await door.tell("INTP513", "uid", notice)
        assert reply.answer.value == "delivered", reply
        at = at.replace(tzinfo=None)
    await door.close()
    assert time.tzname[0] == "JST"

asyncio.run(main())
"""


async def test_fault_34_time_is_utc_in_a_process_that_runs_in_tokyo(world: BackendStandIn):
    tests = Path(__file__).parent
    env = os.environ | {"TZ": "Asia/Tokyo", "PYTHONPATH": str(tests)}

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, world.url, env=env, stderr=subprocess.PIPE
    )
    _, errors = await child.communicate()

    assert child.returncode == 0, errors.decode()
    times = [item.body["utc_time"] for item in world.received]
    assert times == ["2024-09-18T16:50:30.500000Z"] * 2


# Answers


@pytest.mark.parametrize(
    ("status", "content", "answer"),
    [
        (200, b"", Answer.DELIVERED),
        (204, b"", Answer.DELIVERED),
        (200, b" <!doctype html><title>Log in</title>", Answer.RETRY_SLOWLY),
        (301, b"", Answer.RETRY),
        (302, b"<html>", Answer.RETRY),
        (400, (PAYLOADS / "status-answer-400-result-exists.json").read_bytes(), Answer.DELIVERED),
        (400, rb'"{\"errorMessage\": \"Event new is not allowed\"}"', Answer.DEAD),
        (400, b"", Answer.RETRY),
        (400, b"Bad Request", Answer.RETRY),
        (400, b"the route already exists", Answer.RETRY),
        (400, b'{"status":400,"error":"Bad Request","path":"/bff"}', Answer.RETRY),
        (400, b"<html>nginx", Answer.RETRY_SLOWLY),
        (401, b"", Answer.RETRY_SLOWLY),
        (403, b"<html>", Answer.RETRY_SLOWLY),
        (404, (PAYLOADS / "status-answer-404.json").read_bytes(), Answer.DEAD),
        (404, b"", Answer.RETRY),
        (404, b"default backend - 404", Answer.RETRY),
        (404, b'{"status":404,"error":"Not Found","path":"/bff"}', Answer.RETRY),
        (404, b'{"errorMessage": "no route"}', Answer.RETRY),
        (404, b'"no healthy upstream"', Answer.RETRY),
        (404, rb'"{\"errorMessage\": null}"', Answer.RETRY),
        (404, rb'"{\"errorMessage\": \"Pipeline Id"', Answer.RETRY),
        (404, b"[" * 100_000, Answer.RETRY),
        (404, b"null", Answer.RETRY),
        (404, b"\xff\xfe", Answer.RETRY),
        (404, b"<html>404 of the gateway", Answer.RETRY_SLOWLY),
        (405, b"", Answer.RETRY_SLOWLY),
        (408, b"", Answer.RETRY),
        (429, b"", Answer.RETRY),
        (429, b"<html>", Answer.RETRY),
        (500, (PAYLOADS / "status-answer-500.json").read_bytes(), Answer.RETRY),
        (502, b"<html>", Answer.RETRY),
        (503, b"", Answer.RETRY),
        (504, b"", Answer.RETRY),
    ],
)
async def test_answer_is_understood(
    world: BackendStandIn, door: Backend, status: int, content: bytes, answer: Answer
):
    world.faults.add("PATCH", ".", "status", status=status, body=content)

    reply = await door.tell(ID, UID, notice())

    assert reply.answer is answer
    assert reply.text.startswith(str(status))
    assert reply.retry_after is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30", 30.0), ("Wed, 01 Jan 2020 00:00:00 GMT", 0.0), ("never", None)],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_handed_on(
    world: BackendStandIn, door: Backend, status: int, value: str, seconds: float | None
):
    world.faults.add("PATCH", ".", "status", status=status, headers={"Retry-After": value})

    reply = await door.tell(ID, UID, notice())

    assert (reply.answer, reply.retry_after) == (Answer.RETRY, seconds)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("hang", {}),
        ("slow", {"seconds": 5}),
        ("reset", {}),
        ("after", {}),
        ("html", {}),
    ],
)
async def test_outage_is_tried_again(
    world: BackendStandIn, hasty: Backend, kind: Any, how: dict[str, Any]
):
    world.faults.add("PATCH", ".", kind, **how)

    reply = await hasty.tell(ID, UID, notice())

    assert reply.answer is Answer.RETRY
    assert reply.text


async def test_error_cut_in_mid_body_is_tried_again(world: BackendStandIn, door: Backend):
    world.known = set()
    world.faults.add("PATCH", ".", "reset_body")

    assert (await door.tell(ID, UID, notice())).answer is Answer.RETRY


async def test_truncated_error_is_not_the_backends_word(world: BackendStandIn, door: Backend):
    world.known = set()
    world.faults.add("PATCH", ".", "truncate")

    reply = await door.tell(ID, UID, notice())

    assert (reply.answer, reply.text[:5]) == (Answer.RETRY, '404 "')


async def test_refused_connection_is_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    door = Backend(settings_for(notify_url=url), timeouts=QUICK, clock=utc_now)

    assert (await door.tell(ID, UID, notice())).answer is Answer.RETRY
    await door.close()


async def test_redirect_is_not_followed(world: BackendStandIn, door: Backend):
    other = f"{world.url}{CLUSTER_PATH.format(id=ID)}"
    world.faults.add("PATCH", "/bff/", "status", status=307, headers={"Location": other})

    reply = await door.tell(ID, UID, notice())

    assert reply.answer is Answer.RETRY
    assert not world.received


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError(f"proxy said {NOTIFY_TOKEN}"),
        httpx.ReadTimeout("x"),
        httpx.DecodingError("x"),
        httpx.InvalidURL("x"),
        TimeoutError(),
        OSError("x"),
        ValueError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_error_leaves_the_door(error: Any):
    async def fail(_request: httpx.Request):
        raise error

    door = Backend(settings_for(), clock=utc_now, transport=httpx.MockTransport(fail))
    reply = await door.tell(ID, UID, notice())

    assert reply.answer is Answer.RETRY
    assert NOTIFY_TOKEN not in reply.text


async def test_cancellation_passes_through(world: BackendStandIn):
    world.faults.add("PATCH", ".", "hang")
    door = Backend(settings_for(notify_url=world.url), clock=utc_now)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await door.tell(ID, UID, notice())
    await door.close()


async def test_reply_is_one_short_line_without_our_token(world: BackendStandIn, door: Backend):
    text = f"line 1\nBasic {NOTIFY_TOKEN}\n" + "x" * 10**5
    world.faults.add("PATCH", ".", "status", status=500, body=text)

    reply = await door.tell(ID, UID, notice())

    assert reply.text.startswith("500 line 1 Basic (redacted) xxx")
    assert len(reply.text) <= 260


async def test_trace_name_with_a_lone_surrogate_is_sent_all_the_same(
    world: BackendStandIn, door: Backend
):
    told = notice(Event.FAILED, trace_name="\ud83d é \U0001f600")

    assert (await door.tell(ID, UID, told)).answer is Answer.DELIVERED


# With the stand-in, whose behaviour is the Java backend's


async def test_events_arrive_in_the_words_of_the_backend(world: BackendStandIn, door: Backend):
    for sequence, event in enumerate((Event.DEPLOYED, Event.FAILED), 1):
        reply = await door.tell(ID, UID, notice(event, sequence))
        assert reply.answer is Answer.DELIVERED

    assert world.delivered(ID) == ["deployed", "failed"]
    assert world.states == {ID: "ERROR"}
    assert world.traces == {ID: ("A:B (1)", 15)}
    assert [mail.subject for mail in world.mails] == [f"Your pipeline {ID} failed"]


async def test_fault_37_second_succeeded_ends_delivery(world: BackendStandIn, door: Backend):
    first = await door.tell(ID, UID, notice())
    second = await door.tell(ID, UID, notice())

    assert (first.answer, second.answer) == (Answer.DELIVERED, Answer.DELIVERED)
    assert "already exists" in second.text
    assert len(world.mails) == 1


async def test_lost_answer_is_told_again_and_then_delivered(world: BackendStandIn, door: Backend):
    world.faults.add("PATCH", ".", "after", count=1)

    answers = [(await door.tell(ID, UID, notice())).answer for _ in range(2)]

    assert answers == [Answer.RETRY, Answer.DELIVERED]
    assert world.states == {ID: "COMPLETED"}


async def test_unknown_pipeline_is_dead(world: BackendStandIn, door: Backend):
    world.known = {"INTP1"}

    assert (await door.tell(ID, UID, notice())).answer is Answer.DEAD


async def test_wrong_token_is_kept_and_tried_slowly(world: BackendStandIn):
    door = Backend(settings_for(notify_url=world.url, notify_token="d3Jvbmc="), clock=utc_now)

    assert (await door.tell(ID, UID, notice())).answer is Answer.RETRY_SLOWLY
    await door.close()


async def test_backend_that_is_down_is_tried_again(world: BackendStandIn, door: Backend):
    world.down = True
    refused = await door.tell(ID, UID, notice())
    world.down = False
    taken = await door.tell(ID, UID, notice())

    assert (refused.answer, taken.answer) == (Answer.RETRY, Answer.DELIVERED)
    assert [item.answer for item in world.received] == [503, 200]


async def patch(
    world: BackendStandIn, body: Any, job_id: str = ID, path: str | None = CLUSTER_PATH
):
    headers = {"Authorization": f"Basic {NOTIFY_TOKEN}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=world.url, headers=headers) as client:
        content = body if isinstance(body, bytes) else json.dumps(body)
        return await client.patch(path.format(id=job_id), content=content)


GOOD = {"run_name": ID, "event": "failed", "utc_time": "2024-09-18T16:50:30.000000Z"}


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"trace_exit": 1}, 200),
        ({"trace_exit": 0, "event": "FAILED"}, 200),
        ({"trace_exit": None}, 500),
        ({}, 500),
        ({"trace_exit": 256}, 500),
        ({"trace_exit": 50001}, 500),
        ({"trace_exit": -129}, 500),
        ({"trace_exit": "x"}, 500),
        ({"trace_exit": True}, 500),
        ({"trace_exit": 1, "utc_time": "2024-09-18T16:50:30+00:00"}, 500),
        ({"trace_exit": 1, "utc_time": "2024-09-18 16:50:30"}, 500),
        ({"trace_exit": 1, "utc_time": "2024-13-18T16:50:30"}, 500),
        ({"trace_exit": 1, "utc_time": None}, 500),
        ({"trace_exit": 1, "utc_time": "1999-12-31T00:00:00"}, 200),
        ({"event": "created"}, 500),
        ({"event": "requested"}, 500),
        ({"event": "cancelled"}, 500),
        ({"event": None}, 500),
        ({"event": "new"}, 400),
        ({"event": "pending"}, 400),
        ({"event": "deployed"}, 200),
        ({"event": "Succeeded", "trace_exit": None}, 200),
    ],
)
async def test_stand_in_answers_as_the_java_backend(
    world: BackendStandIn, change: dict[str, Any], status: int
):
    answer = await patch(world, GOOD | change)

    assert answer.status_code == status
    if status == 200:
        assert answer.content == b""
    else:
        assert "errorMessage" in json.loads(json.loads(answer.text))


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        ("status-ok-deployed", 200),
        ("status-ok-succeeded", 200),
        ("status-ok-failed", 200),
        ("status-old-kafka-deployed", 200),
        ("status-old-kafka-failed", 200),
        ("status-bad-failed-null-trace", 500),
    ],
)
async def test_stand_in_answers_real_payloads(world: BackendStandIn, payload: str, status: int):
    body = (PAYLOADS / f"{payload}.json").read_bytes()

    assert (await patch(world, body)).status_code == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
async def test_stand_in_refuses_what_it_cannot_read(world: BackendStandIn, body: Any):
    assert (await patch(world, body)).status_code == 500


async def test_stand_in_words_its_errors_as_the_backend(world: BackendStandIn):
    await patch(world, GOOD | {"event": "succeeded"})
    again = await patch(world, GOOD | {"event": "succeeded"})
    world.known = set()
    unknown = await patch(world, GOOD | {"trace_exit": 1})
    world.known = None
    broken = await patch(world, GOOD)

    assert again.text == (PAYLOADS / "status-answer-400-result-exists.json").read_text().strip()
    assert unknown.text == (PAYLOADS / "status-answer-404.json").read_text().strip()
    assert broken.text == (PAYLOADS / "status-answer-500.json").read_text().strip()


async def test_stand_in_lets_exit_codes_overflow_as_a_java_byte(world: BackendStandIn):
    for code in (128, 255, 127):
        await patch(world, GOOD | {"trace_exit": code}, job_id=f"INTP{code}")

    assert {key: trace[1] for key, trace in world.traces.items()} == {
        "INTP128": -128,
        "INTP255": -1,
        "INTP127": 127,
    }


async def test_stand_in_has_no_state_machine_and_mails_a_repeated_failure_twice(
    world: BackendStandIn,
):
    await patch(world, GOOD | {"event": "succeeded"})
    await patch(world, GOOD | {"event": "deployed"})
    late = dict(world.states)
    for _ in range(2):
        await patch(world, GOOD | {"trace_exit": 3, "trace_name": "<b>x</b>"})

    assert late == {ID: "STARTED"}
    assert world.states == {ID: "ERROR"}
    assert [re.search("<b>x</b>", mail.text) is not None for mail in world.mails] == [
        False,
        True,
        True,
    ]


async def test_stand_in_may_answer_500_to_a_second_succeeded(world: BackendStandIn):
    world.exists_status = 500

    answers = [(await patch(world, GOOD | {"event": "succeeded"})).status_code for _ in range(2)]

    assert answers == [200, 500]


async def test_stand_in_knows_the_gateway_and_the_cluster_path(world: BackendStandIn):
    gateway = f"/bff{CLUSTER_PATH}"

    assert (await patch(world, GOOD | {"event": "deployed"}, path=gateway)).status_code == 200
    assert [(item.method, item.status) for item in world.requests] == [("PATCH", 200)]
