"""The few protobuf messages kubectl insists on sending: access reviews.

Decoding only; every answer is JSON. Field numbers are those of k8s.io/api/authorization/v1 and
authentication/v1 `generated.proto`, the envelope is runtime.Unknown of k8s.io/apimachinery.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

from pyvatti.sandbox.kube.errors import ApiError

Message: TypeAlias = dict[int, tuple[str, "Message | None"]]  # number -> name, type (None: text)

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

ENVELOPE: Message = {1: ("typeMeta", {1: ("apiVersion", None), 2: ("kind", None)})}
RAW = 2  # field of the envelope that carries the object
RESOURCE: Message = {
    number: (name, None)
    for number, name in enumerate(
        ("namespace", "verb", "group", "version", "resource", "subresource", "name"), start=1
    )
}
REVIEWS: dict[str, Message] = {
    "SelfSubjectAccessReview": {
        2: (
            "spec",
            {
                1: ("resourceAttributes", RESOURCE),
                2: ("nonResourceAttributes", {1: ("path", None), 2: ("verb", None)}),
            },
        )
    },
    "SelfSubjectRulesReview": {2: ("spec", {1: ("namespace", None)})},
    "SelfSubjectReview": {},
}


def decode_review(data: bytes) -> dict[str, Any]:
    """Decode a review. Raises ApiError 415 for any other kind, 400 for what is no message."""
    try:
        envelope = _decode(data.removeprefix(MAGIC), ENVELOPE)
        kind = envelope.get("typeMeta", {}).get("kind", "")
        if kind in REVIEWS:
            raw = b"".join(value for number, value in _fields(data[len(MAGIC) :]) if number == RAW)
            return {**envelope["typeMeta"], **_decode(raw, REVIEWS[kind])}
    except (IndexError, UnicodeDecodeError) as exc:
        raise ApiError(400, "the body is no protobuf message") from exc
    raise ApiError(
        415,
        "the body of the request was in an unknown format - accepted media types include:"
        " application/json, application/yaml",
    )


def _decode(data: bytes, message: Message) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for number, value in _fields(data):
        if number in message:
            name, inner = message[number]
            result[name] = value.decode() if inner is None else _decode(value, inner)
    return result


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the length-delimited fields; varints are skipped, no message here needs one."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        if tag & 7 == 0:
            _, position = _varint(data, position)
            continue
        if tag & 7 != 2:
            raise IndexError(position)
        size, position = _varint(data, position)
        yield tag >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
