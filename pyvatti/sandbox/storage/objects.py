"""The JSON API's object calls: list, get, download, patch, delete, with versions.

No uploads (cloud.google.com/storage/docs/json_api/v1/objects).
"""

import base64
import json
import re
from bisect import bisect_right
from urllib.parse import quote

from pyvatti.sandbox.storage.buckets import precondition_failed, require_metageneration
from pyvatti.sandbox.storage.state import Bucket, State, Version
from pyvatti.sandbox.storage.wire import (
    Answer,
    ApiError,
    Call,
    Json,
    is_true,
    json_answer,
    merge,
    not_found,
    rfc3339,
)

MOST = 1000  # items in a page
RANGE = re.compile(r"bytes=(\d+)-(\d*)")
NO_RANGE = "Requested range not satisfiable"


def listing(state: State, call: Call) -> Answer:
    """List objects by prefix, delimiter and versions, in pages, with the fields asked for."""
    bucket = state.bucket(call.bucket, "storage.objects.list")
    if is_true(call.query.get("softDeleted")):
        return json_answer(_kept(state, bucket))
    rows = _rows(bucket, call)
    size = max(1, min(int(call.query.get("maxResults", MOST)), MOST))
    value: Json = {"kind": "storage#objects"}
    items = [
        resource(bucket, row, call.base, call.query.get("fields", ""))
        for _, row in rows[:size]
        if isinstance(row, Version)
    ]
    prefixes = [row for _, row in rows[:size] if isinstance(row, str)]
    if items:
        value["items"] = items
    if prefixes:
        value["prefixes"] = prefixes
    if len(rows) > size:
        value["nextPageToken"] = _token(rows[size - 1][0])
    return json_answer(value)


def _kept(state: State, bucket: Bucket) -> Json:
    """List what can be restored, which the service does only while soft delete is on."""
    if not bucket.soft_delete:
        raise ApiError(400, "invalid", "The bucket has no soft delete policy.")
    rows = [
        {
            "kind": "storage#object",
            "name": kept.name,
            "generation": str(kept.generation),
            "hardDeleteTime": rfc3339(kept.until),
        }
        for kept in state.soft_deleted
        if kept.kind == "object" and kept.bucket == bucket.name
    ]
    return {"kind": "storage#objects", "items": rows}


def get(state: State, call: Call) -> Answer:
    """Give one object's metadata, or its content for `alt=media`."""
    bucket = state.bucket(call.bucket, "storage.objects.get")
    version = find(bucket, call)
    if call.query.get("alt") == "media":
        return _content(version, call.headers.get("Range", ""))
    return json_answer(resource(bucket, version, call.base))


def download(state: State, call: Call) -> Answer:
    """Give one object's content."""
    version = find(state.bucket(call.bucket, "storage.objects.get"), call)
    return _content(version, call.headers.get("Range", ""))


def patch(state: State, call: Call) -> Answer:
    """Change metadata and holds by JSON merge patch."""
    bucket = state.bucket(call.bucket, "storage.objects.update")
    version = find(bucket, call)
    merge(version.properties, call.json())
    version.metageneration += 1
    return json_answer(resource(bucket, version, call.base))


def delete(state: State, call: Call) -> Answer:
    """Delete exactly one generation, or without a generation the live version."""
    bucket = state.bucket(call.bucket, "storage.objects.delete")
    version = find(bucket, call)
    state.remove(bucket, version, keep_version="generation" not in call.query)
    return Answer(status=204)


def find(bucket: Bucket, call: Call) -> Version:
    """Find the version a call names. Raises 404, and 412 for its preconditions."""
    wanted = call.query.get("generation")
    version = bucket.objects.get(call.name)
    if wanted is not None and (version is None or str(version.generation) != wanted):
        old = (found for found in bucket.noncurrent if found.name == call.name)
        version = next((found for found in old if str(found.generation) == wanted), None)
    if version is None:
        raise not_found(f"No such object: {bucket.name}/{call.name}")
    require_generation(call, version)
    require_metageneration(call, version.metageneration)
    return version


def require_generation(call: Call, live: Version | None) -> None:
    """Raise 412 if the live version is not the one asked for; 0 asks for none."""
    wanted = call.query.get("ifGenerationMatch")
    if wanted is not None and wanted != str(live.generation if live else 0):
        raise precondition_failed()


def resource(bucket: Bucket, version: Version, base: str, fields: str = "") -> Json:
    """Give an object as the JSON API does; digests are left out where only fields are asked."""
    path = f"b/{bucket.name}/o/{quote(version.name, safe='')}"
    value: Json = {
        "kind": "storage#object",
        "id": f"{bucket.name}/{version.name}/{version.generation}",
        "name": version.name,
        "bucket": bucket.name,
        "generation": str(version.generation),
        "metageneration": str(version.metageneration),
        "size": str(len(version.data)),
        "contentType": "application/octet-stream",
        "storageClass": "STANDARD",
        "timeCreated": rfc3339(version.created),
        "updated": rfc3339(version.created),
        "selfLink": f"{base}/storage/v1/{path}",
        "mediaLink": f"{base}/download/storage/v1/{path}?alt=media",
        **version.properties,
    }
    if version.noncurrent_since is not None:
        value["timeDeleted"] = rfc3339(version.noncurrent_since)
    if not fields:
        value |= {"md5Hash": version.md5, "crc32c": version.crc32c}
    return value


Key = tuple[str, int]


def _rows(bucket: Bucket, call: Call) -> list[tuple[Key, Version | str]]:
    """Give what follows the page token: versions and, with a delimiter, prefixes, by name."""
    prefix, delimiter = call.query.get("prefix", ""), call.query.get("delimiter", "")
    start, end = call.query.get("startOffset", ""), call.query.get("endOffset", "")
    with_versions = is_true(call.query.get("versions"))
    found = bucket.versions if with_versions else sorted(bucket.objects.values(), key=_key)
    rows: dict[Key, Version | str] = {}
    for version in found:
        if not version.name.startswith(prefix) or version.name < start:
            continue
        if end and version.name >= end:
            continue
        at = version.name.find(delimiter, len(prefix)) if delimiter else -1
        if at >= 0:
            folder = version.name[: at + len(delimiter)]
            rows[(folder, -1)] = folder
        else:
            rows[_key(version)] = version
    ordered = sorted(rows.items(), key=lambda row: row[0])
    token = call.query.get("pageToken")
    return (
        ordered[bisect_right(ordered, _read_token(token), key=lambda row: row[0]) :]
        if token
        else ordered
    )


def _key(version: Version) -> Key:
    return version.name, version.generation


def _token(key: Key) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _read_token(token: str) -> Key:
    try:
        name, generation = json.loads(base64.urlsafe_b64decode(token))
        return str(name), int(generation)
    except (ValueError, TypeError) as exc:
        raise ApiError(400, "invalid", f"Invalid pageToken '{token}'") from exc


def _content(version: Version, wanted: str) -> Answer:
    headers = {
        "Content-Type": str(version.properties.get("contentType", "application/octet-stream")),
        "X-Goog-Generation": str(version.generation),
        "X-Goog-Hash": f"crc32c={version.crc32c},md5={version.md5}",
    }
    match = RANGE.fullmatch(wanted)
    if not match:
        return Answer(body=version.data, headers=headers)
    start, total = int(match[1]), len(version.data)
    if start >= total:
        raise ApiError(416, "requestedRangeNotSatisfiable", NO_RANGE)
    end = min(int(match[2] or total), total - 1)
    headers["Content-Range"] = f"bytes {start}-{end}/{total}"
    return Answer(status=206, body=version.data[start : end + 1], headers=headers)
