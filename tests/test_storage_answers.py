"""What counts as an answer of Cloud Storage: a table of forms, without any socket."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from storage_builders import ODD, WORK, refusal

from pyvatti.storage.answers import is_of_storage, read_refusal

JSON = "application/json; charset=UTF-8"
URL = "https://storage.googleapis.com/storage/v1/b"
BUCKET = f"{URL}/{WORK}?projection=noAcl"


def judged(
    method: str,
    url: str,
    status: int,
    content: bytes,
    *,
    content_type: str = JSON,
    sent: Any = None,
) -> bool:
    request = SimpleNamespace(method=method, url=url, body=sent)
    headers = {"Content-Type": content_type}
    return is_of_storage(
        request, SimpleNamespace(status_code=status, headers=headers, content=content)
    )


def resource(kind: str, **fields: Any) -> bytes:
    return json.dumps({"kind": kind, **fields}).encode()


@pytest.mark.parametrize(
    ("method", "url", "status", "content"),
    [
        pytest.param("GET", f"{URL}?project=x", 200, resource("storage#buckets"), id="list"),
        pytest.param("GET", BUCKET, 200, resource("storage#bucket", name=WORK), id="get"),
        pytest.param("PATCH", BUCKET, 200, resource("storage#bucket", name=WORK), id="patch"),
        pytest.param("GET", f"{URL}/{WORK}/o?a=b", 200, resource("storage#objects"), id="objects"),
        pytest.param("DELETE", BUCKET, 204, b"", id="delete"),
        pytest.param("GET", BUCKET, 404, refusal(404, "notFound").encode(), id="404"),
        pytest.param("GET", BUCKET, 403, refusal(403, "forbidden").encode(), id="403"),
        pytest.param("GET", BUCKET, 503, b"<html>", id="503 of anybody makes us wait"),
        pytest.param("GET", BUCKET, 429, b"", id="429 of anybody makes us wait"),
    ],
)
def test_answers_of_cloud_storage_are_taken(method: str, url: str, status: int, content: bytes):
    assert judged(method, url, status, content)


@pytest.mark.parametrize(
    ("method", "url", "status", "content"),
    [
        pytest.param("GET", URL, 200, resource("storage#bucket"), id="list: a bucket"),
        pytest.param("GET", URL, 200, b"{}", id="list: no kind"),
        pytest.param("GET", URL, 200, b"\xef\xbb\xbf" + resource("storage#buckets"), id="BOM"),
        pytest.param("GET", URL, 200, b"\xff\xfe", id="not UTF-8"),
        pytest.param("GET", URL, 206, resource("storage#buckets"), id="list: part of it"),
        pytest.param("GET", BUCKET, 200, resource("storage#buckets"), id="get: a list"),
        pytest.param("GET", BUCKET, 200, resource("storage#bucket", name="x"), id="get: another"),
        pytest.param("GET", f"{URL}/{WORK}/o", 200, resource("storage#buckets"), id="objects"),
        pytest.param("DELETE", BUCKET, 200, b"", id="delete: 200"),
        pytest.param("DELETE", BUCKET, 204, b"gone", id="delete: 204 with text"),
        pytest.param("DELETE", BUCKET, 202, b"{}", id="delete: later"),
        pytest.param("GET", BUCKET, 302, refusal(302, "found").encode(), id="redirect"),
        pytest.param("GET", f"{URL}/{WORK}/acl", 200, resource("storage#acl"), id="not asked for"),
    ],
)
def test_answers_of_another_form_are_not(method: str, url: str, status: int, content: bytes):
    assert not judged(method, url, status, content)


@pytest.mark.parametrize("odd", ODD)
def test_what_is_not_cloud_storages_is_never_taken(odd: str):
    headers, body = ODD[odd]
    sent = json.dumps({"name": WORK})
    kind, content = headers.get("Content-Type", JSON), body.encode()

    taken = [
        (method, status)
        for method, url in (("GET", BUCKET), ("GET", URL), ("PATCH", BUCKET), ("POST", URL))
        for status in (200, 204, 301, 400, 401, 403, 404, 409, 412)
        if judged(method, url, status, content, content_type=kind, sent=sent)
    ]

    assert taken == []


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [(WORK, "storage#bucket", True), ("x", "storage#bucket", False), (WORK, "storage#b", False)],
)
def test_created_is_the_bucket_that_was_asked_for(name: str, kind: str, *, expected: bool):
    sent = json.dumps({"name": WORK}).encode()
    assert judged("POST", URL, 200, resource(kind, name=name), sent=sent) is expected


@pytest.mark.parametrize(
    ("status", "content_type", "expected"),
    [
        (200, "multipart/mixed; boundary=x", True),
        (200, JSON, False),
        (207, "multipart/mixed", False),
    ],
)
def test_batch_is_answered_in_parts(status: int, content_type: str, *, expected: bool):
    url = "https://storage.googleapis.com/batch/storage/v1"
    assert judged("POST", url, status, b"--x--", content_type=content_type) is expected


def test_refusal_is_read_with_its_reason():
    read = read_refusal(403, JSON, refusal(403, "retentionPolicyNotMet").encode())

    assert read is not None
    assert (read.status, read.reason) == (403, "retentionPolicyNotMet")
    assert read_refusal(403, JSON, refusal(403, "<a href=x>").encode()) is None
    assert read_refusal(503, JSON, refusal(503).encode()) is None
