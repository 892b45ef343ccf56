"""Whose bucket is it: everything that must fit, one property at a time, on a real socket."""

import asyncio
import copy
import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from builders import INSTALLATION
from storage_builders import ODD, OWNER, RESULTS, UID, WORK, create_work, joined, refusal, until

from pyvatti.errors import Conflict, NotOurs, Rejected, Unavailable
from pyvatti.labels import of_bucket
from pyvatti.sandbox.storage import Bucket, StorageStandIn

LABELS = of_bucket(INSTALLATION, "intp00000000044", UID)
ELSEWHERE = "is in another project"
ALL = (
    *(f"storage.buckets.{verb}" for verb in ("get", "update", "delete")),
    *(f"storage.objects.{verb}" for verb in ("list", "get", "create", "delete")),
)
MISLABELLED: list[Any] = [
    pytest.param({key: value}, f"label {key} is {said}", id=f"{key}: {value}")
    for key in LABELS
    for value, said in ((None, "missing"), ("other", "other, not this job's"))
]
MISMADE: list[Any] = [
    pytest.param({"location": "US"}, "location is US, not EUROPE-WEST2", id="location"),
    pytest.param({"location": None}, "location is , not EUROPE-WEST2", id="no location"),
    pytest.param({"lifecycle": None}, "lifecycle rules are not ours", id="no lifecycle"),
    pytest.param(
        {"lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 300}}]}},
        "lifecycle rules are not ours",
        id="other lifecycle",
    ),
    pytest.param(
        {"softDeletePolicy": {"retentionDurationSeconds": "604800"}},
        "soft delete is not 0",
        id="soft delete",
    ),
    pytest.param({"softDeletePolicy": None}, "soft delete is not 0", id="soft delete not said"),
    pytest.param(
        {"iamConfiguration": {"publicAccessPrevention": "enforced"}},
        "uniform access is off",
        id="access by object",
    ),
    pytest.param(
        {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}},
        "public access prevention is not enforced",
        id="public access",
    ),
    pytest.param({"versioning": {"enabled": True}}, "versioning is on", id="versions"),
    pytest.param(
        {"retentionPolicy": {"retentionPeriod": "60"}}, "a retention policy is set", id="retention"
    ),
    pytest.param(
        {"objectRetention": {"mode": "Enabled"}}, "a retention policy is set", id="object retention"
    ),
    pytest.param({"defaultEventBasedHold": True}, "put under a hold", id="default hold"),
]


def fill(service: StorageStandIn) -> Bucket:
    service.put_object(WORK, "precious", b"1")
    return service.buckets[WORK]


def is_untouched(service: StorageStandIn) -> bool:
    bucket = service.buckets[WORK]
    return list(bucket.objects) == ["precious"] and bucket.metageneration == 1


@pytest.mark.parametrize("grants", [(), ("storage.buckets.get",), ALL], ids=["none", "get", "all"])
async def test_bucket_of_another_project_is_never_ours_whatever_it_says(grants: tuple[str, ...]):
    async with joined() as (door, service):
        await create_work(door)
        ours = fill(service)
        ours.project, ours.grants = "somebody-else", frozenset(grants)

        with pytest.raises(NotOurs, match=ELSEWHERE):
            await create_work(door)
        with pytest.raises(NotOurs, match=ELSEWHERE):
            await door.empty_bucket(WORK, owner=OWNER)
        with pytest.raises(NotOurs, match=ELSEWHERE):
            await door.remove_folder(WORK, "work/transfer", owner=OWNER)
        with pytest.raises(NotOurs, match=ELSEWHERE):
            await door.delete_bucket(WORK, owner=OWNER)
        found = await door.has_object(WORK, "prec", "ious", owner=OWNER)

        assert not found
        assert is_untouched(service)
        assert service.counters["objects.list"] == 0


@pytest.mark.parametrize(("labels", "said"), MISLABELLED)
async def test_bucket_with_one_other_label_is_not_ours(labels: dict[str, Any], said: str):
    async with joined() as (door, service):
        await create_work(door)
        bucket = fill(service)
        wanted = {**bucket.labels, **labels}
        bucket.properties["labels"] = {key: value for key, value in wanted.items() if value}

        for call in (
            partial(create_work, door),
            partial(door.empty_bucket, WORK, owner=OWNER),
            partial(door.remove_folder, WORK, "precious", owner=OWNER),
            partial(door.delete_bucket, WORK, owner=OWNER),
        ):
            with pytest.raises(NotOurs, match=f"^bucket {WORK}: {said}$"):
                await call()
        assert not await door.has_object(WORK, "prec", "ious", owner=OWNER)

        assert is_untouched(service)


@pytest.mark.parametrize(("changes", "said"), MISMADE)
async def test_bucket_made_otherwise_is_not_taken_but_still_cleaned(
    changes: dict[str, Any], said: str
):
    async with joined() as (door, service):
        await create_work(door)
        bucket = fill(service)
        whole = {**bucket.properties, **copy.deepcopy(changes)}
        bucket.properties = {key: value for key, value in whole.items() if value is not None}

        with pytest.raises(NotOurs, match=said):
            await create_work(door)
        untouched = is_untouched(service)
        service.advance(timedelta(minutes=1))  # the retention's
        await door.delete_bucket(WORK, owner=OWNER)

        assert untouched
        assert WORK not in service.buckets


@pytest.mark.parametrize(("changes", "said"), MISMADE)
async def test_empty_bucket_made_otherwise_is_made_anew_unless_it_may_keep_something(
    changes: dict[str, Any], said: str
):
    async with joined() as (door, service):
        await create_work(door)
        bucket = service.buckets[WORK]
        whole = {**bucket.properties, **copy.deepcopy(changes)}
        bucket.properties = {key: value for key, value in whole.items() if value is not None}

        keeps = "softDeletePolicy" in changes
        with pytest.raises(NotOurs if keeps else Unavailable, match=said):
            await create_work(door)
        if keeps:
            assert service.buckets[WORK] is bucket
            return
        await create_work(door)

        assert service.buckets[WORK].properties["location"] == "EUROPE-WEST2"
        assert list(service.buckets) == [WORK]


async def test_labels_and_rules_that_somebody_added_or_turned_round_change_nothing():
    async with joined() as (door, service):
        await create_work(door)
        bucket = service.buckets[WORK]
        bucket.labels["cost-centre"] = "42"
        bucket.properties["lifecycle"]["rule"].reverse()
        bucket.properties["location"] = "europe-west2"

        await create_work(door)

        assert list(service.buckets) == [WORK]


async def test_longer_name_in_the_list_is_another_bucket():
    async with joined() as (door, service):
        service.add_bucket(f"{WORK}-x", labels=LABELS)

        assert not await door.empty_bucket(WORK, owner=OWNER)
        removal = await door.delete_bucket(WORK, owner=OWNER)

        assert removal.objects is None
        assert list(service.buckets) == [f"{WORK}-x"]


async def test_what_could_not_be_withdrawn_is_removed_by_the_next_call():
    async with joined() as (door, service):
        service.make_otherwise({"location": "US"})
        service.faults.add("DELETE", "/b/", "status", count=1, status=403, body=refusal(403))

        with pytest.raises(Rejected, match=r"location is US.*; and it stays: delete bucket"):
            await create_work(door)
        with pytest.raises(Unavailable, match="is made anew: location is US"):
            await create_work(door)
        with pytest.raises(Rejected, match="location is US"):
            await create_work(door)

        assert service.buckets == {}


async def test_bucket_that_somebody_changed_since_it_was_made_is_not_withdrawn():
    async with joined() as (door, service):
        service.make_otherwise({"location": "US"})
        listing = service.faults.add("GET", r"/b\?", "slow", count=1, seconds=0.2)

        async def create() -> None:
            with pytest.raises(Rejected, match="and it stays"):
                await create_work(door)

        async with asyncio.TaskGroup() as group:
            group.create_task(create())
            await until(lambda: listing.hits > 0)
            service.buckets[WORK].metageneration += 1

        assert list(service.buckets) == [WORK]


@pytest.mark.parametrize("odd", ODD)
async def test_odd_answer_to_a_create_claims_nothing(odd: str):
    headers, body = ODD[odd]
    async with joined() as (door, service):
        for status in (200, 409):
            service.faults.add(
                "POST", r"/b\?", "status", count=1, status=status, headers=headers, body=body
            )
            with pytest.raises(Unavailable):
                await create_work(door)

        assert service.buckets == {}
        assert service.counters["buckets.list"] == 0


async def test_bucket_that_was_made_and_is_not_listed_is_not_ours_yet():
    async with joined() as (door, service):
        listing = service.faults.add(
            "GET", r"/b\?", "status", status=200, body='{"kind": "storage#buckets"}'
        )

        with pytest.raises(Unavailable, match="missing at once"):
            await create_work(door)
        with pytest.raises(NotOurs, match=ELSEWHERE):
            await create_work(door)
        service.faults.remove(listing)
        await create_work(door)


async def test_create_that_a_policy_forbids_is_refused_for_good():
    async with joined() as (door, service):
        body = refusal(412, "conditionNotMet")
        service.faults.add("POST", r"/b\?", "status", status=412, body=body)

        with pytest.raises(Rejected, match="412 conditionNotMet") as caught:
            await create_work(door)

        assert not isinstance(caught.value, Conflict)


async def test_outage_elsewhere_hides_no_bucket_that_is_listed():
    async with joined() as (door, service):
        service.add_bucket("another")
        service.hide_buckets("another")

        await create_work(door)
        with pytest.raises(Unavailable, match="unreachable"):
            await door.empty_bucket(RESULTS, owner=OWNER)


@pytest.mark.parametrize(
    "odd",
    [
        {"labels": None},
        {"labels": ["x"]},
        {"labels": {"job-id": 7}},
        {"timeCreated": None},
        {"timeCreated": "yesterday"},
        {"timeCreated": "0001-01-01T00:00:00+23:59"},
        {"timeCreated": "2026-11-23T03:56:00"},
        {"timeCreated": 5},
        {"location": None},
        {"metageneration": "many", "iamConfiguration": None, "softDeletePolicy": None},
    ],
    ids=str,
)
async def test_one_odd_bucket_does_not_spoil_the_list(odd: dict[str, Any]):
    async with joined() as (door, service):
        service.add_bucket("intervene-dev-a", labels={"job-id": "a"}, location="EU")
        whole = {"name": "intervene-dev-b", "kind": "storage#bucket", **odd}
        rows = [whole, {"name": "intervene-dev-a", "labels": {"job-id": "a"}, "location": "eu"}]
        body = json.dumps({"kind": "storage#buckets", "items": rows})
        service.faults.add("GET", r"/b\?", "status", status=200, body=body)

        odd_one, plain = await door.list_buckets("intervene-dev-")

        assert (odd_one.name, odd_one.labels, odd_one.created_at) == ("intervene-dev-b", {}, None)
        assert (plain.labels, plain.location) == ({"job-id": "a"}, "EU")
