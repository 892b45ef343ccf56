"""What an answer of the API server means: bodies decoded, lines split, statuses made our errors.

No requests and no waiting here.
"""

import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from typing import Any

import orjson

from pyvatti.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    NamespaceTerminating,
    NotFound,
    PolicyDenied,
    PyvattiError,
    QuotaExceeded,
    Rejected,
    TransientError,
    Unavailable,
    trim,
)
from pyvatti.jobs import read_time
from pyvatti.models import ClusterEvent, Manifest
from pyvatti.redaction import Redactor
from pyvatti.rest import LONGEST_PAUSE, retry_after, whole_seconds

# An object is at most 1.5 MiB in etcd; as JSON of a watch event it may pass 4 MiB.
LINE_LIMIT = 32 * 2**20
LOOKED_AT = 512  # bytes of an answer of another form
# As the packages webhook/errors and policy/validating of the API server word it
_DENIAL = re.compile(
    r"admission webhook \S+ denied the request"
    r"|ValidatingAdmissionPolicy '[^']*'( with binding '[^']*')? denied request"
)
_REASON = re.compile(r"[A-Za-z]{1,64}")  # CamelCase: anything else may quote a value


class Expired(TransientError):
    """The resourceVersion or continue token is too old (410): list anew."""


class Malformed(Unavailable):
    """An answer is not what the API server sends: HTML, cut JSON, a missing key."""


class Idle(Unavailable):
    """A stream said nothing for longer than its idle limit."""


class Unauthenticated(Denied):
    """Our credentials are not accepted (401)."""


def decode(body: bytes) -> Manifest:
    """Parse a JSON object. Raises Malformed."""
    try:
        value = orjson.loads(body)
    except ValueError as error:
        raise Malformed(f"not JSON: {_beginning(body)}") from error
    if not isinstance(value, dict):
        raise Malformed("not a JSON object")
    return value


def clean(obj: Manifest) -> Manifest:
    """Drop `metadata.managedFields`, a third of an object that nobody here reads."""
    metadata = obj.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
    return obj


def read_object(body: bytes) -> Manifest:
    """Parse the answer about one object. Raises Malformed where it has no kind."""
    obj = decode(body)
    if not isinstance(obj.get("kind"), str):
        raise Malformed("an object without kind")
    return clean(obj)


def read_stored(body: bytes) -> Manifest:
    """Parse the answer about one stored object, or a Status.

    Raises Malformed where an object has no `{"metadata": {"name", "uid", "resourceVersion"}}`.
    """
    obj = read_object(body)
    metadata = _part(obj, "metadata")
    keys = ("name", "uid", "resourceVersion")
    if obj["kind"] != "Status" and not all(isinstance(metadata.get(key), str) for key in keys):
        raise Malformed("an object without identity")
    return obj


def read_event(line: bytes) -> Manifest:
    """Parse a watch line to {"type", "object"}. Raises what an ERROR event means, or Malformed."""
    event = decode(line)
    obj = event.get("object")
    if not isinstance(event.get("type"), str) or not isinstance(obj, dict):
        raise Malformed("a watch line without type and object")
    if event["type"] == "ERROR":
        code = obj.get("code")
        raise error_for(code if isinstance(code, int) else 500, {}, line, target="watch")
    clean(obj)
    return event


async def split_lines(
    chunks: AsyncIterable[bytes], limit: int = LINE_LIMIT
) -> AsyncIterator[bytes]:
    """Join chunks and give each line of bytes, without blank ones.

    Raises Malformed for a line over `limit` bytes and Unavailable when the last line was cut.
    """
    rest = bytearray()
    async for chunk in chunks:
        first, *more = chunk.split(b"\n")
        rest += first
        for part in more:
            if rest:
                yield bytes(rest)
            rest = bytearray(part)
        if len(rest) > limit:
            raise Malformed(f"a line of more than {limit} bytes")
    if rest:
        raise Unavailable("the stream ended inside a line")


def error_for(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    target: str,
    private: Redactor | None = None,
) -> PyvattiError:
    """Give the error an answer stands for.

    `body` is a Status, `{"reason", "message", "details"}`, or a watch event around one, or
    anything a proxy sends. `private` keeps the server's words out of the message: they may quote
    the values of a Secret. A denial's words are told without these values, which it takes out.
    """
    detail = _status(body)
    reason = _reason(detail or {})
    text = f"{target}: {status} {reason}".rstrip()
    if detail and status == 404 and _is_absence(detail, reason):
        return NotFound(text)
    if private is None:
        words = trim(str(detail.get("message") or "")) if detail else _beginning(body)
        text = f"{text}: {words}" if words else text
    wait = _asked_pause(headers, detail)
    if detail and (denial := _denial(detail, private)):
        told = text if private is None else f"{text}: {denial}"
        return PolicyDenied(told, words=denial, retry_after=wait)
    if status == 403:
        return _forbidden(detail or {}, text, wait)
    if status == 409:
        taken = AlreadyExists if reason == "AlreadyExists" else Conflict
        return taken(text, retry_after=wait)
    simple = {401: Unauthenticated, 410: Expired}.get(status)
    if simple is not None:
        return simple(text, retry_after=wait)
    # A 4xx without a Status is a proxy's, not the API server's word about the object.
    if detail is None or not 400 <= status < 500 or status == 429:
        return Unavailable(text, retry_after=wait)
    return Unavailable(text, retry_after=wait) if status == 404 else Rejected(text)


def _is_absence(detail: Mapping[str, Any], reason: str) -> bool:
    """Tell whether a 404 is about an object: it names what is missing; others are about the path.

    Its words say no more than that, so they are not even cleaned: most reads of an accept end so.
    """
    names = reason == "NotFound" and bool(_part(detail, "details").get("name"))
    return names and _DENIAL.search(str(detail.get("message") or "")) is None


def _beginning(body: bytes) -> str:
    """Give the beginning of what is no answer of the API server."""
    words = body[:LOOKED_AT].decode(errors="replace")
    return trim(words, is_cut=len(body) > LOOKED_AT)


def _reason(said: Mapping[str, Any]) -> str:
    """Read the one word of a Status or an Event; whatever is no such word counts as none."""
    reason = said.get("reason")
    return reason if isinstance(reason, str) and _REASON.fullmatch(reason) else ""


def _status(body: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(body)
    except ValueError:
        return None
    if isinstance(value, dict) and isinstance(value.get("object"), dict):
        value = value["object"]
    return value if isinstance(value, dict) and value.get("kind") == "Status" else None


def _denial(detail: Mapping[str, Any], private: Redactor | None) -> str:
    """Give the words of a policy that denies the object, else nothing.

    Its author chooses the status: 403 and 422 are the usual ones. What a policy says of a
    namespace or a quota is its own affair; the server's own refusals have other words.
    """
    message = str(detail.get("message") or "")
    found = _DENIAL.search(message)
    if found is None or _is_terminating(detail):
        return ""
    words = message[found.start() :]
    return trim(private(words) if private is not None else words)


def _is_terminating(detail: Mapping[str, Any]) -> bool:
    causes = _part(detail, "details").get("causes")
    return isinstance(causes, list) and any(
        isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating"
        for cause in causes
    )


def _forbidden(detail: dict[str, Any], text: str, wait: float | None) -> PyvattiError:
    """Tell apart the server's own meanings of 403 (apiserver: plugin/pkg/admission)."""
    message = str(detail.get("message") or "")
    if _is_terminating(detail) or "because it is being terminated" in message:
        return NamespaceTerminating(text)
    kind = QuotaExceeded if "exceeded quota" in message else Denied
    return kind(text, retry_after=wait)


def _asked_pause(headers: Mapping[str, str], detail: dict[str, Any] | None) -> float | None:
    """Read the wait in seconds from the header, else from the Status."""
    asked = retry_after(headers, most=LONGEST_PAUSE)
    if asked is None:
        inside = _part(detail or {}, "details").get("retryAfterSeconds")
        asked = whole_seconds(str(inside), most=LONGEST_PAUSE)
    return asked


def read_cluster_event(item: Manifest) -> ClusterEvent:
    """Read an events.k8s.io/v1 Event: {"reason", "note", "type", "regarding", times}."""
    times = (
        _part(item, "series").get("lastObservedTime"),
        item.get("deprecatedLastTimestamp"),
        item.get("eventTime"),
        _part(item, "metadata").get("creationTimestamp"),
    )
    return ClusterEvent(
        reason=_reason(item),
        note=trim(str(item.get("note") or "")),
        warning=item.get("type") == "Warning",
        at=next((at for at in map(read_time, times) if at is not None), None),
        about=trim(str(_part(item, "regarding").get("kind") or "")),
    )


def _part(obj: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = obj.get(key)
    return value if isinstance(value, dict) else {}
