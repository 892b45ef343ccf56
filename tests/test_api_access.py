"""Who may call and how much they may send, tested as an attacker would."""

import asyncio
import itertools
import time
from statistics import median

import httpx
import pytest
import pytest_asyncio
from api_calls import AS_JSON, BEARER, GATED, TOKENS, problem_of, read_answer, socket_to
from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials
from neighbour_settings import settings_for
from stage import JOB, launch_body, stage

from pyvatti.api.access import FREE_FAILURES, Gate
from pyvatti.api.problems import Unauthorized
from pyvatti.telemetry import metrics

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
FIRST, SECOND = TOKENS.split(",")
ONE_HOST = "GET /healthz HTTP/1.1\r\nHost: x"
AHEAD = "Expect: 100-continue\r\n"
TYPE = "Content-Type: application/json\r\n"
ROUTES = [
    ("POST", "/launch"),
    ("POST", "/launch?dry_run=true"),
    ("GET", "/jobs"),
    ("GET", f"/jobs/{JOB}"),
    ("DELETE", f"/jobs/{JOB}"),
    ("GET", f"/jobs/{JOB}/log"),
    ("GET", f"/jobs/{JOB}/deletion"),
    ("POST", f"/jobs/{JOB}/redeliver"),
    ("HEAD", "/jobs"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module", name="on")
async def gated():
    """Run one service that wants a token."""
    async with stage("slow", **GATED) as on:
        yield on


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_about_jobs_answers_without_a_token(on, method: str, path: str):
    answer = await on.client.request(method, path)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    if method != "HEAD":
        problem_of(answer, 401)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/version", "/docs"])
async def test_probes_metrics_and_documents_need_no_token(on, path: str):
    assert (await on.client.get(path)).status_code == 200


@pytest.mark.parametrize("token", TOKENS.split(","))
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_every_token_is_accepted_whatever_the_case_of_the_scheme(on, scheme, token):
    answer = await on.client.get("/jobs", headers={"Authorization": f"{scheme} {token}"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="an empty header"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Bearer wrong", id="a wrong token"),
        pytest.param(f"Bearer {FIRST[:-1]}", id="all but the last character"),
        pytest.param(f"Bearer {FIRST[:1]}", id="the first character"),
        pytest.param(f"Bearer {FIRST}x", id="one character more"),
        pytest.param(f"Bearer {FIRST.upper()}", id="another case"),
        pytest.param(f"Bearer {FIRST} {FIRST}", id="twice"),
        pytest.param(f"Bearer {TOKENS}", id="both tokens as configured"),
        pytest.param(f"Basic {FIRST}", id="the scheme Basic"),
        pytest.param(f"Token {FIRST}", id="the scheme Token"),
        pytest.param(FIRST, id="no scheme"),
        pytest.param("Bearer **********", id="a secret as it is logged"),
        pytest.param("Bearer None", id="None"),
        pytest.param("Bearer \xff\xfe", id="not ASCII"),
        pytest.param("Bearer " + "a" * 30_000, id="30,000 characters"),
    ],
)
async def test_what_is_not_quite_a_token_is_401_and_not_repeated(on, value: str):
    answer = await on.client.get("/jobs", headers={"Authorization": value.encode("latin-1")})

    problem_of(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "right-token" not in answer.text
    assert "aaaa" not in answer.text


async def test_a_token_elsewhere_than_in_its_header_is_not_looked_at(on):
    for answer in (
        await on.client.get("/jobs", params={"access_token": FIRST, "token": FIRST}),
        await on.client.get("/jobs", headers={"X-Api-Key": FIRST, "Cookie": f"token={FIRST}"}),
        await on.client.post("/launch", data={"access_token": FIRST}),
    ):
        problem_of(answer, 401)


async def test_without_a_token_a_body_is_not_even_judged(on):
    for body in (b"{", b"x" * (2 * MIB)):
        problem_of(await on.client.post("/launch", content=body), 401)


async def test_with_a_token_a_launch_is_accepted(on):
    answer = await on.client.post("/launch", json=launch_body(), headers=BEARER)

    assert answer.status_code == 201


async def test_the_documentation_says_which_routes_need_a_token(on):
    paths = (await on.client.get("/openapi.json")).json()["paths"]

    for path, methods in paths.items():
        for operation in methods.values():
            assert ("security" in operation) == path.startswith(("/launch", "/jobs"))
            assert ("401" in operation["responses"]) == ("security" in operation)


async def test_how_long_a_comparison_takes_does_not_tell_where_a_token_is_wrong():
    right = "a" * (4 * MIB)  # so long that an early end would show a thousandfold
    gate = Gate(settings_for(api_auth="token", api_tokens=right))
    wrong = {"at once": "b" + right[1:], "in the end": right[:-1] + "b"}
    seconds: dict[str, list[float]] = {name: [] for name in wrong}
    address = itertools.count()

    for _ in range(15):
        for name, token in wrong.items():
            given = HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)
            request = Request({"type": "http", "client": (f"10.0.0.{next(address)}", 1)})
            began = time.perf_counter()
            with pytest.raises(Unauthorized):
                await gate(request, given)
            seconds[name].append(time.perf_counter() - began)

    assert 0.1 < median(seconds["at once"]) / median(seconds["in the end"]) < 10


async def test_no_header_of_a_caller_gives_it_another_address():
    async with stage("slow", **GATED) as on:
        found = []
        for number in range(FREE_FAILURES + 2):
            claim = {"X-Forwarded-For": f"192.0.2.{number}", "Authorization": "Bearer wrong"}
            found.append((await on.client.get("/jobs", headers=claim)).status_code)

    assert found[-1] == 429


async def test_a_body_of_1_mib_is_read_and_one_byte_more_is_413(on):
    path = "/launch"
    within = await on.client.post(path, content=b" " * MIB, headers=BEARER | AS_JSON)
    beyond = await on.client.post(path, content=b" " * (MIB + 1), headers=BEARER | AS_JSON)

    problem_of(within, 422)
    problem_of(beyond, 413)


async def test_a_body_without_declared_length_is_413_beyond_1_mib(on):
    async def chunks():
        for _ in range(40):
            yield b" " * 65_536

    answer = await on.client.post("/launch", content=chunks(), headers=BEARER | AS_JSON)

    problem_of(answer, 413)


async def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(on):
    async with socket_to(on.url) as (reader, writer):
        head = f"POST /launch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {FIRST}\r\n"
        writer.write(
            f"{head}{TYPE}Expect: 100-continue\r\nContent-Length: {MIB + 1}\r\n\r\n".encode()
        )

        status, headers, problem = await read_answer(reader)

    assert (status, problem["status"]) == (413, 413)
    assert headers["content-type"] == "application/problem+json"


async def test_a_caller_that_goes_away_in_mid_body_is_no_fault_of_ours(on, caplog):
    def answered(status: int) -> float:
        labels = {"method": "POST", "route": "/launch", "status": str(status)}
        name = "pyvatti_request_seconds_count"
        return metrics.registry.get_sample_value(name, labels) or 0.0

    before = answered(408)
    async with socket_to(on.url) as (_, writer):
        head = f"POST /launch HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {FIRST}\r\n"
        writer.write(f"{head}{TYPE}Content-Length: 1000\r\n\r\n{{".encode())
        await writer.drain()

    await on.until(lambda: answered(408) == before + 1, "the request is over")
    assert answered(500) == 0
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["Content-Length: -1"], id="a negative length"),
        pytest.param(["Content-Length: " + "9" * 5000], id="a length of 5,000 digits"),
        pytest.param(["Content-Length: 5", "Content-Length: 6"], id="two lengths"),
        pytest.param(["Content-Length: 5", "Transfer-Encoding: chunked"], id="length and chunks"),
        pytest.param(["Content-Length: \xb2"], id="a superscript"),
        pytest.param(["Transfer-Encoding: chunked, identity"], id="chunked, but not in the end"),
        pytest.param(["X: a\x00b"], id="a null byte"),
        pytest.param(["X : a"], id="a blank before the colon"),
    ],
)
async def test_a_request_that_two_servers_could_read_differently_is_400(on, lines):
    async with socket_to(on.url) as (reader, writer):
        head = ["POST /launch HTTP/1.1", "Host: x", f"Authorization: Bearer {FIRST}", *lines]
        writer.write("\r\n".join([*head, "", "0\r\n\r\n"]).encode("latin-1"))

        status, headers, _ = await read_answer(reader)

    assert status == 400
    assert headers["connection"] == "close"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param("GET /healthz HTTP/1.1", 400, id="no host"),
        pytest.param("GET /healthz HTTP/1.1\r\nHost: x\r\nHost: x", 400, id="two hosts"),
        pytest.param("GET /healthz HTTP/1.0\r\nHost: x\r\nHost: y", 400, id="two other hosts"),
        pytest.param(f"{ONE_HOST}\r\nContent-Length: {'0' * 5000}", 400, id="5,000 zeros"),
        pytest.param(f"{ONE_HOST}\r\nContent-Length: {'0' * 20}", 200, id="20 zeros"),
        pytest.param("GET /healthz HTTP/1.1\r\nHost: ", 400, id="an empty host"),
        pytest.param("GET /healthz HTTP/1.1\r\nHost: a b", 400, id="a host in two words"),
        pytest.param("GET /healthz HTTP/1.1\r\nHost: a@b", 400, id="a user and a host"),
        pytest.param("GET /healthz HTTP/1.0", 200, id="no host in HTTP/1.0"),
        pytest.param("GET /healthz HTTP/1.1\r\nHost: [::1]:80", 200, id="an IPv6 host"),
    ],
)
async def test_a_request_has_exactly_one_host_and_a_sane_length(on, head: str, status: int):
    async with socket_to(on.url) as (reader, writer):
        writer.write(f"{head}\r\n\r\n".encode())

        assert (await read_answer(reader))[0] == status


async def test_an_upgrade_to_a_web_socket_is_ignored(on):
    async with socket_to(on.url) as (reader, writer):
        writer.write(
            b"GET /jobs HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )

        status, _, _ = await read_answer(reader)

    assert status == 401


async def test_requests_in_one_packet_are_answered_in_order(on):
    async with socket_to(on.url) as (reader, writer):
        writer.write(b"".join(b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in PATHS))

        statuses = [(await read_answer(reader))[0] for _ in PATHS]

    assert statuses == [200, 401, 404, 200]


PATHS = (b"healthz", b"jobs", b"nope", b"version")


async def test_an_open_service_asks_nobody_for_a_token():
    async with stage(API_AUTH="none", API_TOKENS=TOKENS) as on:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}):
            assert (await on.client.get("/jobs", headers=headers)).status_code == 200


async def test_many_wrong_tokens_are_braked_and_do_not_keep_a_right_one_out():
    statuses: list[int] = []

    async def attack(client: httpx.AsyncClient) -> None:
        for number in range(30):
            wrong = {"Authorization": f"Bearer {FIRST}{number}"}
            answer = await client.get("/jobs", headers=wrong)
            statuses.append(answer.status_code)
            problem_of(answer, answer.status_code)
            assert ("retry-after" in answer.headers) == (answer.status_code == 429)

    async with stage("slow", **GATED) as on:
        assert (await on.client.get("/jobs", headers=BEARER)).status_code == 200
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(attack(on.client))
        known = await on.client.get("/jobs", headers=BEARER)

    assert known.status_code == 200
    assert set(statuses) == {401, 429}
    assert statuses.count(429) > 30
