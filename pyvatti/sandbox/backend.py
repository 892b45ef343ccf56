"""A stand-in backend (pipeline-manager): its status route with all the faults of the Java one.

It sends nothing to the service: who launches jobs is the demonstration or a test.
"""

import hmac
import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from time import time
from typing import Any, NamedTuple

from aiohttp import web

from pyvatti.sandbox.loopback import LOG_LIMIT, Loopback

GATEWAY_PATH = "/bff/pipeline-manager/integration/pipeline/{id}/status"
CLUSTER_PATH = "/pipeline-manager/integration/pipeline/{id}/status"

_KNOWN_EVENTS = ("new", "pending", "deployed", "succeeded", "failed")
# Jackson's LocalDateTime: ISO_LOCAL_DATE_TIME, and a final Z while it is lenient
_LOCAL_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)\.\d{1,9})?Z?")


class Received(NamedTuple):
    """One status call: when (Unix time), for which id, the parsed body, our status code.

    `raw` and `headers` (names in lower case) are what a receiver would verify a signature of.
    """

    time: float
    job_id: str
    body: Any
    answer: int
    raw: bytes
    headers: dict[str, str]


class Mail(NamedTuple):
    """A mail to the user of a pipeline. `text` is HTML with unescaped values, as sent."""

    time: float
    job_id: str
    subject: str
    text: str


class Failure(Exception):
    """A refusal in the backend's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BackendStandIn(Loopback):
    """Knows the pipelines `known` (None: any). `down` makes it answer 503, as in a restart.

    `exists_status` is its answer to a second `succeeded`: 400, in one version 500.
    """

    def __init__(
        self,
        *,
        token: str = "c2FuZGJveDpzYW5kYm94",
        known: Iterable[str] | None = None,
        clock: Callable[[], float] = time,
        port: int = 0,
    ) -> None:
        super().__init__(port=port)
        self.token = token
        self.known = None if known is None else set(known)
        self.down = False
        self.exists_status = 400
        self.received: list[Received] = []
        self.states: dict[str, str] = {}
        self.mails: list[Mail] = []
        self.traces: dict[str, tuple[str | None, int]] = {}
        self._results: set[str] = set()
        self._clock = clock

    def delivered(self, job_id: str) -> list[str]:
        """Give the events of a job answered 200, in order."""
        return [
            str(item.body["event"]).lower()
            for item in self.received
            if item.job_id == job_id and item.answer == 200
        ]

    def routes(self) -> Iterable[web.RouteDef]:
        """Give the status route as the gateway and as the cluster sees it."""
        return (web.patch(GATEWAY_PATH, self._status), web.patch(CLUSTER_PATH, self._status))

    async def _status(self, request: web.Request) -> web.Response:
        job_id, raw = request.match_info["id"], await request.read()
        try:
            said = json.loads(raw)
        except ValueError:
            said = raw.decode(errors="replace")
        answer = self._answer(request, job_id, said)
        headers = {name.lower(): value for name, value in request.headers.items()}
        now = self._clock()
        self.received.append(Received(now, job_id, said, answer.status, raw, headers))
        del self.received[:-LOG_LIMIT], self.mails[:-LOG_LIMIT]
        return answer

    def _answer(self, request: web.Request, job_id: str, said: Any) -> web.Response:
        if self.down:
            return web.Response(status=503, text="no healthy upstream")
        authorization = request.headers.get("Authorization", "").encode()
        if not hmac.compare_digest(authorization, f"Basic {self.token}".encode()):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="Realm"'})
        try:
            self._store(job_id, said)
        except Failure as failure:
            # The body is a JSON string that holds JSON text, as the Java service writes it
            text = json.dumps(json.dumps({"errorMessage": str(failure)}))
            return web.Response(status=failure.status, text=text, content_type="application/json")
        return web.Response(status=200)

    def _store(self, job_id: str, said: Any) -> None:
        event, name, code = _parse(said)
        if self.known is not None and job_id not in self.known:
            raise Failure(404, f"Pipeline Id {job_id} not found!")
        if event in ("new", "pending"):
            raise Failure(400, f"Event {event} is not allowed!")
        if event == "deployed":
            self.states[job_id] = "STARTED"
        elif event == "succeeded":
            self._succeed(job_id)
        elif code is None:
            raise _unable()
        else:
            self.states[job_id], self.traces[job_id] = "ERROR", (name, code)
            self._mail(job_id, "failed", f"<p>Step: {name}</p><p>Exit code: {code}</p>")

    def _succeed(self, job_id: str) -> None:
        if job_id in self._results:
            if self.exists_status != 400:
                raise _unable()
            message = f"Pipeline result record for Pipeline Id: {job_id} already exists!"
            raise Failure(400, message)
        self._results.add(job_id)
        self.states[job_id] = "COMPLETED"
        self._mail(
            job_id, "completed", f'<a href="https://example.org/results/{job_id}">Result</a>'
        )

    def _mail(self, job_id: str, how: str, text: str) -> None:
        self.mails.append(Mail(self._clock(), job_id, f"Your pipeline {job_id} {how}", text))


def _unable() -> Failure:
    return Failure(500, "Unable to process request at this moment!")


def _parse(said: Any) -> tuple[str, str | None, int | None]:
    """Read a body as Jackson does; whatever it cannot read is a 500."""
    if not isinstance(said, dict):
        raise _unable()
    event, name = said.get("event"), said.get("trace_name")
    if not isinstance(event, str) or event.lower() not in _KNOWN_EVENTS:
        raise _unable()
    if not _is_local_time(said.get("utc_time")):
        raise _unable()
    if name is not None and not isinstance(name, str | int | float):
        raise _unable()
    return event.lower(), None if name is None else str(name), _byte(said.get("trace_exit"))


def _is_local_time(value: Any) -> bool:
    found = _LOCAL_TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return False
    try:
        datetime.fromisoformat(found.group(1))
    except ValueError:
        return False
    return True


def _byte(value: Any) -> int | None:
    """Read a Java Byte: 128..255 turn negative, larger ones are refused."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,4}", value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not -128 <= value <= 255:
        raise _unable()
    return value - 256 if value > 127 else value
