"""Finds the handler of a request and carries a batch out part by part.

No sockets: a call comes in as a value and goes out as one.
"""

import re
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import urlsplit

from pyvatti.sandbox.storage import buckets, objects, rules, uploads
from pyvatti.sandbox.storage.state import State
from pyvatti.sandbox.storage.wire import (
    JSON,
    Answer,
    ApiError,
    Call,
    narrowed,
    not_found,
    refusal,
    split,
)

Handler: TypeAlias = Callable[[State, Call], Answer]
MOST_PARTS = 100
BURST = 2  # bucket calls after a rest: the rule says "about", and a network is no metronome
BUCKET_CALLS = ("buckets.insert", "buckets.delete")

# (method, segments, kind, handler); "B" matches a bucket, "O" an object.
_JSON: tuple[tuple[str, str, str, Handler], ...] = (
    ("DELETE", "storage/v1/b/B/o/O", "objects.delete", objects.delete),
    ("GET", "storage/v1/b/B/o", "objects.list", objects.listing),
    ("GET", "storage/v1/b/B/o/O", "objects.get", objects.get),
    ("PATCH", "storage/v1/b/B/o/O", "objects.patch", objects.patch),
    ("GET", "download/storage/v1/b/B/o/O", "objects.get", objects.download),
    ("POST", "upload/storage/v1/b/B/o", "objects.insert", uploads.start),
    ("PUT", "upload/storage/v1/b/B/o", "objects.insert", uploads.carry_on),
    ("DELETE", "upload/storage/v1/b/B/o", "uploads.cancel", uploads.cancel),
    ("POST", "storage/v1/b", "buckets.insert", buckets.insert),
    ("GET", "storage/v1/b", "buckets.list", buckets.listing),
    ("GET", "storage/v1/b/B", "buckets.get", buckets.get),
    ("PATCH", "storage/v1/b/B", "buckets.patch", buckets.patch),
    ("DELETE", "storage/v1/b/B", "buckets.delete", buckets.delete),
)
_XML: dict[tuple[str, bool], tuple[str, Handler]] = {
    ("GET", False): ("multipart.list", uploads.xml_bucket),
    ("GET", True): ("objects.get", uploads.xml_get),
    ("POST", True): ("multipart.post", uploads.xml_post),
    ("PUT", True): ("multipart.put", uploads.xml_put),
    ("DELETE", True): ("multipart.delete", uploads.xml_delete),
}
_PATTERNS = [
    (method, pattern.split("/"), kind, handler) for method, pattern, kind, handler in _JSON
]


@dataclass(slots=True)
class PartFault:
    """Parts of a batch that fail `count` times; `after`: the change is made all the same."""

    status: int
    name: re.Pattern[str]
    count: int
    after: bool


class Routes:
    """Answers calls on the state, counts them by kind, and limits bucket calls if asked to.

    The limit is one bucket create or delete per `bucket_seconds`, on average.
    """

    def __init__(self, state: State, *, rate_limit: bool, bucket_seconds: float) -> None:
        self.rate_limit = rate_limit
        self.counters: Counter[str] = Counter()
        self.calls: deque[tuple[float, str]] = deque(maxlen=100_000)
        self.part_faults: list[PartFault] = []
        self._state = state
        self._bucket_seconds = bucket_seconds
        self._tokens = float(BURST)
        self._refilled = time.monotonic()

    def answer(self, call: Call) -> Answer:
        """Answer one request; refusals are answers too."""
        segments, query = split(call.path)
        call = replace(call, query=query)
        try:
            if segments == ["batch", "storage", "v1"] and call.method == "POST":
                self._count("batch")
                return self._batch(call)
            kind, handler, call = _match(call, segments)
            self._count(kind)
            self._limit(kind)
            rules.check_parameters(kind, query)
            return narrowed(handler(self._state, call), query.get("fields", ""))
        except ApiError as error:
            return error.answer()

    def _count(self, kind: str) -> None:
        self.counters[kind] += 1
        self.calls.append((time.monotonic(), kind))

    def _limit(self, kind: str) -> None:
        """Refuse a bucket call above the rate (cloud.google.com/storage/quotas#buckets)."""
        if not self.rate_limit or kind not in BUCKET_CALLS:
            return
        now = time.monotonic()
        earned = (now - self._refilled) / self._bucket_seconds
        self._tokens, self._refilled = min(BURST, self._tokens + earned), now
        if self._tokens < 1:
            message = "The project exceeded the rate limit for creating and deleting buckets."
            raise ApiError(429, "rateLimitExceeded", message)
        self._tokens -= 1

    def _batch(self, call: Call) -> Answer:
        """Carry out the parts in order (cloud.google.com/storage/docs/batch)."""
        match = uploads.BOUNDARY.search(call.headers.get("Content-Type", ""))
        pieces = call.body.split(b"--" + match[1].encode())[1:-1] if match else []
        if not 0 < len(pieces) <= MOST_PARTS:
            raise ApiError(400, "badRequest", f"A batch has 1 to {MOST_PARTS} parts.")
        body = "".join(self._part(call, piece) for piece in pieces) + "--batch_answer--\r\n"
        return Answer(
            body=body.encode(), headers={"Content-Type": "multipart/mixed; boundary=batch_answer"}
        )

    def _part(self, outer: Call, piece: bytes) -> str:
        """Answer one part; its request line carries an absolute URL."""
        head, request = re.split(r"\r?\n\r?\n", piece.decode().strip(), maxsplit=1)
        content_id = re.search(r"(?im)^content-id: *<?([^>\r\n]+)", head)
        line, _, rest = request.partition("\n")
        method, url, *_ = line.split()
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        text = re.split(r"\r?\n\r?\n", rest, maxsplit=1)
        body = text[1].encode() if len(text) > 1 else b""
        answer = self._spoilt(replace(outer, method=method, path=path, body=body))
        lines = [
            "--batch_answer",
            "Content-Type: application/http",
            *([f"Content-ID: <response-{content_id[1]}>"] if content_id else []),
            "",
            f"HTTP/1.1 {answer.status} {'OK' if answer.status < 300 else 'Refused'}",
            *(f"{key}: {value}" for key, value in answer.headers.items()),
            f"Content-Length: {len(answer.body)}",
            "",
            answer.body.decode(),
        ]
        return "\r\n".join(lines) + "\r\n"

    def _spoilt(self, call: Call) -> Answer:
        """Answer a part, or fail it where a fault says so."""
        for fault in self.part_faults:
            if fault.count > 0 and fault.name.search(call.path):
                fault.count -= 1
                if fault.after:
                    self.answer(call)
                body = refusal(fault.status).encode()
                return Answer(status=fault.status, body=body, headers=JSON)
        return self.answer(call)


def _match(call: Call, segments: list[str]) -> tuple[str, Handler, Call]:
    for method, pattern, kind, handler in _PATTERNS:
        if call.method == method and len(pattern) == len(segments):
            names = dict(zip(pattern, segments, strict=True))
            if all(key in ("B", "O") or key == value for key, value in names.items()):
                bucket, name = names.get("B", ""), names.get("O", "")
                return kind, handler, replace(call, bucket=bucket, name=name)
    if segments[0] in ("storage", "upload", "download", "batch"):
        raise not_found("Not Found")
    name = "/".join(segments[1:])
    found = _XML.get((call.method, bool(name)))
    if found is None:
        raise not_found("Not Found")
    return *found, replace(call, bucket=segments[0], name=name)
