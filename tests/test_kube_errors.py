"""What the client makes of refusals and faults of the API server."""

import asyncio
import json
from pathlib import Path

import pytest
from kube_scripted import (
    HTML,
    QUICK,
    Step,
    answer,
    client_for,
    cut,
    failure,
    hang,
    job,
    missing,
    read_watch,
    reset,
    scripted,
    stream,
    text,
)
from structlog.testing import capture_logs

from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    NamespaceTerminating,
    NotFound,
    PolicyDenied,
    PyvattiError,
    QuotaExceeded,
    Rejected,
    Unavailable,
)
from pyvatti.kube import CONFIGMAPS, JOBS, SECRETS, Limits
from pyvatti.kube.answers import error_for

HANG = hang()


async def test_only_the_servers_own_404_means_absence(tmp_path: Path):
    steps = [
        missing(),
        text("404 page not found", 404),
        failure(404, "NotFound", "the server could not find the requested resource"),
    ]
    limits = Limits(attempts=1)
    async with scripted(tmp_path, limits=limits, GET=steps) as (_server, client):
        assert await client.get(JOBS, "x") is None
        for _ in range(2):
            with pytest.raises(Unavailable):
                await client.get(JOBS, "x")


async def test_deleting_what_is_gone_is_done(tmp_path: Path):
    async with scripted(tmp_path, DELETE=[missing()]) as (_server, client):
        assert await client.delete(JOBS, "x") is None


@pytest.mark.parametrize(
    ("step", "error"),
    [
        pytest.param(failure(400, "BadRequest", 'unknown field "spec.x"'), Rejected, id="400"),
        pytest.param(failure(401, "Unauthorized"), Denied, id="401"),
        pytest.param(failure(403, "Forbidden", "cannot create"), Denied, id="403"),
        pytest.param(
            failure(403, "Forbidden", "x is forbidden: exceeded quota: q"),
            QuotaExceeded,
            id="quota",
        ),
        pytest.param(
            failure(403, "Forbidden", causes=[{"reason": "NamespaceTerminating"}]),
            NamespaceTerminating,
            id="403 with cause NamespaceTerminating",
        ),
        pytest.param(
            failure(403, "Forbidden", "in namespace demo because it is being terminated"),
            NamespaceTerminating,
            id="403 that says the namespace is being terminated",
        ),
        pytest.param(
            failure(404, "NotFound", kind="namespaces", name="demo"), NotFound, id="no namespace"
        ),
        pytest.param(failure(409, "AlreadyExists"), AlreadyExists, id="409 name taken"),
        pytest.param(failure(409, "Conflict"), Conflict, id="409 version"),
        pytest.param(failure(413, "RequestEntityTooLarge"), Rejected, id="413"),
        pytest.param(failure(415, "UnsupportedMediaType"), Rejected, id="415"),
        pytest.param(failure(422, "Invalid"), Rejected, id="422"),
        pytest.param(text("nginx says no", 400), Unavailable, id="400 of a proxy"),
        pytest.param(failure(429, "TooManyRequests"), Unavailable, id="429"),
        pytest.param(failure(500, ""), Unavailable, id="500"),
        pytest.param(HTML, Unavailable, id="HTML 502"),
        pytest.param(text("", 503), Unavailable, id="503 without body"),
        pytest.param(failure(504, "Timeout"), Unavailable, id="504"),
        pytest.param(reset(), Unavailable, id="reset"),
        pytest.param(cut(b'{"kind": "Job"'), Unavailable, id="cut body"),
        pytest.param(text("{"), Unavailable, id="truncated JSON"),
        pytest.param(HANG, Unavailable, id="hang"),
    ],
)
async def test_each_refusal_of_a_write_has_its_error_and_is_sent_once(
    tmp_path: Path, step: Step, error: type[PyvattiError]
):
    limits = Limits(total=0.3) if step is HANG else QUICK
    async with scripted(tmp_path, limits=limits, POST=[step], PATCH=[step], PUT=[step]) as (
        server,
        client,
    ):
        writes = [
            client.create(CONFIGMAPS, {}),
            client.merge_patch(CONFIGMAPS, "a", {}),
            client.replace(CONFIGMAPS, "a", {}),
        ]
        for write in writes:
            with pytest.raises(PyvattiError) as caught:
                await write
            assert type(caught.value) is error or issubclass(type(caught.value), error)
            assert caught.value.__class__.__module__.startswith("pyvatti.")

    # The client library itself repeats a PUT whose kept-alive connection was closed on it.
    assert [len(server.seen(method)) for method in ("POST", "PATCH")] == [1, 1]


def test_a_quota_is_no_lasting_refusal_and_a_dying_namespace_is():
    assert issubclass(QuotaExceeded, Unavailable)
    assert not issubclass(NamespaceTerminating, Denied)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(reset(), id="reset"),
        pytest.param(failure(429, "TooManyRequests"), id="429"),
        pytest.param(failure(500, "InternalError"), id="500"),
        pytest.param(HTML, id="HTML 502"),
        pytest.param(text("", 503), id="503"),
        pytest.param(failure(504, "Timeout"), id="504"),
        pytest.param(cut(b'{"kind": "Job"'), id="cut body"),
    ],
)
async def test_reads_and_deletes_are_tried_again(tmp_path: Path, step: Step):
    good = answer(job("a", 1))
    async with scripted(tmp_path, GET=[step, good], DELETE=[step, good]) as (_server, client):
        assert await client.get(JOBS, "a") == job("a", 1)
        assert await client.delete(JOBS, "a") == job("a", 1)


async def test_attempts_are_bounded(tmp_path: Path):
    async with scripted(tmp_path, GET=[HTML]) as (server, client):
        with pytest.raises(Unavailable):
            await client.get(JOBS, "a")

    assert len(server.requests) == QUICK.attempts


async def test_retry_after_is_obeyed_by_reads(tmp_path: Path):
    steps = [failure(429, "TooManyRequests", headers={"Retry-After": "1"}), answer(job("a", 1))]
    async with scripted(tmp_path, GET=steps) as (server, client):
        await client.get(JOBS, "a")

    first, second = server.requests
    assert second.at - first.at >= 1


async def test_retry_after_beyond_the_deadline_is_handed_to_the_caller(tmp_path: Path):
    steps = [failure(429, "TooManyRequests", headers={"Retry-After": "30"})]
    async with scripted(tmp_path, limits=Limits(total=20), GET=steps) as (server, client):
        with pytest.raises(Unavailable) as caught:
            await client.get(JOBS, "a")

    assert caught.value.retry_after == 30
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("step", "seconds"),
    [
        pytest.param(failure(429, "X", headers={"Retry-After": "7"}), 7, id="header"),
        pytest.param(failure(429, "X", retryAfterSeconds=3), 3, id="details of the Status"),
        pytest.param(
            failure(503, "X", headers={"Retry-After": "Wed, 21 Oct 9999 07:28:00 GMT"}),
            300,
            id="a date",
        ),
        pytest.param(failure(429, "X", headers={"Retry-After": "999999"}), 300, id="bounded"),
        pytest.param(failure(429, "X", headers={"Retry-After": "-5"}), None, id="negative"),
        pytest.param(failure(429, "X"), None, id="absent"),
    ],
)
async def test_retry_after_of_a_write_is_told(tmp_path: Path, step: Step, seconds: float | None):
    async with scripted(tmp_path, POST=[step]) as (_server, client):
        with pytest.raises(Unavailable) as caught:
            await client.create(JOBS, {})

    assert caught.value.retry_after == seconds


async def test_lost_answer_of_a_create_is_found_by_name(tmp_path: Path):
    async with scripted(tmp_path, POST=[reset()], GET=[answer(job("a", 1))]) as (server, client):
        with pytest.raises(Unavailable):
            await client.create(JOBS, job("a", ""))
        assert await client.get(JOBS, "a") == job("a", 1)

    assert len(server.seen("POST")) == 1


async def test_hung_call_ends_at_its_limit(tmp_path: Path):
    loop = asyncio.get_running_loop()
    async with scripted(tmp_path, limits=Limits(total=0.3), GET=[HANG]) as (_server, client):
        began = loop.time()
        with pytest.raises(Unavailable):
            await client.get(JOBS, "a")
        assert loop.time() - began < 3


async def test_trickling_answer_ends_at_its_limit(tmp_path: Path):
    trickle = stream(*[b" ", 0.05] * 100)
    async with scripted(tmp_path, limits=Limits(total=0.3), GET=[trickle]) as (_server, client):
        with pytest.raises(Unavailable):
            await client.get(JOBS, "a")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:1", id="connection refused"),
        pytest.param("http://nowhere.invalid", id="no such host"),
        pytest.param("https://127.0.0.1:1", id="TLS refused"),
    ],
)
async def test_unreachable_server_is_unavailable(tmp_path: Path, url: str):
    async with client_for(url, tmp_path) as client:
        with pytest.raises(Unavailable):
            await client.get(JOBS, "a")
        with pytest.raises(Unavailable):
            await read_watch(client)


async def test_foreign_text_is_trimmed(tmp_path: Path):
    async with scripted(tmp_path, POST=[failure(422, "Bad", "x\n" * 9999)]) as (_server, client):
        with pytest.raises(Rejected) as caught:
            await client.create(JOBS, {})

    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


async def test_endless_error_body_is_not_read_to_its_end(tmp_path: Path):
    async with scripted(tmp_path, POST=[text("x" * 8_000_000, 500)]) as (_server, client):
        with pytest.raises(Unavailable):
            await client.create(JOBS, {})


@pytest.mark.parametrize(
    ("code", "step"),
    [
        pytest.param(422, failure(422, "Invalid", "hunter2 is bad"), id="a Status"),
        pytest.param(400, text("hunter2", 400), id="plain text"),
    ],
)
async def test_error_about_a_secret_never_quotes_its_value(tmp_path: Path, code: int, step: Step):
    async with scripted(tmp_path, POST=[step]) as (_server, client):
        with pytest.raises(PyvattiError) as caught:
            await client.create(SECRETS, {"stringData": {"a": "hunter2"}})

    assert "hunter2" not in str(caught.value)
    assert str(code) in str(caught.value)


async def test_delete_of_another_uid_is_a_conflict(tmp_path: Path):
    async with scripted(tmp_path, DELETE=[failure(409, "Conflict", "the UID differs")]) as (
        _server,
        client,
    ):
        with pytest.raises(Conflict):
            await client.delete(JOBS, "a", uid="other")


async def test_each_warning_of_the_server_is_logged_once(tmp_path: Path):
    warned = answer(job("a", 1), Warning='299 - "would violate PodSecurity"')
    async with scripted(tmp_path, POST=[warned]) as (_server, client):
        with capture_logs() as logs:
            await client.create(JOBS, {})
            await client.create(JOBS, {})

    assert [entry["warning"] for entry in logs if entry["event"] == "kubernetes warns"] == [
        '299 - "would violate PodSecurity"'
    ]


# Admission webhooks and policies

WEBHOOK = 'admission webhook "policy.example.org" denied the request: label owner is missing'
POLICY = "ValidatingAdmissionPolicy 'owners' with binding 'all' denied request: no owner"


@pytest.mark.parametrize(
    ("code", "message", "words"),
    [
        pytest.param(403, WEBHOOK, WEBHOOK, id="webhook"),
        pytest.param(400, WEBHOOK, WEBHOOK, id="webhook with 400"),
        pytest.param(409, WEBHOOK, WEBHOOK, id="webhook with 409"),
        pytest.param(500, WEBHOOK, WEBHOOK, id="webhook with 500"),
        pytest.param(
            403,
            'admission webhook "w" denied the request without explanation',
            'admission webhook "w" denied the request without explanation',
            id="webhook without words",
        ),
        pytest.param(
            403,
            f"{WEBHOOK}: exceeded quota: q",
            f"{WEBHOOK}: exceeded quota: q",
            id="its own quota",
        ),
        pytest.param(422, f'secrets "x" is forbidden: {POLICY}', POLICY, id="policy with 422"),
        pytest.param(403, f'secrets "x" is forbidden: {POLICY}', POLICY, id="policy with 403"),
        pytest.param(401, f'secrets "x" is forbidden: {POLICY}', POLICY, id="policy with 401"),
        pytest.param(413, f'secrets "x" is forbidden: {POLICY}', POLICY, id="policy with 413"),
    ],
)
async def test_a_policy_that_denies_an_object_is_told_from_all_else_with_its_words(
    tmp_path: Path, code: int, message: str, words: str
):
    steps = [failure(code, "Any", message, headers={"Retry-After": "7"})]
    async with scripted(tmp_path, POST=steps, PATCH=steps) as (server, client):
        for write in (client.create(SECRETS, {}), client.merge_patch(JOBS, "a", {})):
            with pytest.raises(PolicyDenied) as caught:
                await write
            assert (caught.value.words, caught.value.retry_after) == (words, 7)
            assert words in str(caught.value)

    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("step", "error"),
    [
        pytest.param(
            failure(403, "Forbidden", 'secrets is forbidden: User "u" cannot create resource'),
            Denied,
            id="permissions",
        ),
        pytest.param(
            failure(403, "Forbidden", WEBHOOK, causes=[{"reason": "NamespaceTerminating"}]),
            NamespaceTerminating,
            id="a namespace that goes",
        ),
        pytest.param(
            failure(500, "InternalError", 'failed calling webhook "w": context deadline exceeded'),
            Unavailable,
            id="a webhook that is away",
        ),
        pytest.param(text(WEBHOOK, 403), Denied, id="a proxy"),
    ],
)
async def test_what_is_no_denial_of_a_policy_keeps_its_error(
    tmp_path: Path, step: Step, error: type[PyvattiError]
):
    async with scripted(tmp_path, POST=[step]) as (_server, client):
        with pytest.raises(error) as caught:
            await client.create(SECRETS, {})

    assert type(caught.value) is error


def test_a_denial_whose_author_says_not_found_is_no_absence():
    said = {"kind": "Status", "reason": "NotFound", "message": WEBHOOK, "details": {"name": "a"}}

    error = error_for(404, {}, json.dumps(said).encode(), target="POST jobs")

    assert isinstance(error, PolicyDenied)
    assert error.words == WEBHOOK


@pytest.mark.parametrize("how", ["hunter2-long", "aHVudGVyMi1sb25n", "second line of it"])
async def test_a_denial_that_quotes_a_secret_is_told_without_its_value(tmp_path: Path, how: str):
    secret = {"stringData": {"a": "hunter2-long", "b": "first line\nsecond line of it\n"}}
    step = failure(403, "Forbidden", f"{WEBHOOK}, not {how}")
    async with scripted(tmp_path, POST=[step]) as (_server, client):
        with pytest.raises(PolicyDenied) as caught:
            await client.create(SECRETS, secret)

    assert how not in f"{caught.value} {caught.value.words}"
    assert caught.value.words == f"{WEBHOOK}, not (redacted)"
