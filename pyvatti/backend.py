"""The only door to the backend: tells it one event of a job and reads what its answer means.

When to tell, again or no more, is the outbox's business.
Source: ebi-gdp/igs4eu-platform `pipeline-manager`, route `integration/pipeline/{id}/status`;
the signature is that of the Standard Webhooks specification 1.0.0, symmetric (`v1`).
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import httpx
from standardwebhooks import Webhook

from pyvatti import foreign
from pyvatti.errors import Unavailable
from pyvatti.models import Event, Notice
from pyvatti.rest import Response, Rest, Timeouts, is_success
from pyvatti.settings import Settings
from pyvatti.telemetry import counted, metrics

BODY_LIMIT = 2**20  # bytes
TRACE_NAME_LIMIT = 512  # characters
WIRE_ID = re.compile(r"INTP[0-9]{1,11}")
ALREADY_STORED = "already exists"


class Answer(StrEnum):
    """What an answer of the backend means for an event."""

    DELIVERED = "delivered"
    DEAD = "dead"  # never to be taken
    RETRY = "retry"  # a fault or a restart
    RETRY_SLOWLY = "retry slowly"  # wrong token or route: an operator must act


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What became of an event. `text` is one line for people, `retry_after` in seconds."""

    answer: Answer
    text: str
    retry_after: float | None = None


class Backend:
    """Speaks to the status route of one backend."""

    def __init__(
        self,
        settings: Settings,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeouts: Timeouts | None = None,
        clock: Callable[[], datetime],
    ) -> None:
        self._rest = Rest(
            settings.notify_url.rstrip("/"),
            scheme="Basic",  # the token is base64 of user:password already
            token=settings.notify_token.get_secret_value().strip(),
            timeouts=timeouts or Timeouts(total=20.0),
            body_limit=BODY_LIMIT,
            authorities=settings.extra_ca_file,
            transport=transport,
        )
        self._path = settings.notify_status_path
        secret = settings.notify_signing_secret
        self._webhook = Webhook(secret.get_secret_value()) if secret is not None else None
        self._clock = clock  # the wall clock: receivers refuse a signature that is 5 minutes off

    async def tell(self, job_id: str, job_uid: str, notice: Notice) -> Reply:
        """Send one event, once. Raises nothing but Deposed: every failure is a Reply.

        The backend does not deduplicate; the headers let a receiver do so.
        """
        wire_id = job_id.upper()
        if not WIRE_ID.fullmatch(wire_id):
            return Reply(answer=Answer.DEAD, text="the Job's name is not the id of a job")
        path = self._path.replace("{id}", quote(wire_id, safe=""))
        content = json.dumps(body(wire_id, notice))
        headers = self._headers(f"{job_uid}-{notice.sequence}", content)
        headers["X-Hattivatti-Sequence"] = str(notice.sequence)
        try:
            with counted("backend"):
                response = await self._rest.call(
                    "PATCH", path, body=content.encode(), headers=headers
                )
        except Unavailable as error:
            return Reply(answer=Answer.RETRY, text=str(error), retry_after=error.retry_after)
        answer = judge(response)
        if answer in (Answer.RETRY, Answer.RETRY_SLOWLY):
            kind = "Denied" if response.status in (401, 403) else "Unavailable"
            metrics.neighbour_errors.labels("backend", kind).inc()
        return Reply(
            answer=answer,
            text=f"{response.status} {response.text}".rstrip(),
            retry_after=response.retry_after,
        )

    def _headers(self, event_id: str, content: str) -> dict[str, str]:
        """Name the event, the same at each attempt, and sign it if a secret is configured.

        The uid makes it unique: an id may be launched again once its record has expired.
        """
        headers = {"X-Hattivatti-Event-Id": event_id}
        if self._webhook is not None:
            now = self._clock()
            headers["webhook-id"] = event_id
            headers["webhook-timestamp"] = str(int(now.timestamp()))
            headers["webhook-signature"] = self._webhook.sign(event_id, now, content)
        return headers

    async def close(self) -> None:
        """Close all connections."""
        await self._rest.close()


def body(wire_id: str, notice: Notice) -> dict[str, Any]:
    """Give {"run_name", "event", "utc_time"}, for a failure also {"trace_name", "trace_exit"}.

    What others wrote is cleaned once more: one line, at most 512 characters, no markup, no secret.
    A null `trace_exit` would answer 500 and one above 127 would turn negative (a Java byte).
    """
    fields: dict[str, Any] = {
        "run_name": wire_id,
        "event": notice.event.value,
        "utc_time": utc_time(notice.at),
    }
    if notice.event is Event.FAILED:
        code = notice.trace_exit
        said = foreign.plain_line(notice.trace_name or "", TRACE_NAME_LIMIT)
        fields["trace_name"] = said or "unknown failure"
        fields["trace_exit"] = code if code is not None and 0 <= code <= 127 else 1
    return fields


def utc_time(moment: datetime) -> str:
    """Write a time as the backend's zoneless LocalDateTime takes it: six digits and Z."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    naive = aware.astimezone(UTC).replace(tzinfo=None)
    return f"{naive.isoformat(timespec='microseconds')}Z"


def judge(response: Response) -> Answer:
    """Say what an answer means.

    Only the backend itself can end a delivery, by 200 or by a refusal in its own form. An HTML page
    is a gateway's or a login's, a wrong route; a 400 or 404 of any other form is somebody else's,
    such as an ingress whose backend is just being replaced.
    """
    status = response.status
    if status in (408, 425, 429) or not (is_success(status) or 400 <= status < 500):
        return Answer.RETRY
    if response.is_page:
        return Answer.RETRY_SLOWLY
    if is_success(status):
        return Answer.DELIVERED
    if status not in (400, 404):
        return Answer.RETRY_SLOWLY
    said = own_words(response.body)
    if said is None:
        return Answer.RETRY
    return Answer.DELIVERED if status == 400 and ALREADY_STORED in said else Answer.DEAD


def own_words(content: bytes) -> str | None:
    """Read an error body of the backend, a JSON string that holds `{"errorMessage": "…"}` as text.

    None for every other form: then something on the way to it has answered.
    """
    try:
        text = json.loads(content)
        said = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None
    message = said.get("errorMessage") if isinstance(said, dict) else None
    return message if isinstance(message, str) else None
