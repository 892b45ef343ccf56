"""The protobuf messages kubectl and Helm insist on sending: reviews, what they create and delete.

Decoding only; every answer is JSON. Field numbers are those of `generated.proto` in k8s.io/api and
k8s.io/apimachinery; the envelope is runtime.Unknown. A field that is not in these tables is
refused, never dropped.
"""

import base64
from collections.abc import Iterator
from enum import Enum
from typing import Any, NamedTuple, TypeAlias

from pyvatti.sandbox.kube.errors import ApiError


class Form(Enum):
    """How a field that is no message is written in JSON."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    BASE64 = "base64"


class Field(NamedTuple):
    """A field: its name in JSON, what is in it, and whether it is a list or a map of that."""

    name: str
    holds: "Form | Message" = Form.TEXT
    many: str = ""  # "", "list" or "map"


Message: TypeAlias = dict[int, Field]

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
VARINT, BYTES = 0, 2
KEY, VALUE = 1, 2  # of an entry of a map

TYPE_META: Message = {1: Field("apiVersion"), 2: Field("kind")}
RAW = 2  # field of the envelope that carries the object
NAMES = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
RESOURCE: Message = {number: Field(name) for number, name in enumerate(NAMES, start=1)}
METADATA: Message = {
    1: Field("name"),
    2: Field("generateName"),
    3: Field("namespace"),
    5: Field("uid"),
    6: Field("resourceVersion"),
    8: Field("creationTimestamp", {}),
    11: Field("labels", many="map"),
    12: Field("annotations", many="map"),
}
CONTAINER: Message = {
    1: Field("name"),
    2: Field("image"),
    3: Field("command", many="list"),
    4: Field("args", many="list"),
    8: Field("resources", {}),
}
POD: Message = {2: Field("containers", CONTAINER, "list"), 3: Field("restartPolicy")}
TEMPLATE: Message = {1: Field("metadata", METADATA), 2: Field("spec", POD)}
KINDS: dict[str, Message] = {
    "SelfSubjectAccessReview": {
        2: Field(
            "spec",
            {
                1: Field("resourceAttributes", RESOURCE),
                2: Field("nonResourceAttributes", {1: Field("path"), 2: Field("verb")}),
            },
        ),
        3: Field("status", {}),
    },
    "SelfSubjectRulesReview": {
        2: Field("spec", {1: Field("namespace")}),
        3: Field("status", {}),
    },
    "SelfSubjectReview": {2: Field("status", {1: Field("userInfo", {})})},
    "Secret": {
        2: Field("data", Form.BASE64, "map"),
        3: Field("type"),
        4: Field("stringData", many="map"),
        5: Field("immutable", Form.FLAG),
    },
    "ConfigMap": {
        2: Field("data", many="map"),
        3: Field("binaryData", Form.BASE64, "map"),
        4: Field("immutable", Form.FLAG),
    },
    "DeleteOptions": {
        1: Field("gracePeriodSeconds", Form.NUMBER),
        2: Field("preconditions", {1: Field("uid"), 2: Field("resourceVersion")}),
        3: Field("orphanDependents", Form.FLAG),
        4: Field("propagationPolicy"),
        5: Field("dryRun", many="list"),
    },
    "Namespace": {2: Field("spec", {}), 3: Field("status", {})},
    "ServiceAccount": {},
    "Job": {
        2: Field(
            "spec",
            {
                1: Field("parallelism", Form.NUMBER),
                2: Field("completions", Form.NUMBER),
                6: Field("template", TEMPLATE),
                7: Field("backoffLimit", Form.NUMBER),
            },
        ),
        3: Field("status", {}),
    },
    "TokenRequest": {},
}


def decode(data: bytes) -> dict[str, Any]:
    """Decode an object. Raises ApiError 415 for what is not in the tables, 400 for no message."""
    try:
        envelope = dict(_fields(data.removeprefix(MAGIC)))
        about = _decode(envelope.get(1, b""), TYPE_META)
        kind = about.get("kind", "")
        if kind not in KINDS:
            raise _unsupported()
        message = {1: Field("metadata", METADATA)} | KINDS[kind]
        return {**about, **_decode(envelope.get(RAW, b""), message)}
    except (IndexError, TypeError, UnicodeDecodeError) as exc:
        raise ApiError(400, "the body is no protobuf message") from exc


def _decode(data: bytes | int, message: Message) -> dict[str, Any]:
    result: dict[str, Any] = {}
    if isinstance(data, int):
        raise TypeError(data)
    for number, value in _fields(data):
        if number not in message:
            if value:  # Go writes the empty ones as well
                raise _unsupported()
            continue
        field = message[number]
        if field.many == "map":
            entry = dict(_fields(value)) if isinstance(value, bytes) else {}
            key = _read(entry.get(KEY, b""), Form.TEXT)
            result.setdefault(field.name, {})[key] = _read(entry.get(VALUE, b""), field.holds)
        elif field.many:
            result.setdefault(field.name, []).append(_read(value, field.holds))
        elif value != b"":
            result[field.name] = _read(value, field.holds)
    return result


def _read(value: bytes | int, holds: Form | Message) -> Any:
    if isinstance(holds, dict):
        return _decode(value, holds)
    if isinstance(value, int):
        return bool(value) if holds is Form.FLAG else value
    return base64.b64encode(value).decode() if holds is Form.BASE64 else value.decode()


def _unsupported() -> ApiError:
    return ApiError(
        415,
        "the body of the request was in an unknown format - accepted media types include:"
        " application/json, application/yaml",
    )


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Give number and value of each field. Raises IndexError for what is cut or of other types."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        size, position = _varint(data, position)
        if tag & 7 == VARINT:
            yield tag >> 3, size
            continue
        if tag & 7 != BYTES or position + size > len(data):
            raise IndexError(position)
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
