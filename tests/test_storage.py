"""Buckets made whole, emptied and removed: the fault table's rows 40 to 44, on a real socket."""

from datetime import timedelta
from typing import Any

import pytest
from builders import INSTALLATION
from storage_builders import (
    OTHER,
    OWNER,
    RESULTS,
    UID,
    WORK,
    create_work,
    joined,
    open_door,
    refusal,
)

from pyvatti.errors import ConfigurationError, Denied, NotOurs, Rejected, Unavailable
from pyvatti.storage import BucketInfo, Purpose


async def test_bucket_is_born_protected_in_one_call():
    async with joined() as (door, service):
        await create_work(door)

        bucket = service.buckets[WORK]
        assert dict(service.counters) == {"buckets.insert": 1, "buckets.list": 1}
        assert bucket.metageneration == 1
        assert bucket.properties["softDeletePolicy"]["retentionDurationSeconds"] == "0"
        assert bucket.properties["iamConfiguration"] == {
            "uniformBucketLevelAccess": {"enabled": True},
            "publicAccessPrevention": "enforced",
        }
        assert bucket.properties["versioning"] == {"enabled": False}
        assert bucket.properties["location"] == "EUROPE-WEST2"
        assert bucket.labels == {
            "managed-by": "pyvatti",
            "instance": "pyvatti",
            "namespace-uid": INSTALLATION.namespace_uid,
            "job-id": "intp00000000044",
            "job-uid": UID,
        }


@pytest.mark.parametrize(
    ("purpose", "changes", "days"),
    [
        pytest.param("work", {}, 3, id="work, 1 h and 48 h: 3 days"),
        pytest.param(
            "work",
            {"timeout_seconds": 60, "deployed_timeout_seconds": 60},
            1,
            id="work, two minutes: a day, the least",
        ),
        pytest.param(
            "work",
            {"timeout_seconds": 86400, "deployed_timeout_seconds": 86400},
            2,
            id="work, exactly 2 days: 2 days",
        ),
        pytest.param("results", {}, 17, id="results: 14 days after the end of the longest job"),
        pytest.param(
            "results",
            {"results_retention": 86400},
            4,
            id="results, kept for a day: the longest job and a day",
        ),
        pytest.param(
            "results",
            {
                "timeout_seconds": 43200,
                "deployed_timeout_seconds": 43200,
                "results_retention": 86400,
            },
            3,
            id="results, kept for a day after a job of a day and its graces",
        ),
    ],
)
async def test_lifecycle_is_not_shorter_than_the_longest_job(
    purpose: Purpose, changes: dict[str, Any], days: int
):
    async with joined(**changes) as (door, service):
        await door.create_bucket(WORK, owner=OWNER, purpose=purpose)

        assert service.buckets[WORK].properties["lifecycle"]["rule"] == [
            {"action": {"type": "Delete"}, "condition": {"age": days}},
            {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}},
        ]


async def test_lifecycle_alone_removes_the_data_if_nobody_comes_back():
    async with joined() as (door, service):
        await create_work(door)
        service.put_object(WORK, "data/genome.pgen", b"acgt")
        service.start_upload(WORK, "data/genome.psam", b"part")

        service.advance(timedelta(days=2))
        kept = service.leftovers()
        service.advance(timedelta(days=1))

        assert kept == [f"bucket {WORK}", f"object {WORK}/data/genome.pgen"]
        assert service.leftovers() == [f"bucket {WORK}"]


async def test_second_create_of_the_same_job_is_success():
    async with joined() as (door, service):
        await create_work(door)
        await create_work(door)

        assert service.buckets[WORK].labels["job-uid"] == UID


async def test_name_that_is_taken_and_missing_at_once_is_tried_later():
    async with joined() as (door, service):
        service.faults.add("POST", r"/b\?", "status", count=1, status=409, body=refusal(409))

        with pytest.raises(Unavailable):
            await create_work(door)
        await create_work(door)

        assert WORK in service.buckets


async def test_bucket_of_an_earlier_job_is_left_alone():
    async with joined() as (door, service):
        await create_work(door, owner=OTHER)
        service.put_object(WORK, "results/kept", b"1")

        with pytest.raises(NotOurs):
            await create_work(door)
        with pytest.raises(NotOurs):
            await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == [f"bucket {WORK}", f"object {WORK}/results/kept"]


async def test_unlabelled_bucket_of_the_project_is_left_alone():
    async with joined() as (door, service):
        service.add_bucket(WORK)
        service.put_object(WORK, "precious", b"1")

        with pytest.raises(NotOurs):
            await create_work(door)
        with pytest.raises(NotOurs):
            await door.delete_bucket(WORK, owner=OWNER)

        assert list(service.buckets[WORK].objects) == ["precious"]


async def test_bucket_of_another_project_is_not_ours():
    async with joined() as (door, service):
        service.add_bucket(WORK, project="somebody-else")

        with pytest.raises(NotOurs):
            await create_work(door)
        with pytest.raises(NotOurs):
            await door.delete_bucket(WORK, owner=OWNER)

        assert WORK in service.buckets


async def test_missing_permission_is_not_taken_for_somebody_elses_bucket():
    async with joined() as (door, service):
        await create_work(door)
        service.deny("storage.buckets.list")

        with pytest.raises(Denied):
            await door.delete_bucket(WORK, owner=OWNER)
        service.allow()
        await door.delete_bucket(WORK, owner=OWNER)

        assert service.leftovers() == []


async def test_partial_list_does_not_make_a_forbidden_bucket_somebody_elses():
    async with joined() as (door, service):
        await create_work(door)
        service.deny("storage.buckets.get")
        service.hide_buckets(WORK)

        with pytest.raises(Unavailable):
            await door.delete_bucket(WORK, owner=OWNER)


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        pytest.param(
            {"softDeletePolicy": {"retentionDurationSeconds": "604800"}},
            "soft delete is not 0",
            id="soft delete forced on",
        ),
        pytest.param(
            {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": False}}},
            "uniform access is off",
            id="uniform access forced off",
        ),
        pytest.param(
            {"iamConfiguration": {"publicAccessPrevention": "inherited"}},
            "public access prevention is not enforced",
            id="public access prevention not kept",
        ),
        pytest.param({"versioning": {"enabled": True}}, "versioning is on", id="versioning forced"),
        pytest.param({"location": "US"}, "location is US, not EUROPE-WEST2", id="location"),
        pytest.param(
            {"lifecycle": {"rule": []}}, "lifecycle rules are not ours", id="lifecycle lost"
        ),
        pytest.param(
            {"retentionPolicy": {"retentionPeriod": "2592000"}},
            "a retention policy is set",
            id="retention policy",
        ),
        pytest.param(
            {"objectRetention": {"mode": "Enabled"}},
            "a retention policy is set",
            id="object retention",
        ),
        pytest.param(
            {"defaultEventBasedHold": True}, "put under a hold", id="default event-based hold"
        ),
        pytest.param(
            {"labels": {"job-uid": None}}, "label job-uid is missing", id="label not kept"
        ),
    ],
)
async def test_bucket_whose_protection_is_not_kept_is_withdrawn(policy: dict[str, Any], named: str):
    async with joined() as (door, service):
        service.make_otherwise(policy)

        with pytest.raises(Rejected, match=named):
            await create_work(door)

        assert service.buckets == {}


@pytest.mark.parametrize(
    "name", ["Upper", "a", "-dash", "google-x", "goog-x", "10.0.0.1", "x" * 64]
)
async def test_bad_bucket_name_is_rejected(name: str):
    async with joined() as (door, service):
        with pytest.raises(Rejected):
            await door.create_bucket(name, owner=OWNER, purpose="work")

        assert service.buckets == {}


async def test_result_is_found_by_folder_and_ending():
    async with joined() as (door, service):
        await door.create_bucket(RESULTS, owner=OWNER, purpose="results")
        for number in range(1001):
            service.put_object(RESULTS, f"results/demo/match/{number:04}", b"1")
        service.put_object(RESULTS, "results/demo/score/report.html", b"1")

        assert await door.has_object(RESULTS, "results/demo", "report.html", owner=OWNER)
        assert not await door.has_object(RESULTS, "results/demo/match/", "report.html", owner=OWNER)
        assert not await door.has_object(RESULTS, "results/other", "report.html", owner=OWNER)
        assert not await door.has_object("missing-bucket", "results", "report.html", owner=OWNER)


async def test_buckets_are_listed_by_prefix_over_all_pages():
    async with joined() as (door, service):
        for number in range(1001):
            service.add_bucket(f"intervene-dev-{number:04}-work", labels={"job-id": str(number)})
        service.add_bucket("intervene-test-x-work")
        service.add_bucket("intervene-dev-foreign", project="somebody-else")

        found = await door.list_buckets("intervene-dev-")

        assert len(found) == 1001
        assert found[7] == BucketInfo(
            name="intervene-dev-0007-work",
            labels={"job-id": "7"},
            created_at=found[7].created_at,
            location=found[7].location,
        )
        assert found[7].created_at is not None
        assert found[7].created_at.tzinfo is not None


async def test_partial_list_of_buckets_is_an_error():
    async with joined() as (door, service):
        service.add_bucket("intervene-dev-a-work")
        service.hide_buckets("intervene-dev-a-work")

        with pytest.raises(Unavailable, match="unreachable"):
            await door.list_buckets("intervene-dev-")


async def test_address_of_the_stand_in_without_scheme_is_refused_at_start():
    with pytest.raises(ConfigurationError, match="STORAGE_EMULATOR_HOST"):
        async with open_door("127.0.0.1:4443"):
            pass


async def test_no_credentials_are_looked_for_when_the_stand_in_is_addressed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")
    async with joined() as (door, service):
        await create_work(door)

        assert list(service.buckets) == [WORK]


async def test_missing_credentials_are_denied(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json")
    async with open_door("") as door:
        with pytest.raises(Denied):
            await create_work(door)
