"""Nothing is called gone without proof: every odd answer at every look."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from storage_builders import (
    GENOME,
    GET,
    LIST,
    OBJECTS,
    ODD,
    OTHER_UID,
    OWNER,
    QUICK,
    WEEK,
    WORK,
    empty_list,
    filled,
    forge,
    joined,
    keeps,
    refusal,
    stands,
    until,
)

from pyvatti.errors import Denied, NotOurs, Unavailable, Undeletable
from pyvatti.sandbox.storage import StorageStandIn
from pyvatti.storage import Storage


@pytest.mark.parametrize("odd", ODD)
async def test_a_404_that_is_not_googles_proves_nothing(odd: str):
    headers, body = ODD[odd]
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        forge(service, LIST, 200, empty_list())  # even where the list says nothing of it
        forge(service, GET, 404, body, headers=headers)

        for call in (
            partial(door.delete_bucket, WORK, owner=OWNER),
            partial(door.empty_bucket, WORK, owner=OWNER),
            partial(door.remove_folder, WORK, "data", owner=OWNER),
        ):
            with pytest.raises(Unavailable, match="404 is not an answer of Cloud Storage"):
                await call()

        assert stands(service)


async def test_a_redirect_is_not_followed_to_a_proof():
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        nowhere = {"Location": f"{service.url}/storage/v1/b/missing-bucket?"}
        forge(service, LIST, 200, empty_list())

        for status in (301, 302, 303, 307, 308):
            forge(service, GET, status, "", headers=nowhere, count=1)
            with pytest.raises(Unavailable, match=f"{status} is not"):
                await door.delete_bucket(WORK, owner=OWNER)

        assert stands(service)
        assert not any("missing-bucket" in str(logged) for logged in service.requests)


@pytest.mark.parametrize("odd", ODD)
async def test_a_list_that_is_not_googles_proves_nothing(odd: str):
    headers, body = ODD[odd]
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        forge(service, GET, 404, refusal(404, "notFound"))

        for status in (200, 403, 404):
            forge(service, LIST, status, body, headers=headers, count=1)
            with pytest.raises(Unavailable):
                await door.delete_bucket(WORK, owner=OWNER)

        assert stands(service)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"unreachable": ["projects/_/buckets/x"]}, id="partial"),
        pytest.param({"unreachable": "x"}, id="unreachable of another kind"),
        pytest.param({"nextPageToken": "again"}, id="pages in circles"),
        pytest.param({"nextPageToken": 7}, id="page token of another kind"),
        pytest.param({"items": None}, id="null rows"),
        pytest.param({"items": {}}, id="rows of another kind"),
        pytest.param({"items": ["x"]}, id="a row of another kind"),
        pytest.param({"items": [{"name": None}]}, id="a row without a name"),
        pytest.param({"items": [{"name": WORK}]}, id="our row without anything"),
        pytest.param({"items": [{"name": WORK, "metageneration": "x"}]}, id="not a number"),
    ],
)
async def test_a_list_that_is_not_complete_proves_nothing(answer: dict[str, Any]):
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        forge(service, LIST, 200, json.dumps({"kind": "storage#buckets"} | answer))
        forge(service, GET, 404, refusal(404, "notFound"))

        with pytest.raises(Unavailable):
            await door.delete_bucket(WORK, owner=OWNER)

        assert stands(service)


async def test_list_and_googles_404_together_are_the_proof():
    async with joined() as (door, service):
        before = datetime.now(UTC)
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert service.counters == {"buckets.list": 2, "buckets.get": 1}
        assert removal.proven_absent_at is not None
        assert before <= removal.proven_absent_at <= datetime.now(UTC)


async def deleted_by_somebody(door: Storage, service: StorageStandIn, **labels: str | None) -> None:
    """Let somebody empty and delete our bucket while soft delete is on."""
    await filled(door, service)
    keeps(service)
    bucket = service.buckets[WORK]
    wanted = {**bucket.labels, **{key.replace("_", "-"): labels[key] for key in labels}}
    bucket.properties["labels"] = {key: value for key, value in wanted.items() if value}
    service.state.remove(bucket, bucket.objects[GENOME], keep_version=False)
    service.state.drop_bucket(bucket)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({}, id="ours"),
        pytest.param({"job_uid": None}, id="without the label of a job"),
        pytest.param({"instance": "other", "job_id": None}, id="relabelled, the uid apart"),
    ],
)
async def test_a_bucket_that_somebody_deleted_under_soft_delete_is_not_gone(labels: dict[str, Any]):
    async with joined(patience=QUICK) as (door, service):
        await deleted_by_somebody(door, service, **labels)
        calls = (
            partial(door.delete_bucket, WORK, owner=OWNER),
            partial(door.empty_bucket, WORK, owner=OWNER),
            partial(door.remove_folder, WORK, "data", owner=OWNER),
        )
        until = f"{service.soft_deleted[-1].until:%Y-%m-%dT%H:%M}"
        for call in calls:
            with pytest.raises(Undeletable, match=f"bucket {WORK}: .* restored until {until}"):
                await call()
        service.advance(timedelta(days=8))

        assert (await door.delete_bucket(WORK, owner=OWNER)).proven_absent_at is not None


async def test_what_can_be_restored_of_another_job_or_name_is_not_ours():
    async with joined(patience=QUICK) as (door, service):
        await deleted_by_somebody(door, service, job_uid=OTHER_UID)
        other = service.add_bucket(f"{WORK}-2", softDeletePolicy=WEEK)
        service.state.drop_bucket(other)

        assert (await door.delete_bucket(WORK, owner=OWNER)).proven_absent_at is not None


@pytest.mark.parametrize(
    ("row", "error"),
    [
        pytest.param({"unreachable": ["projects/_/buckets/x"]}, Unavailable, id="partial"),
        pytest.param({"items": [{"name": None}]}, Unavailable, id="a row without a name"),
        pytest.param({"items": [{"name": WORK}]}, Undeletable, id="without labels and time"),
        pytest.param({"items": [{"name": WORK, "labels": 7}]}, Undeletable, id="odd labels"),
        pytest.param(
            {"items": [{"name": WORK, "hardDeleteTime": "soon"}]}, Undeletable, id="odd time"
        ),
    ],
)
async def test_an_odd_list_of_deleted_buckets_proves_nothing(row: dict[str, Any], error: Any):
    async with joined(patience=QUICK) as (door, service):
        forge(service, "softDeleted=", 200, json.dumps({"kind": "storage#buckets"} | row))

        with pytest.raises(error):
            await door.delete_bucket(WORK, owner=OWNER)


async def test_what_this_process_deleted_itself_is_not_looked_for_among_the_deleted():
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        forge(service, "softDeleted=", 503, refusal(503))

        assert (await door.delete_bucket(WORK, owner=OWNER)).proven_absent_at is not None
        assert not await door.empty_bucket(WORK, owner=OWNER)
        door.keep_counts([])  # the job is over
        with pytest.raises(Unavailable):
            await door.empty_bucket(WORK, owner=OWNER)


async def test_a_bucket_that_goes_right_before_its_deletion_was_deleted_by_somebody():
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        bucket = service.buckets[WORK]

        async def first(request: web.Request, answer: Handler) -> web.StreamResponse:
            if request.method == "DELETE":
                keeps(service)
                service.state.drop_bucket(bucket)
            return await answer(request)

        service.faults.around = first
        with pytest.raises(Undeletable, match="can be restored"):
            await door.delete_bucket(WORK, owner=OWNER)


@pytest.mark.parametrize("odd", ODD)
async def test_a_deletion_that_something_else_confirms_is_not_believed(odd: str):
    headers, body = ODD[odd]
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        for status in (200, 202, 204, 404):
            forge(service, GET, status, body, headers=headers, method="DELETE", count=1)
            with pytest.raises(Unavailable):
                await door.delete_bucket(WORK, owner=OWNER)
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert removal.proven_absent_at is not None
        assert service.leftovers() == []


async def test_bucket_that_somebody_changes_while_it_is_emptied_is_looked_at_again():
    async with joined() as (door, service):
        await filled(door, service)
        batch = service.faults.add("POST", "/batch/", "slow", count=1, seconds=0.2)

        async def delete() -> None:
            with pytest.raises(Unavailable, match="changed while it was emptied"):
                await door.delete_bucket(WORK, owner=OWNER)

        async with asyncio.TaskGroup() as group:
            group.create_task(delete())
            await until(lambda: batch.hits > 0)
            bucket = service.buckets[WORK]
            bucket.metageneration += 1
            bucket.labels["job-uid"] = "another"
        with pytest.raises(NotOurs, match="label job-uid is another"):
            await door.delete_bucket(WORK, owner=OWNER)

        assert WORK in service.buckets


async def test_absence_is_read_after_the_deletion():
    async with joined() as (door, service):
        await filled(door, service)

        removal = await door.delete_bucket(WORK, owner=OWNER)

        calls = [(logged.method, logged.path.partition("?")[0]) for logged in service.requests]
        assert calls[-3:] == [
            ("DELETE", f"/storage/v1/b/{WORK}"),
            ("GET", "/storage/v1/b"),
            ("GET", f"/storage/v1/b/{WORK}"),
        ]
        assert removal.removed_at is not None
        assert removal.proven_absent_at is not None
        assert removal.removed_at < removal.proven_absent_at


@pytest.mark.parametrize(
    ("path", "status", "body", "expected"),
    [
        pytest.param(GET, 404, "404 page not found", Unavailable, id="a 404 of anybody"),
        pytest.param(GET, 403, refusal(403, "forbidden"), NotOurs, id="somebody has the name"),
        pytest.param(GET, 401, refusal(401, "authError"), Denied, id="credentials gone"),
        pytest.param(LIST, 403, refusal(403, "forbidden"), Denied, id="list refused"),
        pytest.param(
            LIST,
            200,
            json.dumps({"kind": "storage#buckets", "unreachable": ["projects/_/buckets/x"]}),
            Unavailable,
            id="partial list",
        ),
    ],
)
async def test_deletion_without_a_look_afterwards_is_no_proof(
    path: str, status: int, body: str, expected: type[Exception]
):
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        rule = service.faults.add("DELETE", GET, "slow", seconds=0.1)

        async def delete() -> None:
            with pytest.raises(expected):
                await door.delete_bucket(WORK, owner=OWNER)

        async with asyncio.TaskGroup() as group:
            group.create_task(delete())
            await until(lambda: rule.hits > 0)
            forge(service, path, status, body)


async def test_bucket_that_vanishes_in_a_listing_alone_is_not_gone():
    async with joined() as (door, service):
        await filled(door, service)
        forge(service, OBJECTS, 404, refusal(404, "notFound"))

        for call in (
            partial(door.empty_bucket, WORK, owner=OWNER),
            partial(door.remove_folder, WORK, "data", owner=OWNER),
            partial(door.delete_bucket, WORK, owner=OWNER),
        ):
            with pytest.raises(Unavailable, match="missing at once"):
                await call()

        assert stands(service)


@pytest.mark.parametrize(
    "answer",
    [
        {"items": [{"name": GENOME}]},
        {"items": [{"generation": "1"}]},
        {"items": None},
        {"nextPageToken": "again"},
        {"kind": "storage#buckets"},
    ],
    ids=str,
)
async def test_odd_list_of_objects_empties_nothing(answer: dict[str, Any]):
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        forge(service, OBJECTS, 200, json.dumps({"kind": "storage#objects"} | answer))

        with pytest.raises(Unavailable):
            await door.empty_bucket(WORK, owner=OWNER)

        assert stands(service)
        assert service.counters["batch"] == 0
