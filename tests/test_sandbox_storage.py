"""The Cloud Storage stand-in by its wire: buckets, objects, batches, and how it refuses."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from patience import PATIENCE
from storage_wire import Wire, reasons, wired

from pyvatti.sandbox.storage import StorageStandIn

WEEK = "604800"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with wired() as wire:
        yield wire


async def test_bucket_keeps_what_it_is_created_with_and_ignores_nulls(wire: Wire):
    answer = await wire.create(
        "a-bucket",
        location="europe-west2",
        labels={"job-id": "x"},
        softDeletePolicy={"retentionDurationSeconds": 0, "effectiveTime": None},
        lifecycle={"rule": [{"action": {"type": "Delete"}, "condition": {"age": 3}}]},
    )

    made = answer.json()
    assert made == (await wire.get("/storage/v1/b/a-bucket")).json()
    assert made["location"] == "EUROPE-WEST2"
    assert made["labels"] == {"job-id": "x"}
    assert made["softDeletePolicy"]["retentionDurationSeconds"] == "0"
    assert made["softDeletePolicy"]["effectiveTime"] == made["timeCreated"]
    assert made["lifecycle"]["rule"][0]["condition"] == {"age": 3}
    assert made["metageneration"] == "1"


async def test_bucket_of_defaults_keeps_deleted_objects_for_a_week(wire: Wire):
    made = (await wire.create("a-bucket")).json()

    assert made["softDeletePolicy"]["retentionDurationSeconds"] == WEEK
    assert made["iamConfiguration"]["publicAccessPrevention"] == "inherited"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"name": "ab"}, id="name too short"),
        pytest.param({"name": "Upper"}, id="name in capitals"),
        pytest.param({"name": "goog-bucket"}, id="name begins with goog"),
        pytest.param({"name": "my-g00gle-x"}, id="name looks like google"),
        pytest.param({"name": "192.168.0.1"}, id="name is an address"),
        pytest.param({"name": "a" * 64}, id="name too long"),
        pytest.param({"labels": {"app.kubernetes.io/name": "x"}}, id="label key with dots"),
        pytest.param({"labels": {"1st": "x"}}, id="label key begins with a digit"),
        pytest.param({"labels": {"job-id": "INTP1"}}, id="label value in capitals"),
        pytest.param({"labels": {f"k{n}": "" for n in range(65)}}, id="65 labels"),
        pytest.param({"softDeletePolicy": {"retentionDurationSeconds": 60}}, id="a minute kept"),
        pytest.param(
            {"softDeletePolicy": {"retentionDurationSeconds": 91 * 86400}}, id="91 days kept"
        ),
    ],
)
async def test_bad_bucket_is_refused(wire: Wire, body: dict[str, Any]):
    answer = await wire.create(**({"name": "good-name"} | body))

    assert reasons(answer) == (400, "invalid")
    assert wire.service.buckets == {}


async def test_bucket_needs_its_project(wire: Wire):
    without = await wire.post("/storage/v1/b", json={"name": "a-bucket"})
    foreign = await wire.post("/storage/v1/b?project=other", json={"name": "a-bucket"})

    assert reasons(without) == (400, "required")
    assert reasons(foreign) == (403, "forbidden")


async def test_taken_name_says_whose_it_is(wire: Wire):
    await wire.create("our-bucket")
    wire.service.add_bucket("their-bucket", project="other")

    ours, theirs = await wire.create("our-bucket"), await wire.create("their-bucket")

    assert reasons(ours) == reasons(theirs) == (409, "conflict")
    assert "you already own it" in ours.text
    assert "you already own it" not in theirs.text


async def test_missing_and_foreign_buckets_differ(wire: Wire):
    wire.service.add_bucket("their-bucket", project="other")

    missing = await wire.get("/storage/v1/b/no-bucket")

    assert missing.status_code == 404
    assert reasons(missing) == (404, "notFound")
    assert reasons(await wire.get("/storage/v1/b/their-bucket")) == (403, "forbidden")
    assert reasons(await wire.delete("/storage/v1/b/their-bucket")) == (403, "forbidden")


async def test_bucket_of_another_project_may_grant_something_and_is_never_listed(wire: Wire):
    wire.service.add_bucket("their-bucket", project="other", grants=["storage.buckets.get"])

    public = await wire.get("/storage/v1/b/their-bucket")
    objects = await wire.get("/storage/v1/b/their-bucket/o")
    listed = await wire.get("/storage/v1/b?project=intervene")

    assert public.status_code == 200
    assert reasons(objects) == (403, "forbidden")
    assert "items" not in listed.json()


async def test_permission_can_be_taken_away(wire: Wire):
    await wire.create("a-bucket")

    wire.service.deny("storage.buckets.get")
    denied = await wire.get("/storage/v1/b/a-bucket")
    wire.service.allow()

    assert reasons(denied) == (403, "forbidden")
    assert (await wire.get("/storage/v1/b/a-bucket")).status_code == 200


async def test_buckets_are_listed_by_project_and_prefix_in_pages(wire: Wire):
    for name in ("x-1", "x-2", "x-3", "y-1"):
        wire.service.add_bucket(f"bucket-{name}")
    wire.service.add_bucket("bucket-x-4", project="other")

    first = (await wire.get("/storage/v1/b?project=intervene&prefix=bucket-x&maxResults=2")).json()
    token = first["nextPageToken"]
    rest = (
        await wire.get(f"/storage/v1/b?project=intervene&prefix=bucket-x&pageToken={token}")
    ).json()

    assert [item["name"] for item in first["items"]] == ["bucket-x-1", "bucket-x-2"]
    assert [item["name"] for item in rest["items"]] == ["bucket-x-3"]
    assert "nextPageToken" not in rest


async def test_unreachable_buckets_are_reported(wire: Wire):
    await wire.create("a-bucket")
    wire.service.hide_buckets("a-bucket")

    listed = (await wire.get("/storage/v1/b?project=intervene")).json()

    assert "items" not in listed
    assert listed["unreachable"] == ["projects/_/buckets/a-bucket"]


async def test_patch_merges_and_counts_and_minds_its_precondition(wire: Wire):
    await wire.create("a-bucket", labels={"a": "1", "b": "2"})
    path = "/storage/v1/b/a-bucket"

    good = await wire.patch(f"{path}?ifMetagenerationMatch=1", json={"labels": {"a": None}})
    stale = await wire.patch(f"{path}?ifMetagenerationMatch=1", json={"labels": {"b": None}})

    assert good.json()["labels"] == {"b": "2"}
    assert good.json()["metageneration"] == "2"
    assert reasons(stale) == (412, "conditionNotMet")


async def test_full_bucket_is_not_deleted(wire: Wire):
    await wire.create("a-bucket")
    await wire.upload("a-bucket", "x", b"1")

    assert reasons(await wire.delete("/storage/v1/b/a-bucket")) == (409, "conflict")


async def test_somebody_writes_before_the_bucket_is_deleted(wire: Wire):
    await wire.create("a-bucket")
    wire.service.write_before_delete("a-bucket")

    first = await wire.delete("/storage/v1/b/a-bucket")
    await wire.delete(wire.path("a-bucket", "late"))
    second = await wire.delete("/storage/v1/b/a-bucket")

    assert (first.status_code, second.status_code) == (409, 204)


async def test_forgotten_soft_delete_shows_in_the_leftovers(wire: Wire):
    await wire.create("a-bucket")
    await wire.upload("a-bucket", "x", b"1")
    wire.service.start_upload("a-bucket", "half", b"1")

    await wire.delete(wire.path("a-bucket", "x"))
    await wire.delete("/storage/v1/b/a-bucket")

    kept = [(item.kind, item.bucket, item.name) for item in wire.service.soft_deleted]
    assert kept == [
        ("object", "a-bucket", "x"),
        ("upload", "a-bucket", "half"),
        ("bucket", "a-bucket", ""),
    ]
    assert len(wire.service.leftovers()) == 3
    wire.service.advance(timedelta(days=7))
    assert wire.service.leftovers() == []


async def test_batch_answers_in_order_with_content_ids(wire: Wire):
    await wire.create_bare("a-bucket")
    await wire.upload("a-bucket", "a/b", b"1")
    host = wire.service.url
    lines = [
        f"DELETE {host}/storage/v1/b/a-bucket/o/a%2Fb HTTP/1.1",
        f"DELETE {host}/storage/v1/b/a-bucket/o/none HTTP/1.1",
        f"GET {host}/storage/v1/b/a-bucket HTTP/1.1",
    ]

    answer = await wire.batch(lines)

    parts = answer.text.split("--batch_answer")[1:-1]
    assert [part.split("HTTP/1.1 ")[1][:3] for part in parts] == ["204", "404", "200"]
    assert all(f"Content-ID: <response-{n}>" in part for n, part in enumerate(parts))
    assert wire.service.counters["objects.delete"] == 2


@pytest.mark.parametrize(("parts", "status"), [(0, 400), (1, 200), (100, 200), (101, 400)])
async def test_batch_takes_up_to_a_hundred_parts(wire: Wire, parts: int, status: int):
    line = f"GET {wire.service.url}/storage/v1/b/a-bucket HTTP/1.1"

    assert (await wire.batch([line] * parts)).status_code == status


async def test_one_part_of_a_batch_fails_on_demand(wire: Wire):
    await wire.create_bare("a-bucket")
    for name in ("1", "2"):
        await wire.upload("a-bucket", name, b"")
    wire.service.fail_parts(503, name="o/2")

    host = f"{wire.service.url}/storage/v1/b/a-bucket/o"
    answer = await wire.batch([f"DELETE {host}/1 HTTP/1.1", f"DELETE {host}/2 HTTP/1.1"])

    assert "HTTP/1.1 204" in answer.text
    assert "HTTP/1.1 503" in answer.text
    assert list(wire.service.buckets["a-bucket"].objects) == ["2"]


async def test_bucket_calls_above_the_rate_are_refused_and_others_are_not():
    async with wired(rate_limit=True) as wire:
        made = [await wire.create(f"bucket-{number}") for number in range(3)]
        looked = [await wire.get("/storage/v1/b/bucket-0") for _ in range(5)]

        assert [answer.status_code for answer in made] == [200, 200, 429]
        assert reasons(made[2]) == (429, "rateLimitExceeded")
        assert {answer.status_code for answer in looked} == {200}
        wire.service.rate_limit = False
        assert (await wire.create("bucket-2")).status_code == 200
        assert sum(wire.service.calls_per_second("buckets.insert").values()) == 4


async def test_rate_comes_back_with_time():
    async with wired(rate_limit=True, bucket_seconds=0.3) as wire:
        statuses = [(await wire.create(f"bucket-{number}")).status_code for number in range(3)]
        async with asyncio.timeout(PATIENCE):
            while (await wire.create("one-more")).status_code == 429:
                await asyncio.sleep(0.05)

        assert statuses == [200, 200, 429]
        assert "one-more" in wire.service.buckets


async def test_requests_are_logged_with_their_user_agent(wire: Wire):
    await wire.create("a-bucket")
    await wire.get("/storage/v1/b/no-bucket")

    logged = [(item.method, item.path, item.status) for item in wire.service.requests]
    assert logged == [
        ("POST", "/storage/v1/b?project=intervene", 200),
        ("GET", "/storage/v1/b/no-bucket", 404),
    ]
    assert wire.service.requests[0].user_agent.startswith("python-httpx")


async def test_unknown_paths_are_404(wire: Wire):
    assert reasons(await wire.get("/storage/v1/b/x/iam/y/z")) == (404, "notFound")
    assert reasons(await wire.post("/nowhere")) == (404, "notFound")


async def test_two_stand_ins_know_nothing_of_each_other():
    async with StorageStandIn() as first, StorageStandIn() as second:
        first.add_bucket("a-bucket")

        assert first.url != second.url
        assert second.leftovers() == []


async def test_a_bucket_deleted_under_soft_delete_is_listed_among_the_deleted_alone(wire: Wire):
    for name in ("a-bucket", "b-bucket"):
        await wire.create(name, labels={"job-id": "x"})
    await wire.create_bare("a-bare")
    for name in ("a-bucket", "b-bucket", "a-bare"):
        await wire.delete(f"/storage/v1/b/{name}")

    path = "/storage/v1/b?project=intervene&prefix=a-"
    standing = (await wire.get(path)).json()
    (kept,) = (await wire.get(f"{path}&softDeleted=true")).json()["items"]

    assert standing == {"kind": "storage#buckets"}
    assert (kept["name"], kept["labels"]) == ("a-bucket", {"job-id": "x"})
    assert kept["hardDeleteTime"] > kept["timeCreated"]
