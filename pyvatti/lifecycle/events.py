"""Kubernetes Events on the Job, so that `kubectl describe job` tells the story.

Best effort: a bounded queue, one writer, a lost Event harms nothing but is counted and said.
Never a place for state. Rules: kubernetes pkg/apis/core/validation/events.go.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass
from datetime import datetime

import structlog

from pyvatti import foreign, labels
from pyvatti.errors import AlreadyExists
from pyvatti.kube import EVENTS, JOBS, Kind, KubeClient
from pyvatti.models import Job, Manifest
from pyvatti.telemetry import metrics

log = structlog.get_logger(__name__)

QUEUE_LIMIT = 1000
BURST = 50  # Events posted without a pause; a full queue at this pace is told within a minute
PAUSE = 0.05  # seconds between two after that: a burst of launches must not wait for its Events
NOTE_LIMIT = 1024  # bytes, by the Events API
NAME_LIMIT = 200  # characters of the object's name, so that what follows fits into 253
INSTANCE_LIMIT = 128  # characters, and ours are ASCII
CONTROLLER = f"{labels.PREFIX}/pyvatti"


@dataclass(frozen=True, slots=True)
class Subject:
    """The object an Event is about."""

    kind: Kind
    name: str
    uid: str


class EventRecorder:
    """Posts Events one after another; drops them while the API server cannot keep up."""

    def __init__(self, client: KubeClient, identity: str) -> None:
        self._client = client
        self._identity = identity
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue(QUEUE_LIMIT)
        self._said: set[tuple[str, str]] = set()  # reasons of Events and why they were refused

    def note(
        self, job: Job, reason: str, note: str, now: datetime, *, warning: bool = False
    ) -> None:
        """Queue an Event about a Job: `reason` CamelCase, `note` a sentence.

        Never waits: where the queue is full the Event is dropped.
        """
        self._put(Subject(JOBS, job.names.base, job.uid), reason, note, now, warning=warning)

    def warn(self, about: Subject, reason: str, note: str, now: datetime) -> None:
        """Queue a Warning Event about any object of the namespace."""
        self._put(about, reason, note, now, warning=True)

    def _put(self, about: Subject, reason: str, note: str, now: datetime, *, warning: bool) -> None:
        note = foreign.clean_known(note)
        try:
            self._queue.put_nowait(self._event(about, reason, note, now, warning=warning))
        except asyncio.QueueFull:
            self._refused(reason, "QueueFull", "too many wait for the API server")

    async def run(self) -> None:
        """Post queued Events until cancelled."""
        due = 0.0  # when the posted ones would be told at one each PAUSE
        while True:
            event = await self._queue.get()
            now = time.monotonic()
            due = max(due, now - BURST * PAUSE) + PAUSE
            await asyncio.sleep(due - now)
            await self._post(event)

    async def _post(self, event: Manifest) -> None:
        try:
            await self._client.create(EVENTS, event)
        except AlreadyExists:
            log.debug("event was there already", reason=event["reason"])
        except Exception as error:  # noqa: BLE001 - one bad Event never stops the others
            self._refused(event["reason"], type(error).__name__, str(error))

    def _refused(self, reason: str, why: str, text: str) -> None:
        """Count an Event that is lost; say so once per reason and cause: thousands may follow."""
        metrics.events_refused.labels(why).inc()
        level = log.debug if (reason, why) in self._said else log.warning
        self._said.add((reason, why))
        level("kubernetes event refused", reason=reason, kind=why, error=text)

    def _event(
        self, about: Subject, reason: str, note: str, now: datetime, *, warning: bool
    ) -> Manifest:
        namespace = self._client.namespace
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            # No generateName: one that ends in a full stop, as client-go's names do, is refused.
            "metadata": {"name": _name(about), "namespace": namespace},
            "eventTime": now.isoformat(timespec="microseconds"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._identity[:INSTANCE_LIMIT],
            "action": reason,
            "reason": reason,
            "type": "Warning" if warning else "Normal",
            "note": note.encode(errors="replace")[:NOTE_LIMIT].decode(errors="ignore"),
            "regarding": {
                "apiVersion": about.kind.api_version,
                "kind": about.kind.kind,
                "name": about.name,
                "namespace": namespace,
                "uid": about.uid,
            },
        }


def _name(about: Subject) -> str:
    """Name an Event after its object, as a DNS name that nobody else has."""
    return f"{about.name[:NAME_LIMIT].rstrip('-.')}.{secrets.token_hex(8)}"
