"""What every route refuses, how it says so, and what the API shows of itself. One quiet service."""

import json
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import pytest
import pytest_asyncio
from api_calls import AS_JSON, fields_of, problem_of
from stage import JOB, Stage, launch_body, stage

from pyvatti import __version__

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOB_ROUTES = [
    ("GET", f"/jobs/{JOB}"),
    ("DELETE", f"/jobs/{JOB}"),
    ("GET", f"/jobs/{JOB}/log"),
    ("GET", f"/jobs/{JOB}/deletion"),
    ("POST", f"/jobs/{JOB}/redeliver"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module", name="on")
async def quiet() -> AsyncIterator[Stage]:
    """Run one service without jobs for all tests of this file."""
    async with stage() as on:
        yield on


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param(b"", "body.body", id="empty"),
        pytest.param(b"{", "body.body", id="cut"),
        pytest.param(b"\xff\xfe{}", "body.body", id="not UTF-8"),
        pytest.param(b"[]", "body.body", id="a list"),
        pytest.param(b"{}", "body.pipeline_param", id="an empty object"),
        pytest.param(b'{"a": 1, "a": 2}', "body.body", id="a key twice"),
        pytest.param(b"[" * 100_000, "body.body", id="nested 100,000 deep"),
        pytest.param(b'{"a": NaN}', "body.body", id="not a number"),
    ],
)
async def test_a_bad_body_is_answered_422_naming_field_and_rule(on, body: bytes, field: str):
    for query in ("", "?dry_run=true"):
        answer = await on.client.post(f"/launch{query}", content=body, headers=AS_JSON)

        assert field in fields_of(answer)
        assert all(item["msg"] for item in answer.json()["detail"])
    assert on.writes() == []


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/vnd.example.v1+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        ("application/json, text/plain", 415),
        (None, 415),
    ],
)
async def test_a_body_that_is_not_declared_to_be_json_is_415(on, kind: str | None, status: int):
    content = json.dumps(launch_body())

    declared = {} if kind is None else {"Content-Type": kind}
    answer = await on.client.post("/launch?dry_run=true", content=content, headers=declared)

    assert answer.status_code == status
    if status == 415:
        assert problem_of(answer, 415) == "the body must be application/json"


async def test_a_refusal_never_repeats_what_was_sent(on):
    body = launch_body()
    body["globus_details"]["dir_path_on_guest_collection"] = "user@example.org/$(private)"
    body["secret_key_details"]["secret_id"] = "private-key-id"

    answer = await on.client.post("/launch", json=body)

    assert len(problem_of(answer, 422)) == 2
    assert "private" not in answer.text
    assert "example.org" not in answer.text


@pytest.mark.parametrize("value", ["maybe", "2", "%00"])
async def test_a_dry_run_that_is_neither_true_nor_false_starts_nothing(on, value: str):
    answer = await on.client.post(f"/launch?dry_run={value}", json=launch_body())

    assert fields_of(answer) == ["query.dry_run"]
    assert on.world.objects("Job") == []


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("zzz", id="no base64 of ours"),
        pytest.param("\x00\x01", id="control characters"),
        pytest.param("é", id="not ASCII"),
        pytest.param("MjAyNnxJTlRQMXxtb3Jl", id="three parts"),
        pytest.param("eWVzdGVyZGF5fElOVFAx", id="no time"),
        pytest.param("a" * 1000, id="long"),
    ],
)
async def test_a_token_that_is_not_ours_is_422(on, token: str):
    answer = await on.client.get("/jobs", params={"continue": token})

    assert fields_of(answer) == ["query.continue"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        pytest.param("/jobs?limit=0", "query.limit", id="limit 0"),
        pytest.param("/jobs?limit=501", "query.limit", id="limit 501"),
        pytest.param("/jobs?limit=ten", "query.limit", id="limit in words"),
        pytest.param("/jobs?limit=" + "9" * 5000, "query.limit", id="limit of 5,000 digits"),
        pytest.param("/jobs?state=Lost", "query.state", id="a state nobody knows"),
        pytest.param(f"/jobs/{JOB}/log?container=sidecar", "query.container", id="a container"),
        pytest.param("/jobs?State=Succeeded", "query.State", id="a parameter in another case"),
        pytest.param("/jobs?status=Failed&limit=1", "query.status", id="a parameter that is none"),
        pytest.param("/jobs?state=Failed&state=Created", "query.state", id="a parameter twice"),
        pytest.param(f"/jobs/{JOB}?limit=1", "query.limit", id="a parameter of another route"),
        pytest.param(f"/jobs/{JOB}/deletion?x", "query.x", id="a parameter without a value"),
        pytest.param(f"/jobs/{JOB}/log?tail=10", "query.tail", id="a parameter of kubectl"),
        pytest.param(f"/jobs/{JOB}/log?follow=perhaps", "query.follow", id="follow perhaps"),
    ],
)
async def test_a_bad_parameter_is_422(on, path: str, field: str):
    assert fields_of(await on.client.get(path)) == [field]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/launch?dryrun=true"), ("DELETE", f"/jobs/{JOB}?force=true")],
)
async def test_an_unknown_parameter_of_a_call_that_changes_something_is_422(on, method, path):
    answer = await on.client.request(method, path, json=launch_body())

    assert fields_of(answer) == ["query." + path.partition("?")[2].partition("=")[0]]
    assert "is not known" in answer.text
    assert on.writes() == []


@pytest.mark.parametrize("state", ["Succeeded", "succeeded", "SUCCEEDED", "sUCCEEDED"])
async def test_a_state_is_known_in_any_case(on, state: str):
    answer = await on.client.get("/jobs", params={"state": state})

    assert (answer.status_code, answer.json()["jobs"]) == (200, [])


@pytest.mark.parametrize("job_id", ["INTP", "INTP123456789012", "xINTP1", "INTP1%0A", "INTP1%00"])
async def test_what_is_no_id_is_422_before_anybody_is_asked(on, job_id: str):
    asked = len(on.world.kube.requests)

    for method, suffix in (("GET", ""), ("DELETE", ""), ("GET", "/log")):
        answer = await on.client.request(method, f"/jobs/{job_id}{suffix}")
        assert fields_of(answer) == ["path.job_id"]

    assert not any(job_id in item.path for item in list(on.world.kube.requests)[asked:])


@pytest.mark.parametrize(("method", "path"), JOB_ROUTES)
async def test_an_unknown_job_is_404(on, method: str, path: str):
    assert JOB in problem_of(await on.client.request(method, path), 404)


@pytest.mark.parametrize("path", ["/", "/nope", "/jobs/", "/jobs/INTP1/", "/redoc", "/jobs/a/b/c"])
async def test_an_unknown_path_is_404(on, path: str):
    problem_of(await on.client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/launch", "POST"),
        ("OPTIONS", "/launch", "POST"),
        ("POST", "/jobs", "GET, HEAD"),
        ("PUT", f"/jobs/{JOB}", "DELETE, GET, HEAD"),
        ("POST", f"/jobs/{JOB}/log", "GET, HEAD"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("TRACE", "/metrics", "GET, HEAD"),
    ],
)
async def test_another_method_is_405_and_allow_names_all_that_work(on, method, path, allowed):
    answer = await on.client.request(method, path)

    problem_of(answer, 405)
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/jobs", f"/jobs/{JOB}", "/docs"])
async def test_head_answers_as_get_without_the_body(on, path: str):
    got, head = await on.client.get(path), await on.client.head(path)

    assert head.status_code == got.status_code
    assert head.content == b""
    for name in ("content-type", "cache-control"):
        assert head.headers[name] == got.headers[name]


async def test_answers_are_neither_kept_by_caches_nor_guessed_by_browsers(on):
    for path in ("/jobs", "/nope", "/docs"):
        headers = (await on.client.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


async def test_the_version_is_told(on):
    assert (await on.client.get("/version")).json() == {"version": __version__}


class References(HTMLParser):
    """Collects what a page loads or links to, and which anchors it has."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        self.links += [values[key] or "" for key in ("href", "src") if key in values]
        self.anchors.add(values.get("id") or "")


async def test_the_documentation_needs_no_script_and_no_other_host(on):
    answer = await on.client.get("/docs")
    page = References()
    page.feed(answer.text)

    assert answer.status_code == 200
    assert "script" not in page.tags
    assert {link for link in page.links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.anchors
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_the_documentation_shows_every_route_and_a_request_that_is_accepted(on):
    document: dict[str, Any] = (await on.client.get("/openapi.json")).json()
    page = (await on.client.get("/docs")).text
    crooked = await on.client.get("/docs", headers={"Host": "<b>evil</b>"})

    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in page
    assert problem_of(crooked, 400) == "the Host header is not valid"
    schema = document["paths"]["/launch"]["post"]["requestBody"]["content"]["application/json"]
    example = schema["schema"]["examples"][0]
    answer = await on.client.post("/launch?dry_run=true", json=example)
    assert answer.status_code == 200


async def test_every_answer_of_every_route_is_documented_as_a_problem(on):
    document = (await on.client.get("/openapi.json")).json()

    for path, methods in document["paths"].items():
        for operation in methods.values():
            for code, answer in operation["responses"].items():
                if code >= "400":
                    assert list(answer["content"]) == ["application/problem+json"], path
