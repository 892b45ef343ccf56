"""Uploads and downloads of the stand-in, by plain HTTP and by Google's own client."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from storage_wire import Wire, wired

NAMES = ["plain", "a/b/c", "a#b?c=d&e", "100%", "%2F", "a+b c", "genöm/基因", "a//b"]
RESUMABLE = "/upload/storage/v1/b/a-bucket/o?uploadType=resumable&name=x"


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with wired() as wire:
        await wire.create_bare("a-bucket")
        yield wire


@pytest.mark.parametrize("name", NAMES)
async def test_object_of_any_name_comes_back(wire: Wire, name: str):
    made = await wire.upload("a-bucket", name, b"acgt")
    found = await wire.get(wire.path("a-bucket", name, alt="media"))
    linked = await wire.get(made.json()["mediaLink"])
    gone = await wire.delete(wire.path("a-bucket", name))

    assert made.json()["name"] == name
    assert found.content == linked.content == b"acgt"
    assert gone.status_code == 204
    assert wire.service.leftovers() == ["bucket a-bucket"]


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_object_without_a_proper_name_is_refused(wire: Wire, name: str):
    answer = await wire.upload("a-bucket", name, b"1")

    assert answer.status_code == 400
    assert wire.service.leftovers() == ["bucket a-bucket"]


async def test_malformed_bodies_are_refused(wire: Wire):
    path = "/upload/storage/v1/b/a-bucket/o"
    kind = {"Content-Type": "multipart/related; boundary=limit"}

    answers = [
        await wire.post("/storage/v1/b?project=intervene", content=b"{"),
        await wire.post("/storage/v1/b?project=intervene", content=b"[]"),
        await wire.post(f"{path}?uploadType=multipart", content=b"no parts", headers=kind),
        await wire.put(f"{path}?upload_id=none", content=b"1"),
        await wire.delete(f"{path}?upload_id=none"),
        await wire.get("/a-bucket"),
    ]

    assert [answer.status_code for answer in answers] == [400, 400, 400, 404, 404, 404]


async def test_chunk_that_does_not_follow_is_refused(wire: Wire):
    session = (await wire.post(RESUMABLE, json={})).headers["Location"]

    answer = await wire.put(session, content=b"5", headers={"Content-Range": "bytes 5-5/10"})

    assert answer.status_code == 503


async def test_part_of_an_object_is_read(wire: Wire):
    await wire.upload("a-bucket", "x", b"0123456789")
    path = wire.path("a-bucket", "x", alt="media")

    middle = await wire.get(path, headers={"Range": "bytes=2-4"})
    rest = await wire.get(path, headers={"Range": "bytes=8-"})
    beyond = await wire.get(path, headers={"Range": "bytes=10-"})

    assert (middle.status_code, middle.content) == (206, b"234")
    assert middle.headers["Content-Range"] == "bytes 2-4/10"
    assert rest.content == b"89"
    assert beyond.status_code == 416


async def test_upload_that_must_not_replace_is_refused(wire: Wire):
    path = "/upload/storage/v1/b/a-bucket/o?uploadType=media&name=x&ifGenerationMatch=0"

    first = await wire.post(path, content=b"1")
    second = await wire.post(path, content=b"2")

    assert (first.status_code, second.status_code) == (200, 412)
    assert wire.service.buckets["a-bucket"].objects["x"].data == b"1"


async def test_resumable_upload_continues_where_it_was_cut(wire: Wire):
    session = (await wire.post(RESUMABLE, json={})).headers["Location"]

    none = await wire.put(session, headers={"Content-Range": "bytes */10"})
    begun = await wire.put(session, content=b"01234", headers={"Content-Range": "bytes 0-4/10"})
    asked = await wire.put(session, headers={"Content-Range": "bytes */10"})
    again = await wire.put(session, content=b"345", headers={"Content-Range": "bytes 3-5/*"})
    ended = await wire.put(session, content=b"6789", headers={"Content-Range": "bytes 6-9/10"})

    assert "Range" not in none.headers
    assert [answer.status_code for answer in (none, begun, asked, again)] == [308] * 4
    assert begun.headers["Range"] == asked.headers["Range"] == "bytes=0-4"
    assert again.headers["Range"] == "bytes=0-5"
    assert ended.json()["size"] == "10"
    assert wire.service.buckets["a-bucket"].objects["x"].data == b"0123456789"


async def test_cancelled_resumable_upload_leaves_nothing(wire: Wire):
    session = (await wire.post(RESUMABLE, json={})).headers["Location"]
    await wire.put(session, content=b"01234", headers={"Content-Range": "bytes 0-4/10"})

    cancelled = await wire.delete(session)
    late = await wire.put(session, content=b"5", headers={"Content-Range": "bytes 5-5/10"})

    assert (cancelled.status_code, late.status_code) == (499, 404)
    assert wire.service.leftovers() == ["bucket a-bucket"]


async def test_parts_of_an_unfinished_upload_show_until_it_is_completed(wire: Wire):
    begun = await wire.post("/a-bucket/data/x?uploads")
    upload = re.findall("<UploadId>(.*)</UploadId>", begun.text)[0]
    for number, part in ((2, b"world"), (1, b"hello ")):
        await wire.put(f"/a-bucket/data/x?partNumber={number}&uploadId={upload}", content=part)

    listed = await wire.get("/a-bucket?uploads")
    before = wire.service.leftovers()
    await wire.post(f"/a-bucket/data/x?uploadId={upload}", content="<CompleteMultipartUpload/>")

    assert f"<Key>data/x</Key><UploadId>{upload}</UploadId>" in listed.text
    assert before == ["bucket a-bucket", "unfinished upload a-bucket/data/x"]
    assert (await wire.get("/a-bucket/data/x")).content == b"hello world"
    assert "<Upload>" not in (await wire.get("/a-bucket?uploads")).text


async def test_aborted_upload_is_gone_and_invisible_to_the_object_list(wire: Wire):
    upload = wire.service.start_upload("a-bucket", "x", b"part")

    listed = (await wire.get("/storage/v1/b/a-bucket/o?versions=True")).json()
    aborted = await wire.delete(f"/a-bucket/x?uploadId={upload.id}")
    again = await wire.delete(f"/a-bucket/x?uploadId={upload.id}")

    assert "items" not in listed
    assert (aborted.status_code, again.status_code) == (204, 404)
    assert wire.service.leftovers() == ["bucket a-bucket"]


async def test_bucket_with_nothing_but_unfinished_uploads_is_deleted_with_them(wire: Wire):
    wire.service.start_upload("a-bucket", "x", b"part")

    deleted = await wire.delete("/storage/v1/b/a-bucket")

    assert deleted.status_code == 204
    assert wire.service.leftovers() == []


async def test_whole_object_is_written_and_deleted_through_the_xml_api(wire: Wire):
    await wire.put("/a-bucket/data/x", content=b"acgt")
    found = await wire.get("/a-bucket/data/x")
    await wire.delete("/a-bucket/data/x")

    assert found.content == b"acgt"
    assert wire.service.leftovers() == ["bucket a-bucket"]


def use_google_client(url: str) -> dict[str, Any]:
    """Do with Google's client what a workflow does: it checks digests by itself."""
    client = storage.Client(
        project="intervene",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": url},
    )
    bucket = client.bucket("a-bucket")
    data = bytes(range(256)) * 4096
    bucket.blob("a/small").upload_from_string(b"small", content_type="text/plain")
    bucket.blob("a/large", chunk_size=256 * 1024).upload_from_string(data)
    found = {
        "names": [blob.name for blob in client.list_blobs("a-bucket", prefix="a/", page_size=1)],
        "small": bucket.blob("a/small").download_as_bytes(),
        "range": bucket.blob("a/large").download_as_bytes(start=256, end=259),
        "large is equal": bucket.blob("a/large").download_as_bytes() == data,
        "type": bucket.get_blob("a/small").content_type,
        "missing": bucket.get_blob("a/none"),
    }
    client.close()
    return found


async def test_googles_client_is_content(wire: Wire):
    found = await asyncio.to_thread(use_google_client, wire.service.url)

    assert found == {
        "names": ["a/large", "a/small"],
        "small": b"small",
        "range": b"\x00\x01\x02\x03",
        "large is equal": True,
        "type": "text/plain",
        "missing": None,
    }
