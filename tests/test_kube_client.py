"""What the client sends, and what it makes of good answers."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from kube_scripted import (
    NAMESPACE,
    Step,
    answer,
    bookmark,
    cut,
    event,
    failure,
    job,
    listing,
    missing,
    read_watch,
    scripted,
    stream,
    text,
)

from pyvatti import __version__
from pyvatti.errors import (
    Rejected,
    Unavailable,
)
from pyvatti.kube import EVENTS, JOBS, PODS

PLACE = f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"


# Requests as they travel


async def test_create_is_strict_and_names_its_sender(tmp_path: Path):
    made = job("a", 1)
    async with scripted(tmp_path, POST=[answer(made, 201)]) as (server, client):
        assert await client.create(JOBS, job("a", "")) == made

    (request,) = server.requests
    assert request.path == PLACE
    assert request.query == {"fieldValidation": "Strict"}
    assert request.headers["User-Agent"] == f"pyvatti/{__version__}"
    assert request.token == "t0"
    assert request.body["metadata"]["name"] == "a"


async def test_dry_run_is_asked_of_the_server(tmp_path: Path):
    async with scripted(tmp_path, POST=[answer(job("a", 1))]) as (server, client):
        await client.create(JOBS, job("a", ""), dry_run=True)

    assert server.requests[0].query == {"fieldValidation": "Strict", "dryRun": "All"}


async def test_patch_is_a_merge_patch_of_the_body_as_given(tmp_path: Path):
    patch = {"metadata": {"resourceVersion": "7"}, "spec": {"suspend": False}}
    async with scripted(tmp_path, PATCH=[answer(job("a", 8))]) as (server, client):
        await client.merge_patch(JOBS, "a", patch)

    (request,) = server.requests
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    assert request.body == patch
    assert request.path == f"{PLACE}/a"


async def test_delete_carries_policy_uid_and_grace(tmp_path: Path):
    async with scripted(tmp_path, DELETE=[answer(job("a", 8))]) as (server, client):
        await client.delete(JOBS, "a", uid="u1", grace_seconds=0)

    assert server.requests[0].body == {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": "u1"},
        "gracePeriodSeconds": 0,
    }


async def test_watch_asks_for_bookmarks_and_an_end(tmp_path: Path):
    async with scripted(tmp_path, WATCH=[stream(bookmark(2))]) as (server, client):
        assert [one["type"] for one in await read_watch(client, timeout_seconds=233)] == [
            "BOOKMARK"
        ]

    assert server.requests[0].query == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "1",
        "timeoutSeconds": "233",
    }


async def test_metadata_only_lists_say_so_in_accept(tmp_path: Path):
    async with scripted(tmp_path, LIST=[answer(listing(version=3))]) as (server, client):
        await client.list_page(JOBS, metadata_only=True, selector="a=b,c", limit=7)

    (request,) = server.requests
    assert "as=PartialObjectMetadataList" in request.headers["Accept"]
    assert request.query == {"labelSelector": "a=b,c", "limit": "7"}


async def test_core_resources_live_under_api_v1(tmp_path: Path):
    async with scripted(tmp_path, GET=[answer(job("a", 1) | {"kind": "Pod"})]) as (server, client):
        await client.get(PODS, "a.b-c")

    assert server.requests[0].path == f"/api/v1/namespaces/{NAMESPACE}/pods/a.b-c"


@pytest.mark.parametrize("name", ["..", "a/b", "A", "a?x=1", "a%2fb", "-a", "a" * 254])
async def test_what_is_no_name_is_never_sent(tmp_path: Path, name: str):
    async with scripted(tmp_path) as (server, client):
        with pytest.raises(Rejected):
            await client.get(JOBS, name)

    assert server.requests == []


async def test_access_review_names_the_verb_and_resource(tmp_path: Path):
    verdicts = [
        answer({"kind": "SelfSubjectAccessReview", "status": {"allowed": True}}, 201),
        answer({"kind": "SelfSubjectAccessReview", "status": {"allowed": False}}, 201),
    ]
    async with scripted(tmp_path, POST=verdicts) as (server, client):
        answers = [await client.review_access("get", PODS, "log") for _ in range(2)]

    assert answers == [True, False]
    assert server.requests[0].body["spec"]["resourceAttributes"] == {
        "namespace": NAMESPACE,
        "verb": "get",
        "group": "",
        "resource": "pods",
        "subresource": "log",
    }


# Answers


async def test_managed_fields_are_dropped_everywhere(tmp_path: Path):
    fat = job("a", 1, metadata={"managedFields": [{"manager": "x"}]})
    steps = {
        "GET": [answer(fat)],
        "LIST": [answer(listing(fat, version=1))],
        "WATCH": [stream(event("ADDED", fat))],
    }
    async with scripted(tmp_path, **steps) as (_server, client):
        objects = [
            await client.get(JOBS, "a"),
            (await client.list_page(JOBS)).items[0],
            (await read_watch(client))[0]["object"],
        ]

    assert objects == [job("a", 1)] * 3


async def test_list_follows_all_pages(tmp_path: Path):
    pages = [
        answer(listing(job("a", 1), version=9, continue_="next")),
        answer(listing(job("b", 2), version=9)),
    ]
    async with scripted(tmp_path, LIST=pages) as (server, client):
        page = await client.list_all(JOBS, limit=1)

    assert ([item["metadata"]["name"] for item in page.items], page.resource_version) == (
        ["a", "b"],
        "9",
    )
    assert [request.query.get("continue") for request in server.requests] == [None, "next"]


async def test_list_that_always_expires_ends_in_our_error(tmp_path: Path):
    pages = [answer(listing(job("a", 1), version=9, continue_="n")), failure(410, "Expired")] * 9
    async with scripted(tmp_path, LIST=pages) as (_server, client):
        with pytest.raises(Unavailable):
            await client.list_all(JOBS)


async def test_list_whose_pages_go_in_circles_ends_in_our_error(tmp_path: Path):
    pages = [answer(listing(job("a", 1), version=9, continue_="again"))] * 9
    async with scripted(tmp_path, LIST=pages) as (server, client):
        with pytest.raises(Unavailable, match="list jobs: its pages go in circles"):
            await client.list_all(JOBS)

        assert len(server.requests) == 2


async def test_list_with_null_items_is_empty(tmp_path: Path):
    body = {"kind": "JobList", "metadata": {"resourceVersion": "1"}, "items": None}
    async with scripted(tmp_path, LIST=[answer(body)]) as (_server, client):
        assert (await client.list_all(JOBS)).items == []


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(text("<html>hello</html>"), id="HTML with status 200"),
        pytest.param(answer([]), id="an array"),
        pytest.param(answer({}), id="an empty object"),
        pytest.param(answer({"kind": "JobList", "items": []}), id="no metadata"),
        pytest.param(answer({"kind": "JobList", "metadata": {}, "items": []}), id="no version"),
        pytest.param(answer({"kind": "X", "metadata": {"resourceVersion": "1"}}), id="not a list"),
        pytest.param(cut(b'{"kind": "JobList", "items": ['), id="cut in the middle"),
        pytest.param(text('{"kind": "JobL'), id="truncated JSON"),
        pytest.param(missing(), id="404 of a list"),
    ],
)
async def test_a_failed_list_is_never_an_empty_one(tmp_path: Path, step: Step):
    async with scripted(tmp_path, LIST=[step]) as (_server, client):
        with pytest.raises((Unavailable, Rejected)):
            await client.list_all(JOBS)


# Events


async def test_events_are_read_oldest_first_whatever_fields_carry_the_time(tmp_path: Path):
    regarding = {"kind": "Pod", "uid": "u1"}
    items = [
        {
            "reason": "Late",
            "note": "n" * 999,
            "type": "Warning",
            "regarding": regarding,
            "eventTime": "2026-01-01T00:00:01.000000Z",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:30.000000Z"},
        },
        {
            "reason": "Old",
            "type": "Normal",
            "regarding": regarding,
            "eventTime": None,
            "deprecatedLastTimestamp": "2026-01-01T00:00:20Z",
        },
        {"reason": "Odd", "regarding": None, "series": None, "eventTime": "yesterday"},
    ]
    body = {"kind": "EventList", "metadata": {"resourceVersion": "1"}, "items": items}
    async with scripted(tmp_path, LIST=[answer(body)]) as (server, client):
        odd, old, late = await client.events_about("u1")

    assert server.requests[0].path.endswith(f"/{EVENTS.plural}")
    assert server.requests[0].query["fieldSelector"] == "regarding.uid=u1"
    assert (odd.reason, odd.at, odd.about) == ("Odd", None, "")
    assert (old.reason, old.warning, old.about) == ("Old", False, "Pod")
    assert (late.warning, len(late.note)) == (True, 256)
    assert late.at == datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)


WORKLOAD = {"metadata": {"name": "job-a-1"}, "status": {"conditions": []}}
FOUND = answer(listing(WORKLOAD, version=1))
NO_PATH = text("404 page not found", 404, "text/plain")


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        pytest.param([FOUND], "job-a-1", id="newest version"),
        pytest.param([NO_PATH, FOUND], "job-a-1", id="an older Kueue"),
        pytest.param([answer(listing(version=1))], None, id="none was made"),
    ],
)
async def test_the_workload_of_a_job_is_read_in_the_version_that_kueue_has(
    tmp_path: Path, steps: list[Step], found: str | None
):
    tried = len(steps)
    async with scripted(tmp_path, GET=steps) as (server, client):
        read = await client.workload_of("u1")

    assert (read or {"metadata": {"name": None}})["metadata"]["name"] == found
    versions = [request.path.split("/")[3] for request in server.requests]
    assert versions == ["v1beta2", "v1beta1"][:tried]
    assert server.requests[0].query["labelSelector"] == "kueue.x-k8s.io/job-uid=u1"


async def test_without_kueue_each_version_is_asked_once(tmp_path: Path):
    async with scripted(tmp_path, GET=[NO_PATH]) as (server, client):
        with pytest.raises(Unavailable):
            await client.workload_of("u1")

    assert len(server.requests) == 2
