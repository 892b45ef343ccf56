"""The JSON API's uploads (media, multipart, resumable) and the XML API's multipart uploads.

No lists of objects (cloud.google.com/storage/docs/uploads-downloads).
"""

import json
import re
from dataclasses import replace
from xml.sax.saxutils import escape

from pyvatti.sandbox.storage.objects import find, require_generation, resource
from pyvatti.sandbox.storage.rules import check_object_name
from pyvatti.sandbox.storage.state import Bucket, State, Upload, Version, new_upload
from pyvatti.sandbox.storage.wire import (
    Answer,
    ApiError,
    Call,
    Json,
    json_answer,
    not_found,
    rfc3339,
)

CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
BOUNDARY = re.compile(r'boundary="?([^";]+)"?')


def start(state: State, call: Call) -> Answer:
    """Upload at once (media, multipart) or open a resumable session."""
    bucket = state.bucket(call.bucket, "storage.objects.create")
    kind = call.query.get("uploadType", "media")
    if kind == "resumable":
        return _open(state, bucket, call)
    if kind == "multipart":
        properties, data = _related(call)
    else:
        properties, data = {"contentType": call.headers.get("Content-Type", "")}, call.body
    return _finish(state, call, properties, data)


def carry_on(state: State, call: Call) -> Answer:
    """Take one chunk of a resumable upload, or say how far it came: 308 until it is whole."""
    session = state.sessions.get(call.query.get("upload_id", ""))
    if session is None:
        raise not_found("No such upload session")
    match = CONTENT_RANGE.fullmatch(call.headers.get("Content-Range", ""))
    begin = int(match[1]) if match and match[1] else 0
    if match is None or match[1]:
        if begin > len(session.data):
            raise ApiError(503, "backendError", "The chunk does not follow what is there.")
        session.data[begin:] = call.body
    total = len(session.data) if match is None else match[3]
    if str(total) != str(len(session.data)):
        came = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
        return Answer(status=308, headers=came)
    del state.sessions[session.id]
    call = replace(call, name=session.name)
    return _finish(state, call, session.properties, bytes(session.data))


def cancel(state: State, call: Call) -> Answer:
    """Give up a resumable upload."""
    if state.sessions.pop(call.query.get("upload_id", ""), None) is None:
        raise not_found("No such upload session")
    return Answer(status=499)


def xml_bucket(state: State, call: Call) -> Answer:
    """List unfinished multipart uploads: `GET /bucket?uploads`."""
    bucket = state.bucket(call.bucket, "storage.multipartUploads.list")
    if "uploads" not in call.query:
        raise not_found("The stand-in lists objects through the JSON API only")
    rows = "".join(
        f"<Upload><Key>{escape(upload.name)}</Key><UploadId>{upload.id}</UploadId>"
        f"<Initiated>{rfc3339(upload.created)}</Initiated></Upload>"
        for upload in sorted(bucket.uploads.values(), key=lambda upload: (upload.name, upload.id))
    )
    return _xml("ListMultipartUploadsResult", f"<Bucket>{bucket.name}</Bucket>{rows}")


def xml_post(state: State, call: Call) -> Answer:
    """Begin (`?uploads`) or complete (`?uploadId=`) a multipart upload."""
    bucket = state.bucket(call.bucket, "storage.multipartUploads.create")
    place = f"<Bucket>{bucket.name}</Bucket><Key>{escape(call.name)}</Key>"
    if "uploads" in call.query:
        upload = new_upload(state, bucket, call.name, {})
        bucket.uploads[upload.id] = upload
        body = f"{place}<UploadId>{upload.id}</UploadId>"
        return _xml("InitiateMultipartUploadResult", body)
    upload = _unfinished(bucket, call)
    data = b"".join(part for _, part in sorted(upload.parts.items()))
    del bucket.uploads[upload.id]
    state.put(bucket, upload.name, data, upload.properties)
    return _xml("CompleteMultipartUploadResult", place)


def xml_put(state: State, call: Call) -> Answer:
    """Take one part of a multipart upload, or without `uploadId` a whole object."""
    bucket = state.bucket(call.bucket, "storage.objects.create")
    if "uploadId" not in call.query:
        version = state.put(bucket, call.name, call.body, {})
    else:
        _unfinished(bucket, call).parts[int(call.query.get("partNumber", 1))] = call.body
        version = Version(call.name, 0, call.body, state.now())
    return Answer(headers={"ETag": f'"{version.md5}"'})


def xml_get(state: State, call: Call) -> Answer:
    """Give an object's content."""
    return Answer(body=find(state.bucket(call.bucket, "storage.objects.get"), call).data)


def xml_delete(state: State, call: Call) -> Answer:
    """Abort a multipart upload, or without `uploadId` delete the live object."""
    if "uploadId" in call.query:
        bucket = state.bucket(call.bucket, "storage.multipartUploads.abort")
        del bucket.uploads[_unfinished(bucket, call).id]
    else:
        bucket = state.bucket(call.bucket, "storage.objects.delete")
        state.remove(bucket, find(bucket, call), keep_version=True)
    return Answer(status=204)


def _open(state: State, bucket: Bucket, call: Call) -> Answer:
    properties = call.json()
    name = call.query.get("name") or str(properties.pop("name", ""))
    properties.setdefault("contentType", call.headers.get("X-Upload-Content-Type", ""))
    session = new_upload(state, bucket, name, properties)
    state.sessions[session.id] = session
    query = f"uploadType=resumable&upload_id={session.id}"
    return Answer(headers={"Location": f"{call.base}/upload/storage/v1/b/{bucket.name}/o?{query}"})


def _finish(state: State, call: Call, properties: Json, data: bytes) -> Answer:
    bucket = state.bucket(call.bucket, "storage.objects.create")
    name = call.name or call.query.get("name") or str(properties.pop("name", ""))
    check_object_name(name)
    require_generation(call, bucket.objects.get(name))
    settable = {"contentType", "metadata", "temporaryHold", "eventBasedHold", "cacheControl"}
    kept = {key: value for key, value in properties.items() if key in settable and value}
    version = state.put(bucket, name, data, kept)
    return json_answer(resource(bucket, version, call.base))


def _related(call: Call) -> tuple[Json, bytes]:
    """Split multipart/related into its JSON metadata and its media."""
    match = BOUNDARY.search(call.headers.get("Content-Type", ""))
    pieces = call.body.split(b"--" + match[1].encode()) if match else []
    if len(pieces) < 4:
        raise ApiError(400, "badRequest", "Malformed multipart body.")
    (_, metadata), (head, media) = map(_piece, pieces[1:3])
    properties: Json = json.loads(metadata)
    kind = re.search(rb"content-type: *([^\r\n]+)", head, re.IGNORECASE)
    properties.setdefault("contentType", kind[1].decode() if kind else "")
    return properties, media


def _piece(piece: bytes) -> tuple[bytes, bytes]:
    head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    return head, body.removesuffix(b"\r\n")


def _unfinished(bucket: Bucket, call: Call) -> Upload:
    upload = bucket.uploads.get(call.query.get("uploadId", ""))
    if upload is None or upload.name != call.name:
        raise not_found("The requested upload was not found.")
    return upload


def _xml(root: str, body: str) -> Answer:
    text = f"<?xml version='1.0' encoding='UTF-8'?><{root}>{body}</{root}>"
    return Answer(body=text.encode(), headers={"Content-Type": "application/xml; charset=UTF-8"})
