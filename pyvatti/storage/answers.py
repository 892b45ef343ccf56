"""What counts as an answer of Cloud Storage: its own form, and nothing else.

PURE: status, content type and bytes come in. A gateway, a proxy or a login page may answer in the
server's place; what it says proves nothing about a bucket.
"""

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

# Like 5xx they only ever make us wait, whoever says it: a proxy wants credentials (407), the
# request came to the wrong server (421) or too early (408, 425, 429).
MEANS_WAIT = (407, 408, 421, 425, 429)
WORD = re.compile(r"[A-Za-z]{1,40}")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)$")
KINDS = (
    (re.compile(r"/storage/v1/b/[^/]+/o$"), "storage#objects"),
    (BUCKET, "storage#bucket"),
    (re.compile(r"/storage/v1/b$"), "storage#buckets"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error in the JSON API's form; `reason` is one word. `message` may hold object names."""

    status: int
    reason: str
    message: str


def read_refusal(status: int, content_type: str, content: bytes) -> Refusal | None:
    """Read `{"error": {"code", "message", "errors": [{"reason"}]}}`; None if it is another form.

    See cloud.google.com/storage/docs/json_api/v1/status-codes. A 404 must say `notFound`.
    """
    if not 400 <= status < 500:
        return None
    try:
        error = _read_object(content_type, content)["error"]
        reason, message = error["errors"][0]["reason"], error["message"]
        is_whole = error["code"] == status and bool(WORD.fullmatch(reason))
    except (ValueError, LookupError, TypeError):
        return None
    if not is_whole or (status == 404 and reason != "notFound"):
        return None
    return Refusal(status=status, reason=reason, message=str(message))


def is_of_storage(request: Any, response: Any) -> bool:
    """Tell whether an answer has the form that Cloud Storage gives to this request.

    `request` has `method`, `url` and `body`, `response` has `status_code`, `headers`, `content`.
    """
    status, content = response.status_code, response.content
    content_type = response.headers.get("Content-Type") or ""
    if status in MEANS_WAIT or status >= 500:
        return True
    if not 200 <= status < 300:
        return read_refusal(status, content_type, content) is not None
    path = urlsplit(request.url).path
    if request.method == "DELETE":
        return status == 204 and not content
    if path.endswith("/batch/storage/v1"):
        return status == 200 and _media(content_type) == "multipart/mixed"
    try:
        body = _read_object(content_type, content)
        return status == 200 and _is_what_was_asked(request, path, body)
    except (ValueError, TypeError):
        return False


def _is_what_was_asked(request: Any, path: str, body: dict[str, Any]) -> bool:
    """Tell whether a resource is of the kind, and the bucket the one, that the request is about."""
    if request.method == "POST":
        name = json.loads(request.body)["name"]
        return body.get("kind") == "storage#bucket" and body.get("name") == name
    kind = next((kind for pattern, kind in KINDS if pattern.search(path)), None)
    match = BUCKET.search(path)
    return body.get("kind") == kind and (match is None or body.get("name") == unquote(match[1]))


def _read_object(content_type: str, content: bytes) -> dict[str, Any]:
    """Read a JSON object, in UTF-8 without a byte order mark. Raises ValueError."""
    if _media(content_type) != "application/json":
        raise ValueError("not JSON by its content type")
    try:
        value = json.loads(content.decode())
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for every other form
    return value


def _media(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
