"""Requests and answers of the Cloud Storage APIs as plain values, and their error form.

Keeps nothing and knows no server: the same values come from a socket or from inside a batch.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote

Json: TypeAlias = dict[str, Any]
JSON = {"Content-Type": "application/json; charset=UTF-8"}
# The usual word of each status (cloud.google.com/storage/docs/json_api/v1/status-codes).
REASONS = {
    400: "invalid",
    401: "authError",
    403: "forbidden",
    404: "notFound",
    405: "methodNotAllowed",
    407: "proxyAuthenticationRequired",
    408: "uploadBrokenConnection",
    409: "conflict",
    410: "gone",
    411: "required",
    412: "conditionNotMet",
    413: "uploadTooLarge",
    416: "requestedRangeNotSatisfiable",
    429: "rateLimitExceeded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `bucket` and `name` (of an object) are set by the route it matched.

    `base` is the address of the server, for links in answers.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    base: str
    bucket: str = ""
    name: str = ""

    def json(self) -> Json:
        """Read the body; empty counts as {}. Raises ApiError 400."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as exc:
            raise ApiError(400, "parseError", "Parse Error") from exc
        if not isinstance(value, dict):
            raise ApiError(400, "parseError", "Parse Error")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """A refusal in the JSON API's form (cloud.google.com/storage/docs/json_api/v1/status-codes)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason

    def answer(self) -> Answer:
        """Give the refusal as an answer."""
        return json_answer(error_form(self.status, self.reason, str(self)), status=self.status)


def error_form(status: int, reason: str, message: str) -> Json:
    """Give {"error": {"code", "message", "errors": [{"reason"}]}}."""
    detail = {"domain": "global", "reason": reason, "message": message}
    return {"error": {"code": status, "message": message, "errors": [detail]}}


def refusal(status: int) -> str:
    """Spell a refusal with nothing but its status, as the service gives it."""
    return json.dumps(error_form(status, REASONS.get(status, "backendError"), f"injected {status}"))


def json_answer(value: Json, *, status: int = 200) -> Answer:
    """Give a value as JSON."""
    return Answer(status=status, body=json.dumps(value).encode(), headers=JSON)


def not_found(what: str) -> ApiError:
    """Give the 404 of a missing bucket or object."""
    return ApiError(404, "notFound", what)


def split(raw: str) -> tuple[list[str], dict[str, str]]:
    """Split an undecoded path and query into decoded segments and parameters.

    Decoding comes last: an object's name may contain an encoded slash, question mark or percent.
    """
    path, _, query = raw.partition("?")
    segments = [unquote(part) for part in path.lstrip("/").split("/")]
    return segments, dict(parse_qsl(query, keep_blank_values=True))


def rfc3339(time: datetime) -> str:
    """Spell a UTC time as Google does: 2026-11-23T03:56:00.123Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z"


def is_true(value: str | None) -> bool:
    """Read a flag: the Python client sends `True` with a capital T."""
    return (value or "").lower() == "true"


def without_nulls(value: Any) -> Any:
    """Drop null fields at every level, as the service ignores them."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


def merge(target: Json, patch: Json) -> None:
    """Apply a JSON merge patch (RFC 7396) in place: null removes."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            child = target.get(key)
            if not isinstance(child, dict):
                child = target[key] = {}
            merge(child, value)
        else:
            target[key] = value


def narrowed(answer: Answer, fields: str) -> Answer:
    """Keep of a JSON answer what `fields` names; empty: all. Raises ApiError 400."""
    if not fields or answer.headers is not JSON or answer.status != 200:
        return answer
    return json_answer(selected(json.loads(answer.body), fields))


def selected(value: Json, fields: str) -> Json:
    """Keep what `fields` names, as in `items(name,generation),nextPageToken` or `items/name`."""
    kept: Json = {}
    for key, inner in _parse_fields(fields).items():
        if key == "*":
            return value
        if key not in value:
            continue
        item = value[key]
        if inner and isinstance(item, list):
            item = [{name: row[name] for name in inner if name in row} for row in item]
        elif inner and isinstance(item, dict):
            item = {name: item[name] for name in inner if name in item}
        kept[key] = item
    return kept


SELECTION = re.compile(r"([A-Za-z*]+)(?:/([A-Za-z]+)|\(([A-Za-z]+(?:,[A-Za-z]+)*)\))?(?:,|$)")


def _parse_fields(fields: str) -> dict[str, list[str]]:
    """Read one level of nesting; the service knows more, which is refused here (400)."""
    wanted: dict[str, list[str]] = {}
    rest = fields.replace(" ", "")
    while rest:
        match = SELECTION.match(rest)
        if match is None:
            raise ApiError(400, "invalidParameter", f"Invalid field selection {fields}")
        wanted[match[1]] = (match[2] or match[3] or "").split(",") if match[2] or match[3] else []
        rest = rest[match.end() :]
    return wanted
