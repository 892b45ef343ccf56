"""Buckets emptied and removed: any size, any name, half done, written to, held."""

import asyncio
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler
from storage_builders import (
    OTHER,
    OTHER_UID,
    OWNER,
    RESULTS,
    UID,
    WORK,
    create_work,
    joined,
    keeps,
    open_door,
    until,
)

from pyvatti.errors import NotOurs, Unavailable, Undeletable
from pyvatti.models import Removal
from pyvatti.sandbox.storage import StorageStandIn


@pytest.mark.parametrize("name", [WORK, RESULTS])
@pytest.mark.parametrize("objects", [0, 1, 257, 10_000])
async def test_bucket_of_any_size_is_deleted_and_counted(name: str, objects: int):
    if name == RESULTS and objects == 10_000:
        objects = 1001  # a page and one more
    async with joined() as (door, service):
        await door.create_bucket(name, owner=OWNER, purpose="work")
        for number in range(objects):
            service.put_object(name, f"data/{number}", b"acgt")

        before = datetime.now(UTC)
        removal = await door.delete_bucket(name, owner=OWNER)

        assert service.leftovers() == []
        assert removal == Removal(
            resource=f"bucket/{name}",
            removed_at=removal.removed_at,
            objects=objects,
            bytes=4 * objects,
            proven_absent_at=removal.proven_absent_at,
        )
        assert removal.proven_absent_at is not None
        assert before <= removal.removed_at <= removal.proven_absent_at <= datetime.now(UTC)
        assert service.counters["buckets.delete"] == 1
        assert service.counters["batch"] == (objects + 99) // 100


@pytest.mark.parametrize(
    "name", ["a/b", "#", "?x=1", "%2F", "a+b c", "genöm/基因", "...", "a\nb", "'\"<&>", "a" * 1024]
)
async def test_object_of_any_name_is_deleted(name: str):
    async with joined() as (door, service):
        await create_work(door)
        service.put_object(WORK, name, b"1")

        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert removal.objects == 1
        assert service.leftovers() == []


async def test_versions_and_unfinished_uploads_go_too():
    async with joined() as (door, service):
        await create_work(door)
        service.buckets[WORK].properties["versioning"] = {"enabled": True}
        for content in (b"1", b"22", b"333"):
            service.put_object(WORK, "data/genome", content)
        service.start_upload(WORK, "data/half", b"part")

        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert (removal.objects, removal.bytes) == (3, 6)
        assert service.leftovers() == []


async def test_soft_delete_turned_on_later_is_turned_off_before_objects_go():
    async with joined() as (door, service):
        await create_work(door)
        policy = service.buckets[WORK].properties["softDeletePolicy"]
        policy["retentionDurationSeconds"] = "604800"
        service.put_object(WORK, "data/genome", b"acgt")

        await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == []


async def test_missing_bucket_counts_as_deleted():
    async with joined() as (door, service):
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert (removal.resource, removal.objects, removal.bytes) == (f"bucket/{WORK}", None, None)
        assert removal.proven_absent_at is not None
        assert service.counters["buckets.delete"] == 0


async def test_half_done_deletion_is_finished_by_another_process():
    async with StorageStandIn() as service:
        async with open_door(service.url) as first:
            await create_work(first)
            for number in range(2500):
                service.put_object(WORK, f"data/{number}", b"acgt")
            async with asyncio.TaskGroup() as group:
                deletion = group.create_task(first.delete_bucket(WORK, owner=OWNER))
                await until(lambda: service.counters["objects.delete"] >= 1000)
                deletion.cancel()

        left = len(service.buckets[WORK].objects)
        async with open_door(service.url) as second:
            removal = await second.delete_bucket(WORK, owner=OWNER)

        assert 0 < left < 2500
        assert removal.objects is not None
        assert 0 < removal.objects <= left
        assert service.leftovers() == []


async def test_held_object_is_counted_and_all_others_are_gone():
    async with joined() as (door, service):
        await create_work(door)
        for number in range(250):
            service.put_object(WORK, f"data/{number}", b"1")
        held = service.put_object(WORK, "data/held", b"1", temporaryHold=True)

        with pytest.raises(Undeletable, match=f"^bucket {WORK}: 1 objects .*: 1 for hold$"):
            await door.delete_bucket(WORK, owner=OWNER)
        left = list(service.buckets[WORK].objects)
        held.properties.clear()
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert left == ["data/held"]
        assert removal.objects == 251
        assert service.leftovers() == []


async def test_late_writer_costs_a_new_turn_and_is_cleaned_too():
    async with joined() as (door, service):
        await create_work(door)
        service.write_before_delete(WORK)

        with pytest.raises(Unavailable, match="written to"):
            await door.delete_bucket(WORK, owner=OWNER)
        calls = service.counters["buckets.delete"]
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert calls == 1
        assert removal.objects == 1
        assert service.leftovers() == []


async def test_emptying_needs_no_turn_and_is_counted_by_the_deletion():
    async with joined() as (door, service):
        await create_work(door)
        for number in range(257):
            service.put_object(WORK, f"data/{number}", b"acgt")

        existed = await door.empty_bucket(WORK, owner=OWNER)
        left, calls = service.leftovers(), service.counters["buckets.delete"]
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert (existed, left, calls) == (True, [f"bucket {WORK}"], 0)
        assert (removal.objects, removal.bytes) == (257, 1028)


async def test_emptying_spares_what_is_not_ours():
    async with joined() as (door, service):
        await create_work(door, owner=OTHER)
        service.put_object(WORK, "precious", b"1")

        with pytest.raises(NotOurs):
            await door.empty_bucket(WORK, owner=OWNER)
        existed = await door.empty_bucket("missing-bucket", owner=OWNER)

        assert not existed
        assert list(service.buckets[WORK].objects) == ["precious"]


async def test_bucket_that_is_still_there_is_not_reported_as_gone():
    async with joined() as (door, service):
        await create_work(door)
        service.faults.add("DELETE", f"/b/{WORK}", "status", count=1, status=204, body="")

        with pytest.raises(Unavailable, match="still there"):
            await door.delete_bucket(WORK, owner=OWNER)
        await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == []


async def test_freed_name_that_somebody_takes_at_once_proves_nothing_and_is_theirs():
    async with joined() as (door, service):
        await create_work(door)
        service.faults.add("GET", rf"/b/{WORK}\?", "slow", seconds=0.1)

        async def delete() -> None:
            with pytest.raises(NotOurs, match="is in another project"):
                await door.delete_bucket(WORK, owner=OWNER)

        async with asyncio.TaskGroup() as group:
            group.create_task(delete())
            await until(lambda: WORK not in service.buckets)
            service.add_bucket(WORK, project="somebody-else")

        assert service.buckets[WORK].project == "somebody-else"


async def test_bucket_that_somebody_keeps_filling_is_left_for_later():
    async with joined() as (door, service):
        await create_work(door)
        service.faults.add("GET", rf"/b/{WORK}/o\?", "slow", seconds=0.05)

        async def keep_writing() -> None:
            while True:
                service.put_object(WORK, "data/more", b"acgt")
                await asyncio.sleep(0.001)

        async with asyncio.TaskGroup() as group:
            writer = group.create_task(keep_writing())
            with pytest.raises(Unavailable, match="keeps writing"):
                await door.delete_bucket(WORK, owner=OWNER)
            writer.cancel()
        await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == []


async def test_object_that_somebody_else_deletes_is_not_counted():
    async with joined() as (door, service):
        await create_work(door)
        for name in ("ours", "theirs"):
            service.put_object(WORK, name, b"acgt")
        batch = service.faults.add("POST", "/batch/", "slow", count=1, seconds=0.1)

        async with asyncio.TaskGroup() as group:
            deletion = group.create_task(door.delete_bucket(WORK, owner=OWNER))
            await until(lambda: batch.hits > 0)
            del service.buckets[WORK].objects["theirs"]

        assert deletion.result().objects == 1


async def test_bucket_that_vanishes_while_it_is_emptied_is_gone():
    async with joined() as (door, service):
        await create_work(door)
        listing = service.faults.add("GET", rf"/b/{WORK}/o\?", "slow", seconds=0.1)

        async with asyncio.TaskGroup() as group:
            deletion = group.create_task(door.delete_bucket(WORK, owner=OWNER))
            await until(lambda: listing.hits > 0)
            del service.buckets[WORK]

        assert deletion.result().objects == 0
        assert deletion.result().proven_absent_at is not None


async def test_a_folder_is_removed_and_counted_and_all_else_stays():
    async with joined() as (door, service):
        await create_work(door)
        for name in ("data/a", "work/ab/1", "work/transferred", "work/transfer/stage-1/key.json"):
            service.put_object(WORK, name, b"acgt")

        removal = await door.remove_folder(WORK, "work/transfer", owner=OWNER)
        again = await door.remove_folder(WORK, "work/transfer", owner=OWNER)

        assert sorted(service.buckets[WORK].objects) == ["data/a", "work/ab/1", "work/transferred"]
        assert (removal.resource, removal.objects, removal.bytes) == (
            f"bucket/{WORK}/work/transfer",
            1,
            4,
        )
        assert again.objects == 0
        assert service.counters["buckets.delete"] == 0


async def test_a_folder_is_not_proven_absent_if_its_bucket_was_changed_meanwhile():
    async with joined() as (door, service):
        await create_work(door)
        service.put_object(WORK, "work/transfer/stage-1/key.json", b"acgt")
        bucket = service.buckets[WORK]

        async def switching_on(request: web.Request, answer: Handler) -> web.StreamResponse:
            if "/batch" in request.path:
                keeps(service)
                bucket.metageneration += 1
            return await answer(request)

        service.faults.around = switching_on
        removal = await door.remove_folder(WORK, "work/transfer", owner=OWNER)

        assert list(bucket.objects) == []
        assert service.recoverable() != []
        assert removal.proven_absent_at is None


async def test_a_folder_of_a_bucket_that_is_not_ours_or_missing_is_left_alone():
    async with joined() as (door, service):
        missing = await door.remove_folder(WORK, "work/transfer", owner=OWNER)
        await create_work(door)
        service.put_object(WORK, "work/transfer/x", b"1")

        with pytest.raises(NotOurs):
            await door.remove_folder(WORK, "work/transfer", owner=OTHER)

        assert missing.objects == 0
        assert list(service.buckets[WORK].objects) == ["work/transfer/x"]


async def test_counts_of_a_folder_that_was_not_emptied_to_its_end_go_with_its_bucket():
    async with joined() as (door, service):
        await create_work(door)
        service.put_object(WORK, "work/transfer/x", b"1")
        service.faults.add("POST", "/batch", "status", status=403)
        with pytest.raises(Unavailable):
            await door.remove_folder(WORK, "work/transfer", owner=OWNER)
        service.faults.clear()

        await door.delete_bucket(WORK, owner=OWNER)

        assert door._tallies == {}


async def test_counts_of_a_job_that_another_replica_ended_are_forgotten():
    async with joined() as (door, service):
        await create_work(door)
        service.put_object(WORK, "data/x", b"1")
        await door.empty_bucket(WORK, owner=OWNER)

        door.keep_counts([UID])
        kept = len(door._tallies)
        door.keep_counts([OTHER_UID])

        assert (kept, len(door._tallies)) == (1, 0)
