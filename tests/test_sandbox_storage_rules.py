"""What the storage stand-in refuses, as Cloud Storage does: unknown fields, impossible values."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from storage_wire import Wire, reasons, wired


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with wired() as wire:
        yield wire


RULE: dict[str, Any] = {"action": {"type": "Delete"}, "condition": {"age": 1}}


def ruled(**changes: Any) -> dict[str, Any]:
    return {"lifecycle": {"rule": [RULE | changes]}}


IMPOSSIBLE = [
    {"colour": "red"},
    {"acl": []},
    {"location": "MARS"},
    {"location": "europe-west"},
    {"storageClass": "WARM"},
    {"labels": ["a"]},
    {"iamConfiguration": {"publicAccessPrevention": "yes"}},
    {"iamConfiguration": {"uniformAccess": {"enabled": True}}},
    {"iamConfiguration": {"uniformBucketLevelAccess": {"on": True}}},
    {"softDeletePolicy": {"seconds": 0}},
    {"softDeletePolicy": 0},
    {"lifecycle": {"rules": []}},
    {"lifecycle": {"rule": [RULE] * 101}},
    ruled(action={"type": "Burn"}),
    ruled(action={"type": "SetStorageClass"}),
    ruled(action={"type": "AbortIncompleteMultipartUpload"}, condition={"isLive": True}),
    ruled(condition={}),
    ruled(condition={"age": -1}),
    ruled(condition={"age": "1"}),
    ruled(condition={"ages": 1}),
    ruled(condition={"matchesPrefix": "a"}),
    ruled(cond={"age": 1}),
]
NAMES = [
    *("ab", "a" * 64, "-ab", "ab-", "_ab", "aB", "a b", "goog-x", "my-google-x", "my-g00g1e-x"),
    *("192.168.1.1", "a..b", ".ab", "a." + "b" * 64),
]


@pytest.mark.parametrize("body", IMPOSSIBLE, ids=str)
async def test_impossible_bucket_is_refused_at_insert_and_patch(wire: Wire, body: dict[str, Any]):
    await wire.create("there")
    before = wire.service.buckets["there"].properties.copy()

    made = await wire.create("a-bucket", **body)
    changed = await wire.patch("/storage/v1/b/there", json=body)

    assert reasons(made) == reasons(changed) == (400, "invalid")
    assert list(wire.service.buckets) == ["there"]
    assert wire.service.buckets["there"].properties == before


@pytest.mark.parametrize("name", NAMES)
async def test_bad_bucket_name_is_refused(wire: Wire, name: str):
    assert reasons(await wire.create(name)) == (400, "invalid")
    assert wire.service.buckets == {}


async def test_bucket_named_as_a_domain_needs_its_owner(wire: Wire):
    assert reasons(await wire.create("data.example.org")) == (403, "forbidden")


async def test_possible_buckets_are_made(wire: Wire):
    bodies: list[dict[str, Any]] = [
        {"location": "europe-west2", "storageClass": "COLDLINE"},
        {"location": "EUR4", "id": "x", "etag": "y"},  # what is given out is ignored
        ruled(action={"type": "SetStorageClass", "storageClass": "ARCHIVE"}),
        ruled(condition={"age": 0, "matchesSuffix": [".vcf"], "isLive": True}),
    ]

    made = [await wire.create(f"bucket-{n}", **body) for n, body in enumerate(bodies)]

    assert [answer.status_code for answer in made] == [200] * 4
    assert made[1].json()["id"] == "bucket-1"


@pytest.mark.parametrize("name", [".", "..", "a\nb", "x" * 1025, ".well-known/acme-challenge/x"])
async def test_bad_object_name_is_refused(wire: Wire, name: str):
    await wire.create("a-bucket")

    assert reasons(await wire.upload("a-bucket", name, b"")) == (400, "invalid")
    assert wire.service.buckets["a-bucket"].objects == {}


@pytest.mark.parametrize("body", [{"name": "other"}, {"location": "EU"}])
async def test_bucket_keeps_name_and_place(wire: Wire, body: dict[str, str]):
    await wire.create("a-bucket")

    answer = await wire.patch("/storage/v1/b/a-bucket", json=body)
    same = await wire.patch("/storage/v1/b/a-bucket", json={"name": "a-bucket", "location": "us"})

    assert reasons(answer) == (400, "invalid")
    assert same.json()["name"] == "a-bucket"
    assert same.json()["location"] == "US"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/storage/v1/b?project=intervene&filter=x"),
        ("get", "/storage/v1/b?project=intervene&maxResults=many"),
        ("get", "/storage/v1/b/a-bucket?softDeleted=true&generation=1"),
        ("get", "/storage/v1/b/a-bucket?projection=all"),
        ("get", "/storage/v1/b/a-bucket/o?matchGlob=*"),
        ("delete", "/storage/v1/b/a-bucket?force=true"),
        ("delete", "/storage/v1/b/a-bucket?ifMetagenerationMatch=x"),
    ],
)
async def test_parameter_that_is_not_obeyed_is_refused(wire: Wire, method: str, path: str):
    await wire.create("a-bucket")

    assert reasons(await getattr(wire, method)(path)) == (400, "invalid")
    assert list(wire.service.buckets) == ["a-bucket"]


async def test_looks_and_deletes_mind_the_metageneration(wire: Wire):
    await wire.create("a-bucket")
    path = "/storage/v1/b/a-bucket?ifMetagenerationMatch="

    stale = [await wire.get(f"{path}2"), await wire.delete(f"{path}2")]

    assert [reasons(answer) for answer in stale] == [(412, "conditionNotMet")] * 2
    assert (await wire.get(f"{path}1")).status_code == 200
    assert (await wire.delete(f"{path}1")).status_code == 204


async def test_only_the_fields_asked_for_are_given(wire: Wire):
    await wire.create("a-bucket", labels={"a": "1"})
    path = "/storage/v1/b/a-bucket?fields="

    assert (await wire.get(f"{path}name,labels")).json() == {
        "name": "a-bucket",
        "labels": {"a": "1"},
    }
    assert (await wire.get("/storage/v1/b?project=intervene&fields=items/name")).json() == {
        "items": [{"name": "a-bucket"}]
    }
    assert (await wire.get(f"{path}*")).json()["kind"] == "storage#bucket"
    assert reasons(await wire.get(f"{path}a(b(c))")) == (400, "invalidParameter")


async def test_objects_are_listed_between_offsets(wire: Wire):
    await wire.create("a-bucket")
    for name in "abcd":
        await wire.upload("a-bucket", name, b"")

    listed = await wire.get("/storage/v1/b/a-bucket/o?startOffset=b&endOffset=d")

    assert [item["name"] for item in listed.json()["items"]] == ["b", "c"]


async def test_policy_of_an_organisation_refuses_and_changes_nothing(wire: Wire):
    await wire.create("there", softDeletePolicy={"retentionDurationSeconds": "604800"})
    wire.service.force_policy({"softDeletePolicy": {"retentionDurationSeconds": "604800"}})
    body = {"softDeletePolicy": {"retentionDurationSeconds": "0"}}

    made = await wire.create("new", **body)
    changed = await wire.patch("/storage/v1/b/there", json=body)
    allowed = await wire.create("kept")

    assert reasons(made) == reasons(changed) == (412, "conditionNotMet")
    assert "constraints/storage.softDeletePolicySeconds" in made.text
    assert allowed.status_code == 200
    assert wire.service.buckets["there"].metageneration == 1


@pytest.mark.parametrize(("status", "reason"), [(403, "forbidden"), (503, "backendError")])
async def test_injected_status_has_googles_form(wire: Wire, status: int, reason: str):
    wire.service.faults.add("get", "/b/", "status", status=status)

    assert reasons(await wire.get("/storage/v1/b/a-bucket")) == (status, reason)
