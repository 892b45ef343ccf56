"""What is held fast, and what soft delete keeps: told, counted, and never called gone."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from storage_builders import (
    GENOME,
    OBJECTS,
    OWNER,
    QUICK,
    WEEK,
    WORK,
    create_work,
    filled,
    forge,
    joined,
    keeps,
    open_door,
    refusal,
    stands,
    until,
)

from pyvatti.errors import Conflict, Denied, Unavailable, Undeletable
from pyvatti.labels import BUCKET_KEPT_UNTIL
from pyvatti.sandbox.storage import StorageStandIn
from pyvatti.storage import Patience


def hold(service: StorageStandIn, name: str, **properties: Any) -> None:
    service.put_object(WORK, name, b"1", **properties)


def held_for_now(service: StorageStandIn) -> None:
    hold(service, GENOME, temporaryHold=True)


def held_for_an_event(service: StorageStandIn) -> None:
    hold(service, GENOME, eventBasedHold=True)


def retained_itself(service: StorageStandIn) -> None:
    until = (service.now() + timedelta(hours=1)).isoformat()
    hold(service, GENOME, retention={"mode": "Locked", "retainUntilTime": until})


@pytest.mark.parametrize(
    ("fasten", "reason"),
    [(held_for_now, "hold"), (held_for_an_event, "hold"), (retained_itself, "retention")],
)
async def test_one_object_held_fast_keeps_no_other(
    fasten: Callable[[StorageStandIn], None], reason: str
):
    async with joined() as (door, service):
        await create_work(door)
        for number in range(150):
            hold(service, f"data/{number}")
        fasten(service)

        with pytest.raises(Undeletable) as caught:
            await door.empty_bucket(WORK, owner=OWNER)
        left = list(service.buckets[WORK].objects)
        with pytest.raises(Undeletable):
            await door.remove_folder(WORK, "data", owner=OWNER)

        assert str(caught.value) == f"bucket {WORK}: 1 objects cannot be deleted: 1 for {reason}"
        assert left == [GENOME]


async def test_everything_held_fast_is_counted_by_reason_without_a_name():
    async with joined() as (door, service):
        await create_work(door)
        for number in range(1200):
            hold(service, f"held/{number}", temporaryHold=True)
        retained_itself(service)

        with pytest.raises(Undeletable) as caught:
            await door.delete_bucket(WORK, owner=OWNER)

        text = str(caught.value)
        assert text.endswith("1201 objects cannot be deleted: 1200 for hold, 1 for retention")
        assert service.counters["buckets.delete"] == 0


async def test_retention_of_a_bucket_ends_by_itself():
    async with joined() as (door, service):
        await filled(door, service)
        service.buckets[WORK].properties["retentionPolicy"] = {
            "retentionPeriod": "3600",
            "isLocked": True,
        }

        with pytest.raises(Undeletable, match="1 for retention"):
            await door.delete_bucket(WORK, owner=OWNER)
        service.advance(timedelta(hours=1))
        await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == []


@pytest.mark.parametrize(
    ("permission", "said"),
    [
        ("storage.objects.delete", "1 objects cannot be deleted: 1 for forbidden"),
        ("storage.buckets.delete", "may not be deleted: delete bucket"),
    ],
)
async def test_missing_permission_to_delete_is_said_and_may_come_back(permission: str, said: str):
    async with joined() as (door, service):
        await filled(door, service)
        service.deny(permission)

        with pytest.raises(Undeletable, match=said) as caught:
            await door.delete_bucket(WORK, owner=OWNER)
        service.allow()
        await door.delete_bucket(WORK, owner=OWNER)

        assert GENOME not in str(caught.value)
        assert service.leftovers() == []


async def test_soft_delete_that_may_not_be_switched_off_keeps_everything_in_place():
    async with joined() as (door, service):
        await filled(door, service)
        keeps(service)
        service.deny("storage.buckets.update")

        for call in (
            partial(door.empty_bucket, WORK, owner=OWNER),
            partial(door.remove_folder, WORK, "data", owner=OWNER),
            partial(door.delete_bucket, WORK, owner=OWNER),
        ):
            with pytest.raises(Undeletable, match=r"so nothing is deleted: patch bucket .* 403"):
                await call()

        assert stands(service)


@pytest.mark.parametrize(
    ("status", "reason"), [(412, "conditionNotMet"), (412, "orgPolicyConstraintFailed"), (400, "x")]
)
async def test_policy_that_forbids_the_switch_is_said(status: int, reason: str):
    async with joined() as (door, service):
        await filled(door, service)
        keeps(service)
        forge(service, "/b/", status, refusal(status, reason), method="PATCH")

        with pytest.raises(Undeletable, match="so nothing is deleted"):
            await door.delete_bucket(WORK, owner=OWNER)

        assert stands(service)


@pytest.mark.parametrize(("status", "expected"), [(401, Denied), (503, Unavailable)])
async def test_switch_that_fails_is_tried_again(status: int, expected: type[Exception]):
    async with joined() as (door, service):
        await filled(door, service)
        keeps(service)
        forge(service, "/b/", status, refusal(status, "authError"), method="PATCH")

        with pytest.raises(expected):
            await door.delete_bucket(WORK, owner=OWNER)
        untouched = stands(service)
        service.faults.clear()
        await door.delete_bucket(WORK, owner=OWNER)

        assert untouched
        assert service.leftovers() == []


async def test_bucket_that_somebody_changes_at_once_is_read_again():
    async with joined() as (door, service):
        await filled(door, service)
        keeps(service)
        patch = service.faults.add("PATCH", "/b/", "slow", count=1, seconds=0.2)

        async def delete() -> None:
            with pytest.raises(Conflict):
                await door.delete_bucket(WORK, owner=OWNER)

        async with asyncio.TaskGroup() as group:
            group.create_task(delete())
            await until(lambda: patch.hits > 0)
            service.buckets[WORK].metageneration += 1
        untouched = stands(service)
        await door.delete_bucket(WORK, owner=OWNER)

        assert untouched
        assert service.leftovers() == []


async def test_switch_that_was_not_kept_deletes_nothing():
    async with joined() as (door, service):
        await filled(door, service)
        keeps(service)
        body = json.dumps({"kind": "storage#bucket", "name": WORK, "metageneration": "2"})
        forge(service, "/b/", 200, body, method="PATCH")

        with pytest.raises(Unavailable, match="soft delete is on again"):
            await door.delete_bucket(WORK, owner=OWNER)

        assert stands(service)


@pytest.mark.parametrize("policy", [WEEK, {"retentionDurationSeconds": "0"}], ids=["on", "off"])
async def test_switched_off_is_waited_for_until_it_is_known(policy: dict[str, str]):
    async with joined(patience=Patience(settle=0.3)) as (door, service):
        await filled(door, service)
        began = time.monotonic()
        keeps(service, policy)
        if policy is not WEEK:  # switched off a moment ago by a process that died then
            service.buckets[WORK].metageneration = 2
            service.buckets[WORK].updated = service.now()

        await door.empty_bucket(WORK, owner=OWNER)

        assert time.monotonic() - began >= 0.29
        assert service.counters["buckets.patch"] == (policy is WEEK)
        assert service.recoverable() == []


async def test_nothing_is_waited_for_where_nothing_was_switched():
    async with joined(patience=Patience(settle=3600)) as (door, service):
        await filled(door, service)
        async with asyncio.timeout(60):
            await door.delete_bucket(WORK, owner=OWNER)
        await filled(door, service)
        service.buckets[WORK].metageneration = 2
        service.buckets[WORK].updated = service.now() - timedelta(hours=1, seconds=1)
        async with asyncio.timeout(60):
            await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == []


async def test_soft_delete_that_is_not_said_is_not_off():
    async with joined() as (door, service):
        await filled(door, service)
        del service.buckets[WORK].properties["softDeletePolicy"]

        await door.delete_bucket(WORK, owner=OWNER)

        assert service.counters["buckets.patch"] == 1
        assert service.leftovers() == []


async def test_what_was_deleted_while_soft_delete_was_on_is_not_gone():
    async with StorageStandIn() as service:
        async with open_door(service.url) as door:
            await filled(door, service)
            keeps(service)
            service.state.remove(
                service.buckets[WORK], service.buckets[WORK].objects[GENOME], keep_version=False
            )
            service.put_object(WORK, "data/other", b"1")
            with pytest.raises(Undeletable, match="deleted earlier can be restored until 20"):
                await door.delete_bucket(WORK, owner=OWNER)
            folder = await door.remove_folder(WORK, "data", owner=OWNER)
        kept, left = service.recoverable(), service.buckets[WORK].objects
        async with open_door(service.url) as another:
            with pytest.raises(Undeletable, match="can be restored"):
                await another.delete_bucket(WORK, owner=OWNER)
            marks = service.buckets[WORK].labels
            marks[BUCKET_KEPT_UNTIL] = str(int(datetime.now(UTC).timestamp()) - 1)
            service.advance(timedelta(days=8))
            removal = await another.delete_bucket(WORK, owner=OWNER)

        assert folder.proven_absent_at is None
        assert (len(kept), left) == (1, {})
        assert removal.proven_absent_at is not None
        assert service.leftovers() == []


@pytest.mark.parametrize("mark", ["", "soon", "-1", "²", "9" * 20])
async def test_label_of_another_form_keeps_no_bucket(mark: str):
    async with joined() as (door, service):
        await filled(door, service)
        service.buckets[WORK].labels[BUCKET_KEPT_UNTIL] = mark

        await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == []


async def test_no_message_repeats_an_address_or_a_name():
    token = "Z2Vub21lLW9mLWphbmU"  # of a page: it spells the last name on it
    async with joined(patience=QUICK) as (door, service):
        await filled(door, service)
        page = {"kind": "storage#objects", "nextPageToken": token}
        forge(service, rf"{OBJECTS}(?!.*pageToken)", 200, json.dumps(page))
        texts = []
        for fault in ({"kind": "reset"}, {"kind": "html"}, {"kind": "status", "status": 400}):
            rule = service.faults.add("GET", "pageToken", **fault, body=refusal(400, "invalid"))
            with pytest.raises(Exception, match=f"list {WORK}") as caught:
                await door.empty_bucket(WORK, owner=OWNER)
            texts.append(str(caught.value))
            service.faults.remove(rule)

        assert not [text for text in texts if token in text or "/storage/" in text or "@" in text]
