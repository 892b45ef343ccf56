"""Objects of the stand-in: versions, lists, holds, lifecycle."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from storage_wire import Wire, reasons, wired


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with wired() as wire:
        yield wire


async def test_deleted_and_overwritten_objects_stay_where_versioning_is_on(wire: Wire):
    await wire.create_bare("a-bucket", versioning={"enabled": True})
    old = (await wire.upload("a-bucket", "x", b"1")).json()["generation"]
    new = (await wire.upload("a-bucket", "x", b"22")).json()["generation"]

    await wire.delete(wire.path("a-bucket", "x"))
    live = (await wire.get("/storage/v1/b/a-bucket/o")).json()
    every = (await wire.get("/storage/v1/b/a-bucket/o?versions=True")).json()
    await wire.delete(wire.path("a-bucket", "x", generation=old))
    left = (await wire.get("/storage/v1/b/a-bucket/o?versions=true")).json()

    assert "items" not in live
    assert [item["generation"] for item in every["items"]] == [old, new]
    assert [item["generation"] for item in left["items"]] == [new]
    assert reasons(await wire.get(wire.path("a-bucket", "x", generation=old)))[0] == 404


async def test_objects_are_listed_by_folder_with_the_fields_asked_for(wire: Wire):
    await wire.create_bare("a-bucket")
    for name in ("r/a", "r/b/1", "r/b/2", "r/c", "s"):
        await wire.upload("a-bucket", name, b"12")
    path = "/storage/v1/b/a-bucket/o?prefix=r/&delimiter=/"
    fields = "fields=items(name,size),prefixes,nextPageToken"

    first = (await wire.get(f"{path}&maxResults=2&{fields}")).json()
    rest = (await wire.get(f"{path}&pageToken={first['nextPageToken']}&{fields}")).json()

    assert first["items"] == [{"name": "r/a", "size": "2"}]
    assert first["prefixes"] == ["r/b/"]
    assert rest == {"items": [{"name": "r/c", "size": "2"}]}


async def test_page_holds_at_most_a_thousand_and_survives_deletions(wire: Wire):
    await wire.create_bare("a-bucket")
    for number in range(1500):
        wire.service.put_object("a-bucket", f"{number:04}", b"")

    first = (await wire.get("/storage/v1/b/a-bucket/o?versions=True&maxResults=5000")).json()
    for item in first["items"]:
        await wire.delete(wire.path("a-bucket", item["name"]))
    token = first["nextPageToken"]
    rest = (await wire.get(f"/storage/v1/b/a-bucket/o?versions=True&pageToken={token}")).json()

    assert (len(first["items"]), len(rest["items"])) == (1000, 500)
    assert rest["items"][0]["name"] == "1000"


async def test_bad_page_token_is_refused(wire: Wire):
    await wire.create_bare("a-bucket")

    assert reasons(await wire.get("/storage/v1/b/a-bucket/o?pageToken=x")) == (400, "invalid")


async def test_held_and_retained_objects_are_not_deleted(wire: Wire):
    await wire.create_bare("a-bucket")
    await wire.upload("a-bucket", "held", b"1")
    await wire.patch(wire.path("a-bucket", "held"), json={"temporaryHold": True})
    await wire.create_bare("b-bucket", retentionPolicy={"retentionPeriod": "3600"})
    await wire.upload("b-bucket", "retained", b"1")

    held = await wire.delete(wire.path("a-bucket", "held"))
    retained = await wire.delete(wire.path("b-bucket", "retained"))
    wire.service.advance(timedelta(hours=1))
    later = await wire.delete(wire.path("b-bucket", "retained"))

    assert reasons(held) == (403, "forbidden")
    assert reasons(retained) == (403, "retentionPolicyNotMet")
    assert later.status_code == 204


async def test_object_retention_and_default_holds_keep_objects(wire: Wire):
    await wire.create_bare("a-bucket", defaultEventBasedHold=True)
    until = (wire.service.now() + timedelta(hours=1)).isoformat()
    wire.service.put_object("a-bucket", "held", b"1")
    wire.service.put_object(
        "a-bucket", "kept", b"1", eventBasedHold=False, retention={"retainUntilTime": until}
    )

    held = await wire.delete(wire.path("a-bucket", "held"))
    kept = await wire.delete(wire.path("a-bucket", "kept"))
    wire.service.advance(timedelta(hours=1))
    later = await wire.delete(wire.path("a-bucket", "kept"))

    assert reasons(held) == (403, "forbidden")
    assert "under active Event-Based hold" in held.text
    assert reasons(kept) == (403, "retentionPolicyNotMet")
    assert later.status_code == 204


async def test_locked_retention_policy_grows_only(wire: Wire):
    policy = {"retentionPeriod": "60", "isLocked": True}
    await wire.create_bare("a-bucket", retentionPolicy=policy)
    path = "/storage/v1/b/a-bucket"

    ended = await wire.patch(path, json={"retentionPolicy": None})
    shorter = await wire.patch(path, json={"retentionPolicy": {"retentionPeriod": "59"}})
    longer = await wire.patch(path, json={"retentionPolicy": {"retentionPeriod": "61"}})

    assert reasons(ended) == reasons(shorter) == (403, "forbidden")
    assert longer.status_code == 200


async def test_what_is_kept_is_listed_only_while_soft_delete_is_on(wire: Wire):
    await wire.create("a-bucket")
    await wire.upload("a-bucket", "x", b"1")
    await wire.delete(wire.path("a-bucket", "x"))

    path = "/storage/v1/b/a-bucket"
    kept = (await wire.get(f"{path}/o?softDeleted=True")).json()["items"]
    off = {"softDeletePolicy": {"retentionDurationSeconds": "0"}}
    patched = (await wire.patch(path, json=off)).json()
    refused = await wire.get(f"{path}/o?softDeleted=True")

    assert [item["name"] for item in kept] == ["x"]
    assert kept[0]["hardDeleteTime"] > patched["updated"] >= patched["timeCreated"]
    assert reasons(refused) == (400, "invalid")
    assert len(wire.service.recoverable()) == 1


async def test_lifecycle_removes_aged_objects_and_uploads_but_no_bucket(wire: Wire):
    rules = [
        {"action": {"type": "Delete"}, "condition": {"age": 3, "matchesSuffix": [".vcf"]}},
        {"action": {"type": "AbortIncompleteMultipartUpload"}, "condition": {"age": 1}},
        {"action": {"type": "Delete"}, "condition": {"daysSinceCustomTime": 0}},
    ]
    await wire.create_bare("a-bucket", lifecycle={"rule": rules})
    for name in ("old.vcf", "old.txt", "held.vcf"):
        wire.service.put_object("a-bucket", name, b"1", temporaryHold=name == "held.vcf")
    wire.service.start_upload("a-bucket", "half", b"1")

    wire.service.advance(timedelta(days=2))
    wire.service.put_object("a-bucket", "young.vcf", b"1")
    wire.service.advance(timedelta(days=1))

    bucket = wire.service.buckets["a-bucket"]
    assert sorted(bucket.objects) == ["held.vcf", "old.txt", "young.vcf"]
    assert bucket.uploads == {}
